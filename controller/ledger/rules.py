"""The version of the rules that evidence is made under: decisions, their words, templates and derived files.

Each entry names it, and so do the cursors, so that a tree says it before anything else of it is read. Whoever
changes what the same facts lead to raises it and keeps the former rules for entries that name them (ADR 40).
"""

from __future__ import annotations

import json
from typing import Any, Final

from controller.errors import Refused, Stalled

RULES: Final = 1
"""The rules that this program decides and writes by; it knows these and all before them."""
UNKNOWN: Final = "rules-unknown"
ROLLBACK: Final = "rules-rollback"
_CURE: Final = (
    "use a version of Lockgate that knows them: this one neither adds to that evidence nor judges what comes "
    "after; if none does, somebody misuses the controller's key"
)


def claimed(data: bytes) -> dict[str, Any]:
    """The members of a JSON object that may be of rules which this program does not know; {} when it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def newer(value: object) -> bool:
    """Whether this is a version of rules that this program does not know."""
    return isinstance(value, int) and value > RULES


def unknown_entry(rules: object, where: str) -> Refused:
    """What is said of an entry that was made under newer rules."""
    return Refused(
        UNKNOWN,
        f"the entry was made under rules {rules}, and this Lockgate knows rules {RULES}: {_CURE}",
        where=where,
    )


def unknown_evidence(rules: object, where: str) -> Stalled:
    """What stops those who go on from evidence that was made under newer rules."""
    return Stalled(
        UNKNOWN,
        "the evidence was made under newer rules than this Lockgate knows",
        where=where,
        expected=f"rules {RULES} or earlier",
        got=f"rules {rules}",
        cure=_CURE,
    )
