"""`runs`, `timeline`, `step`, `targets` and `evidence`: the story of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.context import Context, context_of
from controller.cli.session import RootOption, reading
from controller.errors import Invalid

if TYPE_CHECKING:
    from controller.uses.story import Timeline
    from controller.wiring.repos import GitRepo

RunArgument = Annotated[str, typer.Argument(help="The run.", metavar="RUN")]
WAIT = 1.0
"""Seconds after which a followed branch is looked at even if nothing woke us: remote origins do not."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("runs")(runs)
    app.command("timeline")(timeline)
    app.command("step")(step)
    app.command("targets")(targets)
    app.command("evidence")(evidence)


def runs(
    context: typer.Context,
    environment: Annotated[str | None, typer.Argument(help="Only this environment.", metavar="ENV")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the newest.")] = None,
    trust_root: RootOption = None,
) -> None:
    """Every run, in the order they were opened."""
    from controller.cli import render
    from controller.uses import story
    from controller.uses.view import evidence_tip, view

    options = context_of(context)
    with reading(options, trust_root) as repo:
        tip = evidence_tip(repo)
        if environment is not None:
            view(repo).environment(environment)
        rows = story.runs(repo, tip, environment, limit) if tip is not None else []
    options.answer(rows, lambda: render.runs_text(rows))


def timeline(
    context: typer.Context,
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is sealed.")] = False,
    trust_root: RootOption = None,
) -> None:
    """A run's entries, in sequence; with --follow as they are recorded."""
    from controller.cli import render
    from controller.uses import story

    options = context_of(context)
    with reading(options, trust_root) as repo:
        answer = story.timeline(repo, tip_for(repo, run), run)
        if follow:
            answer = _follow(options, repo, answer)
            if options.output == "text":
                return
    options.answer(answer, lambda: render.timeline_text(answer))


def _follow(options: Context, repo: GitRepo, answer: Timeline) -> Timeline:
    """Show entries as they come, until the run is sealed; in other formats the whole at its end."""
    from controller.cli import render
    from controller.uses import story
    from controller.uses.view import evidence_tip

    shown, seen = 0, evidence_tip(repo)
    text = options.output == "text"
    if text:
        typer.echo(render.timeline_head(answer["run"]))
    while True:
        if text:
            for line in answer["steps"][shown:]:
                typer.echo(render.step_line(line))
            shown = len(answer["steps"])
        if answer["steps"][-1]["kind"] == "sealed":
            return answer
        while (tip := evidence_tip(repo)) == seen or tip is None:
            repo.wait(WAIT)
        seen = tip
        answer = story.timeline(repo, tip, answer["run"])


def step(
    context: typer.Context,
    run: RunArgument,
    number: Annotated[int, typer.Argument(help="The step's sequence, from 1.", metavar="N")],
    trust_root: RootOption = None,
) -> None:
    """One entry of a run, whole."""
    from controller.cli import render
    from controller.uses import story

    options = context_of(context)
    with reading(options, trust_root) as repo:
        answer = story.step(repo, tip_for(repo, run), run, number)
    options.answer(answer, lambda: render.step_text(answer))


def targets(context: typer.Context, run: RunArgument, trust_root: RootOption = None) -> None:
    """Every target of a run and what became of it."""
    from controller.cli import render
    from controller.uses import story

    options = context_of(context)
    with reading(options, trust_root) as repo:
        rows = story.targets(repo, tip_for(repo, run), run)
    options.answer(rows, lambda: render.targets_text(rows))


def evidence(context: typer.Context, run: RunArgument, trust_root: RootOption = None) -> None:
    """A run's checkpoints: sealed, pending or absent, with digests and paths."""
    from controller.cli import render
    from controller.uses import story

    options = context_of(context)
    with reading(options, trust_root) as repo:
        rows = story.evidence(repo, tip_for(repo, run), run)
    options.answer(rows, lambda: render.evidence_text(run, rows))


def tip_for(repo: GitRepo, run: str) -> str:
    """The newest commit of the controller on evidence. Raises Invalid("run-not-found") before there is one."""
    from controller.uses.view import evidence_tip

    tip = evidence_tip(repo)
    if tip is None:
        raise Invalid(
            "run-not-found",
            f"there is no run {run}: nothing has been recorded yet",
            expected="an evidence branch",
            got="none",
            cure="see `lockgate status`",
        )
    return tip
