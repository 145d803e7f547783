"""Evidence entries: the predicate every entry carries, and the detail of each kind.

The schemas under `schemas/evidence/` are generated from these models. Times are RFC 3339 UTC with
microseconds and `Z`; digests are `sha256:<hex>`; Git object ids are bare hex.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from controller.model.link import LinkSignature


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with fixed microseconds, so that equal instants have equal bytes."""
    text = value.isoformat(timespec="microseconds")
    if not text.endswith("+00:00"):
        text = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text[:-6] + "Z"


Time = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}),
]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
GitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Wire(BaseModel):
    """Base of everything that is hashed: frozen, closed, camelCase on the wire."""

    model_config = ConfigDict(
        # Built when first used: a command that needs none of them starts without waiting for all of them.
        defer_build=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_timedelta="float",
    )

    def wire(self) -> dict[str, Any]:
        """Plain JSON values, ready for canonical bytes."""
        return self.model_dump(mode="json", by_alias=True)


# --- parts -----------------------------------------------------------------------------------------------


class Actor(Wire):
    """Somebody who did something: a principal and the key it was proven with."""

    principal: str
    key_id: str | None = None


class Observed(Wire):
    """The tips a decision was made from; rules of another branch are judged by these."""

    main: GitId | None
    requests: GitId | None
    trust_version: int


class What(Wire):
    """What an entry is about. `digests` maps components to image digests."""

    release: str | None = None
    manifest_digest: Sha256 | None = None
    environment: str | None = None
    targets: tuple[str, ...] = ()
    digests: dict[str, Sha256] = {}


class When(Wire):
    """The instants an entry knows: asked for, decided, carried out, finished."""

    requested: Time | None = None
    decided: Time | None = None
    executed: Time | None = None
    completed: Time | None = None


class Pin(Wire):
    """One file of main that a run executes, by path and blob; `sha256` is over the file's bytes."""

    path: str
    blob: GitId
    sha256: Sha256


class StagePlan(Wire):
    """One stage of the plan: its own targets (not cumulative), in order."""

    percent: int
    targets: tuple[str, ...]


class CompletedRun(Wire):
    """A completed run an environment can go back to; `pins` are the files it executed (lock included),
    `artifacts` the digests of what was rendered for it."""

    run: str
    release: str
    manifest_digest: Sha256
    slot: Pin | None
    pins: tuple[Pin, ...] = ()
    artifacts: dict[str, Sha256] = {}


class Precondition(Wire):
    """Something a schedule wants to hold at its start; `level` is what its absence means."""

    name: str
    level: Literal["block", "warn"]


# --- details of a run's entries --------------------------------------------------------------------------


class Opened(Wire):
    """A slot changed (or a rollback was requested): the run and everything it pins."""

    number: int
    mode: Literal["promotion", "rollback"]
    cause: Literal["promotion", "request"]
    commit: GitId
    slot: Pin | None
    approvers: tuple[Actor, ...]
    seen_lock: GitId | None
    release: str
    reason: str
    ticket: str | None
    requester: str | None
    authors: tuple[str, ...]
    not_before: Time | None
    expires: Time | None
    preconditions: tuple[Precondition, ...] = ()
    pins: tuple[Pin, ...]
    previous: CompletedRun | None
    supersedes: str | None
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
    artifacts: dict[str, Sha256] = {}
    templates: dict[str, Sha256] = {}


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
    policy: Sha256 | None


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
    expires: Time | None
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
    artifacts: dict[str, Sha256] = {}
    orders: tuple[OrderLine, ...]
    deadline: Time


class TargetResult(Wire):
    """What became of one order. `report` is the digest of the agent's signed statement, null when none came;
    `link` is the agent's signature over the in-toto link of a deployment that succeeded."""

    order: str
    target: str
    result: Literal["succeeded", "failed", "unreported"]
    code: str
    message: str
    report: Sha256 | None
    manifest_digest: Sha256 | None
    healthy: bool | None
    link: LinkSignature | None = None


