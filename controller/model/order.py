"""What controller and agents say to each other: orders, deliveries, polls, reports and samples.

Everything on the wire is a DSSE envelope (https://github.com/secure-systems-lab/dsse) whose payload is
RFC 8785 JSON. Reports and samples are in-toto Statements v1, so that they can enter evidence verbatim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from controller.model.link import LinkSignature
from controller.model.trust import TimedKey

ORDER_TYPE = "application/vnd.lockgate.order.v1+json"
DELIVERY_TYPE = "application/vnd.lockgate.delivery.v1+json"
POLL_TYPE = "application/vnd.lockgate.poll.v1+json"
"""DSSE payload types; statements have `ledger.dsse.STATEMENT_PAYLOAD`. The type is signed with the payload, so no
message can stand in for another kind."""

STATEMENT_V1 = "https://in-toto.io/Statement/v1"
REPORT_PREDICATE = "https://lockgate.dev/evidence/report/v1"
SAMPLE_PREDICATE = "https://lockgate.dev/evidence/sample/v1"

MAX_CLOCK_SKEW = 300.0
"""Seconds by which the clocks of an agent and its controller may differ."""

Action = Literal["deploy", "rollback", "check"]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Wire(BaseModel):
    """Base of wire formats: frozen, camelCase JSON, unknown fields refused, members that are None left out."""

    model_config = ConfigDict(
        # Built when first used: a command that needs none of them starts without waiting for all of them.
        defer_build=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    def plain(self) -> dict[str, Any]:
        """The JSON value of this message, ready for canonical serialisation."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Spoken(Wire):
    """What an agent says. `certificate` is the one for the key it is signed with, where an authority certifies the
    agent's keys; being inside the payload it is signed with it."""

    certificate: Annotated[str, StringConstraints(max_length=16_384)] | None = None


class OrderComponent(Wire):
    """One component of an order; `run` is the Component document's `spec.run` as plain JSON."""

    repository: str
    digest: Digest
    role: Literal["primary", "sidecar", "init", "migration"] = "primary"
    run: dict[str, Any] | None = None


class HttpProbe(Wire):
    """A request that must be answered with the status `expect`; unnamed: of every component with a port."""

    path: str
    expect: int = 200
    component: str | None = None
    port: str | None = None


class ExecProbe(Wire):
    """A command that must end with exit code 0 in the version's folder; unnamed: of every component."""

    command: tuple[str, ...]
    component: str | None = None


class OrderCheck(Wire):
    """One check of a `check` order: exactly one of the two."""

    http: HttpProbe | None = None
    exec: ExecProbe | None = None


class LogState(Wire):
    """The transparency log as of the entry that recorded the order: number of leaves and their root."""

    size: Count
    root: str


PLAN = "plan.json"
"""The artifact that says who gets what, in which order and on which terms."""


class LogProof(Wire):
    """The newest checkpoint of the log (a signed note), and that it extends the tree of the first `start` leaves:
    an RFC 6962 consistency proof, base64. From 0, or to a size that `start` already is, there is nothing to prove.
    """

    checkpoint: str
    size: Count
    start: Count
    hashes: list[str] = Field(default_factory=list)


class Cosignature(Wire):
    """An agent's witness signature over the checkpoint of `size`: a signed note's line without its newline.

    `certificate` is that of the key that signed, where an authority certifies the agent's keys.
    """

    size: Annotated[int, Field(ge=1)]
    line: Annotated[str, StringConstraints(max_length=1000)]
    certificate: Annotated[str, StringConstraints(max_length=16_384)] | None = None


GitObject = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
"""The bytes of a Git object, without its header, in base64."""
CommitId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class Binding(Wire):
    """What the digest that approvals bind to is made from (`core.approvals.approval_subject`)."""

    promotion_commit: CommitId
    slot: str
    lock: Digest
    environment: str
    strategy: str
    policies: list[str]
    trust_version: Count
    targets: list[str]


