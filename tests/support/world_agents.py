"""Scripted agents: what they make of orders, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from controller.model.order import (
    PLAN,
    ComponentState,
    Order,
    Report,
    Sample,
    SamplingRequest,
)

Answering = Callable[[Order, int], str | None]
"""What an agent makes of an order at its n-th asking: "ok", an error code, or None for silence."""


@dataclass
class Agent:
    """A scripted agent: it answers orders and sends a sample each tick while asked to."""

    name: str
    environment: str
    orders: Answering = lambda order, times: "ok"
    errors: int = 0
    requests: int = 100
    healthy: bool | None = True
    plan: str | None = None
    """The digest of the plan that it says it followed, where that is not the ordered one."""
    mute: bool = False
    executed: list[str] = field(default_factory=list)
    sequence: int = 0

    def report(self, order: Order, code: str, now: datetime) -> Report:
        """The next thing it says: how an order went."""
        self.sequence += 1
        return Report(
            order=order.id,
            run=order.run,
            stage=order.stage,
            attempt=order.attempt,
            target=order.target,
            action=order.action,
            sequence=self.sequence,
            status="succeeded" if code == "ok" else "failed",
            code=code,
            message="" if code == "ok" else f"it said {code}",
            release=order.release,
            manifest_digest=order.manifest_digest,
            plan=self.plan or order.artifacts.get(PLAN),
            components={n: ComponentState(digest=c.digest, running=True) for n, c in order.components.items()},
            healthy=self.healthy,
            started=now,
            finished=now,
        )

    def sample(self, request: SamplingRequest, now: datetime) -> Sample:
        """The next thing it says: what it measured."""
        self.sequence += 1
        return Sample(
            agent=self.name,
            environment=self.environment,
            run=request.run,
            stage=request.stage,
            sequence=self.sequence,
            at=now,
            healthy=self.healthy,
            requests=self.requests,
            errors=self.errors,
        )
