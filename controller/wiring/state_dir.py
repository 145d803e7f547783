"""The controller's state directory: one controller at a time lives in it, and anybody can see whether one does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from controller.errors import Unavailable

LOCK: Final = "controller.lock"


class StateDir:
    """Holds the directory from when it is made until `close`, or until the process ends however it may.

    The lock is flock(2)'s: the kernel lets go of it with the process. A file system without such locks is lived in
    unseen.
    """

    def __init__(self, path: Path) -> None:
        """Raises Unavailable("state-dir-unusable" | "state-dir-in-use")."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / LOCK).open("a+", encoding="ascii")
        except OSError as error:
            raise Unavailable(
                "state-dir-unusable",
                "the state directory cannot be made",
                where=str(path),
                expected="a directory that can be written",
                got=error.strerror or "an error",
                cure="give --state-dir a writable place with room",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with self._lock:
                holder = _holder(self._lock.fileno())
            raise Unavailable(
                "state-dir-in-use",
                "another controller works with this state directory",
                where=str(path),
                expected="a state directory of its own for each controller",
                got=f"one that {holder} holds",
                cure="stop that one first, or give --state-dir another directory",
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        # Who holds it is for people only; a full disk must not keep a controller from starting.
        with contextlib.suppress(OSError):
            self._lock.truncate(0)
            self._lock.write(f"{os.getpid()}\n")
            self._lock.flush()

    def close(self) -> None:
        """Let another one in."""
        self._lock.close()


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


def _holder(lock: int) -> str:
    text = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    return f"process {text}" if text.isdigit() else "another process"