class Deployed(Wire):
    stage: int
    attempt: int
    results: tuple[TargetResult, ...]


class Criterion(Wire):
    """One criterion of a stage as it stood at the verdict. `value` is null when unknown."""

    name: str
    state: Literal["passed", "failed", "unknown"]
    value: float | None
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
    """An intervention: by a request, or by the controller itself (`request` null)."""

    verb: Literal["paused", "resumed", "retried", "aborted", "rollback"]
    request: str | None
    by: str
    reason: str
    code: str


class RolledBack(Wire):
    to: CompletedRun | None
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


# --- details of events (no run) --------------------------------------------------------------------------


class Genesis(Wire):
    """Index 0: names the trust root this branch answers to."""

    project: str
    genesis: GitId
    refs: dict[str, str]


class SlotChange(Wire):
    """A promotion slot changed on accepted main. It stays pending until an `opened` entry names its commit.

    `approvers` signed the merge that brought it and are in none of `authors`; `seen_lock` is the release's
    lock in that merge's first parent, which is what they could see when they approved.
    """

    environment: str
    commit: GitId
    pin: Pin
    release: str
    reason: str
    ticket: str | None
    not_before: Time | None
    expires: Time | None
    preconditions: tuple[Precondition, ...] = ()
    requester: Actor | None
    authors: tuple[str, ...]
    approvers: tuple[Actor, ...]
    seen_lock: GitId | None
    at: Time


class Accepted(Wire):
    """Main moved on, by `commits` first-parent steps that satisfied the path rules."""

    previous: GitId | None
    tip: GitId
    commits: int
    cured: tuple[GitId, ...] = ()
    slots: tuple[SlotChange, ...] = ()


class MainRefused(Wire):
    """A first-parent commit of main that the path rules do not allow; main stands still before it."""

    commit: GitId
    code: str
    message: str
    paths: tuple[str, ...]
    signer: str | None


class LockMade(Wire):
    """Tags resolved: the lock's bytes are in `content`, and the file on main must equal them."""

    release: str
    path: str
    manifest_digest: Sha256
    release_digest: Sha256
    sha256: Sha256
    components: dict[str, Sha256]
    content: str


class TagMoved(Wire):
    """A tag no longer names the digest that was locked; `found` is null when the tag is gone."""

    release: str
    component: str
    tag: str
    locked: Sha256
    found: Sha256 | None


class RequestJudged(Wire):
    """A request's one verdict."""

    commit: GitId
    request: str | None
    verb: str | None
    environment: str | None
    run: str | None
    accepted: bool
    code: str
    message: str
    reason: str | None


class ReplayedDecision(Wire):
    """One decision made again: the digest on record and the one that came out, null when it could not be made."""

    sequence: int
    kind: str
    recorded: Sha256
    replayed: Sha256 | None
    match: bool
    message: str = ""


class Replayed(Wire):
    """A replay that somebody asked for: every decision of `run` made again from committed inputs.

    `request` is the commit that asked; `code` is "replayed" when every decision could be made again.
    """

    run: str
    request: GitId
    by: str
    reason: str
    code: str
    decisions: tuple[ReplayedDecision, ...]
    total: int
    matching: int
    match: bool


MOST_REMOVED = 256
"""How many removed commits a repair names; parents link the others, which it only counts."""


class EvidenceRepaired(Wire):
    """Foreign commits on this branch; the tree before them, that of `restored`, was put back.

    `removed` are the first ones (at most `MOST_REMOVED`), oldest first; `commits` counts all of them when there
    are more. `reasons` says in words why they are not the controller's, each once.
    """

    removed: tuple[GitId, ...]
    restored: GitId
    commits: int | None = None
    reasons: tuple[str, ...] = ()

    def names(self, foreign: Sequence[str], good: str | None) -> bool:
        """Whether this is the repair of exactly these commits on top of `good`."""
        counted = len(self.removed) if self.commits is None else self.commits
        return (self.removed, counted, self.restored) == (tuple(foreign[:MOST_REMOVED]), len(foreign), good)


