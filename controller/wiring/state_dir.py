"""The controller's state directory: one controller at a time lives in it, and anybody can see whether one does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final, TextIO

from controller.errors import Unavailable

LOCK: Final = "controller.lock"
_TRIES, _PAUSE = 10, 0.05
"""How often the lock is asked for, and the seconds between."""


class StateDir:
    """Holds the directory from when it is made until `close`, or until the process ends however it may.

    The lock is flock(2)'s: the kernel lets go of it with the process. A directory that cannot be written, and a
    file system without such locks, is lived in unseen.
    """

    def __init__(self, path: Path) -> None:
        """Raises Unavailable("state-dir-unusable" | "state-dir-in-use")."""
        self._lock: TextIO | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                "state-dir-unusable",
                "the state directory cannot be made",
                where=str(path),
                expected="a directory that can be written",
                got=error.strerror or "an error",
                cure="give --state-dir a writable place with room",
            ) from error
        # What the directory holds can be lost, so one that cannot be written keeps no controller from its work.
        with contextlib.suppress(OSError):
            self._lock = _opened(path / LOCK)
            self._hold(self._lock, path)
            (path / LOCK).write_text(f"{os.getpid()}\n", encoding="ascii")

    def _hold(self, lock: TextIO, path: Path) -> None:
        for _ in range(_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(_PAUSE)  # whoever only looks holds it for an instant
        with lock:
            holder = lock.read(32).strip()
        raise Unavailable(
            "state-dir-in-use",
            "another controller works with this state directory",
            where=str(path),
            expected="a state directory of its own for each controller",
            got=f"one that process {holder or '?'} holds",
            cure="stop that one first, or give --state-dir another directory",
        )

    def close(self) -> None:
        """Let another one in."""
        if self._lock is not None:
            self._lock.close()


def _opened(path: Path) -> TextIO:
    """The lock's file; for writing where that is allowed, since a lock that excludes others needs it over NFS."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        file = os.open(path, os.O_RDONLY)
    return os.fdopen(file, encoding="ascii")


def lived_in(path: Path) -> bool:
    """Whether a controller works with this state directory; True also when that cannot be seen from here."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
