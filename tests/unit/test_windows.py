"""Whether an instant of a stretch of time lies within an environment's windows: as if every minute were asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.calendar import open_between, span_at
from controller.model.environment import Window

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def window(kind: str, schedule: str, minutes: int, zone: str = "UTC") -> Window:
    values = {"kind": kind, "schedule": schedule, "duration": f"{minutes}m", "timeZone": zone}
    return Window.model_validate(values)


WINDOWS = st.builds(
    window,
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["0 * * * *", "*/20 * * * *", "30 2 * * *", "15 9-17 * * 1-5", "0 0 29 2 *"]),
    st.integers(1, 90),
    st.sampled_from(["UTC", "Europe/Paris"]),
)


def open_at(windows: list[Window], at: datetime) -> bool:
    is_open = [(one.kind, span_at(one.schedule, one.duration, one.time_zone, at).is_open) for one in windows]
    if ("deny", True) in is_open:
        return False
    return ("allow", True) in is_open or not any(kind == "allow" for kind, _ in is_open)


@settings(max_examples=60, deadline=None)
@given(st.lists(WINDOWS, max_size=3), st.integers(0, 2 * 24 * 60), st.integers(0, 120))
def test_as_if_every_minute_was_looked_at(windows: list[Window], begin: int, length: int) -> None:
    since = START + begin * MINUTE
    every = any(open_at(windows, since + at * MINUTE) for at in range(length + 1))
    assert open_between(windows, since, since + length * MINUTE) is every


@pytest.mark.parametrize(("minutes", "found"), [(9, False), (10, True)])
def test_a_window_that_opens_within_the_stretch(minutes: int, found: bool) -> None:
    noon = datetime(2026, 6, 1, 11, 50, tzinfo=UTC)
    assert open_between([window("allow", "0 12 * * *", 5)], noon, noon + minutes * MINUTE) is found
