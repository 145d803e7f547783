"""`status` and `why`: how things stand, and what would change them."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli.context import context_of
from controller.cli.session import ControllerOption, RootOption, StateOption, now, viewing

Environment = Annotated[str | None, typer.Argument(help="Only this environment.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("why")(why)


def status(
    context: typer.Context,
    environment: Environment = None,
    trust_root: RootOption = None,
    state_dir: StateOption = None,
    controller: ControllerOption = None,
) -> None:
    """What every environment runs, what it waits for, and what is safe to ask for now."""
    from controller.cli import render
    from controller.uses.acknowledged import told
    from controller.uses.outside import unpublished, unresolved, unresolved_text
    from controller.uses.status import status as rows_of
    from controller.uses.why import HEALTHY, standing_text

    options = context_of(context)
    with viewing(options, trust_root, state_dir, controller) as found:
        rows = rows_of(found, now(), environment)
        standing = [standing_text(found, refused, now()) for refused in found.state.cursors.refused]
        remarks = [f"main: {told(one)}" for one in found.state.cursors.let_stand]
        unsubmitted = unpublished(found)
        remarks += [unsubmitted] if unsubmitted is not None else []
        broken = [
            f"{d.path}:{d.line}: {d.code}: {d.message}" for d in found.intent.diagnostics if d.severity == "error"
        ]
        held = [unresolved_text(one) + (f" → {one.cure}" if one.cure else "") for one in unresolved(found)]
        health = found.health
        said = None
        if health is not None and health.state not in HEALTHY:
            said = f"the controller is {health.state}: {health.message}"
        options.answer(rows, lambda: render.status_text(rows, [*standing, *broken, *held], said, remarks))


def why(
    context: typer.Context,
    environment: Annotated[str, typer.Argument(help="The environment.")],
    trust_root: RootOption = None,
    state_dir: StateOption = None,
    controller: ControllerOption = None,
) -> None:
    """Why an environment is blocked or waiting, by gate, and what would unblock it."""
    from controller.cli import render
    from controller.uses.why import why as answer_of

    options = context_of(context)
    with viewing(options, trust_root, state_dir, controller) as found:
        answer = answer_of(found, environment, now())
        running = found.environment(environment).release
        options.answer(answer, lambda: render.why_text(answer, running))
