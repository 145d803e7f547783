"""Agents on machines whose clocks are wrong: a stage is judged all the same, or it says whose clock it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.agent.main import Agent, AgentSettings
from tests.support.flow import Flow, flow, strategy, until

STAGES = "    - {percent: 100, minHealthyTime: 400ms, deadline: 6s}\n"


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
