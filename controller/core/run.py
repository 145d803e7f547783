"""One run, folded from its entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from controller.core.transitions import ACTIONS, ENDS, follow
from controller.model.entry import (
    Approval,
    Control,
    Deployed,
    Evaluated,
    Gates,
    Inputs,
    Opened,
    Ordered,
    Rejection,
    RolledBack,
    Sealed,
    TargetResult,
    Verified,
)

UNANSWERED = "gate-unanswered"
"""The code of a gate that waits for an answer from outside the core."""


class Recorded(Protocol):
    """What folding needs of an entry, recorded or drafted."""

    @property
    def kind(self) -> str: ...
    @property
    def run(self) -> str | None: ...
    @property
    def at(self) -> datetime: ...
    @property
    def detail(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Run:
    """A run's state. `stage` counts from 0 and is -1 before the first order; `touched` are the targets that
    got a deploy order in this run or were carried over, in order; `deployed` only the former. `unanswered` is
    since when each gate of the current stage has been waiting for an answer."""

    id: str
    environment: str
    phase: str
    opened: Opened
    opened_at: datetime
    entries: int = 1
    remembered: str | None = None
    inputs: Inputs | None = None
    gates: Gates | None = None
    gates_at: datetime | None = None
    gates_count: int = 0
    unanswered: Mapping[str, datetime] = field(default_factory=dict)
    approvals: tuple[Approval, ...] = ()
    rejection: Rejection | None = None
    stage: int = -1
    attempt: int = 1
    ordered: Ordered | None = None
    ordered_at: datetime | None = None
    reported: bool = False
    results: tuple[TargetResult, ...] = ()
    touched: tuple[str, ...] = ()
    deployed: tuple[str, ...] = ()
    evaluating_since: datetime | None = None
    evaluated: Evaluated | None = None
    evaluated_at: datetime | None = None
    verified: Verified | None = None
    rolled_back: RolledBack | None = None
    control: Control | None = None
    resumed_at: datetime | None = None
    sealed: Sealed | None = None

    @property
    def is_open(self) -> bool:
        return self.phase not in ENDS

    @property
    def unreported(self) -> bool:
        """Whether the last batch of orders still waits for its results."""
        return self.ordered is not None and not self.reported

    @property
    def batch_begun(self) -> datetime:
        """When the time of the last batch began to run: a pause gives the whole of it again."""
        return max((at for at in (self.ordered_at, self.resumed_at) if at is not None), default=self.opened_at)

    @property
    def order_deadline(self) -> datetime | None:
        """Until when the last batch may report."""
        if self.ordered is None or self.ordered_at is None:
            return None
        return self.batch_begun + (self.ordered.deadline - self.ordered_at)


def event_of(entry: Recorded) -> str:
    """The transition event an entry stands for."""
    detail = entry.detail
    match entry.kind:
        case "gates":
            words = {"PASS": "passed", "WARN": "passed", "WAIT": "waiting", "FAIL": "failed"}
            return f"gates-{words[detail.aggregate]}"
        case "ordered":
            return f"ordered-{detail.action}"
        case "evaluated":
            return f"evaluated-{detail.verdict}"
        case "verified":
            return "verified-passed" if detail.ok else "verified-failed"
        case "control":
            return str(detail.verb)
        case "sealed":
            return f"sealed-{detail.phase}"
        case kind:
            return kind


def open_run(entry: Recorded) -> Run:
    """The state after an `opened` entry. Raises Refused("transition-illegal") for another one."""
    detail: Opened = entry.detail
    phase = follow("new", event_of(entry))
    return Run(
        id=entry.run or "",
        environment=(entry.run or "").rsplit("-", 2)[0],
        phase=phase,
        opened=detail,
        opened_at=entry.at,
        touched=detail.carried,
    )


def apply(run: Run, entry: Recorded) -> Run:
    """The state after one more entry. Raises Refused("transition-illegal") and changes nothing otherwise."""
    phase = follow(run.phase, event_of(entry), run.remembered)
    changes: dict[str, Any] = {"phase": phase, "entries": run.entries + 1}
    changes |= _facts(run, entry)
    return _changed(run, changes)


def _changed(run: Run, changes: Mapping[str, Any]) -> Run:
    """What `dataclasses.replace` makes, at a third of the price: verification follows every run step by step."""
    made = object.__new__(Run)
    for name in Run.__slots__:
        object.__setattr__(made, name, changes[name] if name in changes else getattr(run, name))
    return made


def fold(entries: Iterable[Recorded]) -> Run:
    """The state of a run from all its entries, in order; the first is `opened`."""
    iterator = iter(entries)
    run = open_run(next(iterator))
    for entry in iterator:
        run = apply(run, entry)
    return run


def failed_for_good(run: Run) -> str | None:
    """What of a paused run has failed, so that it cannot go on from there; None when nothing has."""
    if run.remembered == "evaluating" and run.evaluated is not None and run.evaluated.verdict == "failed":
        return "the stage has failed"
    if run.remembered == "verifying" and run.verified is not None and not run.verified.ok:
        return "the verification has failed"
    return None


def safe_actions(run: Run) -> tuple[str, ...]:
    """The verbs that an open run takes now; gates and approvals may still say no to one."""
    cannot = {"resume"} if run.phase == "paused" and failed_for_good(run) else set()
    if run.opened.previous is None:
        cannot.add("rollback")
    return tuple(verb for verb in ACTIONS.get(run.phase, ()) if verb not in cannot)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a rollback left the targets it was ordered on: back on the former release, not back as they said
    themselves, or silent, so that what they run is not known."""

    back: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


