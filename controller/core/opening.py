"""From a changed promotion slot to an open run, or to the recorded reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from controller.core.astray import astray, target_of_rollback
from controller.core.desk import Desk
from controller.core.run import Run
from controller.core.world import RunDocuments
from controller.ledger.fold import EnvironmentState
from controller.model.entry import CompletedRun, Opened, Pin, Sealed, SlotChange
from controller.model.intent import Intent, Loaded
from controller.model.lock import release_digest


def open_runs(desk: Desk) -> None:
    """Open a run for the newest pending slot change of each environment; older ones are recorded superseded."""
    by_environment: dict[str, list[SlotChange]] = {}
    accepted = desk.world.accepted
    for change in (*desk.world.state.cursors.pending, *(accepted.slots if accepted else ())):
        by_environment.setdefault(change.environment, []).append(change)
    for environment, changes in sorted(by_environment.items()):
        documents = documents_of(desk.world.intent, environment, changes[-1].release)
        if documents is None or environment in desk.settled:
            continue  # its files do not validate, or what runs there is only known after the next record
        running = desk.runs.get(environment)
        if running is not None and running.phase == "rolling_back":
            continue  # a run that is rolling back finishes first
        place = desk.world.state.environments.get(environment)
        carried = tuple(t for t in (running.touched if running else ()) if t in documents.agents)
        carried += tuple(t for t in astray(place, documents.agents) if t not in carried)
        if running is not None:
            supersede(desk, running, changes[0].commit)
        for older, newer in pairwise(changes):
            older_documents = documents_of(desk.world.intent, environment, older.release)
            if older_documents is None:  # its files are gone already: no lock of another release is its lock
                older_documents = replace(documents, lock=None, lock_pin=None)
            run = _open(desk, older, older_documents, running.id if running else None, carried)
            supersede(desk, run, newer.commit)
            running = run
        _open(desk, changes[-1], documents, running.id if running else None, carried)


def supersede(desk: Desk, run: Run, commit: str) -> None:
    """End a run because a newer promotion took its slot."""
    detail = Sealed(phase="superseded", reason=f"superseded by the promotion {commit[:8]}", code="superseded")
    desk.record(run, "sealed", detail, "SUPERSEDED", f"{run.opened.release} superseded by {commit[:8]}")


def _open(
    desk: Desk, change: SlotChange, documents: RunDocuments, supersedes: str | None, carried: tuple[str, ...]
) -> Run:
    place = desk.world.state.environments.get(change.environment)
    history = place.history if place is not None else ()
    mode = _mode(place, change.release)
    number = desk.numbers.get(change.environment, 0) + 1
    detail = Opened(
        number=number,
        mode=mode,
        cause="promotion",
        commit=change.commit,
        slot=change.pin,
        approvers=change.approvers,
        seen_lock=change.seen_lock,
        release=change.release,
        reason=change.reason,
        ticket=change.ticket,
        requester=change.requester.principal if change.requester else None,
        authors=change.authors,
        not_before=change.not_before,
        expires=_expiry(desk, change),
        preconditions=change.preconditions,
        pins=pins_of(desk.world.intent, change.environment, documents),
        previous=history[-1] if history else None,
        supersedes=supersedes,
        carried=carried,
        refused=_downgrade(desk, place, change.release) if mode == "promotion" else None,
    )
    run_id = run_name(change.environment, number, change.commit)
    verb = "rollback" if mode == "rollback" else "promotion"
    summary = f"{verb} of {change.release} opened by {detail.requester or 'nobody known'}"
    return desk.open(run_id, change.environment, detail, documents, summary)


def open_rollback(
    desk: Desk, environment: str, commit: str, principal: str, reason: str, ticket: str | None
) -> Run:
    """Open a run that takes an environment back to its preceding completed release, as a request asked."""
    place = desk.world.state.environments[environment]
    back = rollback_target(desk, environment)
    assert back is not None
    slot = desk.world.intent.promotions.get(environment)
    documents = documents_of(desk.world.intent, environment, back.release)
    assert documents is not None
    number = desk.numbers.get(environment, 0) + 1
    detail = Opened(
        number=number,
        mode="rollback",
        cause="request",
        commit=commit,
        slot=pin_of(slot) if slot is not None else None,
        approvers=(),
        seen_lock=None,
        release=back.release,
        reason=reason,
        ticket=ticket,
        requester=principal,
        authors=(principal,),
        not_before=None,
        expires=None,
        pins=pins_of(desk.world.intent, environment, documents),
        previous=place.history[-1],
        supersedes=None,
        carried=(),
    )
    summary = f"rollback to {back.release} asked for by {principal}"
    return desk.open(run_name(environment, number, commit), environment, detail, documents, summary)


def rollback_target(desk: Desk, environment: str) -> CompletedRun | None:
    """Where a requested rollback of an environment without an open run leads: where targets are astray, to what
    completed last; otherwise to what completed before it."""
    names = tuple(a.document.metadata.name for a in desk.world.intent.agents_of(environment))
    return target_of_rollback(desk.world.state.environments.get(environment), names)


def _mode(place: EnvironmentState | None, release: str) -> Literal["promotion", "rollback"]:
    """A slot that names the preceding completed release asks for a rollback. After a newer promotion that did
    not complete (or is still open) that is the one which completed last: its merge was reverted."""
    if place is None or not place.history:
        return "promotion"
    last = place.last_run
    if release == place.history[-1].release and last is not None and last.release != release:
        return "rollback"
    return "rollback" if len(place.history) > 1 and release == place.history[-2].release else "promotion"


def run_name(environment: str, number: int, commit: str) -> str:
    """`<environment>-<n>-<first 8 of the commit>`, n dense per environment."""
    return f"{environment}-{number}-{commit[:8]}"


def _expiry(desk: Desk, change: SlotChange) -> datetime | None:
    """When the promotion expires: as it says itself, else after the project's default."""
    project = desk.world.intent.project
    lasts = project.document.spec.defaults.expires_after if project is not None else None
    if change.expires is not None or lasts is None:
        return change.expires
    return change.at + lasts


