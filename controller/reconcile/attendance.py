"""When the controller was there: able to look at everything and to record."""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.core.absence import Absence

REJOIN = timedelta(seconds=10)
"""How long agents may take to find a controller that was started anew: they try at least every 7.5 s."""


class Attendance:
    """Keeps the absences that open runs may have met."""

    def __init__(self, before: datetime | None) -> None:
        self._away = before
        """Since when it is away; None while it is there, and when a new process does not know it."""
        self._new = True
        self._absences: tuple[Absence, ...] = ()

    def away(self, since: datetime) -> None:
        """Nothing can be recorded since then."""
        if not self._new and self._away is None:
            self._away = since

    def absences(self, now: datetime, last: datetime | None) -> tuple[Absence, ...]:
        """The absences until now. A process that does not know when the former one ended goes by the `last`
        entry."""
        if self._new and self._away is None:
            self._away = last
        if self._away is None:
            return self._absences
        return (*self._absences, Absence(self._away, now + REJOIN if self._new else now))

    def there(self, now: datetime, oldest: datetime | None) -> None:
        """A pass got through. What ended before the `oldest` open run was opened matters no longer."""
        known = self.absences(now, None)
        self._absences = tuple(one for one in known if oldest is not None and one.until > oldest)
        self._away, self._new = None, False
