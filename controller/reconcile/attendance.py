"""When the controller was there: able to look at everything and to record."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.core.absence import Absence, merged

REJOIN = timedelta(seconds=10)
"""How long agents may take to find a controller that was started or stopped: they try at least every 7.5 s."""
SLOW = timedelta(seconds=5)
"""A look at the origin that takes longer was an outage, whatever it saw in the end, and a longer gap between two
beats a stop."""


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
    """Knows the absences that open runs may have met, those of former processes among them. Thread-safe."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._lock = threading.Lock()
        self._away = presence.last_pass()
        """Since when nothing gets through; None while it does, and when a new process does not know it."""
        self._new = True
        self._beat: datetime | None = None
        self._absences = presence.absences()

    def passes_by(self) -> None:
        """The process comes for one look (`--once`): that it was not there before means nothing."""
        self._new, self._away, self._absences = False, None, ()

    def beat(self, at: datetime) -> None:
        """The process lives: told each second, by a thread of its own. A gap is a stop of it, or a sleep of its
        machine, and agents have to find it again."""
        with self._lock:
            self._notice(at)
            self._beat = at

    def looked(self, begun: datetime, ended: datetime) -> None:
        """The origin was asked, and had answered at `ended`."""
        with self._lock:
            if ended - begun > SLOW and self._away is None:
                self._absences += (Absence(begun, ended),)

    def failed(self, begun: datetime) -> None:
        """A pass that began then could not look at everything, or not record."""
        with self._lock:
            if not self._new and self._away is None:
                self._away = begun

    def absences(self, now: datetime, last: datetime | None) -> tuple[Absence, ...]:
        """The absences until now, in order. A process that does not know when the former one ended goes by the
        `last` entry."""
        with self._lock:
            if self._new and self._away is None:
                self._away = last
            return self._known(now)

    def there(self, now: datetime, oldest: datetime | None) -> None:
        """A pass got through. What ended before the `oldest` open run was opened matters no longer."""
        with self._lock:
            known = self._known(now)
            self._absences = tuple(one for one in known if oldest is not None and one.until > oldest)
            self._away, self._new = None, False
        self._presence.remember_pass(now, self._absences)

    def _known(self, now: datetime) -> tuple[Absence, ...]:
        self._notice(now)
        known = self._absences
        if self._away is not None:
            known += (Absence(self._away, now + REJOIN if self._new else now),)
        # What ends later is from a clock that was ahead then, and has been set right.
        return merged(one for one in known if one.until <= now + REJOIN)

    def _notice(self, now: datetime) -> None:
        if self._beat is not None and now - self._beat > SLOW:
            self._absences += (Absence(self._beat, now + REJOIN),)
            self._beat = now
