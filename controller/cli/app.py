"""The command line: global options, one module a group of commands, and the one place that renders errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from controller import __version__
from controller.cli.context import Context, Format
from controller.errors import LockgateError

app = typer.Typer(
    name="lockgate",
    help="Release control that lives in Git.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "LOCKGATE"},
)

GROUPS = (
    "serve",
    "demo",
    "look",
    "stories",
    "ask",
    "acknowledge",
    "land",
    "files",
    "audit",
    "trust",
    "replay",
    "export",
    "receipts",
    "guard",
)
"""Modules below controller.cli that add their commands by `register(app)`."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lockgate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    repo: Annotated[
        str, typer.Option("--repo", envvar="LOCKGATE_REPO", help="The repository: a path or an address.")
    ] = ".",
    output: Annotated[
        Format, typer.Option("-o", "--output", envvar="LOCKGATE_OUTPUT", help="How answers are written.")
    ] = Format.text,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of every command; each can be given as LOCKGATE_<OPTION> too."""
    context.obj = Context(repo=repo, output=output)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code: 0 yes, 1 no, 2 it could not be done."""
    if not app.registered_commands:
        for group in GROUPS:
            importlib.import_module(f"controller.cli.{group}").register(app)
    try:
        code = _named(typer.main.get_command(app))(list(arguments), prog_name="lockgate", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except typer.TyperException as error:
        words = error.format_message() if hasattr(error, "format_message") else str(error)
        where = getattr(getattr(error, "ctx", None), "command_path", "lockgate")
        if words:  # without any command the help was shown already
            _say(f"usage: {words}, {where}; do {where} --help")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except LockgateError as error:
        _say(str(error))
        return error.exit_code
    except Exception as error:
        if os.environ.get("LOCKGATE_DEBUG"):
            raise
        _say(
            f"internal-error: {type(error).__name__}: {error}; report this defect with what LOCKGATE_DEBUG=1 shows"
        )
        return 2
    return code if isinstance(code, int) else 0


def _named(command: Any) -> Any:
    """Every option of every command can be given as LOCKGATE_<OPTION>, whatever the command."""
    for option in command.params:
        longest = max(option.opts, key=len)
        if longest.startswith("--") and not option.envvar and longest not in ("--help", "--version"):
            option.envvar = "LOCKGATE_" + longest[2:].upper().replace("-", "_")
    for inner in getattr(command, "commands", {}).values():
        _named(inner)
    return command


def _say(text: str) -> None:
    print(f"lockgate: {text}", file=sys.stderr)
