"""`demo`: the whole story on this machine."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from controller.errors import Unavailable, UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to play it (must be empty); by default a temporary folder.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything behind to look at.")] = False,
    stage_only: Annotated[
        bool, typer.Option("--stage-only", help="Only make origin, keys and images in --dir, and start nothing.")
    ] = False,
) -> None:
    """A promotion, a canary that fails, two refused attempts and an audit, with real parts, in a minute."""
    from controller.demo.stage import prepare
    from controller.demo.story import play

    if stage_only and directory is None:
        raise UsageError(
            "directory-missing",
            "a stage is made to stay",
            where="--dir",
            expected="an empty or new folder",
            got="none",
            cure="name a --dir",
        )
    if directory is not None and directory.is_dir() and any(directory.iterdir()):
        raise UsageError(
            "directory-not-empty",
            "the demo needs a folder of its own",
            where=str(directory),
            expected="an empty or new folder",
            got="files in it",
            cure="name another --dir",
        )
    try:
        folder = (directory or Path(tempfile.mkdtemp(prefix="lockgate-demo-"))).absolute()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            "directory-unusable",
            "the demo cannot be played there",
            where=str(error.filename or directory),
            expected="a folder that can be made and written",
            got=error.strerror or type(error).__name__,
            cure="name another --dir",
        ) from error
    if stage_only:
        root = prepare(folder)
        typer.echo(f"origin {folder / 'origin.git'}, genesis {root.genesis[:12]}; keys and images beside it")
        return
    try:
        code = play(folder, keep)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        typer.echo(f"\nEverything is in {folder}.")
    raise typer.Exit(code)
