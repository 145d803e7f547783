"""docs/reference/commands.md: every command, its options and their variables, from the command line itself."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ci.reference.markdown import cell, code, table
from ci.reference.markdown import page as whole
from controller.cli import app as door

INTRO = """`lockgate [OPTIONS] COMMAND [ARGS]`. Every option can be given as an environment
variable; the option wins.

| exit code | means |
| --- | --- |
| 0 | yes, or done |
| 1 | the answer is no: invalid, refused, verification failed, a moved tag, a difference found |
| 2 | it could not be done: usage, input and output, something outside did not answer |
| 130 | interrupted |

Errors go to standard error as `lockgate: CODE: what, where; expected …, got …; do …`; the codes are listed in
[errors](errors.md)."""


NOT_SHOWN = ("help", "install_completion", "show_completion")


def page() -> str:
    """The page."""
    root = door.root().make_all()
    listed = list(_commands(root, ()))
    index = [
        (f"[{' '.join(path)}](#lockgate-{'-'.join(path)})", cell(_first(command))) for path, command in listed
    ]
    return whole(
        "Commands",
        INTRO,
        "## Options of every command\n\n" + _parameters(root),
        "## Commands\n\n" + table(("command", "does"), index),
        *(_section(path, command) for path, command in listed),
    )


def _commands(group: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        elif not command.hidden:
            yield (*path, name), command


def _section(path: tuple[str, ...], command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["lockgate", *path, "[OPTIONS]", *(_argument(p) for p in arguments)])
    text = inspect.cleandoc(command.help or "").split("\f")[0]
    return "\n\n".join(
        filter(
            None,
            [f"## lockgate {' '.join(path)}", text, f"```\n{usage}\n```", _parameters(command).strip()],
        )
    )


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _parameters(command: Any) -> str:
    rows = [
        (
            ", ".join(code(name) for name in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "option"
            else code(_argument(parameter)),
            _type(parameter),
            "required" if parameter.required else _default(parameter),
            code(parameter.envvar or ""),
            cell(getattr(parameter, "help", None) or ""),
        )
        for parameter in command.params
        if parameter.name not in NOT_SHOWN and not getattr(parameter, "hidden", False)
    ]
    return table(("option", "type", "default", "environment variable", "meaning"), rows) if rows else ""


def _type(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return ", ".join(code(str(choice.value)) for choice in kind)
    if parameter.param_type_name == "option" and (parameter.is_flag or kind is bool):
        return "flag"
    name = {str: "text", int: "number", float: "number", Path: "path"}.get(kind, "text")
    return f"{name}, repeatable" if getattr(parameter, "multiple", False) else name


def _default(parameter: Any) -> str:
    value = getattr(parameter.default, "value", parameter.default)
    shown = isinstance(value, str | int | float | Path) and not isinstance(value, bool)
    return code(str(value)) if shown else ""


def _first(command: Any) -> str:
    return inspect.cleandoc(command.help or "").split("\n\n")[0]
