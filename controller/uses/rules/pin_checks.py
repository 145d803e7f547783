"""What a run pins, while verifying: main's own documents, all that deciding needs, and inputs that follow.

Without this a run could leave out its environment, and with it the gates and approvals that the document asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TypeVar

from controller.core.approvals import approval_subject
from controller.core.inputs import document_input
from controller.core.parse import parse
from controller.core.rollout import DEFAULT_DEADLINE, order_targets, stage_deadline, stages_for
from controller.core.run import Run
from controller.errors import LockgateError
from controller.ledger.canonical import canonical, digest
from controller.model.documents import Document, Environment, Release, ReleaseLock, Strategy
from controller.model.entry import Entry, Inputs, Opened, Ordered, Pin
from controller.model.lock import release_digest
from controller.ports import Repo
from controller.uses.rules.subject import Problem

CODE = "pin-mismatch"
INPUTS = "inputs-mismatch"
_BEFORE = "previous"
"""The input that says what ran before, as the pass saw it; nothing is decided from it."""
_KEPT = 512
_D = TypeVar("_D", bound=Document)


class _Lacks(Exception):
    """Something that the run needs is not pinned, or is not what its path says."""


@dataclass
class _Read:
    """A pinned file, read once for all runs that pin it: its document and the digest of its bytes."""

    document: Document | None
    sha256: str

    @cached_property
    def input(self) -> str | None:
        """The digest of the input file that a run makes of it."""
        document = self.document
        return digest(canonical(document_input(document))) if document is not None else None

    @cached_property
    def release(self) -> str | None:
        """The digest that the lock of a release answers to."""
        return release_digest(self.document) if isinstance(self.document, Release) else None


class Pinned:
    """What is known of pinned documents along a walk."""

    def __init__(self, repo: Repo, project: str) -> None:
        self._repo = repo
        self._project = project
        self._documents: dict[tuple[str, str], _Read] = {}
        self._standing: dict[tuple[str, str], str | None] = {}

    def check(self, entry: Entry, run: Run | None) -> Iterator[Problem]:
        """What does not hold of an `opened`, `inputs` or `ordered` entry; `run` is its run before it."""
        detail = entry.detail
        try:
            if isinstance(detail, Opened):
                for pin in detail.pins:
                    self._is_mains(entry, pin)
                self._complete(entry.predicate.environment or "", detail)
            elif isinstance(detail, Inputs) and run is not None:
                self._is_mains(entry, detail.lock)
                yield from self._follow(entry, detail, run)
            elif isinstance(detail, Ordered) and run is not None:
                yield from self._in_time(entry, detail, run)
        except _Lacks as error:
            yield CODE, entry.path, str(error)
        except LockgateError as error:
            yield CODE, entry.path, f"what the run pins cannot be read: {error.what}"

    def _is_mains(self, entry: Entry, pin: Pin) -> None:
        main = entry.predicate.observed.main or ""
        place = (main, pin.path)
        if place not in self._standing:
            file = self._repo.file(main, pin.path) if main else None
            if len(self._standing) >= _KEPT:
                self._standing.clear()
            self._standing[place] = file.blob if file is not None else None
        if self._standing[place] != pin.blob:
            raise _Lacks(f"{pin.path} is pinned as it is not on the main that the entry was made from")
        if self._read(pin).sha256 != pin.sha256:
            raise _Lacks(f"{pin.path} is pinned under another digest than its own")

    def _complete(self, environment: str, opened: Opened) -> None:
        """Everything that decides the run is pinned."""
        pins = {pin.path: pin for pin in opened.pins}
        place = self._of(pins, f"environments/{environment}.yaml", Environment)
        self._of(pins, f"strategies/{place.spec.strategy}.yaml", Strategy)
        release = self._of(pins, f"releases/{opened.release}.yaml", Release)
        for path in (
            *(f"policies/{name}.yaml" for name in place.spec.gate_names),
            *(f"components/{name}.yaml" for name in release.spec.components),
        ):
            if path not in pins:
                raise _Lacks(f"the run does not pin {path}, which decides it")

    def _follow(self, entry: Entry, detail: Inputs, run: Run) -> Iterator[Problem]:
        pins = {pin.path: pin for pin in run.opened.pins}
        place = self._of(pins, f"environments/{run.environment}.yaml", Environment)
        strategy_path = f"strategies/{place.spec.strategy}.yaml"
        strategy = self._of(pins, strategy_path, Strategy)
        release_path = f"releases/{run.opened.release}.yaml"
        self._of(pins, release_path, Release)
        lock = self._read(detail.lock).document
        if not isinstance(lock, ReleaseLock) or lock.spec.release_digest != self._read(pins[release_path]).release:
            yield "lock-mismatch", entry.path, "the lock is not of the release that the run pinned"
            return
        pinned = {
            "release": pins[release_path],
            "lock": detail.lock,
            "environment": pins[f"environments/{run.environment}.yaml"],
            "strategy": pins[strategy_path],
        }
        for name in sorted(pinned.keys() | detail.files.keys() - {_BEFORE}):
            if name not in pinned or detail.files.get(name) != self._read(pinned[name]).input:
                yield INPUTS, entry.path, f"the input {name} is not what the run pinned"
        agents = {path[len("agents/") : -len(".yaml")] for path in pins if path.startswith("agents/")}
        ordered = order_targets(run.opened.commit, agents)
        expected = ordered if run.opened.mode == "promotion" else tuple(t for t in ordered if t in detail.targets)
        if detail.targets != expected:
            yield INPUTS, entry.path, "the targets are not the pinned agents in the order of the promotion"
        if detail.stages != stages_for(strategy, run.opened.mode, detail.targets):
            yield INPUTS, entry.path, "the stages are not those of the pinned strategy"
        subject = approval_subject(
            project=self._project,
            promotion_commit=run.opened.commit,
            slot_blob=run.opened.slot.blob if run.opened.slot else "",
            lock_sha256=detail.lock.sha256,
            environment_blob=pins[f"environments/{run.environment}.yaml"].blob,
            strategy_blob=pins[strategy_path].blob,
            policy_blobs=[pins[f"policies/{name}.yaml"].blob for name in place.spec.gate_names],
            trust_version=entry.predicate.observed.trust_version,
            targets=detail.targets,
        )
        if detail.approval_subject != subject:
            yield INPUTS, entry.path, "the approval subject is not over what the run pinned"

    def _in_time(self, entry: Entry, detail: Ordered, run: Run) -> Iterator[Problem]:
        lasts = self._time_for(detail, run) if run.opened.mode == "promotion" else DEFAULT_DEADLINE
        if detail.deadline != entry.at + lasts:
            yield CODE, entry.path, "the orders' deadline is not what the pinned strategy gives"

    def _time_for(self, detail: Ordered, run: Run) -> timedelta:
        """How long the orders of a promotion may take."""
        pins = {pin.path: pin for pin in run.opened.pins}
        place = self._of(pins, f"environments/{run.environment}.yaml", Environment)
        strategy = self._of(pins, f"strategies/{place.spec.strategy}.yaml", Strategy)
        return stage_deadline(strategy, min(detail.stage, len(strategy.spec.stages) - 1))

    def _of(self, pins: dict[str, Pin], path: str, model: type[_D]) -> _D:
        if path not in pins:
            raise _Lacks(f"the run does not pin {path}, which decides it")
        document = self._read(pins[path]).document
        if not isinstance(document, model):
            raise _Lacks(f"{path} is not what its folder says")
        return document

    def _read(self, pin: Pin) -> _Read:
        key = (pin.path, pin.blob)
        if key not in self._documents:
            data = self._repo.read(pin.blob)
            if len(self._documents) >= _KEPT:
                self._documents.clear()
            self._documents[key] = _Read(parse(pin.path, data).document, digest(data))
        return self._documents[key]
