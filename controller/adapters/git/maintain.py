"""Keeping the number of packs small, beside the run and never on its path."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

from controller.adapters.git.program import git
from controller.adapters.git.store import ObjectStore
from controller.errors import LockgateError

_PACKS: Final = 128
_TIMEOUT: Final = 1800.0
_REPACK: Final = (
    "-c",
    "pack.threads=1",
    "-c",
    "pack.windowMemory=64m",
    "repack",
    "-d",
    "-q",
    "--geometric=2",
    "--no-write-bitmap-index",
    # Deltas that exist are kept; looking for new ones costs more than the appends themselves. `git gc` may.
    "--window=0",
)


class Maintenance:
    """Geometric repacks by the git program: each object is rewritten a logarithmic number of times.

    Safe while others read: packs are removed only after their successor is in place, and a reader that loses one
    looks again (`ObjectStore.raw`). Nothing unreachable is dropped, so objects stored ahead of their ref stay.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._thread: threading.Thread | None = None

    def due(self) -> bool:
        """Whether enough packs have gathered."""
        folder = self._store.gitdir / "objects" / "pack"
        try:
            with os.scandir(folder) as entries:
                return sum(1 for entry in entries if entry.name.endswith(".idx")) > _PACKS
        except OSError:
            return False

    def run(self, *, wait: bool = False) -> bool:
        """Start a repack when one is due and none runs; True if one was started.

        Packs that were taken away are let go of: libgit2 holds each that it ever opened.
        """
        if self._store.written > _PACKS:
            self._store.refresh()
        running = self._thread is not None and self._thread.is_alive()
        started = not running and self.due()
        if started:
            self._thread = threading.Thread(target=self._repack, name="git-repack", daemon=True)
            self._thread.start()
        if wait and self._thread is not None:
            self._thread.join()
        return started

    def _repack(self) -> None:
        # A repack that fails leaves the packs as they are: it is due again at the next quiet moment.
        with contextlib.suppress(LockgateError):
            git(Path(self._store.gitdir), _REPACK, timeout=_TIMEOUT, nice=True)

    def close(self) -> None:
        """Let a repack that runs come to its end (a killed one leaves temporary files)."""
        if self._thread is not None:
            self._thread.join(timeout=60.0)
