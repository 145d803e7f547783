"""A developer moves an agent of prod to dev, where less is asked: main stands still for it alone, and with a
reviewer's merge the agent itself takes no order for another environment than the one that it was started for."""

from __future__ import annotations

from pathlib import Path

from tests.support.flow import Flow, environment, flow, strategy
from tests.support.guarded import MAIN, Clone
from tests.support.real_run import lockgate
from tests.support.waiting import until

AGENTS = {"dev-1": "dev", "prod-1": "prod"}
LONG = "    - {percent: 100, minHealthyTime: 200ms, deadline: 6s}\n"
FILES = {
    "environments/dev.yaml": environment("dev", onFailure="pause"),
    "strategies/dev.yaml": strategy("dev", LONG),
}
PATH = "agents/prod-1.yaml"


def moved(shop: Flow) -> bytes:
    """The agent's document, which says dev."""
    text = shop.main_file(PATH)
    assert "environment: prod" in text
    return text.replace("environment: prod", "environment: dev").encode() + b"\n"


def test_a_developer_moves_an_agent_of_prod_to_dev(tmp_path: Path) -> None:
    with flow(tmp_path / "shop", AGENTS, files=FILES) as shop:
        shop.start_heard()
        shop.deploy("prod", "1.0.0")
        shop.deploy("dev", "1.0.0")

        # Alone: nobody approved it.
        clone = Clone.copy(shop.stage, tmp_path / "clone")
        assert isinstance(clone, Clone)
        clone.target = str(shop.stage.origin)
        tip = clone.tip(MAIN)
        clone.lands(f"{clone.commit('alice', {PATH: moved(shop)})}:{MAIN}")
        until("main stands still", lambda: "approval-missing" in shop.asks("status"))
        assert PATH in shop.asks("status")
        done = lockgate("--repo", shop.address, "restore-main", "--key", shop.stage.keys / "bob")
        assert done.returncode == 0, done.stderr
        until("main goes on", lambda: "main stands still" not in shop.asks("status"))
        assert shop.git("rev-parse", f"{tip}^{{tree}}") == shop.git("rev-parse", "main^{tree}")

        # With a reviewer who looks away: it is an agent of dev now, for everybody but itself.
        shop.land("move", {PATH: moved(shop)})
        shop.image("2.0.0")
        name = shop.release("2.0.0")
        shop.locked(name)
        shop.promote("dev", name)
        until("the agent refuses the order", lambda: '"order-foreign"' in shop.agent_log("prod-1"), 60)
        until("its polls are refused", lambda: shop.status()["refused"].get("prod-1") == "poll-foreign", 30)
        until("the run stands", lambda: shop.status()["open"].get("dev") == "paused", 60)
        assert "prod-1 no-report" in shop.asks("why", "dev")
        assert shop.sticker("prod-1")["release"] == "shop-1.0.0"
        shop.stop_controller()
        shop.verify()
