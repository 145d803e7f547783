"""Time in which the controller could not look or not record: no deadline of a run passes in it. Pure.

What was not looked at is unknown, and unknown neither passes nor fails (rollout, step 6). So an outage of the
origin, a restart, or a suspended machine takes no sound release back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Absence:
    """From when until when nothing could be looked at or recorded."""

    since: datetime
    until: datetime


def merged(absences: Iterable[Absence]) -> tuple[Absence, ...]:
    """The same time away, in order and without overlaps."""
    found: list[Absence] = []
    for one in sorted(absences, key=lambda one: one.since):
        if found and one.since <= found[-1].until:
            found[-1] = Absence(found[-1].since, max(found[-1].until, one.until))
        else:
            found.append(one)
    return tuple(found)


def put_off(deadline: datetime, begun: datetime, absences: Iterable[Absence]) -> datetime:
    """A deadline whose time began to run at `begun` and stood still during the absences, which are `merged`."""
    for absence in absences:
        since = max(absence.since, begun)
        if since < deadline:
            deadline += max(absence.until - since, timedelta(0))
    return deadline
