"""Real agent processes under a real controller, killed at each step of a deploy and started again.

One shop and one controller see all of it (one of each in every xdist worker): each test deploys its own version,
which must complete.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from controller.crashpoints import AGENT_POINTS
from controller.demo.processes import request
from tests.support.fault_registry import FaultRegistry
from tests.support.flow import Flow, flow
from tests.support.waiting import until

AGENT = "dev-1"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultRegistry]:
    with FaultRegistry(tmp_path_factory.mktemp("agents") / "shop" / "images").running() as made:
        yield made


@pytest.fixture(scope="module")
def shop(registry: FaultRegistry) -> Iterator[Flow]:
    folder = registry.images.parent
    folder.mkdir()
    with flow(folder, {AGENT: "dev"}, repository=f"{registry.host}/api") as made:
        made.start()
        made.deploy("dev", "0.1.0")  # so that there is something to replace and to stop
        yield made
        made.check_dense()
        made.verify()


def _promote(shop: Flow, version: str) -> str:
    shop.image(version)
    release = shop.release(version)
    shop.locked(release)
    shop.promote("dev", release)
    return release


def _completes(shop: Flow, release: str) -> None:
    """The run completes, the service answers, and the journal shows each order taken and reported once."""
    shop.ends("dev", release, "completed")
    assert shop.sticker(AGENT)["release"] == release
    where = until("an endpoint", lambda: shop.processes.endpoint(AGENT, "api"))
    assert request(f"{where}/") == 200
    until("every report acknowledged", lambda: set(_states(shop).values()) == {(1, 1, 1)})
    for step in ("pulled", "unpacked", "switched"):
        counts = [states.count(step) for order, states in _journal(shop).items() if order.endswith("/deploy")]
        assert all(count <= 1 for count in counts), f"{step} twice"
    ordered = [line["id"] for e in shop.entries() if "orders" in _detail(e) for line in _detail(e)["orders"]]
    assert sorted(ordered) == sorted(_journal(shop)), "an order lost, or one that nobody gave"
    shop.check_dense()
    shop.verify()


def _detail(entry: dict[str, object]) -> dict[str, list[dict[str, str]]]:
    detail = entry.get("detail")
    return detail if isinstance(detail, dict) else {}


def _journal(shop: Flow) -> dict[str, list[str]]:
    """Order → the states it went through."""
    orders: dict[str, list[str]] = {}
    for raw in (shop.stage.agents / AGENT / "journal.jsonl").read_bytes().splitlines():
        line = json.loads(raw)
        orders.setdefault(line["order"], []).append(line["state"])
    return orders


def _states(shop: Flow) -> dict[str, tuple[int, int, int]]:
    return {
        order: (states.count("received"), states.count("reported"), states.count("acknowledged"))
        for order, states in _journal(shop).items()
    }


def _stop_agent(shop: Flow) -> None:
    process = shop.processes.agents.pop(AGENT)
    process.terminate()
    assert process.wait(15) == 0


@pytest.mark.parametrize("point", AGENT_POINTS)
def test_an_agent_killed_here_completes_its_run(shop: Flow, point: str) -> None:
    if AGENT in shop.processes.agents:
        _stop_agent(shop)
    shop.processes.start_agent(AGENT, "dev", {"LOCKGATE_CRASH_AT": point})
    agent = shop.processes.agents[AGENT]
    place = AGENT_POINTS.index(point)
    release = _promote(shop, f"1.{place}.0")
    assert agent.wait(30) == -signal.SIGKILL
    shop.processes.start_agent(AGENT, "dev")
    _completes(shop, release)


def _hanging(shop: Flow, registry: FaultRegistry, version: str) -> str:
    """A release whose images the agent is pulling, until the registry is told to go on."""
    if AGENT not in shop.processes.agents:
        shop.processes.start_agent(AGENT, "dev")
    registry.released.clear()
    registry.fault(path="/blobs/", hang=True)
    asked = len(registry.seen)
    release = _promote(shop, version)
    until("a pull that hangs", lambda: any("/blobs/" in path for path in registry.paths()[asked:]))
    return release


def test_a_controller_restarted_while_an_agent_pulls(shop: Flow, registry: FaultRegistry) -> None:
    """The agent's pull goes on without a controller; the next one takes its report and completes the run."""
    release = _hanging(shop, registry, "2.0.0")
    controller = shop.processes.controller
    assert controller is not None
    os.kill(controller.pid, signal.SIGKILL)
    controller.wait()
    registry.released.set()
    order = f"/{AGENT}/deploy"
    until(
        "a report nobody takes",
        lambda: [o for o, s in _states(shop).items() if o.endswith(order) and s == (1, 1, 0)],
    )
    assert shop.sticker(AGENT)["release"] == release
    shop.processes.start_controller(poll="1s")
    _completes(shop, release)


def test_an_order_is_offered_again_during_its_pull(shop: Flow, registry: FaultRegistry) -> None:
    """The order is offered again while it is being carried out: it is neither begun nor reported twice."""
    release = _hanging(shop, registry, "2.1.0")
    shop.stop_controller()
    shop.processes.start_controller(poll="1s")
    until("the agent is back", lambda: AGENT in shop.status()["agents"])
    registry.released.set()
    _completes(shop, release)
