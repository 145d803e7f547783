"""What a run decides from, materialised as plain JSON that is committed before anything is decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from controller.core import artifacts
from controller.core.approvals import approval_subject
from controller.core.calendar import span_at
from controller.core.gates import DEFAULT_DEADLINE, Gate, config_of, gate_names
from controller.core.rollout import order_targets, stages_for
from controller.core.run import Run
from controller.core.world import RunDocuments, World
from controller.ledger.canonical import canonical, digest
from controller.ledger.entry import artifact_path
from controller.model.base import Document
from controller.model.entry import Inputs, Pin, format_time
from controller.model.order import PLAN

TZDATA = "tzdata"
"""The member of a gate's inputs that names the time zone data by which its schedules were read."""


def materialise(world: World, run: Run, documents: RunDocuments) -> tuple[Inputs, dict[str, bytes]]:
    """The `inputs` entry and its files: inputs by path below the run's folder, artifacts by their own path.

    Needs the lock.
    """
    lock, lock_pin = documents.lock, documents.lock_pin
    assert lock is not None and lock_pin is not None
    targets = targets_of(world, run, documents, lock.spec.manifest_digest)
    values: dict[str, Any] = {
        "release": document_input(documents.release),
        "lock": document_input(lock),
        "environment": document_input(documents.environment),
        "strategy": document_input(documents.strategy),
        "previous": previous_of(world, run),
    }
    files = {name: canonical(value) for name, value in values.items()}
    digests = {name: digest(data) for name, data in files.items()}
    stages = stages_for(documents.strategy, run.opened.mode, targets)
    rendered = artifacts.release_files(
        world.templates, run.opened.release, documents.environment, documents.components, lock
    )
    rendered[PLAN] = artifacts.plan(
        world.templates, run, documents.environment, documents.strategy, lock, lock_pin, stages, rendered
    )
    detail = Inputs(
        lock=lock_pin,
        manifest_digest=lock.spec.manifest_digest,
        approval_subject=subject(world, run, documents, lock_pin, targets),
        targets=targets,
        stages=stages,
        files=digests,
        missing=(),
        digest=digest(canonical(digests)),
        artifacts={name: digest(data) for name, data in rendered.items()},
        templates=world.templates.digests,
    )
    beside = {f"inputs/{name}.json": data for name, data in files.items()}
    return detail, beside | {artifact_path(digest(data)): data for data in rendered.values()}


def document_input(document: Document) -> dict[str, Any]:
    """The input that a run makes of a document: plain JSON with its defaults, without members that say nothing."""
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)


def previous_of(world: World, run: Run) -> dict[str, Any]:
    """What the environment ran when the pass began."""
    place = world.state.environments.get(run.environment)
    return place.wire() if place is not None else {}


def subject(world: World, run: Run, documents: RunDocuments, lock: Pin, targets: tuple[str, ...]) -> str:
    """What approvals of this run bind to (trust rule 10)."""
    pins = {pin.path: pin for pin in run.opened.pins}
    environment = pins[f"environments/{run.environment}.yaml"]
    strategy = pins[f"strategies/{documents.environment.spec.strategy}.yaml"]
    return approval_subject(
        project=world.project,
        promotion_commit=run.opened.commit,
        slot_blob=run.opened.slot.blob if run.opened.slot else "",
        lock_sha256=lock.sha256,
        environment_blob=environment.blob,
        strategy_blob=strategy.blob,
        policy_blobs=[documents.policy_pins[name].blob for name in sorted(documents.policy_pins)],
        trust_version=world.observed.trust_version,
        targets=sorted(targets),
    )


def gates_of(world: World, run: Run, documents: RunDocuments) -> list[Gate]:
    """Every gate of a run with its inputs as of now: the built-in ones, then the environment's policies.

    Pinned documents throughout; only what can make a decision stricter is read from main as it is now:
    freezes, and whether the release was blocked since.
    """
    rollback = run.opened.mode == "rollback"
    gates = [_builtin("release-active", _release_inputs(world, run, documents))]
    if not rollback:
        gates.append(
            _builtin("promotes-from", {"release": run.opened.release, "completed": _before(world, documents)})
        )
    gates += [
        _builtin("freeze", _freeze_inputs(world, run)),
        _builtin("window", _window_inputs(world, documents)),
        _builtin("schedule", _schedule_inputs(run)),
        _builtin("targets", {"targets": list(run.inputs.targets if run.inputs else documents.agents)}),
        _builtin("secrets", {"references": _secrets(documents)}),
    ]
    for gate_name, name in named_gates(run, documents):
        if name is None:
            continue
        policy = documents.policies[name].spec
        gates.append(
            Gate(
                name=gate_name,
                type=policy.gate,
                level=policy.level,
                config=config_of(policy),
                inputs=_policy_inputs(world, run, documents, policy.gate),
                policy=documents.policy_pins[name].sha256,
                deadline=policy.deadline or DEFAULT_DEADLINE,
            )
        )
    return gates


def named_gates(run: Run, documents: RunDocuments) -> list[tuple[str, str | None]]:
    """The gates that a run's pinned documents ask for: (gate, policy or None), in order."""
    kinds = {name: documents.policies[name].spec.gate for name in documents.environment.spec.gate_names}
    return gate_names(kinds, run.opened.mode == "rollback")


def _schedule_inputs(run: Run) -> dict[str, Any]:
    begin = run.opened.not_before
    return {
        "notBefore": format_time(begin) if begin is not None else None,
        "preconditions": [one.wire() for one in run.opened.preconditions],
    }


