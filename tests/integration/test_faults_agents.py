"""Agents that are silent, strangers, dead or liars: stages end as configured, and status says whom they await."""

from __future__ import annotations

import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git.keys import FileSigner, generate_key
from controller.agent.executor import sign_statement
from controller.cli.session import health_of
from controller.model.order import Report, order_id
from controller.model.trustroot import TrustRoot
from controller.uses.status import status
from controller.uses.view import view
from controller.uses.why import why
from tests.support.flow import Flow, environment, flow, strategy
from tests.support.logs import client_of
from tests.support.waiting import until

TWO = {"dev-1": "dev", "dev-2": "dev"}
SHORT = "    - {percent: 100, minHealthyTime: 200ms, deadline: 6s}\n"
PATIENT = "    - {percent: 100, minHealthyTime: 200ms, deadline: 30s}\n"
HELD = "    - {percent: 100, minHealthyTime: 2s, deadline: 6s}\n"


def shop_of(folder: Path, stages: str, **spec: Any) -> Any:
    files = {"strategies/dev.yaml": strategy("dev", stages), "environments/dev.yaml": environment("dev", **spec)}
    return flow(folder, TWO, files=files)


def waits(shop: Flow, *words: str, where: str = "dev") -> str:
    """Wait until `why` and `status`, asked as the command line asks, say all of these; the message."""

    def said() -> str:
        found = view(shop.people, health_of(None, shop.processes.address))
        at = datetime.now(UTC)
        text = "; ".join(b["message"] for b in why(found, where, at)["blockedBy"])
        line = " ".join(status(found, at, where)[0]["waitingFor"])
        return text if all(word in text and word in line for word in words) else ""

    return str(until(f"why says {words}", said))


def begin(shop: Flow, version: str) -> str:
    """Promote a version to dev without waiting for its end."""
    shop.image(version)
    name = shop.release(version)
    shop.locked(name)
    shop.promote("dev", name)
    return name


def kill(shop: Flow, agent: str) -> None:
    """End an agent for good, its services with it: nobody says goodbye."""
    process = shop.processes.agents[agent]
    process.send_signal(signal.SIGTERM)
    process.wait(15)


@pytest.mark.parametrize("on_failure", ["rollback", "pause"])
def test_an_agent_that_never_answers(tmp_path: Path, on_failure: str) -> None:
    with shop_of(tmp_path, SHORT, onFailure=on_failure) as shop:
        shop.start_heard()
        shop.deploy("dev", "1.0.0")
        before = shop.sticker("dev-1")["manifestDigest"]
        kill(shop, "dev-2")
        name = begin(shop, "1.1.0")
        text = waits(shop, "the report of dev-2 is awaited")
        assert "dev-1" not in text and "last heard of dev-2 at" in text
        if on_failure == "pause":
            waits(shop, "paused by controller", "dev-2 no-report")
            assert shop.sticker("dev-1")["manifestDigest"] != before
        else:
            # dev-2 may have got its order before it fell silent: it has to say that it is back, and does not.
            shop.ends("dev", name, "rollback_failed")
            assert shop.sticker("dev-1")["manifestDigest"] == before
            waits(shop, "1 of 2 touched targets back", "silent, what they run is not known: dev-2")
            assert shop.state("dev")["targets"]["dev-2"].get("manifestDigest") is None
            assert f"{name}: rollback failed" in shop.asks("timeline", shop.state("dev")["lastRun"]["run"])
        deployed = [e for e in shop.entries() if "deployed" in e["path"]][-1]["detail"]
        assert {r["target"]: r["code"] for r in deployed["results"]} == {"dev-1": "ok", "dev-2": "no-report"}
        if on_failure == "rollback":
            # It comes back: its old orders are withdrawn, and a rollback is about it alone.
            last_heard = shop.status()["agents"]["dev-2"]
            shop.processes.start_agent("dev-2", "dev")
            until("dev-2 is heard again", lambda: shop.status()["agents"]["dev-2"] > last_heard)
            shop.asks("rollback", "dev", "--reason", "dev-2 is back", "--key", str(shop.stage.keys / "olga"))
            state = shop.ends("dev", "shop-1.0.0", "completed")
            assert {one["manifestDigest"] for one in state["targets"].values()} == {before}
            last = [e for e in shop.entries() if "/" in e["path"] and "ordered" in e["path"]][-1]["detail"]
            assert [line["target"] for line in last["orders"]] == ["dev-2"]
        shop.check_dense()
        shop.verify()


