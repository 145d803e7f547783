"""A thief with the controller's key, and nobody else's, at real agents; and what an honest controller sends."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git import sshsig
from controller.adapters.git.keys import FileSigner
from controller.adapters.git.people import swap, write_commit
from controller.adapters.hub.http import HttpHub
from controller.demo.stage import slot_file
from controller.ledger import dsse
from controller.ledger.append import load_open
from controller.ledger.canonical import canonical, parse
from controller.model.lock import manifest_digest
from controller.model.order import ORDER_TYPE, AgentKey, Approving, Order, PreparedOrder, order_id
from controller.model.trustroot import TrustRoot
from controller.uses.approving import Approvals, Bundle
from controller.uses.trust_chain import build_chain
from controller.uses.view import view
from controller.wiring.people import commit_on, merge_branch
from tests.support.agents import SystemClock
from tests.support.flow import SOURCE, Flow, environment, strategy
from tests.support.light_agent import LightAgent
from tests.support.logs import MemoryLog
from tests.support.site import Site, quiet
from tests.support.waiting import until

LOSES = "    - {percent: 100, minHealthyTime: 200ms, deadline: 2s}\n"
TRUST = (SOURCE / "trust" / "trust.yaml.j2").read_text()
NEVER = {"schedule": "0 0 29 2 *", "duration": "1h"}
"""But for an hour of leap years."""
ALWAYS = {"kind": "allow", "schedule": "* * * * *", "duration": "1h"}
FILES = {
    "environments/prod.yaml": environment("prod", approvals={"count": 1, "roles": {"reviewers": 1}}),
    "strategies/prod.yaml": strategy("prod", LOSES),
    "trust/trust.yaml.j2": TRUST.replace("{dev,staging}", "{dev,night,day}"),
    "environments/night.yaml": environment("night", windows=[{**NEVER, "kind": "allow"}]),
    "environments/day.yaml": environment("day", windows=[ALWAYS, {**NEVER, "kind": "deny"}]),
}


@dataclass
class Thief:
    """A hub of the thief's, at an address where agents dial; what it sends is signed with the stolen key."""

    flow: Flow
    honest: list[PreparedOrder] = field(default_factory=list)
    agents: list[LightAgent] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        stage = self.flow.stage
        self.key = FileSigner(stage.keys / "controller")
        self.root = TrustRoot.load(stage.trust_root)
        self.log = MemoryLog(self.root, self.key, shared=1)
        people = self.flow.people
        links = build_chain(people, self.root, people.observe().main or "", sshsig.verify).links
        self.hub = HttpHub(
            "127.0.0.1:0",
            signer=self.key,
            clock=SystemClock(),
            wake=threading.Event().set,
            trust_links=lambda: links,
            trust_version=lambda: 1,
            log=self.log.book,
        )
        self.hub.start()
        keys = {name: FileSigner(stage.keys / name).public_key for name in self.flow.agents}
        self.hub.declare({name: AgentKey(self.flow.agents[name], key) for name, key in keys.items()})

    def agent(self, name: str) -> LightAgent:
        stage = self.flow.stage
        agent = LightAgent(
            stage.folder / f"light-{self.sent}-{name}",
            name=name,
            environment=self.flow.agents[name],
            key=stage.keys / name,
            trust_root=stage.trust_root,
            url=self.hub.address,
        )
        agent.start()
        self.agents.append(agent)
        return agent

    def order(self, place: int = -1, **changes: Any) -> tuple[Order, Approving]:
        """One of the honest orders as if it were another one's, with changes."""
        prepared = self.honest[place]
        order = Order.model_validate(parse(dsse.split(prepared.envelope).payload))
        self.sent += 1
        values: dict[str, Any] = {
            "run": f"{order.environment}-{90 + self.sent}-0123abcd",
            "log": self.log.record(60),
        }
        values |= {"entry_index": 40 + self.sent, "deadline": datetime.now(UTC) + timedelta(minutes=2)}
        order = order.model_copy(update={**values, **changes})
        named = order_id(order.run, order.stage, order.attempt, order.target, order.action)
        assert prepared.approving is not None
        return order.model_copy(update={"id": named}), prepared.approving

    def send(self, order: Order, approving: Approving | None) -> None:
        data = dsse.sign(canonical(order.plain()), ORDER_TYPE, self.key)
        self.hub.deliver([PreparedOrder(order.target, order.id, data, approving=approving)])

    def close(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.hub.stop()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Thief]:
    """Two releases of prod that people approved one after the other, as their orders were given."""
    agents = {"web-1": "prod", "web-2": "prod", "dev-1": "dev", "night-1": "night", "day-1": "day"}
    flow = Flow(tmp_path_factory.mktemp("thief"), agents, files=FILES)
    site = Site(flow.stage.folder)
    delivered: list[PreparedOrder] = []
    controller = site.controller()
    controller.hub.deliver = delivered.extend  # type: ignore[method-assign]
    try:
        for version in ("1.0.0", "1.1.0"):
            flow.image(version)
            release = flow.release(version)
            assert quiet(controller) == ""
            flow.promote("prod", release)
            assert quiet(controller) == ""
        for place in ("dev", "night", "day"):
            flow.promote(place, release)
            assert quiet(controller) == ""
    finally:
        controller.close()
    thief = Thief(flow, delivered)
    yield thief
    thief.close()
    flow.people.close()


