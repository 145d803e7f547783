"""Statements that the controller has not acknowledged: kept, resent, bounded."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from controller.model.order import Obstacle

RESEND_SECONDS = 5.0
MAX_SAMPLES = 2000
"""Samples kept while nobody takes them; the oldest go first. Reports are never dropped."""
BATCH = 200


@dataclass(slots=True)
class _Item:
    envelope: dict[str, Any]
    report: bool
    sent: float | None = None


class Outbox:
    """Thread-safe; `due` is where the sending thread sleeps. `obstacle` goes out with every poll."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, _Item] = OrderedDict()
        self._condition = threading.Condition()
        self._samples = 0
        self._closed = False
        self._obstacle: Obstacle | None = None
        self._told: Obstacle | None = None

    @property
    def obstacle(self) -> Obstacle | None:
        """What the order in hand waits for."""
        return self._obstacle

    @obstacle.setter
    def obstacle(self, obstacle: Obstacle | None) -> None:
        with self._condition:
            self._obstacle = obstacle
            self._condition.notify_all()

    def add(self, digest: str, envelope: dict[str, Any], *, report: bool) -> None:
        """Put a statement in; one that is there already will be sent again now."""
        with self._condition:
            present = self._items.get(digest)
            if present is not None:
                present.sent = None
            else:
                self._items[digest] = _Item(envelope, report)
                self._samples += not report
            if self._samples > MAX_SAMPLES:
                oldest = next(key for key, item in self._items.items() if not item.report)
                del self._items[oldest]
                self._samples -= 1
            self._condition.notify_all()

    def acknowledge(self, digests: Iterable[str]) -> list[str]:
        """Forget statements; returns which of them were reports."""
        reports = []
        with self._condition:
            for digest in digests:
                item = self._items.pop(digest, None)
                if item is not None:
                    self._samples -= not item.report
                    if item.report:
                        reports.append(digest)
            return reports

    def due(self) -> list[tuple[str, dict[str, Any]]] | None:
        """Block until something must be sent (or sent again), then return it: no statement where only the obstacle
        is another. None once closed."""
        with self._condition:
            while not self._closed:
                now = time.monotonic()
                ready = [
                    (digest, item.envelope)
                    for digest, item in self._items.items()
                    if item.sent is None or now - item.sent >= RESEND_SECONDS
                ]
                if ready or self._obstacle != self._told:
                    return ready[:BATCH]
                oldest = min((item.sent or 0.0 for item in self._items.values()), default=None)
                self._condition.wait(None if oldest is None else max(0.05, oldest + RESEND_SECONDS - now))
            return None

    def sent(self, digests: Iterable[str], obstacle: Obstacle | None) -> None:
        """Note that these went out, and the obstacle; statements without acknowledgement will go again."""
        now = time.monotonic()
        with self._condition:
            self._told = obstacle
            for digest in digests:
                if digest in self._items:
                    self._items[digest].sent = now

    def close(self) -> None:
        """Let `due` return."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