def test_an_agent_killed_for_good_while_its_stage_is_judged(tmp_path: Path) -> None:
    with shop_of(tmp_path, HELD) as shop:
        shop.start_heard()
        shop.deploy("dev", "1.0.0")
        before = shop.sticker("dev-1")["manifestDigest"]
        name = begin(shop, "1.1.0")
        until("the stage is judged", lambda: shop.status()["open"].get("dev") == "evaluating")
        kill(shop, "dev-2")
        shop.ends("dev", name, "rollback_failed")
        assert shop.sticker("dev-1")["manifestDigest"] == before
        verdicts = [e["detail"] for e in shop.entries() if e["detail"].get("verdict")]
        assert verdicts[-1]["verdict"] == "failed"
        assert "1 of 2 targets healthy" in verdicts[-1]["criteria"][0]["message"]
        shop.verify()


def test_an_agent_with_a_wrong_key(tmp_path: Path) -> None:
    with shop_of(tmp_path, PATIENT) as shop:
        key, kept = shop.stage.keys / "dev-2", shop.stage.folder / "kept"
        shutil.move(key, kept)
        generate_key(key, "dev-2")
        shop.start()
        name = begin(shop, "1.0.0")
        waits(shop, "dev-2 is awaited", "calls in the name of dev-2 (agent-unknown) are refused")
        assert '"code": "agent-unknown"' in shop.agent_log("dev-2")
        assert "answers 403" in shop.agent_log("dev-2")
        kill(shop, "dev-2")
        shutil.move(kept, key)
        shop.processes.start_agent("dev-2", "dev")
        shop.ends("dev", name, "completed")
        assert shop.status()["refused"] == {}
        shop.verify()


def test_strangers_and_agents_of_another_environment(tmp_path: Path) -> None:
    with flow(tmp_path, {"dev-1": "dev", "prod-1": "prod"}) as shop:
        generate_key(shop.stage.keys / "ghost", "ghost")
        shop.processes.start_controller(poll="1s")
        for name in ("dev-1", "ghost", "prod-1"):
            shop.processes.start_agent(name, "dev")
        shop.deploy("dev", "1.0.0")
        until("the stranger is told", lambda: '"agent-unknown"' in shop.agent_log("ghost"))
        until("the other's agent is told", lambda: '"poll-foreign"' in shop.agent_log("prod-1"))
        assert shop.status()["refused"] == {"prod-1": "poll-foreign"}
        assert set(shop.status()["agents"]) == {"dev-1"}
        for name in ("ghost", "prod-1"):
            assert not (shop.stage.agents / name / "lockgate.version.json").exists()
        shop.verify()


def test_a_report_of_an_order_that_is_anothers(tmp_path: Path) -> None:
    with shop_of(tmp_path, PATIENT) as shop:
        shop.processes.start_controller(poll="1s")
        shop.processes.start_agent("dev-2", "dev")
        name = begin(shop, "1.0.0")
        waits(shop, "the report of dev-1 is awaited")
        before = shop.tip()
        lie(shop, name, speaker="dev-2", target="dev-1")
        lie(shop, name, speaker="dev-2", target="dev-2", order_of="dev-1")
        waits(shop, "the report of dev-1 is awaited")
        assert shop.tip() == before
        shop.processes.start_agent("dev-1", "dev")
        shop.ends("dev", name, "completed")
        assert shop.sticker("dev-1")["release"] == name
        shop.verify()


def lie(shop: Flow, release: str, *, speaker: str, target: str, order_of: str = "") -> None:
    """An agent reports, signed by its own key, the success of an order that another one got."""
    ordered = next(e for e in shop.entries() if "ordered" in e["path"])
    detail, run = ordered["detail"], ordered["run"]
    at = datetime.now(UTC)
    report = Report(
        order=order_id(run, detail["stage"], detail["attempt"], order_of or target, "deploy"),
        run=run,
        stage=detail["stage"],
        attempt=detail["attempt"],
        target=target,
        action="deploy",
        sequence=1,
        status="succeeded",
        code="ok",
        message="",
        release=release,
        manifest_digest=detail["manifestDigest"],
        components={},
        healthy=True,
        started=at,
        finished=at,
    )
    signer = FileSigner(shop.stage.keys / speaker)
    client = client_of(
        TrustRoot.load(shop.stage.trust_root),
        shop.stage.folder / f"liar-{speaker}",
        signer,
        agent=speaker,
        environment="dev",
        url=f"http://{shop.processes.address}",
        now=lambda: datetime.now(UTC),
    )
    _, envelope = sign_statement(report, signer)
    client.poll(0, [envelope])
    client.close()