def swapped(order: Order) -> dict[str, Any]:
    digest = "sha256:" + "0" * 64
    parts = {name: part.model_copy(update={"digest": digest}) for name, part in order.components.items()}
    return {"components": parts, "manifest_digest": manifest_digest(dict.fromkeys(parts, digest))}


def joined(approving: Approving, made: Bundle, **changes: Any) -> Approving:
    more = made.approving()
    objects = {kind: [*getattr(approving, kind), *getattr(more, kind)] for kind in ("commits", "trees", "blobs")}
    return approving.model_copy(update={**objects, **changes})


def forged_rules(shop: Thief, approving: Approving) -> Approving:
    """An environment that asks for nothing, in a commit on main by the stolen key."""
    people, path = shop.flow.people, "environments/prod.yaml"
    oid = write_commit(
        people,
        (people.observe().main or "",),
        {path: environment("prod").encode()},
        message="Lax",
        author=("bob", "bob@example.com"),
        when=datetime.now(UTC),
        signer=shop.key,
    )
    made, file = Bundle(people), people.file(oid, path)
    assert file is not None
    made.path(oid, path)
    made.blob(file.blob)
    vouched = {**approving.vouched, path: oid}
    return joined(approving, made, vouched=vouched, promotion=None, requests=[], binding=None)


def own_merge(shop: Thief, approving: Approving) -> Approving:
    """bob merges his own promotion of the release."""
    people, bob, slot = shop.flow.people, shop.flow.stage.person("bob"), "promotions/prod.yaml"
    main = people.observe().main or ""
    files: dict[str, bytes | None] = {slot: slot_file("prod", "shop-1.1.0", "mine")}
    commit_on(people, "bobs", bob, files, "Promote", base=main)
    swap(people, "refs/heads/bobs-main", None, main)
    merge = merge_branch(people, "bobs", bob, into="bobs-main", message="Merge")
    made, file = Bundle(people), people.file(merge, slot)
    assert file is not None
    made.step(merge, slot)
    made.path(main, "releases/shop-1.1.0.lock.yaml")
    made.blob(file.blob)
    return joined(approving, made, promotion=merge, binding=None)


def at(shop: Thief, target: str) -> list[int]:
    return [place for place, one in enumerate(shop.honest) if one.agent == target]


def refused(agent: LightAgent, order: Order, code: str = "order-unapproved") -> None:
    """The agent says so, writes it down, and touches nothing."""
    until("the refusal", lambda: any(one.startswith(code) for one in agent.said))
    lines = [json.loads(line) for line in (agent.directory / "journal.jsonl").read_text().splitlines()]
    assert {(line["order"], line.get("refused")) for line in lines} == {(order.id, code)}
    assert not (agent.directory / "executions.log").exists()
    assert not (agent.directory / "running.json").exists()
    agent.said.clear()


def executed(agent: LightAgent, order: Order) -> None:
    file = agent.directory / "executions.log"
    until("the order is carried out", lambda: file.exists() and order.id in file.read_text().split())


@pytest.mark.parametrize(
    "what",
    [
        "digest",
        "nothing carried",
        "transplanted",
        "rollback",
        "no rules",
        "forged rules",
        "by its author",
    ],
)
def test_a_stolen_key_deploys_nothing_that_nobody_approved(shop: Thief, what: str) -> None:
    first, second = at(shop, "web-1")
    order, approving = shop.order(second)
    if what == "digest":
        order, approving = shop.order(second, **swapped(order))
    elif what == "nothing carried":
        approving = None  # type: ignore[assignment]
    elif what == "transplanted":
        approving = shop.order(first)[1]
    elif what == "rollback":
        order, approving = shop.order(second, action="rollback", **swapped(order))
    elif what == "no rules":
        approving = approving.model_copy(update={"vouched": {}})
    elif what == "forged rules":
        order, _ = shop.order(second, **swapped(order))
        approving = forged_rules(shop, approving)
    elif what == "by its author":
        approving = own_merge(shop, approving)
    agent = shop.agent("web-1")
    shop.send(order, approving)
    refused(agent, order)
    until("the controller is told", lambda: shop.hub.refused().get("web-1") == "order-unapproved")
    shop.hub.cancel([order.id])
    agent.stop()
    shop.agents.remove(agent)


