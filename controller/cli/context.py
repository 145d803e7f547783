"""What every command gets: where the repository is, how to answer."""

from __future__ import annotations

import enum
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from controller.errors import printable

_WHOLE = re.compile(r"(\n|\t|\x1b\[[0-9;]*m)")
"""What an answer is laid out with: lines, columns and colours."""


class Format(enum.StrEnum):
    """How answers are written."""

    text = "text"
    json = "json"
    yaml = "yaml"


@dataclass(frozen=True, slots=True)
class Context:
    """The global options."""

    repo: str
    output: Format

    def answer(self, value: Any, text: Callable[[], str]) -> None:
        """Write an answer: `value` as JSON or YAML, or `text()` for people."""
        if self.output is Format.json:
            sys.stdout.write(json.dumps(value, indent=2) + "\n")
        elif self.output is Format.yaml:
            import yaml  # slow to load, and some commands read no document

            sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
        else:
            shown = text()
            if shown:
                parts = _WHOLE.split(shown.rstrip("\n"))
                parts[::2] = map(printable, parts[::2])
                sys.stdout.write("".join(parts) + "\n")


def context_of(context: typer.Context) -> Context:
    """The global options inside a command."""
    found = context.find_object(Context)
    assert found is not None
    return found