def whereabouts(run: Run) -> Whereabouts:
    """What the rollback's reports say of each target; nothing before a rollback ended."""
    results = run.rolled_back.results if run.rolled_back is not None else ()

    def those(result: str) -> tuple[str, ...]:
        return tuple(one.target for one in results if one.result == result)

    return Whereabouts(those("succeeded"), those("failed"), those("unreported"))


def _facts(run: Run, entry: Recorded) -> dict[str, Any]:
    detail = entry.detail
    match entry.kind:
        case "inputs":
            return {"inputs": detail}
        case "gates":
            return _gates(run, detail, entry.at)
        case "approval":
            return {"approvals": (*run.approvals, detail)}
        case "rejection":
            return {"rejection": detail}
        case "ordered":
            return _ordered(run, detail, entry.at)
        case "deployed":
            return _deployed(run, detail, entry.at)
        case "evaluated":
            return {"evaluated": detail, "evaluated_at": entry.at}
        case "verified":
            return {"verified": detail, "reported": True, "results": detail.results}
        case "rolled-back":
            return {"rolled_back": detail, "reported": True, "results": detail.results}
        case "control":
            return _control(run, detail, entry.at)
        case "sealed":
            return {"sealed": detail}
        case _:
            return {}


def _gates(run: Run, detail: Gates, at: datetime) -> dict[str, Any]:
    before = run.unanswered if run.gates is not None and run.gates.stage == detail.stage else {}
    waiting = {v.gate: before.get(v.gate, at) for v in detail.verdicts if v.code == UNANSWERED}
    return {"gates": detail, "gates_at": at, "gates_count": run.gates_count + 1, "unanswered": waiting}


def _ordered(run: Run, detail: Ordered, at: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"ordered": detail, "ordered_at": at, "reported": False}
    if detail.action == "deploy":
        new = tuple(o.target for o in detail.orders if o.target not in run.touched)
        changes["touched"] = run.touched + new
        changes["deployed"] = run.deployed + tuple(o.target for o in detail.orders if o.target not in run.deployed)
        if detail.stage != run.stage:
            changes |= {"results": (), "evaluated": None, "evaluated_at": None, "evaluating_since": None}
    changes |= {"stage": detail.stage, "attempt": detail.attempt}
    return changes


def _deployed(run: Run, detail: Deployed, at: datetime) -> dict[str, Any]:
    kept = tuple(r for r in run.results if r.target not in {n.target for n in detail.results})
    return {"results": kept + detail.results, "reported": True, "evaluating_since": at}


def _control(run: Run, detail: Control, at: datetime) -> dict[str, Any]:
    changes: dict[str, Any] = {"control": detail}
    if detail.verb == "paused":
        changes["remembered"] = run.phase
    if detail.verb == "resumed":
        # Health and samples are judged anew from here: nothing was measured for the stage while it was paused.
        changes |= {"remembered": None, "resumed_at": at}
        if run.evaluated is not None and run.evaluated.verdict == "unknown":
            changes |= {"evaluated": None, "evaluated_at": None}
        if run.evaluating_since is not None:
            changes["evaluating_since"] = at
    return changes
