"""`acknowledge`: owners let a refused commit of main stand."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli.ask import ExpiresOption, ReasonOption, TicketOption, WaitOption, Wish, send
from controller.cli.context import context_of
from controller.cli.session import KeyOption, NameOption, RootOption


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("acknowledge")(acknowledge)


def acknowledge(
    context: typer.Context,
    commit: Annotated[str, typer.Argument(help="The refused commit of main, or its first characters.")],
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
    expires_after: ExpiresOption = "1d",
    wait: WaitOption = None,
) -> None:
    """Let a refused commit of main stand, as an owner: with enough of them main goes on over it as it is."""
    from controller.core.acknowledge import EVERYWHERE

    wish = Wish(
        "acknowledge", EVERYWHERE, reason, ticket, key, name, trust_root, expires_after, wait, commit=commit
    )
    send(context_of(context), wish)
