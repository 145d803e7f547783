"""Recurring spans of time: cron schedules with a duration in an IANA zone. Pure: `now` is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from controller.model.environment import Window

MOST_CHANGES = 1_000
"""Openings and ends of one window that are looked at in one stretch of time."""


@dataclass(frozen=True, slots=True)
class Span:
    """Whether a recurring span is open at an instant; `changes` is when that flips (None: never found)."""

    is_open: bool
    changes: datetime | None


def span_at(schedule: str, duration: timedelta, zone: str, now: datetime) -> Span:
    """The state of `schedule`+`duration` at `now`. The span is half-open: closed at its end instant.

    Firings and `now` are compared as instants, so a span that crosses a daylight-saving change keeps its
    duration.
    """
    local = now.astimezone(ZoneInfo(zone))
    last = _first(CronSim(schedule, local + timedelta(seconds=1), reverse=True), at_most=now)
    if last is not None and now < last + duration:
        return Span(True, last + duration)
    following = next(iter(CronSim(schedule, local)), None)
    return Span(False, following.astimezone(UTC) if following is not None else None)


def _first(firings: CronSim, at_most: datetime) -> datetime | None:
    for firing in firings:
        instant = firing.astimezone(UTC)
        if instant <= at_most:
            return instant
    return None


def open_between(windows: Sequence[Window], since: datetime, until: datetime) -> bool:
    """Whether some instant of a stretch of time lies within the windows: in an allowed one, if there are any, and
    in none that is denied."""
    moments = {since, until}
    for window in windows:
        moments.update(_changes(window, since, until))
    return any(_open_at(windows, moment) for moment in moments)


def _open_at(windows: Sequence[Window], at: datetime) -> bool:
    state = [(one.kind, span_at(one.schedule, one.duration, one.time_zone, at).is_open) for one in windows]
    allowed = [is_open for kind, is_open in state if kind == "allow"]
    return (any(allowed) or not allowed) and ("deny", True) not in state


def _changes(window: Window, since: datetime, until: datetime) -> Iterator[datetime]:
    """When a window opens and ends in a stretch of time."""
    at: datetime | None = since
    for _ in range(MOST_CHANGES):
        at = span_at(window.schedule, window.duration, window.time_zone, at).changes if at is not None else None
        if at is None or at > until:
            return
        yield at
