"""A diagnostic: one thing that is wrong with one file, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """`line` counts from 1; 0 is the file as a whole. `code` is stable, the wording is not."""

    path: str
    line: int
    severity: Literal["error", "warning"]
    code: str
    message: str
    cure: str

    def to_json(self) -> dict[str, str | int]:
        """The shape of `lockgate validate -o json`."""
        return {
            "severity": self.severity,
            "code": self.code,
            "path": self.path,
            "line": self.line,
            "message": self.message,
            "cure": self.cure,
        }
