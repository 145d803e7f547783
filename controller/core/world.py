"""Everything one pass decides from, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from controller.core.absence import Absence
from controller.core.artifacts import Templates
from controller.core.demand import Demand
from controller.core.gates import Question
from controller.core.requests import RequestVerdict
from controller.core.run import Run
from controller.core.trust import TrustState
from controller.ledger.fold import State
from controller.model.component import Component
from controller.model.entry import Accepted, Draft, MainRefused, Observed, Pin
from controller.model.environment import Environment
from controller.model.history import Commit
from controller.model.intent import Intent
from controller.model.lock import ReleaseLock
from controller.model.order import AgentStatement
from controller.model.policy import Policy
from controller.model.release import Release
from controller.model.strategy import Strategy


@dataclass(frozen=True, slots=True)
class RunDocuments:
    """What a run executes: the documents it pinned when it opened, never later versions of them.

    `lock` is None until the release is locked. `agents` are the pinned targets' names.
    """

    environment: Environment
    strategy: Strategy
    policies: Mapping[str, Policy]
    policy_pins: Mapping[str, Pin]
    components: Mapping[str, Component]
    release: Release
    agents: tuple[str, ...]
    lock: ReleaseLock | None
    lock_pin: Pin | None


@dataclass(frozen=True, slots=True)
class Target:
    """What an order carries: a lock and the components it needs, of this run or of the one before."""

    release: str
    manifest_digest: str
    lock: ReleaseLock
    components: Mapping[str, Component]
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CompletedAt:
    """A release completed in an environment, by which run and when."""

    run: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """Answers looked up in the evidence tree for what this pass is about: by release name the index of its
    lock event, by (environment, manifest digest) the completion."""

    lock_index: Mapping[str, int] = field(default_factory=dict)
    completed: Mapping[tuple[str, str], CompletedAt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cosigned:
    """An agent's newest cosignature: the checkpoint's size and its note with that one line, and the certificate of
    a key that an authority certifies."""

    agent: str
    size: int
    note: bytes
    at: datetime
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A signed checkpoint that others are asked about: its size and note, and the newest sealed run in it."""

    size: int
    note: bytes
    run: str


@dataclass(frozen=True, slots=True)
class LogFacts:
    """The log as others see it: who cosigned it, and the checkpoints that are to be time-stamped and to be
    published, if one is."""

    cosigned: tuple[Cosigned, ...] = ()
    candidate: Chosen | None = None
    publish: Chosen | None = None


@dataclass(frozen=True, slots=True)
class World:
    """One observation. `answers` are by question key; `inbox` what agents said and nobody recorded yet.

    `check_tags` is how often the tags of what runs are looked at, zero for never; `templates` render artifacts;
    `tzdata` names the time zone data by which schedules are read; `demands` are the approvers' links that main's
    layouts demand, by environment; `absences` are the times, in order, in which nothing could be looked at.
    """

    project: str
    now: datetime
    templates: Templates
    observed: Observed
    intent: Intent
    trust: TrustState
    state: State
    runs: Mapping[str, Run]
    documents: Mapping[str, RunDocuments]
    facts: Facts
    cured: tuple[MainRefused, ...] = ()
    accepted: Accepted | None = None
    refused: tuple[MainRefused, ...] = ()
    requests: tuple[tuple[Commit, RequestVerdict], ...] = ()
    inbox: tuple[AgentStatement, ...] = ()
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    check_tags: timedelta = timedelta(0)
    log: LogFacts = LogFacts()
    tzdata: str = ""
    demands: Mapping[str, Demand] = field(default_factory=dict)
    absences: tuple[Absence, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to record, what to ask, and when time alone makes another look worthwhile.

    Nothing here is an effect: effects follow from what is recorded (`controller.core.effects`).
    """

    drafts: tuple[Draft, ...]
    questions: tuple[Question, ...]
    next_look: datetime | None
