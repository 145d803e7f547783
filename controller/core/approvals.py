"""What an approval binds to, and whether the approvals given are enough.

`design/trust.md` rule 10: an approval counts only for its subject; anything that changes the subject voids it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from controller.core.keys import key_id
from controller.core.quorum import missing_roles
from controller.core.trust import TrustState
from controller.ledger.canonical import canonical, digest
from controller.model.environment import Approvals

if TYPE_CHECKING:
    from controller.core.run import Run

ANY = "approvers"
"""The name of places that no role is named for (`count` above the sum of `roles`)."""


def approval_subject(
    *,
    project: str,
    promotion_commit: str,
    slot_blob: str,
    lock_sha256: str,
    environment_blob: str,
    strategy_blob: str,
    policy_blobs: Iterable[str],
    trust_version: int,
    targets: Iterable[str],
) -> str:
    """ "sha256:…" over the RFC 8785 JSON of everything an approver approves. Order of policies and targets is
    no part of it."""
    return digest(
        canonical(
            {
                "project": project,
                "promotionCommit": promotion_commit,
                "slot": slot_blob,
                "lock": lock_sha256,
                "environment": environment_blob,
                "strategy": strategy_blob,
                "policies": sorted(policy_blobs),
                "trustVersion": trust_version,
                "targets": sorted(targets),
            }
        )
    )


@dataclass(frozen=True, slots=True)
class Given:
    """One approval as it was signed: by whom, with which key, for what, and until when."""

    principal: str
    key_id: str
    via: Literal["merge", "request"]
    subject: str
    at: datetime
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class NotCounted:
    """An approval that does not count, and why: code and words."""

    given: Given
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Tally:
    """`missing` is role to number, `able` who may still fill a place of each of these; `next_expiry` is when the
    first counted approval runs out."""

    satisfied: bool
    counted: tuple[Given, ...]
    not_counted: tuple[NotCounted, ...]
    missing: dict[str, int]
    next_expiry: datetime | None
    able: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def tally(
    required: Approvals,
    approvals: Sequence[Given],
    *,
    subject: str,
    authors: Set[str],
    trust: TrustState,
    now: datetime,
) -> Tally:
    """Count approvals as of `now` under the trust in force.

    Each person counts once and fills one place; roles are all needed. With separation of duties the authors
    and the requester (`authors`) do not count.
    """
    counted: dict[str, Given] = {}
    rejected: list[NotCounted] = []
    for given in sorted(approvals, key=lambda a: (a.at, a.principal)):
        reason = _reason(required, given, subject, authors, trust, now)
        if reason is None and given.principal in counted:
            reason = ("approval-repeated", f"{given.principal} is counted already")
            counted[given.principal] = _longer(counted[given.principal], given, required)
        if reason is None:
            counted[given.principal] = given
        else:
            rejected.append(NotCounted(given, *reason))
    missing = missing_roles(_places(required), {person: _fills(required, trust, person) for person in counted})
    barred = set(counted) | (set(authors) if required.separation_of_duties else set())
    eligible = [
        name
        for name in sorted(trust.members)
        if name not in barred and trust.members[name].valid(now) and _fills(required, trust, name) & missing.keys()
    ]
    ends = [end for given in counted.values() if (end := _end(required, given)) is not None]
    return Tally(
        satisfied=not missing,
        counted=tuple(counted.values()),
        not_counted=tuple(rejected),
        missing=missing,
        next_expiry=min(ends, default=None),
        able={role: tuple(name for name in eligible if role in _fills(required, trust, name)) for role in missing},
    )


def stricter(pinned: Approvals, live: Approvals | None) -> Approvals:
    """What a run needs that pinned one document, while main says another: whatever asks for more (trust rule 11).

    None: main's document does not validate, so only the pinned one is known.
    """
    if live is None or live == pinned:
        return pinned
    roles = {
        role: max(pinned.roles.get(role, 0), live.roles.get(role, 0))
        for role in sorted({*pinned.roles, *live.roles})
    }
    lasts = [time for time in (pinned.expires_after, live.expires_after) if time is not None]
    return pinned.model_copy(
        update={
            "count": max(pinned.count, live.count),
            "roles": roles,
            "separation_of_duties": pinned.separation_of_duties or live.separation_of_duties,
            "expires_after": min(lasts, default=None),
        }
    )


def tally_of_run(run: Run, asked: Approvals, trust: TrustState, now: datetime) -> Tally:
    """A run's recorded approvals counted as of `now`, by what its environment asks for. A requested rollback needs
    none: its action was granted."""
    required = asked.model_copy(update={"count": 0, "roles": {}}) if run.opened.cause == "request" else asked
    given = [
        Given(principal=a.principal, key_id=a.key_id, via=a.via, subject=a.subject, at=a.at, expires=a.expires)
        for a in run.approvals
        if a.counted
    ]
    authors = frozenset({*run.opened.authors, *filter(None, [run.opened.requester])})
    subject = run.inputs.approval_subject if run.inputs else ""
    return tally(required, given, subject=subject, authors=authors, trust=trust, now=now)


def _places(required: Approvals) -> dict[str, int]:
    places = dict(required.roles)
    rest = required.count - sum(required.roles.values())
    if rest > 0:
        places[ANY] = rest
    return places


def _approving(required: Approvals, trust: TrustState) -> frozenset[str]:
    """The roles that may approve here: those named; where none is, those that Trust lets approve anything."""
    if required.roles:
        return frozenset(required.roles)
    spec = trust.document.spec
    by_path = {role for rule in spec.paths for role in rule.approvals}
    by_action = {role for rule in spec.actions for role, verbs in rule.allow.items() if "approve" in verbs}
    return frozenset(by_path | by_action)


def _fills(required: Approvals, trust: TrustState, person: str) -> frozenset[str]:
    """The places a person can take."""
    held = trust.roles_of(person) & _approving(required, trust)
    return held | {ANY} if held else held


def _end(required: Approvals, given: Given) -> datetime | None:
    ends = [given.expires] if given.expires is not None else []
    if required.expires_after is not None:
        ends.append(given.at + required.expires_after)
    return min(ends, default=None)


def _longer(one: Given, other: Given, required: Approvals) -> Given:
    """Of two good approvals of one person, the one that holds longer."""
    ends = _end(required, one), _end(required, other)
    if ends[0] is None or (ends[1] is not None and ends[1] <= ends[0]):
        return one
    return other


def _reason(
    required: Approvals,
    given: Given,
    subject: str,
    authors: Set[str],
    trust: TrustState,
    now: datetime,
) -> tuple[str, str] | None:
    name = given.principal
    member = trust.members.get(name)
    key = next((key for key in member.keys if key_id(key) == given.key_id), None) if member is not None else None
    if member is None or key is None:
        return "approver-not-principal", f"trust version {trust.version} does not give {name} that key"
    if not member.key_valid(key, now):
        return "key-expired", f"{name}'s key may not sign any more, so it approves nothing either"
    if given.subject != subject:
        return "approval-void", f"{name} approved {given.subject[:19]}, and now it is {subject[:19]}"
    end = _end(required, given)
    if end is not None and now >= end:
        return "approval-expired", f"{name}'s approval ended at {end.isoformat()}"
    if required.separation_of_duties and name in authors:
        return "self-approval", f"{name} is an author or asked for it"
    if not _fills(required, trust, name):
        roles = ", ".join(sorted(_approving(required, trust))) or "no role"
        return "approver-not-in-role", f"{name} holds none of: {roles}"
    return None
