"""An AgentHub without network or threads: its agents are scripts that answer at once, later or never."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from controller.errors import Refused
from controller.ledger import dsse
from controller.ledger.canonical import canonical, digest
from controller.model.order import (
    PLAN,
    AgentKey,
    AgentStatement,
    ComponentState,
    Order,
    PreparedOrder,
    Report,
    Sample,
    SamplingRequest,
    statement_of,
)
from controller.ports import Clock, Signer, Wake

Behaviour = Literal["succeed", "fail", "silent", "absent"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a scripted agent measures in each interval."""

    healthy: bool | None = True
    requests: int = 10
    errors: int = 0
    latency: float | None = 0.01


class HubSimulator:
    """Scripted agents behind the AgentHub port. `signers` hold each agent's key; all statements are signed.

    `script(agent, behaviour)`: succeed and fail report an order at once; silent takes it and never answers;
    absent does not even poll. A change of script is applied to the orders that are still open.
    `emit()` is the passing of one sampling interval.
    """

    def __init__(self, signers: Mapping[str, Signer], clock: Clock, wake: Wake) -> None:
        self._signers = signers
        self._clock = clock
        self._wake = wake
        self._agents: dict[str, AgentKey] = {}
        self._scripts: dict[str, Behaviour] = {}
        self._figures: dict[str, Callable[[Sample | None], Figures] | Figures] = {}
        self._open: dict[str, PreparedOrder] = {}
        self._known: set[str] = set()
        self._running: dict[str, Order] = {}
        self._sampling: dict[str, SamplingRequest] = {}
        self._sequence: dict[str, int] = {}
        self._inbox: dict[str, AgentStatement] = {}
        self._seen: dict[str, datetime] = {}
        self._delivered: dict[str, datetime] = {}
        self.executed: list[str] = []
        """Ids of the orders that were carried out, in order: none may stand here twice."""

    # -- the script ------------------------------------------------------------------------------------

    def script(self, agent: str, behaviour: Behaviour) -> None:
        """What the agent does with orders from now on, and with those it has not answered."""
        self._scripts[agent] = behaviour
        self._work(agent)

    def measure(self, agent: str, figures: Figures | Callable[[Sample | None], Figures]) -> None:
        """What the agent's samples say."""
        self._figures[agent] = figures

    def emit(self) -> None:
        """One sampling interval passes."""
        for agent, request in self._sampling.items():
            if self._behaviour(agent) in ("absent", "silent"):
                continue
            found = self._figures.get(agent, Figures())
            figures = found if isinstance(found, Figures) else found(None)
            running = self._running.get(agent)
            self._say(
                Sample(
                    agent=agent,
                    environment=self._agents[agent].environment,
                    run=request.run,
                    stage=request.stage,
                    sequence=self._next(agent),
                    at=self._clock.now(),
                    healthy=figures.healthy,
                    requests=figures.requests,
                    errors=figures.errors,
                    latency_p50=figures.latency,
                    latency_p95=figures.latency,
                    latency_p99=figures.latency,
                    manifest_digest=running.manifest_digest if running else None,
                ),
                agent,
            )

    # -- the port --------------------------------------------------------------------------------------

    def declare(self, agents: Mapping[str, AgentKey]) -> None:
        self._agents = dict(agents)
        for agent in agents:
            self._work(agent)

    def deliver(self, orders: Sequence[PreparedOrder]) -> None:
        for order in orders:
            if order.agent not in self._agents:
                raise Refused("agent-unknown", "no declared agent", got=order.agent)
        for order in orders:
            if order.order_id not in self._known:
                self._known.add(order.order_id)
                self._open[order.order_id] = order
        for agent in dict.fromkeys(order.agent for order in orders):
            self._work(agent)

    def cancel(self, order_ids: Sequence[str]) -> None:
        for order_id in order_ids:
            self._open.pop(order_id, None)

    def skewed(self) -> dict[str, float]:
        """Nobody: simulated agents go by the test's clock."""
        return {}

    def show(self, size: int) -> None:
        """Nothing: simulated agents bear no witness."""

    def sample(self, requests: Mapping[str, SamplingRequest | None]) -> None:
        for agent, request in requests.items():
            if request is None:
                self._sampling.pop(agent, None)
            elif agent in self._agents:
                self._sampling[agent] = request

    def acknowledge(self, digests: Sequence[str]) -> None:
        for item in digests:
            self._inbox.pop(item, None)

    def inbox(self) -> tuple[AgentStatement, ...]:
        return tuple(self._inbox.values())

    def seen(self) -> Mapping[str, datetime]:
        return dict(self._seen)

    def delivered(self) -> Mapping[str, datetime]:
        return dict(self._delivered)

    def start(self) -> None:
        return

    def stop(self) -> None:
        return

    # -- the agents ------------------------------------------------------------------------------------

    def _behaviour(self, agent: str) -> Behaviour:
        return self._scripts.get(agent, "succeed")

    def _work(self, agent: str) -> None:
        behaviour = self._behaviour(agent)
        if agent not in self._agents or behaviour == "absent":
            return
        now = self._clock.now()
        if agent not in self._seen:
            self._wake()
        self._seen[agent] = now
        for order_id, prepared in list(self._open.items()):
            if prepared.agent != agent:
                continue
            self._delivered.setdefault(order_id, now)
            if behaviour != "silent":
                del self._open[order_id]
                self.executed.append(order_id)
                self._report(agent, Order.model_validate_json(dsse.split(prepared.envelope).payload), behaviour)

    def _report(self, agent: str, order: Order, behaviour: Behaviour) -> None:
        good = behaviour == "succeed"
        if good and order.action != "check":
            self._running[agent] = order
        running = self._running.get(agent)
        now = self._clock.now()
        self._say(
            Report(
                order=order.id,
                run=order.run,
                stage=order.stage,
                attempt=order.attempt,
                target=agent,
                action=order.action,
                sequence=self._next(agent),
                status="succeeded" if good else "failed",
                code="ok" if good else "start-failed",
                message="done" if good else "the new version does not start",
                release=order.release,
                manifest_digest=order.manifest_digest,
                plan=order.artifacts.get(PLAN),
                components={
                    name: ComponentState(digest=component.digest, running=component.role in ("primary", "sidecar"))
                    for name, component in (running.components if running else {}).items()
                },
                sticker=digest(canonical(running.plain())) if running else None,
                healthy=True if running else None,
                started=now,
                finished=now,
            ),
            agent,
        )

    def _say(self, body: Report | Sample, agent: str) -> None:
        data = dsse.sign(canonical(statement_of(body)), dsse.STATEMENT_PAYLOAD, self._signers[agent])
        kind: Literal["report", "sample"] = "report" if isinstance(body, Report) else "sample"
        self._inbox[digest(data)] = AgentStatement(agent, kind, digest(data), data, body)
        self._wake()

    def _next(self, agent: str) -> int:
        self._sequence[agent] = self._sequence.get(agent, 0) + 1
        return self._sequence[agent]