def test_what_people_approved_goes_through_and_older_promotions_do_not_come_back(shop: Thief) -> None:
    first, second = at(shop, "web-2")
    agent = shop.agent("web-2")
    order, approving = shop.order(second)
    shop.send(order, approving)
    executed(agent, order)
    memory = json.loads((agent.directory / "approved.json").read_text())
    assert len(memory["contents"]) == 1 and memory["promoted"]
    # In time it is a moment older only: what agents forgive of clocks would let it pass.
    memory["promoted"] = "2099-01-01T00:00:00Z"
    agent.stop()
    shop.agents.remove(agent)
    (agent.directory / "approved.json").write_text(json.dumps(memory))
    again = LightAgent(
        agent.directory,
        name="web-2",
        environment="prod",
        key=shop.flow.stage.keys / "web-2",
        trust_root=shop.flow.stage.trust_root,
        url=shop.hub.address,
    )
    again.start()
    shop.agents.append(again)
    older, its = shop.order(first)
    shop.send(older, its)
    until("the refusal", lambda: any("an older one" in one for one in again.said))
    shop.hub.cancel([older.id])
    # A rollback to what runs here needs nothing; one to what never ran here needs what approved it.
    for place in (second, first):
        back, its = shop.order(place, action="rollback", target="web-2")
        shop.send(back, None if place == second else its)
        executed(again, back)


def test_an_environment_that_asks_for_nothing_says_so_under_a_persons_signature(shop: Thief) -> None:
    (place,) = at(shop, "dev-1")
    agent = shop.agent("dev-1")
    order, approving = shop.order(place)
    shop.send(order, approving.model_copy(update={"vouched": {}}))
    refused(agent, order)
    shop.hub.cancel([order.id])
    order, approving = shop.order(place, **swapped(order))
    shop.send(order, approving)
    executed(agent, order)


def waiting(shop: Thief, environment: str) -> Approving:
    """What the orders of a run would carry that waits for its window."""
    people, root = shop.flow.people, shop.root
    found = view(people)
    tip, run = found.tips.evidence or "", found.runs[environment]
    assert run.gates is not None and run.gates.aggregate == "WAIT"
    entries = load_open(people, tip)[2][run.id]
    approvals = Approvals(people, root, found.trust, found.accepted or "", datetime.now(UTC))
    return approvals.of_run(entries, tip, ())


def test_a_stolen_key_deploys_nothing_outside_the_windows(shop: Thief) -> None:
    """The run was promoted by people, and waits for its window; the thief does not."""
    (place,), (day,) = at(shop, "dev-1"), at(shop, "day-1")
    assert not at(shop, "night-1")
    agent = shop.agent("night-1")
    order, _ = shop.order(place, environment="night", target="night-1")
    approving = waiting(shop, "night")
    shop.send(order, approving)
    refused(agent, order, "order-outside-window")
    until("the controller is told", lambda: shop.hub.refused().get("night-1") == "order-outside-window")
    shop.hub.cancel([order.id])
    # In an environment whose windows are open now, the same is carried out.
    agent = shop.agent("day-1")
    order, approving = shop.order(day)
    shop.send(order, approving)
    executed(agent, order)


def test_an_agent_process_refuses_and_goes_on(shop: Thief) -> None:
    """As `lockgate agent` runs, with the approvals that it asks for itself."""
    import subprocess

    stage = shop.flow.stage
    folder = stage.folder / "process"
    words = ["--trust-root", stage.trust_root, "--name", "web-1", "--environment", "prod", "--dir", folder]
    words += ["--key", stage.keys / "web-1", "--controller", shop.hub.address, "--images", stage.images]
    log = stage.folder / "process.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "controller", "agent", *map(str, words), "--require-approvals", "1"],
            stdout=out,
            stderr=out,
        )
    try:
        order, approving = shop.order(at(shop, "web-1")[1])
        forged, _ = shop.order(at(shop, "web-1")[1], **swapped(order))
        shop.send(forged, approving)
        until("the refusal", lambda: "order-unapproved" in log.read_text(), 30)
        shop.hub.cancel([forged.id])
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        assert [(line["order"], line["refused"]) for line in lines] == [(forged.id, "order-unapproved")]
        assert not (folder / "lockgate.version.json").exists()
        shop.send(order, approving)
        sticker = folder / "lockgate.version.json"
        until("the honest order is done", sticker.exists, 30)
        assert json.loads(sticker.read_text())["release"] == "shop-1.1.0"
    finally:
        process.terminate()
        process.wait(15)
        _stop(folder)


def _stop(folder: Path) -> None:
    from controller.agent.drivers.process import stop_all

    stop_all(folder)
