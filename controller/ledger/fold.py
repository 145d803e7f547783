"""Folding: the state that entries add up to, and the derived files that hold it.

`apply` is the only way state changes, in the controller and in verification alike. Cost depends on what an
entry touches, never on the length of history: locks and completions are looked up by path when asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from controller.errors import Refused
from controller.ledger.canonical import canonical_plain
from controller.ledger.cursors import Cursors, ReplayAsked, gone_over, read_cursors
from controller.ledger.entry import instance, run_folder
from controller.ledger.marks import marked
from controller.ledger.members import writer_of
from controller.model.entry import (
    Accepted,
    CompletedRun,
    Deployed,
    Entry,
    EvidenceRestarted,
    Genesis,
    Inputs,
    LockMade,
    MainAcknowledged,
    MainRefused,
    Maybe,
    Opened,
    Pin,
    Replayed,
    RequestJudged,
    RolledBack,
    Sealed,
    Sha256,
    TagMoved,
    TargetResult,
    Time,
    Wire,
)
from controller.ports import Repo

HISTORY = 10
"""How many completed runs an environment remembers to go back to."""
CURSORS = "state/cursors.json"
MOVED = 256
"""How many moved tags are remembered, so that each is recorded once."""
_W = TypeVar("_W", bound=Wire)


class TargetState(Wire):
    """What a target runs as far as its agent reported it; no digest after an order that it did not answer.
    `healthy` is absent when not known."""

    manifest_digest: Maybe[Sha256]
    run: str
    healthy: Maybe[bool]


class LastRun(Wire):
    """The environment's newest run; `phase` is "open" until it is sealed."""

    run: str
    phase: str
    release: str
    slot: Maybe[Pin]


class EnvironmentState(Wire):
    """What an environment runs now, and the completed runs it can go back to (the last one runs now)."""

    environment: str
    release: str | None = None
    manifest_digest: Sha256 | None = None
    digests: dict[str, Sha256] = Field(default_factory=dict)
    run: str | None = None
    since: Time | None = None
    slot: Pin | None = None
    targets: dict[str, TargetState] = Field(default_factory=dict)
    history: tuple[CompletedRun, ...] = ()
    last_run: LastRun | None = None


class OpenRun(Wire):
    """A run that is not sealed: its folder, and what sealing will need of its first entries."""

    run: str
    environment: str
    path: str
    opened: Time
    mode: Literal["promotion", "rollback"]
    cause: Literal["promotion", "request"]
    release: str
    slot: Maybe[Pin]
    pins: tuple[Pin, ...] = ()
    lock: Pin | None = None
    manifest_digest: Sha256 | None = None
    digests: dict[str, Sha256] = Field(default_factory=dict)
    artifacts: dict[str, Sha256] = Field(default_factory=dict)


class Pointer(Wire):
    """`open/<environment>`: the open runs, oldest first (one, except while a newer one is being refused)."""

    runs: tuple[OpenRun, ...]


class LockRecord(Wire):
    """A lock that was made: the entry that recorded it (`event` is its path), and the file's digest."""

    index: int
    event: str
    release: str
    path: str
    manifest_digest: Sha256
    sha256: Sha256


class CompletedRecord(Wire):
    """The newest run that completed a manifest in an environment."""

    run: str
    release: str
    at: Time


@dataclass(frozen=True, slots=True)
class State:
    """Everything derived. `locks` and `completed` hold only what was written since the tree it was read from;
    older ones are looked up there by path."""

    cursors: Cursors = field(default_factory=Cursors)
    environments: Mapping[str, EnvironmentState] = field(default_factory=dict)
    open: Mapping[str, tuple[OpenRun, ...]] = field(default_factory=dict)
    locks: Mapping[str, LockRecord] = field(default_factory=dict)
    completed: Mapping[tuple[str, str], CompletedRecord] = field(default_factory=dict)

    def open_run(self, run: str) -> OpenRun | None:
        """The open run of this id, if it is open."""
        return next((item for runs in self.open.values() for item in runs if item.run == run), None)

    def forget_written(self) -> State:
        """This state once its locks and completions are in the tree."""
        return replace(self, locks={}, completed={}) if self.locks or self.completed else self


# --- paths -----------------------------------------------------------------------------------------------


def environment_path(environment: str) -> str:
    return f"state/{environment}.json"


