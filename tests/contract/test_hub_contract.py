"""What every AgentHub does, over HTTP with real agent-side clients, and in the simulator."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from controller.adapters.git.keys import FileSigner, generate_key
from controller.errors import Refused, Unavailable
from controller.ledger import dsse
from controller.ledger.canonical import canonical, digest
from controller.model.keys import key_id
from controller.model.order import (
    ORDER_TYPE,
    AgentKey,
    LogState,
    Order,
    OrderComponent,
    PreparedOrder,
    Report,
    Sample,
    SamplingRequest,
    order_id,
    statement_of,
)
from controller.model.trustroot import TrustRoot
from controller.ports import AgentHub
from tests.support.agents import SystemClock, World, make_world
from tests.support.approving import vouched_rules
from tests.support.hub_simulator import Behaviour, HubSimulator
from tests.support.logs import client_of
from tests.support.waiting import until

DIGEST = "sha256:" + "ab" * 32


class Rig(Protocol):
    hub: AgentHub
    woken: threading.Event
    controller: FileSigner
    owner: FileSigner

    def script(self, agent: str, behaviour: Behaviour) -> None: ...

    def interval(self) -> None: ...

    def key(self, agent: str) -> FileSigner: ...

    def recorded(self) -> LogState: ...


class SimulatedRig:
    def __init__(self, path: Path) -> None:
        self.controller = generate_key(path / "controller.key")
        self.owner = generate_key(path / "owner.key")
        self.keys = {name: generate_key(path / f"{name}.key") for name in ("web-1", "web-2")}
        self.woken = threading.Event()
        self.hub = HubSimulator(self.keys, SystemClock(), self.woken.set)
        for name in self.keys:
            self.hub.script(name, "absent")

    def script(self, agent: str, behaviour: Behaviour) -> None:
        self.hub.script(agent, behaviour)

    def interval(self) -> None:
        self.hub.emit()

    def key(self, agent: str) -> FileSigner:
        return self.keys[agent]

    def recorded(self) -> LogState:
        return LogState(size=8, root="00")

    def close(self) -> None:
        self.hub.stop()


class HttpRig:
    """Agents are threads around the real client; what they do with an order is scripted."""

    def __init__(self, path: Path) -> None:
        self.world: World = make_world(path)
        self.hub = self.world.hub
        self.woken = self.world.woken
        self.controller = self.world.controller
        self.owner = FileSigner(path / "owner.key")
        self.agents: dict[str, ScriptedAgent] = {}

    def script(self, agent: str, behaviour: Behaviour) -> None:
        if agent in self.agents:
            self.agents.pop(agent).stop()
        if behaviour != "absent":
            self.agents[agent] = ScriptedAgent(self.world, agent, behaviour)

    def interval(self) -> None:
        for agent in self.agents.values():
            agent.interval()

    def key(self, agent: str) -> FileSigner:
        return self.world.key(agent)

    def recorded(self) -> LogState:
        return self.world.log.record(8)

    def close(self) -> None:
        self.hub.stop()
        for agent in self.agents.values():
            agent.stop()


class ScriptedAgent:
    def __init__(self, world: World, name: str, behaviour: Behaviour) -> None:
        self.name = name
        self.behaviour = behaviour
        self.signer = world.key(name)
        self.sampling: SamplingRequest | None = None
        self.unsent: dict[str, dict[str, object]] = {}
        self.answered: set[str] = set()
        self.sequence = 0
        self.stopping = False
        root = TrustRoot.load(world.root_file)
        self.client = client_of(
            root,
            world.path / "scripted" / name,
            self.signer,
            agent=name,
            environment="prod",
            url=world.hub.address,
            now=_now,
        )
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.stopping:
            try:
                delivery = self.client.poll(0.02, list(self.unsent.values()))
            except (Refused, Unavailable):
                continue
            for item in delivery.acknowledged:
                self.unsent.pop(item, None)
            self.sampling = delivery.sampling
            for envelope in delivery.orders:
                order = self.client.order(envelope, delivery)
                if self.behaviour != "silent" and order.id not in self.answered:
                    self.answered.add(order.id)
                    self.say(_report(order, self.behaviour == "succeed"))

    def interval(self) -> None:
        until("the sampling request", lambda: self.sampling)
        assert self.sampling is not None
        self.sequence += 1
        self.say(
            Sample(
                agent=self.name,
                environment="prod",
                run=self.sampling.run,
                stage=self.sampling.stage,
                sequence=self.sequence,
                at=_now(),
                healthy=True,
                requests=10,
            )
        )

    def say(self, body: Report | Sample) -> None:
        data = dsse.sign(canonical(statement_of(body)), dsse.STATEMENT_PAYLOAD, self.signer)
        self.unsent[digest(data)] = json.loads(data)

    def stop(self) -> None:
        self.stopping = True
        self.thread.join(5)
        self.client.close()


def _now() -> datetime:
    return datetime.now(UTC)


def _report(order: Order, good: bool) -> Report:
    return Report(
        order=order.id,
        run=order.run,
        stage=order.stage,
        attempt=order.attempt,
        target=order.target,
        action=order.action,
        sequence=1,
        status="succeeded" if good else "failed",
        code="ok" if good else "start-failed",
        message="",
        release=order.release,
        manifest_digest=order.manifest_digest,
        components={},
        started=order.at,
        finished=_now(),
    )


@pytest.fixture(params=["http", "simulator"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HttpRig | SimulatedRig]:
    made: HttpRig | SimulatedRig = HttpRig(tmp_path) if request.param == "http" else SimulatedRig(tmp_path)
    made.hub.declare({n: AgentKey("prod", made.key(n).public_key) for n in ("web-1", "web-2")})
    yield made
    made.close()


def prepared(rig: Rig, target: str, stage: int = 1) -> PreparedOrder:
    named = order_id("prod-1-0123abcd", stage, 1, target, "deploy")
    order = Order(
        id=named,
        run="prod-1-0123abcd",
        environment="prod",
        stage=stage,
        attempt=1,
        target=target,
        action="deploy",
        release="shop-1",
        manifest_digest=DIGEST,
        components={"api": OrderComponent(repository="oci-layout:api", digest=DIGEST)},
        deadline=_now() + timedelta(seconds=60),
        entry_index=7,
        evidence_commit="0" * 40,
        log=rig.recorded(),
        at=_now(),
    )
    envelope = dsse.sign(canonical(order.plain()), ORDER_TYPE, rig.controller)
    return PreparedOrder(target, named, envelope, approving=vouched_rules(rig.owner))


def reports(rig: Rig) -> list[Report]:
    return [s.body for s in rig.hub.inbox() if isinstance(s.body, Report)]


def test_an_order_is_answered_by_one_verified_report(rig: Rig) -> None:
    rig.script("web-1", "succeed")
    order = prepared(rig, "web-1")
    rig.hub.deliver([order])
    (report,) = until("the report", lambda: reports(rig))
    assert (report.order, report.status) == (order.order_id, "succeeded")
    (statement,) = rig.hub.inbox()
    assert (statement.agent, statement.kind, statement.digest) == ("web-1", "report", digest(statement.envelope))
    key = rig.key("web-1").public_key
    assert dsse.open_envelope(statement.envelope, {key_id(key): key}).payload_type == dsse.STATEMENT_PAYLOAD
    assert rig.woken.is_set()
    assert rig.hub.delivered().keys() == {order.order_id}
    assert rig.hub.seen().keys() == {"web-1"}


def test_an_order_delivered_twice_is_one_order(rig: Rig) -> None:
    rig.script("web-1", "succeed")
    order = prepared(rig, "web-1")
    rig.hub.deliver([order, order])
    until("the report", lambda: reports(rig))
    rig.hub.deliver([order])
    second = prepared(rig, "web-1", stage=2)
    rig.hub.deliver([second])
    until("the second report", lambda: len(reports(rig)) == 2)
    assert [report.order for report in reports(rig)] == [order.order_id, second.order_id]


def test_a_failure_is_reported_as_one(rig: Rig) -> None:
    rig.script("web-1", "fail")
    rig.hub.deliver([prepared(rig, "web-1")])
    (report,) = until("the report", lambda: reports(rig))
    assert (report.status, report.code) == ("failed", "start-failed")


def test_an_order_waits_for_an_agent_that_is_not_there(rig: Rig) -> None:
    order = prepared(rig, "web-1")
    rig.hub.deliver([order])
    assert not rig.hub.delivered()
    rig.script("web-1", "succeed")
    until("the report", lambda: reports(rig))
    assert order.order_id in rig.hub.delivered()


def test_an_order_is_offered_until_it_is_reported(rig: Rig) -> None:
    rig.script("web-1", "silent")
    order = prepared(rig, "web-1")
    rig.hub.deliver([order])
    until("the delivery", lambda: order.order_id in rig.hub.delivered())
    assert not reports(rig)
    rig.script("web-1", "succeed")
    until("the report", lambda: reports(rig))


def test_a_cancelled_order_is_not_offered_any_more(rig: Rig) -> None:
    rig.script("web-1", "silent")
    order, second = prepared(rig, "web-1"), prepared(rig, "web-1", stage=2)
    rig.hub.deliver([order])
    until("the delivery", lambda: order.order_id in rig.hub.delivered())
    rig.hub.cancel([order.order_id, "unknown"])
    rig.script("web-1", "succeed")
    rig.hub.deliver([second])
    until("the second report", lambda: reports(rig))
    assert [report.order for report in reports(rig)] == [second.order_id]


def test_acknowledged_statements_leave_the_inbox_for_good(rig: Rig) -> None:
    rig.script("web-1", "succeed")
    rig.hub.deliver([prepared(rig, "web-1")])
    until("the report", lambda: reports(rig))
    rig.hub.acknowledge([statement.digest for statement in rig.hub.inbox()] + [DIGEST])
    assert rig.hub.inbox() == ()
    rig.hub.deliver([prepared(rig, "web-1", stage=2)])
    until("the second report", lambda: reports(rig))
    assert [report.stage for report in reports(rig)] == [2]


def test_orders_go_to_their_own_agent(rig: Rig) -> None:
    rig.script("web-1", "succeed")
    rig.script("web-2", "fail")
    rig.hub.deliver([prepared(rig, "web-1"), prepared(rig, "web-2")])
    until("both reports", lambda: len(reports(rig)) == 2)
    assert {r.target: r.status for r in reports(rig)} == {"web-1": "succeeded", "web-2": "failed"}


def test_nobody_undeclared_gets_an_order(rig: Rig) -> None:
    with pytest.raises(Refused) as caught:
        rig.hub.deliver([prepared(rig, "web-1"), prepared(rig, "web-9")])
    assert caught.value.code == "agent-unknown"
    rig.script("web-1", "succeed")
    rig.hub.deliver([prepared(rig, "web-1", stage=2)])
    until("the report", lambda: reports(rig))
    assert [report.stage for report in reports(rig)] == [2]


def test_samples_come_while_they_are_asked_for(rig: Rig) -> None:
    rig.script("web-1", "succeed")
    until("the agent", lambda: "web-1" in rig.hub.seen())
    asked = SamplingRequest(run="prod-1-0123abcd", stage=2, interval_seconds=0.1)
    rig.hub.sample({"web-1": asked, "web-9": asked})
    rig.interval()
    rig.interval()

    def samples() -> list[Sample]:
        return [s.body for s in rig.hub.inbox() if isinstance(s.body, Sample)]

    until("two samples", lambda: len(samples()) == 2)
    assert [(s.run, s.stage, s.requests) for s in samples()] == [("prod-1-0123abcd", 2, 10)] * 2
    assert samples()[0].sequence < samples()[1].sequence
    assert {s.kind for s in rig.hub.inbox()} == {"sample"}