class Witness(Wire):
    """An agent that cosigned the log when it had `size` entries, at a time of its own clock."""

    agent: str
    size: int
    at: Time


class Witnessed(Wire):
    """Other eyes on the log: checkpoints of at least `size` entries (signed notes, verbatim) that agents cosigned."""

    size: int
    checkpoints: tuple[str, ...]
    witnesses: tuple[Witness, ...]


class TimeAnchored(Wire):
    """A time-stamp authority's word that the log's first `size` entries existed at `time`.

    `token` is its RFC 3161 response (DER, base64) over the bytes of `checkpoint`, a signed note; `run` is the
    newest sealed run among the entries.
    """

    run: str
    size: int
    checkpoint: str
    authority: str
    token: str
    time: Time


RUN_KINDS: dict[str, type[Wire]] = {
    "opened": Opened,
    "inputs": Inputs,
    "gates": Gates,
    "approval": Approval,
    "rejection": Rejection,
    "ordered": Ordered,
    "deployed": Deployed,
    "evaluated": Evaluated,
    "control": Control,
    "rolled-back": RolledBack,
    "verified": Verified,
    "sealed": Sealed,
}
EVENT_KINDS: dict[str, type[Wire]] = {
    "genesis": Genesis,
    "accepted": Accepted,
    "main-refused": MainRefused,
    "lock": LockMade,
    "tag-moved": TagMoved,
    "request": RequestJudged,
    "evidence-repaired": EvidenceRepaired,
    "witnessed": Witnessed,
    "time-anchored": TimeAnchored,
    "replayed": Replayed,
}
KINDS = RUN_KINDS | EVENT_KINDS

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def predicate_type(kind: str) -> str:
    """The in-toto predicate type of an entry kind; vetted types where one fits."""
    if kind in ("evaluated", "verified"):
        return TEST_RESULT
    return f"https://lockgate.dev/evidence/{kind}/v1"


class Draft(Wire):
    """An entry the core decided on; the ledger adds index, sequence, previous and the signature.

    `files` are further paths written by the same commit, relative to the run's folder (inputs, reports), or
    artifacts by the path that their digest gives.
    """

    kind: str
    run: str | None
    environment: str | None
    at: Time
    observed: Observed
    result: str
    summary: str
    who: tuple[Actor, ...]
    what: What
    why: dict[str, Any] = {}
    how: dict[str, Any] = {}
    when: When
    detail: Any
    files: dict[str, bytes] = {}


class Predicate(Wire):
    """What is signed. `configuration`, `passedTests` and `failedTests` stand only in test-result predicates."""

    kind: str
    index: int
    sequence: int | None
    run: str | None
    environment: str | None
    previous: Sha256 | None
    at: Time
    observed: Observed
    result: str
    summary: str
    who: tuple[Actor, ...]
    what: What
    why: dict[str, Any]
    how: dict[str, Any]
    when: When
    detail: dict[str, Any]
    configuration: tuple[dict[str, Any], ...] | None = None
    passed_tests: tuple[str, ...] | None = None
    failed_tests: tuple[str, ...] | None = None


class Entry(Wire):
    """A recorded entry, read back: predicate fields, the typed detail, and where it stands.

    `digest` is sha256 over the stored envelope bytes; `commit` is known when the entry was read from history
    rather than from a tree.
    """

    predicate: Predicate
    detail: Any
    digest: Sha256
    path: str
    commit: str | None = None

    @property
    def kind(self) -> str:
        return self.predicate.kind

    @property
    def run(self) -> str | None:
        return self.predicate.run

    @property
    def at(self) -> datetime:
        return self.predicate.at