def pointer_path(environment: str) -> str:
    return f"open/{environment}"


def lock_path(release: str) -> str:
    """`state/locks/<aa>/<release>.json`, sharded by the first byte of sha256(release)."""
    return f"state/locks/{hashlib.sha256(release.encode()).hexdigest()[:2]}/{release}.json"


def completed_path(environment: str, manifest_digest: str) -> str:
    """`state/completed/<environment>/<aa>/<hex>.json`, sharded by the digest's first byte."""
    name = manifest_digest.removeprefix("sha256:")
    return f"state/completed/{environment}/{name[:2]}/{name}.json"


# --- folding ---------------------------------------------------------------------------------------------


def apply(state: State, entry: Entry) -> State:
    """The state after one more entry; pure."""
    predicate, detail = entry.predicate, entry.detail
    step: dict[str, object] = {
        "index": predicate.index + 1,
        "rules": predicate.rules,
        "trust_version": predicate.observed.trust_version,
        "at": predicate.at,
        "log": marked(state.cursors.log, entry),
    }
    if predicate.run is not None and predicate.environment is not None:
        state, more = _apply_run(state, entry, predicate.run, predicate.environment)
        step |= more
    elif isinstance(detail, Genesis):
        step |= {"project": detail.project, "genesis": detail.genesis, "main": detail.genesis}
    elif isinstance(detail, Accepted):
        pending = (*state.cursors.pending, *detail.slots)
        step |= {"main": detail.tip, "refused": (), "pending": pending}
        if detail.acknowledged:
            step |= gone_over(state.cursors, detail.acknowledged)
    elif isinstance(detail, MainRefused):
        step |= {"refused": (*state.cursors.refused, detail)}
    elif isinstance(detail, MainAcknowledged):
        left = tuple(one for one in state.cursors.acknowledging if one.commit != detail.commit)
        step |= {"acknowledging": left, "acknowledged": (*state.cursors.acknowledged, detail)}
    elif isinstance(detail, RequestJudged):
        step |= {"requests": detail.commit}
        if detail.acknowledges is not None:
            valid = tuple(one for one in state.cursors.acknowledging if one.expires > predicate.at)
            step |= {"acknowledging": (*valid, detail.acknowledges)}
        if detail.accepted and detail.verb == "replay" and detail.run is not None:
            by = predicate.who[0].principal if predicate.who else ""
            asked = ReplayAsked(commit=detail.commit, run=detail.run, by=by, reason=detail.reason or "")
            step |= {"replays": (*state.cursors.replays, asked)}
    elif isinstance(detail, Replayed):
        step |= {"replays": tuple(one for one in state.cursors.replays if one.commit != detail.request)}
    elif isinstance(detail, EvidenceRestarted):
        state, more = _restarted(state, detail, entry)
        step |= more
    elif isinstance(detail, TagMoved):
        step |= {"moved": _moved(state, detail)}
    elif isinstance(detail, LockMade):
        record = LockRecord(
            index=predicate.index,
            event=entry.path,
            release=detail.release,
            path=detail.path,
            manifest_digest=detail.manifest_digest,
            sha256=detail.sha256,
        )
        state = replace(state, locks={**state.locks, detail.release: record})
    cursors = instance(Cursors, state.cursors.__dict__ | step)
    return State(cursors, state.environments, state.open, state.locks, state.completed)


def _restarted(state: State, detail: EvidenceRestarted, entry: Entry) -> tuple[State, dict[str, object]]:
    """What owners vouched for counts as recorded; verdicts up to the requests they saw count as given."""
    restart, index = detail.restart, entry.predicate.index
    locks = {
        lock.release: LockRecord(index=index, event=entry.path, **lock.model_dump(exclude={"components"}))
        for lock in restart.locks
    }
    state = replace(state, locks={**state.locks, **locks})
    return state, {"restarts": restart.number, "requests": restart.requests}


def _moved(state: State, detail: TagMoved) -> tuple[TagMoved, ...]:
    """One more; those of releases that no environment runs or can go back to are forgotten."""
    places = state.environments.values()
    reach = {place.release for place in places} | {done.release for place in places for done in place.history}
    return (*(m for m in state.cursors.moved if m.release in reach), detail)[-MOVED:]


