"""Promotions that landed: what evidence records of the slots that newly accepted steps of main changed."""

from __future__ import annotations

from collections.abc import Iterable

from controller.core.parse import parse
from controller.core.steps import Step
from controller.model.documents import Promotion
from controller.model.entry import Actor, Pin, Precondition, SlotChange
from controller.model.keys import key_id
from controller.model.promotion import Schedule
from controller.ports import Repo

SLOTS = "promotions/"


def slots_of(repo: Repo, before: str, accepted: str, steps: Iterable[Step]) -> tuple[SlotChange, ...]:
    """The slot changes of the `steps` from one accepted tip to the next that people made and nobody took back."""
    changes = []
    for step in steps:
        if step.kind == "controller" or step.refused is not None or step.cured:
            continue
        for change in step.changes:
            if not change.path.startswith(SLOTS) or change.new is None:
                continue
            was, now = repo.file(before, change.path), repo.file(accepted, change.path)
            if now is None or (was is not None and was.blob == now.blob):
                continue
            found = _slot(repo, step, change.path, change.new.blob)
            if found is not None:
                changes.append(found)
    return tuple(changes)


def _slot(repo: Repo, step: Step, path: str, blob: str) -> SlotChange | None:
    parsed = parse(path, repo.read(blob))
    if not isinstance(parsed.document, Promotion):
        return None
    spec, commit = parsed.document.spec, repo.commit(step.commit)
    signer = Actor(principal=step.signer, key_id=key_id(commit.key)) if step.signer and commit.key else None
    seen = next((s.lock for s in step.locked if s.path == path), None)
    others = sorted(step.authors - {step.signer})
    requester = Actor(principal=others[0]) if step.kind == "merge" and others else signer
    schedule = spec.schedule
    begin = schedule.not_before if schedule is not None else None
    end = begin + schedule.window if schedule is not None and begin is not None and schedule.window else None
    expiry = commit.committer.at + spec.expires_after if spec.expires_after else None
    return SlotChange(
        environment=path.removeprefix(SLOTS).removesuffix(".yaml"),
        commit=step.commit,
        pin=Pin(path=path, blob=blob, sha256=parsed.sha256),
        release=spec.release,
        reason=spec.reason,
        ticket=spec.ticket,
        not_before=begin,
        expires=min((t for t in (end, expiry) if t is not None), default=None),
        preconditions=_preconditions(schedule),
        requester=requester,
        authors=tuple(sorted(step.authors)),
        approvers=(signer,) if signer is not None and signer.principal in step.approvals else (),
        seen_lock=seen,
        at=commit.committer.at,
    )


def _preconditions(schedule: Schedule | None) -> tuple[Precondition, ...]:
    found = []
    for one in schedule.preconditions if schedule is not None else ():
        if one.feeds_fresh is not None:
            found.append(Precondition(name="feedsFresh", level="block"))
        if one.integrations_healthy is not None:
            found.append(Precondition(name="integrationsHealthy", level=one.integrations_healthy))
    return tuple(found)
