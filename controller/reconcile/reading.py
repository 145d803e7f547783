"""Read: from commits to documents. Changed blobs only; parsed values survive a restart in a cache."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from controller.core.demand import Demand
from controller.core.parse import Parsed, parse, reads
from controller.core.validate import assemble
from controller.core.world import RunDocuments, Target
from controller.model.entry import CompletedRun, Pin
from controller.model.history import TreeFile
from controller.model.intent import Intent
from controller.ports import Repo
from controller.uses.layout import demand_at

KEPT = 4096
"""How many pinned documents are kept parsed."""


AT_ONCE = 512
"""Files read from the cache together: enough for speed, few enough for memory."""


class Cache(Protocol):
    """Bytes by key, kept over a restart; losing it only costs time."""

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]: ...
    def put_many(self, values: Mapping[str, bytes]) -> bool: ...


class Reader:
    """Intents of commits, each made from the one before it."""

    def __init__(self, repo: Repo, cache: Cache | None = None) -> None:
        self._repo = repo
        self._cache = cache
        self._files: dict[str, tuple[str, Parsed]] = {}
        self._intent: Intent | None = None
        self._parsed: dict[tuple[str, str], Parsed] = {}
        self._demands: tuple[str, dict[str, Demand]] = ("", {})

    def intent(self, commit: str) -> Intent:
        """The intent of `commit`: every document, or every diagnostic."""
        if self._intent is not None and self._intent.commit == commit:
            return self._intent
        files = dict(self._files)
        if self._intent is None:
            files = self._parse(self._repo.files(commit))
        else:
            changes = self._repo.changes(self._intent.commit, commit)
            for change in changes:
                files.pop(change.path, None)
            files |= self._parse((c.path, c.new) for c in changes if c.new is not None)
        self._intent = assemble(commit, files, self._intent)
        self._files = files
        return self._intent

    def demands(self, intent: Intent) -> Mapping[str, Demand]:
        """The approvers' links that the layouts beside an intent demand, by environment."""
        if self._demands[0] != intent.commit:
            asked = {name: demand_at(self._repo, intent.commit, name) for name in intent.environments}
            self._demands = intent.commit, {name: one for name, one in asked.items() if one is not None}
        return self._demands[1]

    def document(self, pin: Pin) -> Any:
        """The document of a pinned blob."""
        key = (pin.path, pin.blob)
        if key not in self._parsed:
            if len(self._parsed) >= KEPT:
                self._parsed.clear()  # what open runs pin is read again; what is gone is not kept for ever
            self._parsed[key] = parse(pin.path, self._repo.read(pin.blob))
        return self._parsed[key].document

    def _parse(self, files: Iterable[tuple[str, TreeFile]]) -> dict[str, tuple[str, Parsed]]:
        wanted = iter([(path, file) for path, file in files if reads(path, file.mode)])
        found: dict[str, tuple[str, Parsed]] = {}
        while some := list(itertools.islice(wanted, AT_ONCE)):
            self._parse_some({f"{file.blob}:{file.mode:o}:{path}": (path, file) for path, file in some}, found)
        return found

    def _parse_some(self, keys: Mapping[str, tuple[str, TreeFile]], found: dict[str, tuple[str, Parsed]]) -> None:
        cached = self._cache.get_many(keys) if self._cache is not None else {}
        fresh: dict[str, bytes] = {}
        for key, (path, file) in keys.items():
            parsed = _unpickle(cached.get(key))
            if parsed is None:
                data = self._repo.read(file.blob) if file.mode in (0o100644, 0o100755) else b""
                parsed = parse(path, data, file.mode)
                fresh[key] = pickle.dumps(parsed)
            found[path] = (file.blob, parsed)
        if fresh and self._cache is not None:
            self._cache.put_many(fresh)


def _unpickle(data: bytes | None) -> Parsed | None:
    """A cached value. The cache is the controller's own file, keyed by program version, and checksummed."""
    if data is None:
        return None
    try:
        value = pickle.loads(data)  # noqa: S301 - written by this controller only, see above
    except Exception:  # a cache never fails a pass: what cannot be read is parsed again
        return None
    return value if isinstance(value, Parsed) else None


def target_of(documents: RunDocuments) -> Target:
    """What a run's deploy orders carry."""
    assert documents.lock is not None
    return Target(
        release=documents.release.metadata.name,
        manifest_digest=documents.lock.spec.manifest_digest,
        lock=documents.lock,
        components=documents.components,
        variables=documents.environment.spec.variables,
    )


def previous_target(document: Callable[[Pin], Any], completed: CompletedRun) -> Target:
    """What a rollback's orders carry: the lock and components that the completed run executed."""
    by_path = {pin.path: pin for pin in completed.pins}
    components = {
        path.removeprefix("components/").removesuffix(".yaml"): document(pin)
        for path, pin in by_path.items()
        if path.startswith("components/")
    }
    environment = next(document(pin) for path, pin in by_path.items() if path.startswith("environments/"))
    return Target(
        release=completed.release,
        manifest_digest=completed.manifest_digest,
        lock=document(by_path[f"releases/{completed.release}.lock.yaml"]),
        components=components,
        variables=environment.spec.variables,
    )
