"""Recurring spans of time: cron schedules with a duration in an IANA zone. Pure: `now` is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim


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