class Approving(Wire):
    """The Git objects by which an agent sees for itself that people stand behind an order.

    `vouched` is path to the commit, signed by a person, whose tree shows that document; `promotion` the commit
    that changed the slot; `requests` the commits of approve requests, bound to `binding`; `rollback` that of the
    request to go back. Objects are known by their ids, so it does not matter who sends them.
    """

    commits: list[GitObject] = Field(default_factory=list)
    trees: list[GitObject] = Field(default_factory=list)
    blobs: list[GitObject] = Field(default_factory=list)
    vouched: dict[str, CommitId] = Field(default_factory=dict)
    promotion: CommitId | None = None
    binding: Binding | None = None
    requests: list[CommitId] = Field(default_factory=list)
    rollback: CommitId | None = None


def order_id(run: str, stage: int, attempt: int, target: str, action: str) -> str:
    """The idempotency key of an order: an agent executes each id once."""
    return f"{run}/{stage}/{attempt}/{target}/{action}"


class Order(Wire):
    """What one agent is to do; recorded in evidence at `entry_index` before it was delivered. `artifacts` are the
    digests of what was rendered for it, by name."""

    id: str
    run: str
    environment: str
    stage: Count
    attempt: Annotated[int, Field(ge=1)]
    target: str
    action: Action
    release: str
    manifest_digest: Digest
    components: dict[str, OrderComponent]
    artifacts: dict[str, Digest] = Field(default_factory=dict)
    checks: tuple[OrderCheck, ...] = ()
    variables: dict[str, str] = Field(default_factory=dict)
    deadline: AwareDatetime
    entry_index: Count
    evidence_commit: str
    log: LogState
    at: AwareDatetime
    witnesses: Count = 0


class SamplingRequest(Wire):
    """Ask for one sample every `interval_seconds` while a stage of a run is open."""

    run: str
    stage: Count
    interval_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Obstacle(Wire):
    """What keeps an agent from carrying out an order for now: told, never recorded, and no more than its word."""

    order: Annotated[str, StringConstraints(max_length=1024)]
    code: Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=64)]
    message: Annotated[str, StringConstraints(max_length=2000)]


class Poll(Spoken):
    """An agent's call: its fresh nonce, and the signed statements that were not acknowledged yet.

    `log_size` is the largest checkpoint it has seen and `cosignature` its own over it; `complaint` is the code for
    which it takes nothing from this controller; `obstacle` is what the order in hand waits for.
    """

    agent: str
    environment: str
    nonce: Annotated[str, StringConstraints(min_length=16, max_length=128)]
    at: AwareDatetime
    wait_seconds: Annotated[float, Field(ge=0, le=300, allow_inf_nan=False)]
    statements: list[dict[str, Any]] = Field(default_factory=list)
    trust_version: Count
    log_size: Count = 0
    cosignature: Cosignature | None = None
    complaint: Annotated[str, StringConstraints(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=64)] | None = None
    obstacle: Obstacle | None = None


class Delivery(Wire):
    """The controller's answer, bound to the poll's nonce; `acknowledged` are digests of envelopes.

    `log` is the log's newest checkpoint as of this answer: no order counts without it. `witnessed` are
    checkpoints that other agents cosigned, for orders that ask for witnesses; `certificates` are by agent those
    of the keys that an authority certified for it. `restarts` is the number of the
    newest restart that the log went through; GET /agent/v1/restart gives it. `approving` is by order.
    """

    agent: str
    environment: str
    nonce: str
    orders: list[dict[str, Any]] = Field(default_factory=list)
    acknowledged: list[Digest] = Field(default_factory=list)
    sampling: SamplingRequest | None = None
    trust_version: Count
    at: AwareDatetime
    log: LogProof | None = None
    witnessed: list[str] = Field(default_factory=list)
    certificates: dict[str, str] = Field(default_factory=dict)
    restarts: Count = 0
    approving: dict[str, Approving] = Field(default_factory=dict)


class ComponentState(Wire):
    """What an agent found or left of one component; `platform_digest` when the digest was an index."""

    digest: Digest
    platform_digest: Digest | None = None
    running: bool