def _apply_run(state: State, entry: Entry, run: str, environment: str) -> tuple[State, dict[str, object]]:
    detail, at = entry.detail, entry.predicate.at
    if isinstance(detail, Opened):
        return _open(state, detail, run, environment, at)
    runs = state.open.get(environment, ())
    place = next((i for i, item in enumerate(runs) if item.run == run), None)
    if place is None:
        raise Refused("run-not-open", f"an entry belongs to {run}, which is not open", where=entry.path)
    opened = runs[place]
    known: dict[str, object] = {}
    if isinstance(detail, Inputs):
        pins = opened.pins if detail.lock in opened.pins else (*opened.pins, detail.lock)
        known = {"lock": detail.lock, "manifest_digest": detail.manifest_digest, "pins": pins}
        known["artifacts"] = detail.artifacts
    if entry.predicate.what.digests and entry.predicate.what.digests != opened.digests:
        known["digests"] = entry.predicate.what.digests
    if known:
        opened = opened.model_copy(update=known)
        runs = (*runs[:place], opened, *runs[place + 1 :])
        state = replace(state, open={**state.open, environment: runs})
    if isinstance(detail, (Deployed, RolledBack)):
        state = _targets(state, environment, run, detail.results)
    elif isinstance(detail, Sealed):
        left = (*runs[:place], *runs[place + 1 :])
        still = {name: value for name, value in state.open.items() if name != environment}
        state = replace(state, open=still | {environment: left} if left else still)
        state = _seal(state, opened, detail.phase, at)
    return state, {}


def _open(
    state: State, detail: Opened, run: str, environment: str, at: datetime
) -> tuple[State, dict[str, object]]:
    opened = OpenRun(
        run=run,
        environment=environment,
        path=run_folder(environment, at, run),
        opened=at,
        mode=detail.mode,
        cause=detail.cause,
        release=detail.release,
        slot=detail.slot,
        pins=detail.pins,
    )
    here = state.environments.get(environment) or EnvironmentState(environment=environment)
    last = LastRun(run=run, phase="open", release=detail.release, slot=detail.slot)
    state = replace(
        state,
        open={**state.open, environment: (*state.open.get(environment, ()), opened)},
        environments={**state.environments, environment: here.model_copy(update={"last_run": last})},
    )
    step: dict[str, object] = {"runs": {**state.cursors.runs, environment: detail.number}}
    pending = state.cursors.pending
    change = (environment, detail.commit)
    reached = [i for i, item in enumerate(pending) if (item.environment, item.commit) == change]
    if reached:
        # Opening for a change also settles the older changes of the same slot: they were overtaken.
        step["pending"] = tuple(
            item for i, item in enumerate(pending) if item.environment != environment or i > reached[-1]
        )
    return state, step


def _targets(state: State, environment: str, run: str, results: tuple[TargetResult, ...]) -> State:
    here = state.environments.get(environment) or EnvironmentState(environment=environment)
    targets = dict(here.targets)
    for result in results:
        if result.order.rpartition("/")[2] == "check":
            continue
        before = targets.get(result.target)
        if result.result == "succeeded":
            targets[result.target] = TargetState(
                manifest_digest=result.manifest_digest, run=run, healthy=result.healthy
            )
        elif result.result == "unreported":
            # It may have done what it was told or not: what it runs is not known until it says so.
            targets[result.target] = TargetState(manifest_digest=None, run=run, healthy=None)
        elif before is not None:
            targets[result.target] = before.model_copy(update={"healthy": result.healthy})
    here = here.model_copy(update={"targets": targets})
    return replace(state, environments={**state.environments, environment: here})


def _seal(state: State, opened: OpenRun, phase: str, at: datetime) -> State:
    here = state.environments.get(opened.environment) or EnvironmentState(environment=opened.environment)
    update: dict[str, object] = {}
    if here.last_run is not None and here.last_run.run == opened.run:
        update["last_run"] = here.last_run.model_copy(update={"phase": phase})
    completed = state.completed
    if phase == "completed" and opened.manifest_digest is not None:
        history = _history(here.history, opened, opened.manifest_digest)
        update |= {
            "release": opened.release,
            "manifest_digest": opened.manifest_digest,
            "digests": opened.digests,
            "run": opened.run,
            "since": at,
            # A requested rollback was opened for the slot it takes back; what runs then is what its target named.
            "slot": opened.slot if opened.cause == "promotion" else history[-1].slot,
            "history": history,
        }
        record = CompletedRecord(run=opened.run, release=opened.release, at=at)
        completed = {**completed, (opened.environment, opened.manifest_digest): record}
    environments = {**state.environments, opened.environment: here.model_copy(update=update)}
    return replace(state, environments=environments, completed=completed)


