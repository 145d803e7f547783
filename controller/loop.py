"""Wake, pass, wait: what drives the reconciler, and what it says of itself when Git cannot be written."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from controller.crashpoints import reached
from controller.errors import Conflict, LockgateError, Unavailable
from controller.model.entry import format_time
from controller.ports import Clock, Repo
from controller.reconcile.reconciler import Outcome, Reconciler
from controller.uses.view import Unanswered

RACES = 16
"""Lost races in a row before the loop waits like after any other failure."""
BACKOFF = (0.2, 30.0)
"""Seconds after the first failure, and at most."""
AWAY = {"origin-unavailable": 5.0}
"""Seconds at most after failures that need nobody to mend them: what was away comes back by itself."""
BEAT = 1.0
"""Seconds between two signs of life."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the controller is: the code and message of what keeps it from working, if anything does, and what it
    asks for in vain while it works."""

    state: str
    code: str
    message: str
    unanswered: tuple[Unanswered, ...] = ()


class HealthFile:
    """`health.json` in the state directory: what `status` reads when Git cannot tell."""

    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._path = state_dir / "health.json"
        self._clock = clock
        self.now = Health("starting", "", "")
        self.once = False
        """Whether the controller only passes by, so that its absence means nothing."""

    def set(self, health: Health) -> None:
        """Write when it changed. A full disk cannot be told to a file; the listening address still says it."""
        if health == self.now:
            return
        self.now = health
        try:
            # Replaced as a whole: whoever reads it meets the former state or this one, never half of it.
            fresh = self._path.with_name(self._path.name + ".new")
            fresh.write_text(json.dumps(self.view()) + "\n")
            fresh.replace(self._path)
        except OSError:
            return

    def view(self) -> dict[str, Any]:
        """The health as JSON."""
        return {
            "state": self.now.state,
            "code": self.now.code,
            "message": self.now.message,
            "at": format_time(self._clock.now()),
            "once": self.once,
            "unanswered": [asdict(one) for one in self.now.unanswered],
        }


class Loop:
    """Runs passes until stopped; no failure ends it, every failure is said."""

    def __init__(
        self,
        reconciler: Reconciler,
        repo: Repo,
        clock: Clock,
        health: HealthFile,
        *,
        poll: timedelta,
        maintain: Callable[[], object] = lambda: None,
    ) -> None:
        self._reconciler = reconciler
        self._repo = repo
        self._clock = clock
        self._health = health
        self._poll = poll
        self._maintain = maintain
        self._stop = threading.Event()
        self._failures = 0
        self._most = BACKOFF[1]
        self._races = 0
        self._log = structlog.get_logger("lockgate")

    def stop(self) -> None:
        """End `run` after the pass that is under way."""
        self._stop.set()
        self._repo.wake()

    def run(self) -> None:
        """Pass after pass until `stop`."""
        threading.Thread(target=self._live, name="heartbeat", daemon=True).start()
        while not self._stop.is_set():
            outcome = self.pass_once()
            if outcome is not None and not outcome.idle:
                continue
            if outcome is not None:
                self._upkeep()
            if not self._stop.is_set():
                self._repo.wait(self.timeout(outcome))

    def _live(self) -> None:
        """Tell that the process lives, so that a gap is seen wherever it comes."""
        self._reconciler.attendance.beat(self._clock.now())
        while not self._stop.wait(BEAT):
            self._reconciler.attendance.beat(self._clock.now())

    def run_until_quiet(self) -> LockgateError | None:
        """Passes until nothing is left to do now (`--once`). Returns the error that kept it from going on."""
        self._reconciler.attendance.passes_by()
        questions = self._reconciler.parts.questions
        while not self._stop.is_set():
            try:
                outcome = self._reconciler.reconcile()
            except Conflict:
                continue
            except LockgateError as error:
                return error
            self._health.set(Health("running", "", "", self._reconciler.unanswered()))
            if outcome.idle and not questions.busy:
                return None
            if outcome.idle:
                self._repo.wait(0.05)
        return None

    def pass_once(self) -> Outcome | None:
        """One pass; None when it failed and the failure was said."""
        try:
            outcome = self._reconciler.reconcile()
        except Conflict as error:
            self._races += 1
            self._log.info("race", code=error.code, message=str(error))
            if self._races < RACES:
                return Outcome(False, None)
            self._failed(error)
            return None
        except LockgateError as error:
            self._failed(error)
            return None
        except Exception as error:  # the loop outlives a defect of ours; it is said, and tried again
            self._log.exception("defect")
            self._failed(Unavailable("internal-error", f"{type(error).__name__}: {error}"))
            return None
        self._failures = self._races = 0
        self._health.set(Health("running", "", "", self._reconciler.unanswered()))
        for entry in outcome.recorded:
            self._log.info("recorded", kind=entry.kind, summary=entry.predicate.summary, commit=entry.commit)
        if not outcome.idle:
            reached("pass-after")
        return outcome

    def _upkeep(self) -> None:
        """Maintenance never ends the loop: it is tried again after the next quiet pass."""
        try:
            self._maintain()
        except Exception:
            self._log.exception("maintenance")

    def _failed(self, error: LockgateError) -> None:
        """Say a failure: to the log once, to the health file always."""
        self._failures += 1
        self._most = AWAY.get(error.code, BACKOFF[1])
        state = "unavailable" if isinstance(error, Unavailable | Conflict) else "stalled"
        if self._failures == 1 or self._health.now.code != error.code:
            self._log.error(state, code=error.code, message=str(error))
        self._health.set(Health(state, error.code, str(error), self._reconciler.unanswered()))

    def timeout(self, outcome: Outcome | None) -> float:
        """Seconds to wait after a pass: to the next look, at most one poll. After failures (None) they double;
        with jitter."""
        if outcome is None:
            seconds = min(self._most, BACKOFF[0] * 2.0 ** min(self._failures, 10))
        else:
            seconds = self._poll.total_seconds()
        seconds *= random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret
        if outcome is not None and outcome.next_look is not None:
            seconds = min(seconds, (outcome.next_look - self._clock.now()).total_seconds())
        return max(0.0, seconds)