def _secrets(documents: RunDocuments) -> list[dict[str, str]]:
    """References only, never values."""
    secrets = documents.environment.spec.secrets
    return [{"name": name, "provider": secrets[name].provider} for name in sorted(secrets)]


def _builtin(name: str, inputs: dict[str, Any]) -> Gate:
    return Gate(name=name, type=name, level="block", config={}, inputs=inputs, policy=None)


def targets_of(world: World, run: Run, documents: RunDocuments, manifest: str) -> tuple[str, ...]:
    """All pinned agents; a rollback takes only those that run something else or may be about to."""
    ordered = order_targets(run.opened.commit, documents.agents)
    place = world.state.environments.get(run.environment)
    if run.opened.mode != "rollback" or place is None:
        return ordered
    away = tuple(
        t
        for t in ordered
        if t in run.opened.carried or t not in place.targets or place.targets[t].manifest_digest != manifest
    )
    return away or ordered


def _release_inputs(world: World, run: Run, documents: RunDocuments) -> dict[str, Any]:
    live = world.intent.releases.get(run.opened.release)
    spec = live.document.spec if live is not None else documents.release.spec
    return {"release": run.opened.release, "state": spec.state, "reason": spec.reason}


def _before(world: World, documents: RunDocuments) -> dict[str, str | None]:
    manifest = documents.lock.spec.manifest_digest if documents.lock else ""
    done = {name: world.facts.completed.get((name, manifest)) for name in documents.environment.spec.promotes_from}
    return {name: format_time(c.at) if c is not None else None for name, c in done.items()}


def _freeze_inputs(world: World, run: Run) -> dict[str, Any]:
    """The freezes, and which time zone data said whether those with a schedule are in force."""
    found, names = _freezes(world, run), world.intent.freezes
    by_clock = any(f["name"] in names and names[f["name"]].document.spec.schedule is not None for f in found)
    return {"freezes": found, TZDATA: world.tzdata} if by_clock else {"freezes": found}


def _freezes(world: World, run: Run) -> list[dict[str, Any]]:
    action = "rollback" if run.opened.mode == "rollback" else "promote"
    # A freeze that cannot be read may be in force here: nobody knows, and unknown never means allow.
    found: list[dict[str, Any]] = [
        {"name": path, "sha256": None, "reason": "the file does not validate", "active": True, "until": None}
        for path in sorted(world.intent.broken)
        if path.startswith("freezes/")
    ]
    for name in sorted(world.intent.freezes):
        spec = world.intent.freezes[name].document.spec
        if action not in spec.actions or not {"*", run.environment} & set(spec.environments):
            continue
        if spec.begins is not None and spec.until is not None:
            active = spec.begins <= world.now < spec.until
            until: datetime | None = spec.begins if world.now < spec.begins else spec.until
        else:
            assert spec.schedule is not None and spec.duration is not None
            span = span_at(spec.schedule, spec.duration, spec.time_zone, world.now)
            active, until = span.is_open, span.changes
        found.append(
            {
                "name": name,
                "sha256": world.intent.freezes[name].sha256,
                "reason": spec.reason,
                "active": active,
                "until": format_time(until) if until is not None else None,
            }
        )
    return found


def _window_inputs(world: World, documents: RunDocuments) -> dict[str, Any]:
    """The windows, and which time zone data said whether they are open."""
    found = _windows(world, documents)
    return {"windows": found, TZDATA: world.tzdata} if found else {"windows": found}


def _windows(world: World, documents: RunDocuments) -> list[dict[str, Any]]:
    found = []
    for window in documents.environment.spec.windows:
        span = span_at(window.schedule, window.duration, window.time_zone, world.now)
        changes = format_time(span.changes) if span.changes is not None else None
        found.append({"kind": window.kind, "schedule": window.schedule, "open": span.is_open, "changes": changes})
    return found


def _policy_inputs(world: World, run: Run, documents: RunDocuments, gate: str) -> dict[str, Any]:
    match gate:
        case "freeze":
            return _freeze_inputs(world, run)
        case "window":
            return _window_inputs(world, documents)
        case "soak":
            return {"completed": _before(world, documents)}
        case "approval":
            return {}
        case _:
            return _rule_inputs(world, run, documents)


def _rule_inputs(world: World, run: Run, documents: RunDocuments) -> dict[str, Any]:
    """What a rule sees as `inputs`."""
    lock, place = documents.lock, world.state.environments.get(run.environment)
    components = [
        {
            "name": name,
            "repository": c.repository,
            "digest": c.digest,
            "tag": c.tag or "",
            "semver": c.semver or "",
            "channel": c.channel or "",
            "role": c.role,
        }
        for name, c in sorted(lock.spec.components.items() if lock else ())
    ]
    return {
        "release": run.opened.release,
        "manifestDigest": lock.spec.manifest_digest if lock else "",
        "mode": run.opened.mode,
        "components": components,
        "environment": {
            "name": run.environment,
            "region": documents.environment.spec.region or "",
            "variables": dict(documents.environment.spec.variables),
        },
        "promotion": {
            "reason": run.opened.reason,
            "ticket": run.opened.ticket or "",
            "requester": run.opened.requester or "",
            "commit": run.opened.commit,
        },
        "previous": {
            "release": (place.release or "") if place else "",
            "manifestDigest": (place.manifest_digest or "") if place else "",
        },
    }
