"""What was parsed out of blobs, kept over a restart: a cache that may be deleted at any time.

Keys are blob ids, values bytes; both hold for one parser version. Nothing here is needed for correctness: every
failure of the file is answered by doing without it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS cache(version TEXT, key TEXT, value BLOB, sum BLOB, PRIMARY KEY(version, key))"
    " WITHOUT ROWID"
)
_CHUNK: Final = 500
_SUM: Final = 8
_SPOILT: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_SCHEMA", "SQLITE_MISMATCH"})


def _sum(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_SUM).digest()


class BlobCache:
    """A sqlite file mapping (parser version, key) to bytes. One writer; safe to delete while closed."""

    def __init__(self, path: Path, version: str) -> None:
        self._path = path
        self._version = version
        self._db: sqlite3.Connection | None = None
        for _ in range(2):
            if self._open():
                break
            self._delete()

    def _open(self) -> bool:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self._path, timeout=1.0, check_same_thread=False, isolation_level=None)
        except (OSError, sqlite3.Error):
            return False
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(_SCHEMA)
            db.execute("SELECT version, key, value, sum FROM cache LIMIT 1").fetchall()
            db.execute("DELETE FROM cache WHERE version <> ?", (self._version,))
        except sqlite3.Error as error:
            db.close()
            return error.sqlite_errorname not in _SPOILT
        self._db = db
        return True

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            try:
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            except OSError:
                return

    def _failed(self, error: sqlite3.Error) -> None:
        """A spoilt file is rebuilt; anything else (full disk, lock, read-only) is passed over."""
        if error.sqlite_errorname in _SPOILT or error.sqlite_errorname.startswith("SQLITE_CORRUPT"):
            self.close()
            self._delete()
            self._open()

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values that are known, of `keys`."""
        found: dict[str, bytes] = {}
        wanted = iter(keys)
        while self._db is not None and (chunk := list(islice(wanted, _CHUNK))):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, value, sum FROM cache WHERE version = ? AND key IN ({marks})"  # noqa: S608
            try:
                rows = self._db.execute(query, (self._version, *chunk)).fetchall()
            except sqlite3.Error as error:
                self._failed(error)
                continue
            found.update((key, value) for key, value, check in rows if _sum(value) == check)
        return found

    def put_many(self, values: Mapping[str, bytes]) -> bool:
        """Remember `values`; False when they could not be (the caller goes on without)."""
        if self._db is None or not values:
            return not values
        rows = [(self._version, key, value, _sum(value)) for key, value in values.items()]
        try:
            with self._db:  # committed at the end, taken back on any error
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO cache VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None
