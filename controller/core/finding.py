"""A defect inside one document, and how its place is written."""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.compose import Pointer


@dataclass(frozen=True, slots=True)
class Finding:
    """A defect inside one document; `at` points to the key or item that is wrong or lacks something."""

    at: Pointer
    code: str
    message: str
    cure: str


def shown(at: Pointer) -> str:
    """A pointer as people write it: spec.stages[0].percent."""
    text = ""
    for step in at:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "the document"
