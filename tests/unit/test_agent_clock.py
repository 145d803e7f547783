"""What time an agent takes it to be, whatever its own clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.agent.clock import ControllerTime
from controller.errors import Refused

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Host:
    """True time passes; the machine's clock is off by `skew` seconds."""

    def __init__(self, skew: float) -> None:
        self.passed = 0.0
        self.skew = skew
        self.asleep = 0.0
        self.said: list[str] = []
        self.time = ControllerTime(
            lambda: self.true + timedelta(seconds=self.skew),
            lambda: self.passed - self.asleep + 7.0,
            lambda code, text: self.said.append(f"{code}: {text}"),
        )

    @property
    def true(self) -> datetime:
        return T0 + timedelta(seconds=self.passed)

    def hear(self, latency: float = 0.0) -> None:
        at = self.true
        self.passed += latency
        self.time.heard(at)

    @property
    def error(self) -> float:
        """Seconds by which the agent's idea of the time is ahead of the controller's clock."""
        return (self.time.now() - self.true).total_seconds()


@pytest.mark.parametrize("skew", [-299.0, -45.0, 0.0, 0.4, 45.0, 299.0])
def test_the_controllers_time_counts_once_it_was_heard(skew: float) -> None:
    host = Host(skew)
    assert host.error == skew
    host.hear()
    assert host.error == 0
    host.passed += 30
    assert host.error == 0


def test_a_clock_that_is_set_while_the_agent_runs_changes_nothing() -> None:
    host = Host(0)
    host.hear()
    for skew in (60.0, -60.0):
        host.skew = skew
        assert host.error == 0
        host.hear()
        assert host.error == 0


def test_the_fastest_delivery_counts_and_a_late_one_is_mended() -> None:
    host = Host(20)
    host.hear(latency=0.8)
    assert host.error == pytest.approx(-0.8)
    host.hear(latency=0.1)
    assert host.error == pytest.approx(-0.1)
    host.hear(latency=0.5)
    assert host.error == pytest.approx(-0.1)
    host.hear(latency=3)
    assert host.error == pytest.approx(-3)
    host.hear(latency=0.2)
    assert host.error == pytest.approx(-0.2)


def test_a_machine_that_slept_catches_up() -> None:
    host = Host(0)
    host.hear()
    host.passed += 3600
    host.asleep = 3600  # a monotonic clock may stand still meanwhile
    assert host.error == -3600
    host.hear()
    assert host.error == 0


@pytest.mark.parametrize("skew", [-301.0, 301.0, 86400.0])
def test_a_time_too_far_off_is_not_believed(skew: float) -> None:
    host = Host(skew)
    with pytest.raises(Refused, match="clock-skew"):
        host.hear()
    assert host.error == skew
    assert host.said == []


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_clock_set_far_off_takes_nothing_and_leaves_the_known_time(skew: float) -> None:
    host = Host(0)
    host.hear()
    host.skew = skew
    with pytest.raises(Refused, match="clock-skew"):
        host.hear()
    host.passed += 30
    assert host.error == 0


def test_it_says_once_that_the_clock_is_off_and_once_that_it_agrees_again() -> None:
    host = Host(45.4)
    host.hear()
    host.hear()
    assert len(host.said) == 1
    assert "clock-skew: this machine's clock is 45 s ahead of the controller's" in host.said[0]
    host.skew = -3
    host.hear()
    assert "3 s behind the controller's" in host.said[1]
    host.skew = 0
    host.hear()
    host.hear()
    assert host.said[2:] == ["clock-skew: this machine's clock agrees with the controller's again"]
