"""`acknowledge`: owners let a refused commit of main stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.ask import ExpiresOption, ReasonOption, TicketOption, WaitOption, Wish, send
from controller.cli.context import context_of
from controller.cli.session import KeyOption, NameOption, RootOption
from controller.errors import Refused

if TYPE_CHECKING:
    from controller.uses.view import View


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


def refused_commit(found: View, commit: str) -> tuple[str, str]:
    """The id and code of the refused commit that main stands still at, by the start of its id.

    Raises Refused("nothing-refused" | "never-acknowledged").
    """
    from controller.core.acknowledge import never

    standing = found.state.cursors.refused
    named = [one for one in standing if one.commit.startswith(commit.lower())]
    if len(named) != 1:
        raise Refused(
            "nothing-refused",
            "main does not stand still at such a commit",
            where=commit,
            expected=", ".join(one.commit[:12] for one in standing) or "a commit that main stands still at",
            got=commit,
            cure="see `lockgate status`",
        )
    (one,) = named
    forbidden = never(one.paths)
    if forbidden is not None:
        raise Refused(
            "never-acknowledged",
            f"the commit can only be taken back: {forbidden}",
            where=f"commit {one.commit[:12]}",
            expected="a change that owners may let stand",
            got=one.code,
            cure="lockgate restore-main --key KEY",
        )
    return one.commit, one.code
