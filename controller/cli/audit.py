"""`verify`: what an auditor asks, from a pinned root."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli.context import context_of
from controller.cli.export import answer_of, at_least, minimum_of, verify_bundle
from controller.cli.session import PinnedOption, now, pinned_root, reading
from controller.errors import Invalid

if TYPE_CHECKING:
    from controller.model.trustroot import TrustRoot
    from controller.uses.audit.past import Past
    from controller.uses.audit.past_file import PastFile


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("verify")(verify)


def verify(
    context: typer.Context,
    trust_root: PinnedOption = None,
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
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Where to keep what was verified; by default in your cache directory."),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Verify everything anew, and keep nothing of it.")
    ] = False,
) -> None:
    """Verify main, requests and evidence from the pinned root; exit code 1 with each finding."""
    from controller.cli import render
    from controller.uses.audit.verify import verify as verify_history
    from controller.wiring.repos import ask_cel, verify_ssh

    root = pinned_root(trust_root)
    options = context_of(context)
    if bundle is not None:
        verify_bundle(options, bundle, root, min_checkpoint)
        return
    root = at_least(root, minimum_of(min_checkpoint))
    file = None if no_cache or run is not None or since is not None else _cache(options.repo, root, cache)
    with reading(options, trust_root) as repo:
        report = verify_history(
            repo,
            root,
            verify_ssh=verify_ssh,
            ask=ask_cel(),
            run=run,
            since=since,
            progress=_progress(options.output == "text"),
            past=_past(file),
            keep=partial(_keep, file),
            notice=lambda why: note(f"{why}; everything is verified anew"),
            now=now(),
        )
    value = answer_of(report)
    options.answer(value, lambda: render.verify_text(value))
    if not report.verified:
        raise typer.Exit(1)


def _cache(repo: str, root: TrustRoot, chosen: Path | None) -> PastFile | None:
    """The file that keeps what was verified; None where none can be used, which is said."""
    from controller.uses.audit.past_file import PastFile, cache_path, rules_digest

    try:
        path = chosen or cache_path(root)
        if path.resolve().is_relative_to(Path(repo).resolve()):
            note("the cache is not used: it would stand in the repository that is verified")
            return None
        return PastFile(path, root, rules_digest(asked=True))
    except (OSError, RuntimeError) as error:
        note(f"the cache is not used: {error}")
        return None


def _past(file: PastFile | None) -> Past | None:
    try:
        return file.load() if file is not None else None
    except Invalid as error:
        note(f"the cache is not used: {error.what}; everything is verified anew")
        return None


def _keep(file: PastFile | None, past: Past) -> None:
    try:
        if file is not None:
            file.save(past)
    except OSError as error:
        note(f"what was verified could not be kept: {error}")


def note(text: str) -> None:
    """Something worth knowing that changes no answer, on standard error."""
    print(f"lockgate: {text}", file=sys.stderr)


def _progress(wanted: bool) -> Callable[[int, int], None] | None:
    """A counter on standard error, on a terminal only."""
    if not wanted or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\r" if done < total else "\r\x1b[K"
        print(f"verifying {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show