def _downgrade(desk: Desk, place: EnvironmentState | None, release: str) -> str | None:
    """The monotonic guard: why this promotion would take the environment back in time, if it would.

    Older is the order of the lock events. A release that is not locked yet is newer than everything.
    """
    running = place.history[-1].release if place is not None and place.history else None
    index = desk.world.facts.lock_index
    if running is None or running not in index or release not in index or index[release] >= index[running]:
        return None
    return "downgrade-needs-rollback"


def documents_of(intent: Intent, environment: str, release: str) -> RunDocuments | None:
    """What a run of this release would execute as of `intent`; None when any part is missing or invalid."""
    place, wanted = intent.environments.get(environment), intent.releases.get(release)
    if place is None or wanted is None or {place.path, wanted.path} & intent.broken:
        return None
    spec = place.document.spec
    strategy = intent.strategies.get(spec.strategy)
    policies = {name: intent.policies.get(name) for name in spec.gate_names}
    components = {name: intent.components.get(name) for name in _components(intent, release)}
    parts: Mapping[str, Loaded[Any] | None] = {"strategy": strategy, **policies, **components}
    if strategy is None or None in parts.values():
        return None
    lock = intent.locks.get(release)
    if lock is not None and lock.document.spec.release_digest != release_digest(wanted.document):
        lock = None
    return RunDocuments(
        environment=place.document,
        strategy=strategy.document,
        policies={name: found.document for name, found in policies.items() if found},
        policy_pins={name: pin_of(found) for name, found in policies.items() if found},
        components={name: found.document for name, found in components.items() if found},
        release=wanted.document,
        agents=tuple(sorted(a.document.metadata.name for a in intent.agents_of(environment))),
        lock=lock.document if lock else None,
        lock_pin=pin_of(lock) if lock else None,
    )


def _components(intent: Intent, release: str) -> list[str]:
    """The components a release needs: those it names, and those its lock took over from elsewhere. A release
    that is not locked yet and not pinned may come to need any."""
    spec = intent.releases[release].document.spec
    lock = intent.locks.get(release)
    if lock is not None:
        return sorted({*spec.components, *lock.document.spec.components})
    return sorted(spec.components if spec.mode == "pinned" else intent.components)


def pins_of(intent: Intent, environment: str, documents: RunDocuments) -> tuple[Pin, ...]:
    """Every file the run executes, by path and blob; the slot and the lock are pinned by their own fields."""
    release = documents.release.metadata.name
    loaded: list[Loaded[Any]] = [
        intent.environments[environment],
        intent.strategies[documents.environment.spec.strategy],
        intent.releases[release],
        *(intent.policies[name] for name in sorted(documents.policies)),
        *(intent.components[name] for name in sorted(documents.components)),
        *(intent.agents[name] for name in documents.agents),
    ]
    return tuple(pin_of(item) for item in loaded)


def pin_of(loaded: Loaded[Any]) -> Pin:
    """A loaded document as a pin."""
    return Pin(path=loaded.path, blob=loaded.blob, sha256=loaded.sha256)
