"""Evidence entries: the predicate every entry carries, and the kinds there are.

The details stand in `rundetails` and `eventdetails`, and are named here too. The schemas under `schemas/evidence/`
are generated from these models. Times are RFC 3339 UTC with microseconds and `Z`; digests are `sha256:<hex>`; Git
object ids are bare hex.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from controller.model.eventdetails import (
    MOST_REMOVED,
    Accepted,
    Acknowledgement,
    EvidenceRepaired,
    EvidenceRestarted,
    Genesis,
    LockMade,
    MainAcknowledged,
    MainRefused,
    Published,
    Replayed,
    ReplayedDecision,
    RequestJudged,
    SlotChange,
    TagMoved,
    TimeAnchored,
    Witness,
    Witnessed,
)
from controller.model.rundetails import (
    Approval,
    Control,
    Criterion,
    Deployed,
    EntryRef,
    Evaluated,
    Gates,
    Inputs,
    Opened,
    Ordered,
    OrderLine,
    Rejection,
    RolledBack,
    Sealed,
    TargetResult,
    Verdict,
    Verified,
)
from controller.model.wire import (
    Actor,
    CompletedRun,
    GitId,
    Maybe,
    Observed,
    Pin,
    Precondition,
    Sha256,
    StagePlan,
    Time,
    What,
    When,
    Wire,
    format_time,
)

__all__ = [
    "EVENT_KINDS",
    "KINDS",
    "MOST_REMOVED",
    "RUN_KINDS",
    "TEST_RESULT",
    "Accepted",
    "Acknowledgement",
    "Actor",
    "Approval",
    "CompletedRun",
    "Control",
    "Criterion",
    "Deployed",
    "Draft",
    "Entry",
    "EntryRef",
    "Evaluated",
    "EvidenceRepaired",
    "EvidenceRestarted",
    "Gates",
    "Genesis",
    "GitId",
    "Inputs",
    "LockMade",
    "MainAcknowledged",
    "MainRefused",
    "Maybe",
    "Observed",
    "Opened",
    "OrderLine",
    "Ordered",
    "Pin",
    "Precondition",
    "Predicate",
    "Published",
    "Rejection",
    "Replayed",
    "ReplayedDecision",
    "RequestJudged",
    "RolledBack",
    "Sealed",
    "Sha256",
    "SlotChange",
    "StagePlan",
    "TagMoved",
    "TargetResult",
    "Time",
    "TimeAnchored",
    "Verdict",
    "Verified",
    "What",
    "When",
    "Wire",
    "Witness",
    "Witnessed",
    "format_time",
    "predicate_type",
]

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
    "main-acknowledged": MainAcknowledged,
    "lock": LockMade,
    "tag-moved": TagMoved,
    "request": RequestJudged,
    "evidence-repaired": EvidenceRepaired,
    "evidence-restarted": EvidenceRestarted,
    "witnessed": Witnessed,
    "time-anchored": TimeAnchored,
    "published": Published,
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
    run: Maybe[str]
    environment: Maybe[str]
    at: Time
    observed: Observed
    result: str
    summary: str
    who: tuple[Actor, ...]
    what: What
    why: dict[str, Any] = Field(default_factory=dict)
    how: dict[str, Any] = Field(default_factory=dict)
    when: When
    detail: Any
    files: dict[str, bytes] = Field(default_factory=dict)


class Predicate(Wire):
    """What is signed. `rules` is the version of the rules that it was made under. `configuration`, `passedTests`
    and `failedTests` stand only in test-result predicates."""

    rules: Annotated[int, Field(ge=1)]
    kind: str
    index: int
    sequence: Maybe[int]
    run: Maybe[str]
    environment: Maybe[str]
    previous: Maybe[Sha256]
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
