"""Whose clock is right: times that entries and agents' statements may bear together (trust rule 15). Pure.

The controller takes nothing that `verify` would find later: both ask these functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from controller.core.run import Run
from controller.errors import Stalled
from controller.model.entry import format_time
from controller.model.order import MAX_CLOCK_SKEW, Report, Sample

SKEW = timedelta(seconds=MAX_CLOCK_SKEW)
LEAST_AGENTS = 2
"""So many agents must agree against the controller's clock: a single one may be wrong itself."""


def out_of_time(body: Report | Sample, at: datetime, run: Run | None) -> str | None:
    """Why a statement cannot be recorded at `at`, or None; `run` is its run as it was before that entry."""
    if body.said_at > at + SKEW:
        return f"said at {format_time(body.said_at)}, which is after the entry of {format_time(at)}"
    ordered = run.ordered_at if run is not None else None
    if isinstance(body, Report) and ordered is not None and body.started < ordered - SKEW:
        return f"begun at {format_time(body.started)}, before it was ordered at {format_time(ordered)}"
    return None


def anchored_in_time(time: datetime, covered: datetime, recorded: datetime) -> str | None:
    """Why somebody else's `time` does not fit: an entry that it `covered` must not be later, the entry that
    `recorded` it not earlier, each by more than the allowed skew."""
    if covered > time + SKEW:
        return f"entries of {format_time(covered)} existed at {format_time(time)}: their clock was ahead"
    if recorded < time - SKEW:
        return f"recorded at {format_time(recorded)}, before {format_time(time)}: the clock was behind"
    return None


def check_clock(now: datetime, last: datetime | None, skews: Mapping[str, float], heard: int) -> None:
    """That the controller's own clock can be right: not behind its last entry, and not denied by its agents.

    `skews` are the seconds by which agents' clocks are ahead of it, of those refused for that; `heard` is how
    many agents were heard at all. Raises Stalled("clock-skew").
    """
    if last is not None and last > now + SKEW:
        raise _stalled(f"the last entry is of {format_time(last)}", f"now is {format_time(now)}")
    ordered = sorted(skews.values())
    if len(ordered) < LEAST_AGENTS or 2 * len(ordered) <= heard:
        return
    middle = ordered[len(ordered) // 2]
    agreeing = [skew for skew in ordered if abs(skew - middle) <= MAX_CLOCK_SKEW]
    if 2 * len(agreeing) > heard and len(agreeing) >= LEAST_AGENTS:
        way = "ahead of" if middle < 0 else "behind"
        raise _stalled("the clocks of its agents", f"{abs(middle):.0f} s {way} {len(agreeing)} of {heard} agents")


def _stalled(expected: str, got: str) -> Stalled:
    return Stalled(
        "clock-skew",
        "the controller's clock is wrong, so nothing is recorded",
        expected=f"within {MAX_CLOCK_SKEW:.0f} s of {expected}",
        got=got,
        cure="set the clock of the controller's host; it goes on by itself",
    )
