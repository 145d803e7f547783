"""Questions the core asks before it can decide: answered beside the pass, remembered for the next one.

Asking changes nothing outside, so nothing of it has to be recorded first. A slow or hung answer delays nobody:
the pass waits `patience` for quick ones and goes on without the rest; a late answer wakes the next pass.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any

from controller.core.gates import Question
from controller.errors import LockgateError
from controller.model.entry import format_time
from controller.ports import Clock
from controller.uses.view import Unanswered

Answerer = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Takes a question's payload; an error it can explain is raised as LockgateError."""

PATIENCE = 0.25
RETRY = (1.0, 60.0)
"""Seconds before a failed question is asked again: first and most, doubling between."""
MOST = {"publish": 900.0}
"""Seconds at most for types whose servers belong to others."""
KEPT = 4096
WORKERS = 8
"""For each type of question: a hanging registry keeps no gate waiting."""
UNHURRIED = frozenset({"tags", "replay", "time-stamp", "publish"})
"""Types no pass waits for."""
_PENDING = {"error": "answer-pending", "message": "no answer came yet"}

ASKED_AGAIN = frozenset({"resolve", "time-stamp", "publish"})
"""Types for which every error may pass: nobody is told no by them."""


class Questions:
    """Answers by question key. Thread-safe."""

    def __init__(self, answerers: Mapping[str, Answerer], clock: Clock, wake: Callable[[], None]) -> None:
        self._answerers = answerers
        self._clock = clock
        self._wake = wake
        self._pools = {name: ThreadPoolExecutor(WORKERS, thread_name_prefix=name) for name in (*answerers, "")}
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._failed: dict[str, tuple[float, float]] = {}
        self._since: dict[str, datetime] = {}
        """When a question was asked first, until it is answered."""
        self.version = 0
        """Grows with every answer."""

    def ask(self, questions: Iterable[Question], patience: float = PATIENCE) -> bool:
        """Start what is not running; wait up to `patience` seconds. Says whether any answer is new."""
        started = []
        for question in questions:
            with self._lock:
                due = self._failed.get(question.key, (0.0, 0.0))[0] <= self._clock.monotonic()
                if question.key in self._running or (
                    question.key in self._answers and not self._retry(question, due)
                ):
                    continue
                pool = self._pools.get(question.type) or self._pools[""]
                self._since.setdefault(question.key, self._clock.now())
                future = pool.submit(self._answer, question)
                self._running[question.key] = future
            # Every answer wakes: one that comes while this pass waits for another may not be seen by it.
            future.add_done_callback(lambda _: self._wake())
            if question.type not in UNHURRIED:
                started.append(future)
        return bool(wait(started, timeout=patience).done) if started else False

    def answers(self) -> dict[str, dict[str, Any]]:
        """Everything known now."""
        with self._lock:
            return dict(self._answers)

    def retry_at(self, keys: Iterable[str]) -> float | None:
        """On the monotonic clock: when the first of these questions, having failed, should be asked again.

        Questions that nobody asks any more and those being asked right now call for no look of their own.
        """
        with self._lock:
            return min(
                (self._failed[key][0] for key in keys if key in self._failed and key not in self._running),
                default=None,
            )

    @property
    def busy(self) -> bool:
        """Whether any question is being asked right now."""
        with self._lock:
            return bool(self._running)

    def unanswered(self, questions: Iterable[Question]) -> tuple[Unanswered, ...]:
        """Those of these questions that have no good answer: the error each last gave, or that none came yet."""
        found = []
        with self._lock:
            for question in questions:
                since = self._since.get(question.key)
                if since is not None:
                    last = self._answers.get(question.key, _PENDING) if question.key in self._failed else _PENDING
                    found.append(
                        Unanswered(
                            type=question.type,
                            release=str(question.payload.get("release", "")),
                            code=str(last["error"]),
                            message=str(last.get("said") or last["message"]),
                            cure=str(last.get("cure", "")),
                            since=format_time(since),
                        )
                    )
        return tuple(found)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _retry(self, question: Question, due: bool) -> bool:
        return question.key in self._failed and due

    def _answer(self, question: Question) -> None:
        answerer = self._answerers.get(question.type)
        if answerer is None:
            message = f"no plugin answers gates of type {question.type}"
            given: dict[str, Any] = {"error": "unavailable", "message": message}
        else:
            try:
                given = answerer(question.payload)
            except LockgateError as error:
                given = {"error": error.code, "message": str(error), "said": error.said, "cure": error.cure}
            except Exception as error:  # a plugin that fails cannot take the core with it: unknown, not allowed
                given = {"error": "unavailable", "message": f"{type(error).__name__}: {error}"}
        with self._lock:
            self._running.pop(question.key, None)
            self._answers[question.key] = given
            self.version += 1
            self._answers.move_to_end(question.key)
            failure = given.get("error")
            if (failure and question.type in ASKED_AGAIN) or failure == "unavailable":
                delay = min(
                    MOST.get(question.type, RETRY[1]), 2 * self._failed.get(question.key, (0.0, RETRY[0] / 2))[1]
                )
                self._failed[question.key] = (self._clock.monotonic() + delay, delay)
            else:
                self._failed.pop(question.key, None)
                self._since.pop(question.key, None)
            while len(self._answers) > KEPT:
                old, _ = self._answers.popitem(last=False)
                self._failed.pop(old, None)
                self._since.pop(old, None)
