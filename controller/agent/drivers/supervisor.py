"""Watches processes without polling them, and calls back when one ends or its restart is due."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from controller.agent.drivers import processes
from controller.agent.drivers.processes import Proc

FIRST_DELAY = 0.2
LAST_DELAY = 30.0
STEADY_AFTER = 60.0
"""Seconds that a service must run until its next crash counts as the first again."""


class Supervisor:
    """One thread that sleeps on pidfds. `restart(name)` is called on it when a crashed service is due."""

    def __init__(self, restart: Callable[[str], None], crashed: Callable[[str, float], None]) -> None:
        self._restart = restart
        self._crashed = crashed
        self._lock = threading.Lock()
        self._watched: dict[str, Proc] = {}
        self._fds: dict[int, tuple[str, Proc]] = {}
        self._due: dict[str, float] = {}
        self._delay: dict[str, float] = {}
        self._since: dict[str, float] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the processes go on."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(5)

    def watch(self, services: dict[str, Proc]) -> None:
        """Watch exactly these processes from now on; one that is dead already counts as crashed."""
        with self._lock:
            for name, proc in services.items():
                if self._watched.get(name) != proc:
                    self._since[name] = time.monotonic()
                    self._due.pop(name, None)
            self._watched = dict(services)
            for memory in (self._due, self._delay, self._since):
                for name in [name for name in memory if name not in services]:
                    del memory[name]
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while not self._stopping:
            poller = self._sync()
            now = time.monotonic()
            with self._lock:
                timeout = min((at - now for at in self._due.values()), default=None)
            events = poller.poll(None if timeout is None else max(0.0, timeout) * 1000 + 1)
            for fd, _ in events:
                if fd == self._wake:
                    os.eventfd_read(self._wake)
                elif fd in self._fds:
                    name, proc = self._fds.pop(fd)
                    os.close(fd)
                    self._ended(name, proc)
            self._restart_due()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _sync(self) -> select.poll:
        """Hold a pidfd for each watched process and for no other."""
        with self._lock:
            watched = dict(self._watched)
            due = set(self._due)
        for fd, (name, proc) in list(self._fds.items()):
            if watched.get(name) != proc:
                os.close(fd)
                del self._fds[fd]
        held = {name for name, _ in self._fds.values()}
        for name, proc in watched.items():
            if name in held or name in due:
                continue
            opened = processes.open_pidfd(proc)
            if opened is None:
                self._ended(name, proc)
            else:
                self._fds[opened] = (name, proc)
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        for fd in self._fds:
            poller.register(fd, select.POLLIN)
        return poller

    def _ended(self, name: str, proc: Proc) -> None:
        processes.reap(proc)
        now = time.monotonic()
        with self._lock:
            if self._watched.get(name) != proc:
                return
            steady = now - self._since.get(name, now) > STEADY_AFTER
            delay = FIRST_DELAY if steady else self._delay.get(name, FIRST_DELAY)
            self._delay[name] = min(delay * 2, LAST_DELAY)
            self._due[name] = now + delay
        self._crashed(name, delay)

    def _restart_due(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [name for name, at in self._due.items() if at <= now]
            for name in due:
                del self._due[name]
        for name in due:
            self._restart(name)