def _history(history: tuple[CompletedRun, ...], opened: OpenRun, manifest_digest: str) -> tuple[CompletedRun, ...]:
    """A promotion is put on top, in the place of an earlier run of the same: what comes before is another release.
    A rollback takes off what is above the run it went back to."""
    if opened.mode == "rollback":
        for place in range(len(history) - 1, -1, -1):
            if history[place].manifest_digest == manifest_digest and history[place].release == opened.release:
                return history[: place + 1]
    done = CompletedRun(
        run=opened.run,
        release=opened.release,
        manifest_digest=manifest_digest,
        slot=opened.slot,
        pins=opened.pins,
        artifacts=opened.artifacts,
    )
    again = bool(history) and (history[-1].release, history[-1].manifest_digest) == (done.release, manifest_digest)
    return (*(history[:-1] if again else history), done)[-HISTORY:]


# --- derived files ---------------------------------------------------------------------------------------


def derived_files(before: State, after: State) -> dict[str, bytes | None]:
    """The files below open/ and state/ that differ between two states (None: removed)."""
    files: dict[str, bytes | None] = {}
    if after.cursors is not before.cursors:
        files[CURSORS] = writer_of(CURSORS, Cursors).write(after.cursors)
    if after.environments is not before.environments:
        for name, value in after.environments.items():
            if before.environments.get(name) is not value:
                files[environment_path(name)] = environment_file(value)
    if after.open is not before.open:
        for name, runs in after.open.items():
            if before.open.get(name) is not runs:
                files[pointer_path(name)] = canonical_plain(Pointer(runs=runs).wire())
        files |= {pointer_path(name): None for name in before.open if name not in after.open}
    if after.locks is not before.locks:
        for release, lock in after.locks.items():
            if before.locks.get(release) is not lock:
                files[lock_path(release)] = canonical_plain(lock.wire())
    if after.completed is not before.completed:
        for key, record in after.completed.items():
            if before.completed.get(key) is not record:
                files[completed_path(*key)] = canonical_plain(record.wire())
    return files


def environment_file(state: EnvironmentState) -> bytes:
    """The file of an environment's state."""
    return writer_of(environment_path(state.environment), EnvironmentState).write(state)


def load_state(repo: Repo, commit: str) -> State:
    """The state that a commit's derived files hold: one read per environment, none per run or release.

    Raises Refused("state-mismatch") when a file is missing or not in its form, and Stalled("rules-unknown").
    """
    file = repo.file(commit, CURSORS)
    if file is None:
        raise Refused("state-mismatch", "the derived state is missing", where=CURSORS)
    cursors = read_cursors(repo.read(file.blob), CURSORS)
    environments: dict[str, EnvironmentState] = {}
    pointers: dict[str, tuple[OpenRun, ...]] = {}
    for name in cursors.runs:
        here = _read(repo, commit, environment_path(name), EnvironmentState)
        if here is None:
            raise Refused("state-mismatch", "the derived state is missing", where=environment_path(name))
        environments[name] = here
        pointer = _read(repo, commit, pointer_path(name), Pointer)
        if pointer is not None:
            pointers[name] = pointer.runs
    return State(cursors, environments, pointers)


def lookup_lock(repo: Repo, commit: str, release: str) -> LockRecord | None:
    """The lock that evidence recorded for a release, as of an evidence commit."""
    return _read(repo, commit, lock_path(release), LockRecord)


def lookup_completed(repo: Repo, commit: str, environment: str, manifest_digest: str) -> CompletedRecord | None:
    """The newest run that completed a manifest in an environment, as of an evidence commit."""
    return _read(repo, commit, completed_path(environment, manifest_digest), CompletedRecord)


def _read(repo: Repo, commit: str, path: str, model: type[_W]) -> _W | None:
    file = repo.file(commit, path)
    if file is None:
        return None
    try:
        return model.model_validate_json(repo.read(file.blob))
    except ValidationError as error:
        raise Refused("state-mismatch", "a derived file is not in its form", where=path) from error
