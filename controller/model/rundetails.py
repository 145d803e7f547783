"""The details of a run's entries, from `opened` to `sealed`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.link import LinkSignature
from controller.model.wire import (
    Actor,
    CompletedRun,
    GitId,
    Maybe,
    Pin,
    Precondition,
    Sha256,
    StagePlan,
    Time,
    Wire,
)


class Opened(Wire):
    """A slot changed (or a rollback was requested): the run and everything it pins."""

    number: int
    mode: Literal["promotion", "rollback"]
    cause: Literal["promotion", "request"]
    commit: GitId
    slot: Maybe[Pin]
    approvers: tuple[Actor, ...]
    seen_lock: Maybe[GitId]
    release: str
    reason: str
    ticket: Maybe[str]
    requester: Maybe[str]
    authors: tuple[str, ...]
    not_before: Maybe[Time]
    expires: Maybe[Time]
    preconditions: tuple[Precondition, ...] = ()
    pins: tuple[Pin, ...]
    previous: Maybe[CompletedRun]
    supersedes: Maybe[str]
    carried: tuple[str, ...]
    refused: str | None = None


class Inputs(Wire):
    """What the run decides from: the lock, the plan and the committed input files; and what was rendered from
    them: digests of the artifacts, by name, and of the templates that made them."""

    lock: Pin
    manifest_digest: Sha256
    approval_subject: Sha256
    targets: tuple[str, ...]
    stages: tuple[StagePlan, ...]
    files: dict[str, Sha256]
    missing: tuple[str, ...]
    digest: Sha256
    artifacts: dict[str, Sha256] = Field(default_factory=dict)
    templates: dict[str, Sha256] = Field(default_factory=dict)


class Verdict(Wire):
    """One gate's answer. Codes are stable; `until` is when asking again makes sense."""

    gate: str
    type: str
    level: Literal["block", "warn"]
    verdict: Literal["PASS", "WARN", "WAIT", "FAIL"]
    code: str
    message: str
    until: Time | None = None
    unblock: str = ""
    inputs: Sha256
    policy: Maybe[Sha256]


class Gates(Wire):
    """Every gate's verdict at one point of the run. `decision` is sha256 over the canonical bytes of
    (inputs digest, policy digests, verdicts); a replay must reproduce it."""

    stage: int
    aggregate: Literal["PASS", "WARN", "WAIT", "FAIL"]
    verdicts: tuple[Verdict, ...]
    decision: Sha256


class Approval(Wire):
    """One approval, counted or not and why. It is bound to `subject` and void when that changes. `link` is the
    approver's own signature over the in-toto link of the step, when the request brought one."""

    principal: str
    key_id: str
    via: Literal["merge", "request"]
    commit: GitId
    subject: Sha256
    at: Time
    expires: Maybe[Time]
    counted: bool
    code: str
    message: str
    link: LinkSignature | None = None


class Rejection(Wire):
    principal: str
    request: str
    reason: str


class OrderLine(Wire):
    """One order: what one target is told. `id` is its idempotency key."""

    id: str
    target: str


class Ordered(Wire):
    """Orders of one batch; an agent is told nothing that does not stand here."""

    stage: int
    attempt: int
    action: Literal["deploy", "rollback", "check"]
    manifest_digest: Sha256
    components: dict[str, Sha256]
    artifacts: dict[str, Sha256] = Field(default_factory=dict)
    orders: tuple[OrderLine, ...]
    deadline: Time


class TargetResult(Wire):
    """What became of one order. `report` is the digest of the agent's signed statement, absent when none came;
    `link` is the agent's signature over the in-toto link of a deployment that succeeded."""

    order: str
    target: str
    result: Literal["succeeded", "failed", "unreported"]
    code: str
    message: str
    report: Maybe[Sha256]
    manifest_digest: Maybe[Sha256]
    healthy: Maybe[bool]
    link: LinkSignature | None = None


class Deployed(Wire):
    stage: int
    attempt: int
    results: tuple[TargetResult, ...]


class Criterion(Wire):
    """One criterion of a stage as it stood at the verdict. `value` is absent when unknown."""

    name: str
    state: Literal["passed", "failed", "unknown"]
    value: Maybe[float]
    samples: int
    failures: int
    message: str


class Evaluated(Wire):
    """A stage's verdict over the statements in `statements` (digest of the reports file)."""

    stage: int
    attempt: int
    verdict: Literal["passed", "failed", "unknown"]
    criteria: tuple[Criterion, ...]
    since: Time
    statements: Sha256


class Control(Wire):
    """An intervention: by a request, or by the controller itself (no `request`)."""

    verb: Literal["paused", "resumed", "retried", "aborted", "rollback"]
    request: Maybe[str]
    by: str
    reason: str
    code: str


class RolledBack(Wire):
    to: Maybe[CompletedRun]
    results: tuple[TargetResult, ...]
    ok: bool


class Verified(Wire):
    results: tuple[TargetResult, ...]
    ok: bool
    message: str


class EntryRef(Wire):
    sequence: int
    kind: str
    digest: Sha256


class Sealed(Wire):
    """The end of a run. `root` is the RFC 6962 Merkle root over the digests in `entries` (all before this one);
    `absent` lists what was expected and is not there. After a rollback every touched target is in one of `back`,
    `failed` and `silent`: it said that it runs the former release, it said no, it said nothing."""

    phase: str
    reason: str
    code: str
    entries: tuple[EntryRef, ...] = ()
    root: Sha256 | None = None
    absent: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
