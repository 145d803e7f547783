"""How numbers are written in sentences that people read."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 target", "2 targets": the noun is given for one."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
