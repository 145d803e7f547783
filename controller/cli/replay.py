"""`replay`: a run's decisions made again, now or on record, and how often they came out as recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.ask import ExpiresOption, ReasonOption, TicketOption, WaitOption, Wish, needed_reason, send
from controller.cli.context import Context, context_of
from controller.cli.session import KeyOption, NameOption, RootOption, reading
from controller.errors import Unavailable, UsageError
from controller.model.words import counted

if TYPE_CHECKING:
    from controller.uses.replay import FiguresAnswer, ReplayAnswer
    from controller.wiring.repos import GitRepo


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(help="The run.", metavar="RUN")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Decide every run again, and show the figures with those on record.")
    ] = False,
    only_figures: Annotated[
        bool, typer.Option("--figures", help="Only the replays on record and their figures.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Ask the controller to do it and to record the result: signed.")
    ] = False,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
    expires_after: ExpiresOption = "1h",
    wait: WaitOption = None,
) -> None:
    """Decide a run's gates and stages again from committed inputs; exit code 1 when one comes out otherwise."""
    options = context_of(context)
    if sum((run is not None, every, only_figures)) != 1:
        raise UsageError(
            "replay-unclear",
            "what is to be decided again is not clear",
            where="replay",
            expected="RUN, --all or --figures",
            got="more than one" if run is not None or every else "none of them",
            cure="name one of them",
        )
    if record:
        _send(options, run, Wish("replay", "", reason, ticket, key, name, trust_root, expires_after, wait))
        return
    with reading(options, trust_root) as repo:
        if run is not None:
            _one(options, repo, run)
        else:
            _all(options, repo, every)


def _send(options: Context, run: str | None, wish: Wish) -> None:
    from dataclasses import replace

    from controller.uses.replay import known_run
    from controller.uses.view import evidence_tip

    needed_reason(wish.reason)
    if run is None:
        raise UsageError("replay-unclear", "a recorded replay is of one run", expected="RUN", cure="name the run")
    with reading(options, wish.trust_root) as repo:
        known_run(repo, evidence_tip(repo), run)
    send(options, replace(wish, environment=run.rsplit("-", 2)[0], run=run))


def _one(options: Context, repo: GitRepo, run: str) -> None:
    from controller.uses.replay import known_run, replay_run, undecided
    from controller.uses.view import evidence_tip
    from controller.wiring.repos import ask_cel

    tip = known_run(repo, evidence_tip(repo), run)
    answer = replay_run(repo, tip, run, ask_cel())
    options.answer(answer, lambda: _run_text(answer))
    if undecided(answer):
        raise Unavailable(
            "replay-undecided",
            "a decision could not be made again here",
            where=run,
            expected="every decision made again",
            got="; ".join(f"step {d['sequence']}: {d['message']}" for d in answer["decisions"] if not d["match"]),
            cure="try again on a machine with time to spare",
        )
    if not answer["match"]:
        raise typer.Exit(1)


def _all(options: Context, repo: GitRepo, every: bool) -> None:
    from controller.uses import story
    from controller.uses.replay import figures, recorded, replay_run, row_of
    from controller.uses.view import evidence_tip
    from controller.wiring.repos import ask_cel

    tip = evidence_tip(repo)
    rows = recorded(repo, tip) if tip is not None else []
    if tip is not None and every:
        ask = ask_cel()
        rows += [row_of(replay_run(repo, tip, row["run"], ask)) for row in story.runs(repo, tip)]
    answer = figures(rows)
    options.answer(answer, lambda: _figures_text(answer))
    if answer["figures"]["mismatching"]:
        raise typer.Exit(1)


def _run_text(answer: ReplayAnswer) -> str:
    from controller.cli import render

    rows = [
        (
            row["sequence"],
            row["kind"],
            row["recorded"][7:19],
            (row["replayed"] or "")[7:19],
            render.SEALED if row["match"] else render.FAILED,
            row["message"],
        )
        for row in answer["decisions"]
    ]
    good = sum(1 for row in answer["decisions"] if row["match"])
    text = f"{answer['run']}: {good} of {counted(len(rows), 'decision')} made again as recorded"
    return render.table(("STEP", "KIND", "RECORDED", "NOW", "", "MESSAGE"), rows) + f"\n{text}"


def _figures_text(answer: FiguresAnswer) -> str:
    from controller.cli import render

    rows = [
        (row["run"], row["source"], row["at"], row["by"], f"{row['matching']}/{row['decisions']}", row["result"])
        for row in answer["replays"]
    ]
    table = render.table(("RUN", "REPLAYED", "AT", "BY", "DECISIONS", "RESULT"), rows)
    return f"{table}\n{_sums(answer['figures'])}".lstrip("\n")


def _sums(found: Mapping[str, Any]) -> str:
    rate = "no replay was completed" if found["rate"] is None else f"{100 * found['rate']:.2f} % deterministic"
    total = counted(found["total"], "completed replay")
    text = f"{total}, {found['matching']} matching, {found['mismatching']} mismatching"
    more = f", {found['undecided']} could not be completed" if found["undecided"] else ""
    return f"{text}: {rate}{more}"
