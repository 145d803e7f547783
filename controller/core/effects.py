"""What follows from the record. Effects are derived from recorded state alone, so a crash loses none of them and
repeating them changes nothing: orders are idempotent by id, main is swapped only where it still differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controller.core.analysis import sampling_interval
from controller.core.declared import agent_key as agent_key
from controller.core.orderparts import FIRST_ROLES, checks_of, run_of
from controller.core.rolling import metrics_of, stage_of
from controller.core.run import Run
from controller.core.world import RunDocuments, Target
from controller.ledger.backing import revert_of
from controller.ledger.fold import EnvironmentState
from controller.model.intent import Intent
from controller.model.order import (
    AgentKey,
    AgentStatement,
    LogState,
    Order,
    OrderComponent,
    Report,
    Sample,
    SamplingRequest,
)
from controller.model.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the orders stand in evidence: agents are told, and put it on their stickers."""

    entry_index: int
    evidence_commit: str
    log: LogState
    at: datetime


@dataclass(frozen=True, slots=True)
class SlotRevert:
    """A slot that must name again what runs: the file's former blob (None: the file goes) and the run."""

    environment: str
    path: str
    blob: str | None
    run: str
    release: str | None


def orders_of(
    run: Run, target: Target, recorded: Recorded, strategy: Strategy | None = None, witnesses: int = 0
) -> list[Order]:
    """The orders of a run's last batch, as they are told to the agents."""
    ordered = run.ordered
    if ordered is None or not run.unreported or not run.is_open or run.phase == "paused":
        return []
    lead = run.stage == 0 and not run.results and run.opened.mode == "promotion"
    orders = []
    for place, line in enumerate(ordered.orders):
        components = {
            name: OrderComponent(
                repository=locked.repository,
                digest=locked.digest,
                role=locked.role,
                run=run_of(target.components[name]),
            )
            for name, locked in sorted(target.lock.spec.components.items())
            if locked.role not in FIRST_ROLES or (lead and place == 0 and ordered.action == "deploy")
        }
        orders.append(
            Order(
                id=line.id,
                run=run.id,
                environment=run.environment,
                stage=ordered.stage,
                attempt=ordered.attempt,
                target=line.target,
                action=ordered.action,
                release=target.release,
                manifest_digest=target.manifest_digest,
                components=components,
                artifacts=dict(ordered.artifacts),
                checks=checks_of(strategy) if strategy is not None and ordered.action == "check" else (),
                variables=dict(target.variables),
                deadline=run.order_deadline or ordered.deadline,
                entry_index=recorded.entry_index,
                evidence_commit=recorded.evidence_commit,
                log=recorded.log,
                at=recorded.at,
                witnesses=witnesses,
            )
        )
    return orders


def sampling(
    runs: Mapping[str, Run], documents: Mapping[str, RunDocuments], agents: Sequence[str]
) -> dict[str, SamplingRequest | None]:
    """Which agents sample for which stage now; None stops one that did."""
    wanted: dict[str, SamplingRequest | None] = dict.fromkeys(agents)
    for run in runs.values():
        if run.phase != "evaluating" or run.evaluated is not None or run.id not in documents:
            continue
        stage = stage_of(run, documents[run.id])
        if stage is None or not (stage.analysis or stage.min_healthy_time):
            continue
        interval = sampling_interval(stage, metrics_of(run, documents[run.id]))
        for agent in run.deployed:
            wanted[agent] = SamplingRequest(run=run.id, stage=run.stage, interval_seconds=interval.total_seconds())
    return wanted


def settled(statement: AgentStatement, runs: Mapping[str, Run]) -> bool:
    """Whether a statement is recorded, or can never matter: its agent may forget it."""
    body = statement.body
    if isinstance(body, Report):
        waiting = {
            (line.id, line.target)
            for run in runs.values()
            if run.ordered and run.unreported
            for line in run.ordered.orders
        }
        return (body.order, statement.agent) not in waiting
    assert isinstance(body, Sample)
    return not any(
        (run.id, run.stage) == (body.run, body.stage)
        and run.phase in ("deploying", "evaluating", "paused")
        and run.evaluated is None
        for run in runs.values()
    )


def agent_keys(intent: Intent) -> dict[str, AgentKey]:
    """Who may poll: every declared agent."""
    return {name: agent_key(a.document) for name, a in intent.agents.items() if a.path not in intent.broken}


def slot_reverts(
    environments: Mapping[str, EnvironmentState], runs: Mapping[str, Run], pending: frozenset[str], intent: Intent
) -> list[SlotRevert]:
    """Slots on main that still name what was rolled back; the revert is also the hold.

    Only the slot that the ended run was opened for is ever touched: one that a person changed since stands.
    """
    found = []
    for name, place in sorted(environments.items()):
        last, due, here = place.last_run, revert_of(place), intent.promotions.get(name)
        if name in runs or name in pending or due is None or here is None:
            continue
        assert last is not None and last.slot is not None
        run, path, wanted = due
        if here.blob == last.slot.blob and here.blob != wanted:
            found.append(SlotRevert(name, path, wanted, run, place.release))
    return found
