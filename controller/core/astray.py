"""Targets that do not run what their environment does, and where a rollback asked for now leads."""

from __future__ import annotations

from collections.abc import Sequence

from controller.ledger.fold import EnvironmentState
from controller.model.entry import CompletedRun


def astray(place: EnvironmentState | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Of these targets, those that reported another release than the one that completed last, or did not answer
    their last order: a run that was aborted, or a rollback that failed, left them so."""
    if place is None or place.manifest_digest is None:
        return ()
    there = place.targets
    return tuple(n for n in names if n in there and there[n].manifest_digest != place.manifest_digest)


def target_of_rollback(place: EnvironmentState | None, names: tuple[str, ...]) -> CompletedRun | None:
    """Where a requested rollback of an environment without an open run leads, by its agents' names: where targets
    are astray, to what completed last; otherwise to what completed before it."""
    if place is None or not place.history:
        return None
    if astray(place, names):
        return place.history[-1]
    return place.history[-2] if len(place.history) > 1 else None


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names in one line, the rest of a long list counted."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
