"""The controller's time as an agent knows it: what it dates for the controller, and judges deadlines by.

A stage's samples and an order's deadline are compared with the controller's clock, so an agent whose own clock
is off would never be heard, or would refuse every order as expired. Each signed delivery says the controller's
time and answers a nonce just sent, so it cannot be an old one; between deliveries a clock that nobody sets goes
on counting. Polls are dated by the machine's own clock: the controller refuses one that is too far off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from controller.errors import Refused
from controller.model.order import MAX_CLOCK_SKEW

LATENESS = timedelta(seconds=1)
"""A delivery that took longer than this sets the time back; the next one that came faster mends it."""
WORTH_SAYING = timedelta(seconds=2)
"""A machine's clock that differs by more is told of in the log."""


class ControllerTime:
    """`own` reads this machine's clock, `monotonic` seconds on one that is never set. Thread-safe."""

    def __init__(
        self,
        own: Callable[[], datetime],
        monotonic: Callable[[], float],
        log: Callable[[str, str], None],
    ) -> None:
        self._own = own
        self._monotonic = monotonic
        self._log = log
        self._lock = threading.Lock()
        self._heard: tuple[datetime, float] | None = None
        self._said = timedelta(0)

    def now(self) -> datetime:
        """The controller's time; this machine's own until the controller was heard."""
        with self._lock:
            return self._estimate() or self._own()

    def heard(self, at: datetime) -> None:
        """A verified delivery that was made at `at`, by the controller's clock, has just arrived.

        A time further from this machine's clock than the controller lets polls be is not believed: whoever
        holds the controller's key cannot move an agent to another day. Raises Refused("clock-skew") then: an
        order taken now would be dated by the wrong one of the two clocks, and its report never count.
        """
        with self._lock:
            ahead = self._own() - at
            if abs(ahead) > timedelta(seconds=MAX_CLOCK_SKEW):
                raise Refused(
                    "clock-skew",
                    "this machine's clock and the controller's are too far apart, so nothing is taken from it",
                    expected=f"within {MAX_CLOCK_SKEW:.0f} s of {at.isoformat(timespec='seconds')}",
                    got=f"{ahead.total_seconds():.0f} s",
                    cure="set the clock of this host, or of the controller's",
                )
            # What came faster is nearer to the truth, so time is moved forward at once and back only by far.
            known = self._estimate()
            if known is None or at > known or known - at > LATENESS:
                self._heard = (at, self._monotonic())
            tell = abs(ahead - self._said) > WORTH_SAYING
            if tell:
                self._said = ahead
        if tell:
            self._log("clock-skew", _text(ahead))

    def _estimate(self) -> datetime | None:
        if self._heard is None:
            return None
        at, then = self._heard
        return at + timedelta(seconds=self._monotonic() - then)


def _text(ahead: timedelta) -> str:
    if abs(ahead) <= WORTH_SAYING:
        return "this machine's clock agrees with the controller's again"
    way = "ahead of" if ahead > timedelta(0) else "behind"
    return (
        f"this machine's clock is {abs(ahead).total_seconds():.0f} s {way} the controller's: what is reported "
        f"is dated by the controller's clock, and beyond {MAX_CLOCK_SKEW:.0f} s nothing is heard; set the clock"
    )
