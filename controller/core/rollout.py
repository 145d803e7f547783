"""Which targets, in which order, in which stage; and what each stage waits for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta

from controller.model.entry import StagePlan
from controller.model.strategy import Strategy

DEFAULT_DEADLINE = timedelta(minutes=10)
"""A stage always has a deadline (the progress deadline usual in the field); this one when none is given."""


def order_targets(promotion_commit: str, names: Iterable[str]) -> tuple[str, ...]:
    """Targets in canary order: by a hash over the promotion commit and the name.

    Regions mix, and nobody who declares an agent can choose to be first or last.
    """
    return tuple(sorted(names, key=lambda name: hashlib.sha256(f"{promotion_commit}\0{name}".encode()).digest()))


def plan_stages(percents: Sequence[int], targets: Sequence[str]) -> tuple[StagePlan, ...]:
    """Cumulative percentages of the targets, rounded up, at least one; each stage lists only its new targets.

    A stage that adds no target (few targets, many stages) stays in the plan with none: its criteria still hold.
    """
    stages = []
    done = 0
    for percent in percents:
        upto = max(1, -(-len(targets) * percent // 100)) if targets else 0
        stages.append(StagePlan(percent=percent, targets=tuple(targets[done:upto])))
        done = max(done, upto)
    return tuple(stages)


def stages_for(strategy: Strategy, mode: str, targets: Sequence[str]) -> tuple[StagePlan, ...]:
    """The plan of a run; a rollback takes its targets in one stage."""
    if mode == "rollback":
        return (StagePlan(percent=100, targets=tuple(targets)),)
    return plan_stages([stage.percent for stage in strategy.spec.stages], targets)


def stage_deadline(strategy: Strategy, stage: int) -> timedelta:
    """How long a stage may take from its orders to its verdict."""
    stages = strategy.spec.stages
    if 0 <= stage < len(stages) and stages[stage].deadline is not None:
        return stages[stage].deadline or DEFAULT_DEADLINE
    return DEFAULT_DEADLINE
