"""The run's state machine, as data: every legal (phase, event) and the phase it leads to.

An entry of a run is one event. A pair that is not in the table raises and changes nothing. The diagram in the
documentation is generated from this table.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from controller.errors import Refused

OpenPhase = Literal[
    "scheduled",
    "gating",
    "awaiting_approval",
    "deploying",
    "evaluating",
    "verifying",
    "paused",
    "rolling_back",
]
EndPhase = Literal[
    "completed",
    "denied",
    "rejected",
    "expired",
    "superseded",
    "aborted",
    "rolled_back",
    "rollback_failed",
]
Phase = OpenPhase | EndPhase

OPEN: Final[tuple[OpenPhase, ...]] = get_args(OpenPhase)
ENDS: Final[tuple[EndPhase, ...]] = get_args(EndPhase)

_BEFORE: Final[tuple[Phase, ...]] = ("scheduled", "gating", "awaiting_approval")
_ROLLING: Final[tuple[Phase, ...]] = ("deploying", "evaluating", "verifying")

REMEMBERED: Final = "remembered"
"""Stands for the phase the run was in when it was paused."""

TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    ("new", "opened"): "scheduled",
    ("scheduled", "inputs"): "gating",
    ("gating", "gates-passed"): "awaiting_approval",
    ("gating", "gates-waiting"): "gating",
    ("gating", "gates-failed"): "gating",
    ("gating", "approval"): "gating",
    ("gating", "rejection"): "gating",
    ("awaiting_approval", "gates-passed"): "awaiting_approval",
    ("awaiting_approval", "gates-waiting"): "gating",
    ("awaiting_approval", "gates-failed"): "gating",
    ("awaiting_approval", "approval"): "awaiting_approval",
    ("awaiting_approval", "rejection"): "awaiting_approval",
    ("awaiting_approval", "ordered-deploy"): "deploying",
    ("deploying", "ordered-deploy"): "deploying",
    ("deploying", "approval"): "deploying",
    ("deploying", "deployed"): "evaluating",
    ("evaluating", "ordered-deploy"): "deploying",
    ("evaluating", "gates-passed"): "evaluating",
    ("evaluating", "gates-waiting"): "evaluating",
    ("evaluating", "gates-failed"): "evaluating",
    ("evaluating", "approval"): "evaluating",
    ("evaluating", "evaluated-passed"): "evaluating",
    ("evaluating", "evaluated-failed"): "evaluating",
    ("evaluating", "evaluated-unknown"): "evaluating",
    ("evaluating", "ordered-check"): "verifying",
    ("verifying", "approval"): "verifying",
    ("verifying", "verified-passed"): "verifying",
    ("verifying", "verified-failed"): "verifying",
    ("rolling_back", "ordered-rollback"): "rolling_back",
    ("rolling_back", "rolled-back"): "rolling_back",
    ("paused", "approval"): "paused",
    ("paused", "rejection"): "paused",
    ("paused", "gates-passed"): "paused",
    ("paused", "resumed"): REMEMBERED,
    **{(phase, "paused"): "paused" for phase in (*_BEFORE, *_ROLLING)},
    **{(phase, "aborted"): phase for phase in (*_BEFORE, *_ROLLING, "paused")},
    **{(phase, "rollback"): "rolling_back" for phase in (*_ROLLING, "paused")},
    **{(phase, "sealed-superseded"): "superseded" for phase in (*_BEFORE, *_ROLLING, "paused")},
    **{(phase, "sealed-aborted"): "aborted" for phase in (*_BEFORE, *_ROLLING, "paused")},
    **{(phase, "sealed-expired"): "expired" for phase in (*_BEFORE, "paused")},
    **{(phase, "sealed-denied"): "denied" for phase in _BEFORE},
    **{(phase, "sealed-rejected"): "rejected" for phase in ("gating", "awaiting_approval", "paused")},
    ("verifying", "sealed-completed"): "completed",
    ("rolling_back", "sealed-rolled_back"): "rolled_back",
    ("rolling_back", "sealed-rollback_failed"): "rollback_failed",
}

ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    "scheduled": ("pause", "abort"),
    "gating": ("approve", "reject", "pause", "abort"),
    "awaiting_approval": ("approve", "reject", "pause", "abort"),
    "deploying": ("pause", "abort", "rollback"),
    "evaluating": ("approve", "pause", "abort", "rollback"),
    "verifying": ("pause", "abort", "rollback"),
    "paused": ("approve", "resume", "abort", "rollback"),
    "rolling_back": (),
}
"""What is safe to ask for in each open phase; everything else is refused."""

LINKING: Final[tuple[Phase, ...]] = ("gating", "awaiting_approval", *_ROLLING, "paused")
"""When somebody whose approval is on record may still add its link (`core.advance.adds_link`)."""


def follow(phase: str, event: str, remembered: str | None = None) -> str:
    """The phase after `event`. Raises Refused("transition-illegal") for a pair that is not in the table."""
    target = TRANSITIONS.get((phase, event))
    if target == REMEMBERED:
        target = remembered
    if target is None:
        raise Refused(
            "transition-illegal",
            f"a run that is {phase} cannot take the event {event}",
            expected=", ".join(e for p, e in TRANSITIONS if p == phase) or "nothing: the run has ended",
            got=event,
        )
    return target
