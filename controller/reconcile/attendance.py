"""When the controller was there: able to look at everything and to record."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.core.absence import Absence

REJOIN = timedelta(seconds=10)
"""How long agents may take to find a controller that was started or stopped: they try at least every 7.5 s."""
SLOW = timedelta(seconds=5)
"""What takes so long, a pass or the way to it, was no attendance, whatever came of it."""


class Presence:
    """What is kept of a controller's attendance for the one that comes after it: a file in the state directory.

    Its time is that of the last pass, its content the absences that open runs met. Losing it loses both, and
    stages may then be failed for what nobody looked at."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "last-pass"
        self._kept: str | None = None

    def last_pass(self) -> datetime | None:
        """When a pass last got through, if any did."""
        try:
            return datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
        except OSError:
            return None

    def absences(self) -> tuple[Absence, ...]:
        """What the former process kept; nothing where that cannot be read."""
        try:
            pairs = json.loads(self._path.read_text(encoding="ascii"))
            found = tuple(Absence(*map(datetime.fromisoformat, pair)) for pair in pairs)
            return found if all(one.since.tzinfo and one.until.tzinfo for one in found) else ()
        except (OSError, ValueError, TypeError):
            return ()

    def remember_pass(self, at: datetime, absences: tuple[Absence, ...]) -> None:
        """Keep that a pass got through; where nothing else is new, that is the file's time alone: no write."""
        text = json.dumps([[one.since.isoformat(), one.until.isoformat()] for one in absences]) + "\n"
        stamp = int(at.timestamp() * 1e9)
        try:
            if text != self._kept or not self._path.exists():
                fresh = self._path.with_name(self._path.name + ".new")
                fresh.write_text(text, encoding="ascii")
                fresh.replace(self._path)
                self._kept = text
            os.utime(self._path, ns=(stamp, stamp))
        except OSError:
            return


class Attendance:
    """Knows the absences that open runs may have met, those of former processes among them."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._away = presence.last_pass()
        """Since when it is away; None while it is there, and when a new process does not know it."""
        self._new = True
        self._lost = True
        """Whether agents may have lost it, and have to find it again."""
        self._begun: datetime | None = None
        """When the pass began that is under way."""
        self._due: datetime | None = None
        """When the next one begins at the latest."""
        self._absences = presence.absences()

    def begins(self, at: datetime) -> None:
        """A pass begins. One that is late was kept from it: the process was stopped, or its machine slept."""
        self._stopped(self._due, at)
        self._begun = at

    def rests(self, until: datetime) -> None:
        """Nothing is looked at until then, unless something wakes it."""
        self._due = until

    def failed(self) -> None:
        """The pass could not look at everything, or not record."""
        self._leave(self._begun)

    def absences(self, now: datetime, last: datetime | None) -> tuple[Absence, ...]:
        """The absences until now, a pass that hangs among them. A process that does not know when the former one
        ended goes by the `last` entry."""
        if self._new and self._away is None:
            self._away = last
        self._stopped(self._begun, now)
        if self._away is None:
            return self._absences
        return (*self._absences, Absence(self._away, now + REJOIN if self._lost else now))

    def there(self, now: datetime, oldest: datetime | None) -> None:
        """A pass got through. What ended before the `oldest` open run was opened matters no longer."""
        known = self.absences(now, None)
        self._absences = tuple(one for one in known if oldest is not None and one.until > oldest)
        self._away, self._begun, self._due = None, None, now
        self._new = self._lost = False
        self._presence.remember_pass(now, self._absences)

    def _stopped(self, since: datetime | None, until: datetime) -> None:
        if since is not None and until - since > SLOW:
            self._lost = True
            self._leave(since)

    def _leave(self, since: datetime | None) -> None:
        if not self._new and self._away is None:
            self._away = since
