"""Agents follow one log: whoever shows them another or a shorter one is refused, and that is kept as proof."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.adapters.git.keys import FileSigner
from controller.adapters.hub.http import HttpHub
from controller.ledger.cosign import cosigners
from controller.ledger.log import read_checkpoint
from controller.model.trustroot import RootCheckpoint, TrustRoot
from tests.support.agents import AgentProcess, World, component, make_world, service
from tests.support.logs import MemoryLog, declared_of
from tests.support.waiting import until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    made.declare("web-1", "web-2")
    yield made
    made.close()


def other_log(world: World, shared: int, size: int, flavour: str = "") -> MemoryLog:
    """A log of the same controller that has `shared` entries in common with the world's."""
    made = MemoryLog(TrustRoot.load(world.root_file), world.controller, shared=shared)
    made.flavour = flavour
    made.record(size - shared)
    return made


def controller_with(world: World, log: MemoryLog, **more: object) -> None:
    """The controller comes back at its address, holding `log`."""
    old, address = world.hub, world.hub.address.removeprefix("http://")
    old.stop()
    world.log = log
    world.hub = HttpHub(
        address,
        signer=world.controller,
        clock=old._clock,
        wake=world.woken.set,
        trust_links=old._trust_links,
        trust_version=lambda: 1,
        log=log.book,
        **more,  # type: ignore[arg-type]
    )
    world.hub.start()
    world.declare("web-1", "web-2")


def seen(agent: AgentProcess) -> int:
    path = agent.directory / "checkpoint"
    return read_checkpoint(path.read_bytes()).size if path.exists() else 0


def complains(world: World, agent: AgentProcess, name: str = "web-1") -> None:
    until("the refusal", lambda: "log-inconsistent" in agent.codes())
    until("the controller is told", lambda: world.hub.refused().get(name) == "log-inconsistent")


@pytest.mark.parametrize(
    ("shared", "size", "flavour"),
    [(3, 9, "fork"), (3, 6, "fork"), (3, 3, ""), (0, 12, "fork"), (5, 5, "")],
    ids=["longer-fork", "fork-of-equal-size", "rewound", "another-log", "rewound-by-one"],
)
def test_another_history_than_before_is_refused(world: World, shared: int, size: int, flavour: str) -> None:
    honest = world.log
    honest.record(5)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("the checkpoint is kept", lambda: seen(agent) == 6)
    controller_with(world, other_log(world, shared, size, flavour))
    images = {"api": component(world.image("api", "v1", service("one")))}
    order = world.order("web-1", images, log=world.log.state, entry_index=size - 1)
    complains(world, agent)
    world.hub.deliver([world.prepare(order)])
    complains(world, agent)
    kept = json.loads((agent.directory / "log-conflict.json").read_text())
    assert read_checkpoint(kept["known"].encode()).size == 6
    assert read_checkpoint(kept["shown"].encode()).size >= size
    assert not world.reports(order)
    assert not agent.journal()
    assert seen(agent) == 6
    # It holds over a restart of the agent, and ends when the log that it knows is there again.
    agent.kill()
    agent = world.agent("web-1", poll_seconds=1.0)
    complains(world, agent)
    controller_with(world, honest)
    assert world.deploy("web-1", {"api": component(world.image("api", "v2", service("two")))}).code == "ok"
    assert "web-1" not in world.hub.refused()


def test_a_rewound_log_whose_end_the_agent_remembers_is_refused(world: World) -> None:
    agent = world.agent("web-1", poll_seconds=0.2)
    for size in (3, 5, 8):
        world.log.record(size - world.log.log.size)
        until("the checkpoint is kept", lambda size=size: seen(agent) == size)
    controller_with(world, other_log(world, 5, 5))
    complains(world, agent)
    assert seen(agent) == 8


def test_a_log_that_goes_on_is_followed_over_restarts(world: World) -> None:
    agent = world.agent("web-1", poll_seconds=1.0)
    api = {"api": component(world.image("api", "v1", service("one")))}
    assert world.deploy("web-1", api).code == "ok"
    size = until("the checkpoint is kept", lambda: seen(agent))
    agent.kill()
    world.log.record(700)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("it goes on", lambda: seen(agent) > size)
    assert world.deploy("web-1", api).code == "ok"
    assert "log-inconsistent" not in agent.codes()


def test_a_new_agent_begins_at_the_roots_checkpoint(world: World) -> None:
    world.log.record(5)
    root = TrustRoot.load(world.root_file)
    pinned = RootCheckpoint(size=6, root=base64.b64encode(world.log.log.root).decode())
    root.model_copy(update={"checkpoint": pinned}).save(world.root_file)
    honest = world.log
    controller_with(world, other_log(world, 3, 20, "fork"))
    agent = world.agent("web-1", poll_seconds=1.0)
    complains(world, agent)
    assert seen(agent) == 0
    controller_with(world, honest)
    until("it follows the pinned log", lambda: seen(agent) >= 6)


