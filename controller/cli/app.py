"""The command line: global options, one module a group of commands, and the one place that renders errors."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Self

import typer
from typer.core import TyperGroup

from controller import __version__
from controller.cli.context import Context, Format
from controller.errors import LockgateError

GROUPS: dict[str, tuple[str, ...]] = {
    "serve": ("controller", "agent"),
    "demo": ("demo",),
    "look": ("status", "why"),
    "stories": ("runs", "timeline", "step", "targets", "evidence"),
    "ask": ("approve", "reject", "pause", "resume", "abort", "rollback"),
    "acknowledge": ("acknowledge",),
    "land": ("promote", "merge", "restore-main"),
    "files": ("init", "validate", "schema", "resolve"),
    "audit": ("verify",),
    "trust": ("trust",),
    "replay": ("replay",),
    "export": ("export",),
    "receipts": ("receipt",),
    "guard": ("guard",),
}
"""Module below controller.cli -> the commands that its `register(app)` adds, in the order of the help."""


class Commands(TyperGroup):
    """The commands, each made when it is asked for: one of them needs none of the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Every name, in the order of the help."""
        return [name for names in GROUPS.values() for name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, None when there is none."""
        for group, names in GROUPS.items():
            if cmd_name in names and cmd_name not in self.commands:
                part = typer.Typer()
                importlib.import_module(f"controller.cli.{group}").register(part)
                self.commands.update(_named(typer.main.get_group(part)).commands)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As every group does; what is similar to an unknown name is looked for among all."""
        if args[0] not in self.list_commands(ctx):
            self.make_all()
        return super().resolve_command(ctx, args)

    def make_all(self) -> Self:
        """Every command made, as whoever goes through `commands` needs it."""
        for name in self.list_commands(None):
            self.get_command(None, name)
        return self


app = typer.Typer(
    cls=Commands,
    name="lockgate",
    help="Release control that lives in Git.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    try:
        code = root()(list(arguments), prog_name="lockgate", standalone_mode=False)
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


def root() -> Commands:
    """The command line; each of its commands is made when it is looked up."""
    made: Commands = _named(typer.main.get_command(app))
    return made


def _named(command: Any) -> Any:
    """Every option of every command can be given as LOCKGATE_<OPTION>, whatever the command."""
    for option in command.params:
        longest = max(option.opts, key=len)
        if longest in ("--help", "--version", "--install-completion", "--show-completion"):
            option.allow_from_autoenv = False  # LOCKGATE_VERSION is what installers and CI call what they install
        elif longest.startswith("--") and not option.envvar:
            option.envvar = "LOCKGATE_" + longest[2:].upper().replace("-", "_")
    for inner in getattr(command, "commands", {}).values():
        _named(inner)
    return command


def _say(text: str) -> None:
    print(f"lockgate: {text}", file=sys.stderr)
