"""Waking up when the origin's refs change."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

_STEP_MS = 2
_DEBOUNCE_MS = 4
_TIMEOUT_MS = 5_000


class Waker:
    """An event with one waiter: set by wake() or by a watched change, consumed by wait()."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wait(self, timeout: float) -> bool:
        """True as soon as something happened since the last wait(), False after `timeout` seconds."""
        happened = self._event.wait(max(timeout, 0.0))
        # Cleared before the caller observes: what comes in between wakes the next wait.
        self._event.clear()
        return happened

    def wake(self) -> None:
        """End the wait that runs, or the next one."""
        self._event.set()

    def close(self) -> None:
        """Stop watching and end a wait that runs."""
        self._event.set()


class RefWatcher(Waker):
    """Watches `refs/` of a local git directory; every push leaves a trace there, packed or not.

    The rust backend is used directly, because its constructor returns with the watch in place; the generator of
    watchfiles would establish it at an unknown later moment, and a push in between would be lost.
    """

    def __init__(self, gitdir: Path) -> None:
        super().__init__()
        self._refs = gitdir / "refs"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def wait(self, timeout: float) -> bool:
        """See Waker. The first call starts the watch and returns True: what came before it was not watched."""
        if self._thread is None and not self._stop.is_set():
            from watchfiles._rust_notify import RustNotify  # slow to load, and short commands wait for nothing

            notify = RustNotify([str(self._refs)], False, False, 0, True, False)
            self._thread = threading.Thread(target=self._run, args=(notify,), name="git-watch", daemon=True)
            self._thread.start()
            self._event.clear()
            return True
        return super().wait(timeout)

    def _run(self, notify: RustNotify) -> None:
        while not self._stop.is_set():
            found = notify.watch(_DEBOUNCE_MS, _STEP_MS, _TIMEOUT_MS, self._stop)
            if isinstance(found, set):
                self._event.set()
        notify.close()

    def close(self) -> None:
        """See Waker."""
        self._stop.set()
        super().close()
        if self._thread is not None:
            self._thread.join(timeout=2.0)


def watcher(gitdir: Path | None) -> Waker:
    """A watcher for a local origin; for a remote one a Waker that only sleeps interruptibly."""
    return Waker() if gitdir is None else RefWatcher(gitdir)