class Report(Spoken):
    """What came of one order. `code` is "ok" or a stable error code; `healthy=None` means not known; `plan` is
    the digest of the deploy plan that the order carried; `link` is the agent's signature over the in-toto link
    of a deployment that succeeded (`model.link.deploy_link`)."""

    order: str
    run: str
    stage: Count
    attempt: Annotated[int, Field(ge=1)]
    target: str
    action: Action
    sequence: Annotated[int, Field(ge=1)]
    status: Literal["succeeded", "failed"]
    code: str
    message: str
    release: str
    manifest_digest: Digest
    plan: Digest | None = None
    components: dict[str, ComponentState]
    sticker: Digest | None = None
    log: Digest | None = None
    healthy: bool | None = None
    link: LinkSignature | None = None
    started: AwareDatetime
    finished: AwareDatetime

    @property
    def said_at(self) -> datetime:
        """When the agent says that it said this."""
        return self.finished


class Sample(Spoken):
    """Health and traffic of one target. `requests` and `errors` count since the previous sample.

    Latencies are percentiles, in seconds, of the requests since the previous sample; `None` is unknown.
    """

    agent: str
    environment: str
    run: str | None = None
    stage: Count | None = None
    sequence: Annotated[int, Field(ge=1)]
    at: AwareDatetime
    healthy: bool | None = None
    requests: Count = 0
    errors: Count = 0
    latency_p50: Seconds | None = None
    latency_p95: Seconds | None = None
    latency_p99: Seconds | None = None
    manifest_digest: Digest | None = None

    @property
    def said_at(self) -> datetime:
        """When the agent says that it said this."""
        return self.at


def statement_of(body: Report | Sample) -> dict[str, Any]:
    """The in-toto Statement v1 (https://in-toto.io/Statement/v1) that carries a report or sample.

    Subjects are the components (report) or the release as a whole (sample), by sha256.
    """
    if isinstance(body, Report):
        kind = REPORT_PREDICATE
        digests = {name: state.digest for name, state in sorted(body.components.items())}
    else:
        kind = SAMPLE_PREDICATE
        digests = {"release": body.manifest_digest} if body.manifest_digest else {}
    return {
        "_type": STATEMENT_V1,
        "subject": [{"name": n, "digest": {"sha256": d.split(":", 1)[1]}} for n, d in digests.items()],
        "predicateType": kind,
        "predicate": body.plain(),
    }


def body_of(statement: Mapping[str, Any]) -> Report | Sample:
    """The report or sample inside a statement; raises ValueError when it is neither, or not its own form."""
    kinds: dict[str, type[Report] | type[Sample]] = {REPORT_PREDICATE: Report, SAMPLE_PREDICATE: Sample}
    predicate_type = statement.get("predicateType")
    if not isinstance(predicate_type, str) or predicate_type not in kinds:
        raise ValueError(f"predicate type is {predicate_type!r}, neither a report nor a sample")
    body = kinds[predicate_type].model_validate(statement.get("predicate"))
    if statement_of(body) != dict(statement):
        raise ValueError("the statement's subject or fields do not follow from its predicate")
    return body


@dataclass(frozen=True, slots=True)
class AgentKey:
    """A declared agent: the environment it belongs to and its OpenSSH public key without comment.

    With `authority` the key is that of who certifies the agent's keys. `previous` are keys it may still sign with.
    """

    environment: str
    public_key: str
    authority: bool = False
    previous: tuple[TimedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedOrder:
    """An order as it will be delivered: the DSSE envelope that the controller signed, as bytes.

    It is held back until `witnesses` other agents have cosigned a log of at least `log_size` entries. `approving`
    goes with it.
    """

    agent: str
    order_id: str
    envelope: bytes
    witnesses: int = 0
    log_size: int = 0
    approving: Approving | None = None


@dataclass(frozen=True, slots=True)
class AgentStatement:
    """A verified statement of an agent; `digest` is "sha256:…" over the envelope's bytes."""

    agent: str
    kind: Literal["report", "sample"]
    digest: str
    envelope: bytes
    body: Report | Sample