def test_an_order_outside_the_log_is_refused(world: World) -> None:
    agent = world.agent("web-1", poll_seconds=1.0)
    fork = other_log(world, 1, 4, "fork")
    world.log.record(5)
    api = {"api": component(world.image("api", "v1", service("one")))}
    for state, index in ((fork.state, 2), (world.log.state, 99)):
        agent_said = len(agent.codes())
        order = world.order("web-1", api, log=state, entry_index=index)
        world.hub.deliver([world.prepare(order)])
        until("the refusal", lambda said=agent_said: "log-inconsistent" in agent.codes()[said:])
        world.hub.cancel([order.id])
        assert not world.reports(order)
    assert world.deploy("web-1", api).code == "ok"


# --- witnesses -------------------------------------------------------------------------------------------


def vouched(world: World, *names: str) -> object:
    owner = FileSigner(world.path / "owner.key")
    return declared_of(owner, {name: world.key(name).public_key for name in names})


def test_an_order_waits_for_witnesses_and_is_carried_out_with_them(world: World) -> None:
    controller_with(world, world.log, declared=lambda: vouched(world, "web-1", "web-2"))
    agent = world.agent("web-1", witnesses=1)
    order = world.order("web-1", {"api": component(world.image("api", "v1", service("one")))}, witnesses=1)
    prepared = world.prepare(order)
    held = replace(prepared, witnesses=1, log_size=order.log.size)
    world.hub.deliver([held])
    until("the agent was shown the log", lambda: seen(agent) == order.log.size)
    assert world.hub.unwitnessed() == {order.id: (0, 1)}
    assert not world.hub.delivered()
    world.agent("web-2")
    assert world.report(order).code == "ok"
    assert world.hub.unwitnessed() == {}
    (note,) = world.log.book.witnessed("web-1", order.log.size)
    assert set(cosigners(note.encode(), {"web-2": world.key("web-2").public_key})) == {"web-2"}


def test_two_agents_shown_two_logs(world: World) -> None:
    """A controller shows web-2 an honest log, and web-1, which asks for a witness, another one."""
    controller_with(world, world.log, declared=lambda: vouched(world, "web-1", "web-2"))
    world.log.record(3)
    honest, witness = world.log, world.agent("web-2", poll_seconds=0.5)
    agent = None
    notes = until("web-2 bears witness", lambda: honest.book.witnessed("web-1", 1))
    witness.kill()
    fork = other_log(world, 1, 7, "fork")
    fork.book.witnessed = lambda _agent, _size: notes  # type: ignore[method-assign]
    controller_with(world, fork, declared=lambda: vouched(world, "web-1", "web-2"))
    agent = world.agent("web-1", witnesses=1)
    order = world.order("web-1", {"api": component(world.image("api", "v1", service("one")))}, log=fork.state)
    early = order.model_copy(update={"log": other_log(world, 1, 1).state, "entry_index": 0})
    prepared = world.prepare(early)
    world.hub.deliver([replace(prepared, witnesses=1, log_size=1)])
    until("the refusal", lambda: "split-view" in agent.codes())
    assert (agent.directory / "log-conflict.json").exists()
    assert not world.reports(order)


@pytest.mark.parametrize("trick", ["none", "own", "undeclared", "unproven"])
def test_witnesses_that_do_not_count(world: World, trick: str) -> None:
    """No cosignature at all; the agent's own; one of a key that main does not declare; a declaration that no
    person signed."""
    names = {"own": ("web-1",), "undeclared": ("web-1",)}.get(trick, ("web-1", "web-2"))
    declared = vouched(world, *names)
    if trick == "unproven":
        keys = {name: world.key(name).public_key for name in names}
        declared = declared_of(world.controller, keys)
    controller_with(world, world.log, declared=lambda: declared)
    if trick in ("undeclared", "unproven"):
        world.agent("web-2", poll_seconds=0.5)
        until("web-2 bears witness", lambda: world.log.book.witnessed("web-1", 1))
    agent = world.agent("web-1", witnesses=1, poll_seconds=0.5)
    order = world.order("web-1", {"api": component(world.image("api", "v1", service("one")))})
    world.hub.deliver([world.prepare(order)])  # the controller holds nothing back
    code = "declared-unproven" if trick == "unproven" else "split-view"
    until("the refusal", lambda: code in agent.codes())
    assert not world.reports(order)
