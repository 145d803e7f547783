"""`guard`: the hook of a self-hosted origin, which refuses what verification would refuse later."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.context import Context, context_of
from controller.cli.session import pinned_root
from controller.errors import UsageError
from controller.model.words import counted

if TYPE_CHECKING:
    from controller.core.incoming import RefUpdate
    from controller.model.trustroot import TrustRoot

_MOST = 20
"""How many reasons one push is told."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("guard")(guard)


def guard(
    context: typer.Context,
    update: Annotated[
        list[str] | None,
        typer.Argument(help="As hooks/update: REF OLD NEW. Without it, as hooks/pre-receive: lines on stdin."),
    ] = None,
    trust_root: Annotated[
        Path | None, typer.Option("--trust-root", help="The pinned trust root: pushes are judged from it.")
    ] = None,
    install: Annotated[
        str | None, typer.Option("--install", metavar="ORIGIN", help="Write the hook into this bare repository.")
    ] = None,
) -> None:
    """Judge a push inside the origin's receive hook; exit code 0 lets it land, every other one refuses it."""
    root = pinned_root(trust_root)
    options = context_of(context)
    if install is not None:
        _install(options, install, root)
    elif not _judged(options.repo, root, _updates(update)):
        raise typer.Exit(1)


def _updates(words: list[str] | None) -> tuple[RefUpdate, ...]:
    from controller.core.incoming import read_update, read_updates

    if not words:
        # Names of refs are bytes; what is no UTF-8 is kept as it is.
        return read_updates(sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\n"))
    if len(words) != 3:
        raise UsageError(
            "guard-input",
            "this is not what git tells a hook",
            expected="REF OLD NEW, or nothing and lines on standard input",
            got=counted(len(words), "word"),
            cure="let git call it: lockgate guard --install ORIGIN --trust-root FILE",
        )
    ref, old, new = words
    return (read_update(old, new, ref),)


def _judged(origin: str, root: TrustRoot, updates: tuple[RefUpdate, ...]) -> bool:
    """Whether the push may land; says on standard error why not."""
    if not updates:
        return True
    from controller.core.incoming import check_names

    refused, rest = check_names(updates, root.refs)
    if rest and not refused:
        from controller.wiring.guard import judge_push

        refused = judge_push(origin, root, rest)
    for error in refused[:_MOST]:
        print(f"lockgate: {error}", file=sys.stderr)
    if len(refused) > _MOST:
        print(f"lockgate: and {len(refused) - _MOST} more", file=sys.stderr)
    return not refused


def _install(options: Context, origin: str, root: TrustRoot) -> None:
    from controller.wiring.guard import install

    path, checked = install(origin, root)
    value = {"hook": str(path), "project": root.project, "fsckObjects": checked}

    def text() -> str:
        said = f"{path} guards {root.refs.main}, {root.refs.requests} and {root.refs.evidence} of {root.project}"
        hint = f"git --git-dir {path.parent.parent} config receive.fsckObjects true"
        return said if checked else f"{said}\nlet git check what it receives too: {hint}"

    options.answer(value, text)
