"""Agents on machines whose clocks are wrong: a stage is judged all the same, or it says whose clock it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.adapters.clock import SystemClock
from controller.agent.main import Agent, AgentSettings
from controller.wiring.controller import Controller, ControllerSettings
from tests.support.flow import Flow, flow, strategy, until

STAGES = "    - {percent: 100, minHealthyTime: 400ms, deadline: 60s}\n"


class Machine:
    """One agent on a machine whose clock is off by `skew` seconds, and can be set while it runs."""

    def __init__(self, shop: Flow, name: str, skew: float) -> None:
        stage = shop.stage
        self.skew = skew
        self.agent = Agent(
            AgentSettings(
                trust_root=stage.trust_root,
                name=name,
                environment=shop.agents[name],
                key=stage.keys / name,
                controller=f"http://{shop.processes.address}",
                directory=stage.agents / name,
                images=stage.images,
                stop_services=True,
            ),
            lambda: datetime.now(UTC) + timedelta(seconds=self.skew),
        )


@contextlib.contextmanager
def machine(shop: Flow, name: str, skew: float) -> Iterator[Machine]:
    """A running agent with a wrong clock, which ends with the block."""
    made = Machine(shop, name, skew)
    made.agent.start()
    try:
        yield made
    finally:
        made.agent.stop()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Flow]:
    files = {"strategies/dev.yaml": strategy("dev", STAGES)}
    with flow(tmp_path, {"dev-1": "dev", "dev-2": "dev"}, files=files) as made:
        made.processes.start_controller(poll="1s")
        made.processes.start_agent("dev-2", "dev")
        yield made


@pytest.mark.parametrize("skew", [-120.0, 120.0], ids=["slow", "fast"])
def test_a_wrong_clock_neither_fails_nor_hangs_a_stage(
    shop: Flow, skew: float, capfd: pytest.CaptureFixture[str]
) -> None:
    with machine(shop, "dev-1", skew):
        shop.deploy("dev", "1.0.0")
        assert '"clock-skew"' in capfd.readouterr().err
        evaluated = next(e for e in shop.entries() if e["detail"].get("verdict"))
        assert evaluated["detail"]["verdict"] == "passed"
    shop.check_dense()
    shop.verify()


def test_a_clock_set_in_the_midst_of_a_stage(shop: Flow) -> None:
    with machine(shop, "dev-1", 0.0) as there:
        shop.deploy("dev", "1.0.0")
        shop.image("1.1.0")
        name = shop.release("1.1.0")
        shop.locked(name)
        shop.promote("dev", name)
        until("an order is out", lambda: (shop.stage.agents / "dev-1" / "current").exists())
        until("the stage is judged", lambda: shop.status()["open"].get("dev") == "evaluating")
        there.skew = 200.0
        shop.ends("dev", name, "completed")
    shop.verify()


def test_a_clock_beyond_all_bounds_is_refused_and_said(shop: Flow, capfd: pytest.CaptureFixture[str]) -> None:
    with machine(shop, "dev-1", 0.0) as there:
        shop.deploy("dev", "1.0.0")
        there.skew = -3600.0
        shop.image("1.1.0")
        name = shop.release("1.1.0")
        shop.locked(name)
        shop.promote("dev", name)
        until("the agent is told", lambda: "clock-skew" in capfd.readouterr().err)
        until("an order is unanswered", lambda: shop.status()["open"].get("dev") == "deploying")
        there.skew = 0.0
        shop.ends("dev", name, "completed")
    shop.verify()


class Wrong(SystemClock):
    """The clock of the controller's machine, `ahead` of the true time."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


@contextlib.contextmanager
def controller(shop: Flow, clock: Wrong) -> Iterator[Controller]:
    """A controller in this process, at the address that the agents dial."""
    settings = ControllerSettings(
        repo=str(shop.stage.origin),
        trust_root=shop.stage.trust_root,
        signing_key=shop.stage.keys / "controller",
        state_dir=shop.stage.state,
        listen=shop.processes.address,
        poll=timedelta(seconds=1),
        images=shop.stage.images,
    )
    made = Controller(settings, clock)
    running = threading.Thread(target=made.run, daemon=True)
    running.start()
    try:
        yield made
    finally:
        made.stop()
        running.join(20)


def test_a_controller_whose_clock_is_a_day_ahead_records_nothing(shop: Flow) -> None:
    with machine(shop, "dev-1", 0.0):
        shop.deploy("dev", "1.0.0")
        shop.stop_controller()
        before, clock = shop.tip(), Wrong()
        clock.ahead = timedelta(days=1)
        with controller(shop, clock) as there:
            until("its agents deny its clock", lambda: len(there.hub.skewed()) == 2)
            until("it says so", lambda: there.health.now.code == "clock-skew", 60)
            shop.image("1.1.0")
            name = shop.release("1.1.0")
            until("it tries again", lambda: there.health.now.code == "clock-skew")
            assert shop.tip() == before
            clock.ahead = timedelta(0)
            shop.locked(name, 60)
            shop.promote("dev", name)
            shop.ends("dev", name, "completed")
    shop.verify()


def test_evidence_dated_a_day_ahead_stops_a_controller_with_the_right_clock(shop: Flow) -> None:
    shop.stop_controller()
    clock = Wrong()
    clock.ahead = timedelta(days=1)
    with controller(shop, clock):
        shop.image("1.0.0")
        shop.release("1.0.0")
        shop.locked("shop-1.0.0", 60)
    before = shop.tip()
    with controller(shop, Wrong()) as there:
        until("it says so", lambda: there.health.now.code == "clock-skew", 60)
        assert shop.tip() == before
