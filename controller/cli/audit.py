"""`verify`: what an auditor asks, from a pinned root."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from controller.cli.context import context_of
from controller.cli.export import answer_of, at_least, minimum_of, verify_bundle
from controller.cli.session import load_root, reading
from controller.errors import UsageError

Pinned = Annotated[
    Path | None,
    typer.Option("--trust-root", help="The pinned trust root: everything is verified from it."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    trust_root: Pinned = None,
    run: Annotated[str | None, typer.Option("--run", help="Report findings about this run only.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Walk only the evidence after this commit, verified before.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="Verify an audit pack or a Git bundle instead.")
    ] = None,
    min_checkpoint: Annotated[
        Path | None,
        typer.Option("--min-checkpoint", help="Refuse a log that is older than this checkpoint, or another one."),
    ] = None,
) -> None:
    """Verify main, requests and evidence from the pinned root; exit code 1 with each finding."""
    from controller.cli import render
    from controller.uses.verify import verify as verify_history
    from controller.wiring.repos import ask_cel, verify_ssh

    root = load_root(needed_root(trust_root))
    assert root is not None
    options = context_of(context)
    if bundle is not None:
        verify_bundle(options, bundle, root, min_checkpoint)
        return
    root = at_least(root, minimum_of(min_checkpoint))
    with reading(options, trust_root) as repo:
        report = verify_history(
            repo,
            root,
            verify_ssh=verify_ssh,
            ask=ask_cel(),
            run=run,
            since=since,
            progress=_progress(options.output == "text"),
        )
    value = answer_of(report)
    options.answer(value, lambda: render.verify_text(value))
    if not report.verified:
        raise typer.Exit(1)


def _progress(wanted: bool) -> Callable[[int, int], None] | None:
    """A counter on standard error, on a terminal only."""
    if not wanted or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\r" if done < total else "\r\x1b[K"
        print(f"verifying {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show


def needed_root(trust_root: Path | None) -> Path:
    """The root's path. Raises UsageError("trust-root-missing")."""
    if trust_root is None:
        raise UsageError(
            "trust-root-missing",
            "nothing can be verified without a pinned root",
            where="--trust-root",
            expected="the trust-root.json of this project",
            got="none",
            cure="give --trust-root FILE or set LOCKGATE_TRUST_ROOT",
        )
    return trust_root
