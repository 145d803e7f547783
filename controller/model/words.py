"""How numbers are written in sentences that people read."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """ "1 target", "2 targets", "3 entries": the noun is given for one."""
    if number == 1:
        return f"1 {noun}"
    regular = not noun.endswith("y") or noun[-2:-1] in "aeiou"
    return f"{number} {noun}s" if regular else f"{number} {noun[:-1]}ies"
