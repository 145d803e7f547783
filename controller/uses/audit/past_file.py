"""Where `verify` keeps what it verified: a file of the auditor's own, outside every repository.

Whoever can write the file can say what was verified, so one that others can write does not count; nothing else
in the cache keeps a secret or needs one. A file that does not count costs time: everything is verified anew.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import controller
from controller.errors import Invalid
from controller.model.trustroot import TrustRoot
from controller.settings import tzdata_version
from controller.uses.audit.past import Past, past_bytes, read_past

MOST_BYTES = 1 << 28
_DECIDING = ("common-expression-language", "cronsim", "cryptography", "pydantic", "PyNaCl", "PyYAML")
"""What verdicts rest on besides our own code."""


def cache_path(root: TrustRoot) -> Path:
    """The file of a project and genesis below the user's cache directory (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return folder / "lockgate" / "verify" / f"{root.project}-{root.genesis[:16]}.json"


def rules_digest(*, asked: bool) -> str:
    """Which rules an answer was made by: the version, every source file of the package and what it decides with;
    `asked` whether gates outside the core were decided again. Raises OSError."""
    made = hashlib.sha256(f"{controller.__version__} {asked}".encode())
    for name in _DECIDING:
        with suppress(PackageNotFoundError):
            made.update(f"\n{name} {version(name)}".encode())
    made.update(f"\nzones {tzdata_version()}".encode())
    package = Path(controller.__file__).resolve().parent
    for path in sorted(package.rglob("*.py")):
        data = path.read_bytes()
        made.update(f"\n{path.relative_to(package).as_posix()} {len(data)}\n".encode())
        made.update(data)
    return "sha256:" + made.hexdigest()


class PastFile:
    """A cache file for one trust root and the rules of this package."""

    def __init__(self, path: Path, root: TrustRoot, rules: str) -> None:
        self._path, self._root, self._rules = path, root, rules
        self._kept: bytes | None = None

    def load(self) -> Past | None:
        """What was verified before; None when there is no file. Raises Invalid("cache-unusable") saying why the
        file does not count."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(f"it cannot be read ({error.strerror})") from error
        try:
            seen = os.fstat(handle)
            if not stat.S_ISREG(seen.st_mode) or seen.st_size > MOST_BYTES:
                raise _unusable("it is no file of this command's")
            if seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
                raise _unusable("others may write it")
            above = self._path.parent.stat()
            if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
                raise _unusable("others may write to its folder")
            data = os.read(handle, seen.st_size + 1)
        finally:
            os.close(handle)
        past = read_past(data, self._root, self._rules)
        self._kept = data
        return past

    def save(self, past: Past) -> None:
        """Replace the file at once; one that cannot be written is none. Raises OSError."""
        data = past_bytes(past, self._root, self._rules)
        if data == self._kept:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(self._path)
        finally:
            Path(name).unlink(missing_ok=True)
        self._kept = data


def _unusable(why: str) -> Invalid:
    return Invalid("cache-unusable", why)
