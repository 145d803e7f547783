"""Artifacts while verifying: what entries name stands on the branch, and is what rendering gives again.

Rendering again needs the templates: where the entry's were those of another version of lockgate, only that the
artifacts stand, under their digests, is checked. What depends on the release and the environment alone is rendered
once for all runs of both, and only a run's plan for each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from controller.core.artifacts import Templates, artifacts_of, plan, release_files
from controller.core.parse import parse
from controller.core.run import Run
from controller.errors import LockgateError
from controller.ledger.canonical import digest
from controller.ledger.entry import artifact_digest, artifact_path
from controller.model.documents import Component, Document, Environment, ReleaseLock, Strategy
from controller.model.entry import Entry, Inputs, Ordered, Pin
from controller.model.order import PLAN
from controller.ports import Repo
from controller.settings import artifact_templates
from controller.uses.rules.subject import Problem

CODE = "artifact-mismatch"
_KEPT = 256
_D = TypeVar("_D", bound=Document)


class Artifacts:
    """What is known of artifacts along a walk: those seen to stand, and what was rendered from which documents."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._standing: set[str] = set()
        self._documents: dict[tuple[str, str], Document] = {}
        self._rendered: dict[tuple[str, ...], dict[str, bytes]] = {}

    def check(self, commit: str, entry: Entry, added: Mapping[str, bytes], run: Run | None) -> Iterator[Problem]:
        """What does not hold of one entry. `added` are the files of its commit, `run` its run before it, where
        that could be followed."""
        detail = entry.detail
        for path, data in added.items():
            if artifact_digest(path) == digest(data):
                self._standing.add(path)
        if not isinstance(detail, (Inputs, Ordered)):
            return
        if entry.predicate.how.get("artifacts") != detail.artifacts:
            yield CODE, entry.path, "the artifacts in its answer to `how` are not those of its detail"
        for name, value in sorted(detail.artifacts.items()):
            if not self._stands(commit, artifact_path(value)):
                yield CODE, artifact_path(value), f"{name} does not stand under the digest that the entry names"
        if isinstance(detail, Inputs):
            if PLAN not in detail.artifacts:
                yield CODE, entry.path, "the entry names no deploy plan"
            if run is not None and detail.templates == templates().digests:
                yield from self._again(entry, detail, run)
        elif run is not None and detail.artifacts != artifacts_of(run, detail.action):
            yield CODE, entry.path, "the orders carry other artifacts than the run's inputs name"

    def _stands(self, commit: str, path: str) -> bool:
        """Whether an artifact is in the commit's tree with the bytes of its name. What once stood is not read
        again: changing or removing a record is a finding of its own."""
        if path not in self._standing:
            file = self._repo.file(commit, path)
            if file is None or digest(self._repo.read(file.blob)) != artifact_digest(path):
                return False
            self._standing.add(path)
        return True

    def _again(self, entry: Entry, detail: Inputs, run: Run) -> Iterator[Problem]:
        try:
            again = self._render(detail, run)
        except (LockgateError, LookupError, TypeError) as error:
            why = error.what if isinstance(error, LockgateError) else str(error)
            yield CODE, entry.path, f"the artifacts cannot be rendered from what the run pinned: {why}"
            return
        for name in sorted(again.keys() | detail.artifacts.keys()):
            if name not in again or detail.artifacts.get(name) != digest(again[name]):
                yield CODE, entry.path, f"{name} is not what the run's pinned documents render to"

    def _render(self, detail: Inputs, run: Run) -> dict[str, bytes]:
        """Every artifact of a run from its pins. Raises LookupError, TypeError for pins that are not there."""
        pins = {pin.path: pin for pin in run.opened.pins}
        place = pins[f"environments/{run.environment}.yaml"]
        environment = self._document(place, Environment)
        strategy = self._document(pins[f"strategies/{environment.spec.strategy}.yaml"], Strategy)
        lock = self._document(detail.lock, ReleaseLock)
        used = [pin for path, pin in pins.items() if path.startswith("components/")]
        key = (run.opened.release, place.blob, detail.lock.blob, *(f"{pin.path} {pin.blob}" for pin in used))
        files = self._rendered.get(key)
        if files is None:
            components = {c.name: c for c in (self._document(pin, Component) for pin in used)}
            files = release_files(templates(), run.opened.release, environment, components, lock)
            _keep(self._rendered, key, files)
        own = plan(templates(), run, environment, strategy, lock, detail.lock, detail.stages, files)
        return {**files, PLAN: own}

    def _document(self, pin: Pin, model: type[_D]) -> _D:
        document = self._documents.get((pin.path, pin.blob))
        if document is None:
            document = parse(pin.path, self._repo.read(pin.blob)).document
            if document is not None:
                _keep(self._documents, (pin.path, pin.blob), document)
        if not isinstance(document, model):
            raise TypeError(f"{pin.path} is not what its folder says")
        return document


@cache
def templates() -> Templates:
    """The templates of this version, read when first asked for."""
    return Templates(artifact_templates())


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[key] = value
