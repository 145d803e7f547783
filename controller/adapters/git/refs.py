"""Refs of a local repository as files: read in microseconds, swapped durably under git's own lock.

The protocol is git's files backend: whoever creates REF.lock owns REF, compares under the lock, and renames the
lock over the ref. The lock appears by a hard link of a marker file whose inode is known beforehand, so that a
later process can tell the lock of a killed process of ours from anybody else's, and clears only the former.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import threading
import time
from pathlib import Path
from typing import Final

from controller.adapters.git.pack import fsync_directory
from controller.crashpoints import reached
from controller.errors import Conflict, Refused, Unavailable

_OID: Final = re.compile(r"[0-9a-f]{40}")
_MARKERS: Final = "lockgate-locks"
_GUARD: Final = "clearing"
_numbers = itertools.count()
LOCK_SECONDS = 0.1
"""How long a lock that somebody holds is waited for, as git does (core.filesRefLockTimeout)."""


def ref_moved(ref: str, expected: str | None, got: str | None) -> Conflict:
    """The conflict of a lost swap."""
    return Conflict(
        "ref-moved",
        "somebody else moved the branch first",
        where=ref,
        expected=expected or "no such branch",
        got=got or "no such branch",
        cure="observe again and decide again",
    )


def _namespace() -> str:
    """Names the set of processes whose ids mean the same here: this boot, this pid namespace."""
    boot = pid = "-"
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        pid = str(Path("/proc/self/ns/pid").stat().st_ino)
    return f"{boot}+{pid}"


def _started(pid: int) -> str:
    """The start time of a process in clock ticks, "" when there is none: tells a reused id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


class RefFiles:
    """The branches of one git directory (files backend)."""

    def __init__(self, gitdir: Path, owner: str = "-") -> None:
        self.gitdir = gitdir
        self._owner = re.sub(r"[^0-9A-Za-z-]", "", owner) or "-"
        self._packed: tuple[tuple[int, int, int] | None, dict[str, str]] = (None, {})
        self._lock = threading.Lock()

    def read(self, ref: str) -> str | None:
        """The commit id a full ref name points at, or None. Raises Refused for a symbolic or broken ref."""
        try:
            text = (self.gitdir / ref).read_text(encoding="ascii", errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._read_packed().get(ref)
        except OSError as error:
            raise _unreadable(str(self.gitdir / ref), error) from error
        if _OID.fullmatch(text):
            return text
        raise Refused(
            "ref-broken",
            "a branch does not name a commit",
            where=ref,
            expected="40 hexadecimal digits",
            got=repr(text[:60]),
            cure="make it a plain branch: git update-ref --no-deref",
        )

    def _read_packed(self) -> dict[str, str]:
        path = self.gitdir / "packed-refs"
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._packed[0] != stamp:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                pairs = (line.split(" ", 1) for line in lines if line[:1] not in ("#", "^", ""))
                self._packed = (stamp, {pair[1]: pair[0] for pair in pairs if len(pair) == 2})
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unreadable(str(path), error) from error
        return self._packed[1]

    def swap(self, ref: str, expected: str | None, new: str) -> None:
        """Move `ref` from `expected` (None: absent) to `new`, durably.

        Raises Conflict("ref-moved") when it is elsewhere, Unavailable("ref-locked") when another process
        holds its lock, Unavailable("disk-unavailable") when the disk is full or failing.
        """
        reached("swap-before")
        self._replace(ref, new, expected, compare=True)
        reached("swap-after")

    def force(self, ref: str, new: str) -> None:
        """Set `ref` whatever it is at: for a mirror's own copy of the origin's refs."""
        self._replace(ref, new, None, compare=False)

    def _replace(self, ref: str, new: str, expected: str | None, *, compare: bool) -> None:
        try:
            self._replace_file(ref, new, expected, compare=compare)
        except OSError as error:
            raise unwritable(self.gitdir / ref, error) from error

    def _replace_file(self, ref: str, new: str, expected: str | None, *, compare: bool) -> None:
        target = self.gitdir / ref
        with self._lock:
            self._make_folder(ref, target)
            marker = self._marker()
            lock = target.with_name(target.name + ".lock")
            try:
                with marker.open("x", encoding="ascii") as file:
                    file.write(new + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._take(ref, lock, marker)
                try:
                    if compare and (current := self.read(ref)) != expected:
                        raise ref_moved(ref, expected, current)
                    reached("swap-locked")
                    lock.rename(target)
                except BaseException:
                    # Not in a `finally`: once it was renamed, a lock of that name is somebody else's.
                    lock.unlink(missing_ok=True)
                    raise
                reached("swap-moved")
                fsync_directory(target.parent)
            finally:
                marker.unlink(missing_ok=True)

    def _make_folder(self, ref: str, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rmdir()
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY):
                raise
            raise Refused(
                "ref-name-taken",
                "another branch stands in the way of this name",
                where=ref,
                expected="no branch whose name is a folder of this one, or the reverse",
                got=error.strerror or "",
                cure="rename the other branch",
            ) from error

    def _marker(self) -> Path:
        folder = self.gitdir / _MARKERS
        folder.mkdir(exist_ok=True)
        pid = os.getpid()
        return folder / f"{self._owner}~{_namespace()}~{pid}~{_started(pid)}~{next(_numbers)}"

    def _take(self, ref: str, lock: Path, marker: Path) -> None:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                os.link(marker, lock)
                return
            except FileExistsError:
                if not self._clear_dead(lock):
                    if time.monotonic() >= until:
                        break
                    time.sleep(0.002)
        raise Unavailable(
            "ref-locked",
            "the branch is locked by another process",
            where=str(lock),
            expected="no lock",
            got="a lock that is not ours",
            cure=f"when no git process works on {ref}, remove the lock file",
            retry_after=0.2,
        )

    def _clear_dead(self, lock: Path) -> bool:
        """Remove `lock` when it is the hard link of a marker whose process of ours is gone."""
        folder = self.gitdir / _MARKERS
        # One process clears at a time, or the second would remove the lock that the first took afterwards.
        with (folder / _GUARD).open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            try:
                held = lock.stat()
            except FileNotFoundError:
                return True
            cleared = False
            for marker in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    stat = marker.stat()
                    if marker.name == _GUARD or self._alive(marker.name):
                        continue
                    if (stat.st_dev, stat.st_ino) == (held.st_dev, held.st_ino):
                        lock.unlink()
                        cleared = True
                    marker.unlink()
            return cleared

    def _alive(self, name: str) -> bool:
        owner, namespace, pid, started, _ = name.split("~")
        if namespace == _namespace():
            return _started(int(pid)) == started
        # Another boot or container: gone only if it used this very state directory, which has one user.
        return self._owner == "-" or owner != self._owner


def unwritable(path: Path, error: OSError) -> Unavailable:
    """A full or failing disk, or one that may not be written. What was under way is not done, or is done and
    cannot be known to last: observe again."""
    return Unavailable(
        "disk-unavailable",
        "the disk cannot be written",
        where=str(path),
        expected="room and the right to write",
        got=error.strerror or type(error).__name__,
        cure="free space or mend the permissions; a controller that runs tries again by itself",
        retry_after=5.0,
    )


def _unreadable(where: str, error: OSError) -> Unavailable:
    return Unavailable(
        "origin-unavailable",
        "the repository cannot be read",
        where=where,
        expected="a readable git repository",
        got=error.strerror or type(error).__name__,
        cure="check the path, its mount and its permissions",
        retry_after=5.0,
    )
