"""The registry fails in every way it can; nothing unverified runs, the rest goes on, and all heals by itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.demo.processes import request
from tests.support.fault_registry import FaultRegistry
from tests.support.flow import Flow, environment, flow, strategy
from tests.support.waiting import until

AGENTS = {"dev-1": "dev", "dev-2": "dev"}
ALWAYS = 1_000_000
FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "1.0.0": ("registry-unauthorized", {"status": 401}),
    "1.0.1": ("tag-not-found", {"status": 404}),
    "1.0.2": ("registry-busy", {"status": 429, "headers": {"Retry-After": "3600"}}),
    "1.0.3": ("registry-unavailable", {"status": 500}),
    "1.0.4": ("registry-truncated", {"truncate": True}),
    "1.0.5": ("digest-mismatch", {"flip": True}),
    "1.0.6": ("answer-pending", {"hang": True}),
}
"""The release's version → what the controller says of it, and how the registry fails for it."""


@contextlib.contextmanager
def _shop(
    folder: Path, on_failure: str = "rollback", deadline: str = "5s"
) -> Iterator[tuple[Flow, FaultRegistry]]:
    stages = "".join(
        f"    - {{percent: {share}, minHealthyTime: 200ms, deadline: {deadline}}}\n" for share in (50, 100)
    )
    files = {
        "environments/dev.yaml": environment("dev", onFailure=on_failure),
        "strategies/dev.yaml": strategy("dev", stages),
    }
    with (
        FaultRegistry(folder / "images").running() as registry,
        flow(folder, AGENTS, files=files, repository=f"{registry.host}/api") as shop,
    ):
        assert shop.stage.images == registry.images
        shop.start()
        try:
            yield shop, registry
        finally:
            registry.released.set()


def test_what_cannot_be_resolved_stays_unlocked_until_it_can(tmp_path: Path) -> None:
    # Nothing here fails at a stage: a busy machine gets its time.
    with _shop(tmp_path, deadline="60s") as (shop, registry):
        for version, (_, fault) in FAULTS.items():
            shop.image(version)
            registry.fault(path=f"/manifests/v{version}", times=ALWAYS, **fault)
        broken = [shop.release(version) for version in FAULTS]
        until("every faulty tag was asked for", lambda: _asked(registry) == set(FAULTS))
        shop.deploy("dev", "1.1.0")
        assert not [name for name in broken if shop.main_file(f"releases/{name}.lock.yaml")]
        assert shop.health()["state"] == "running" and shop.status()["health"]["state"] == "running"
        expected = {f"shop-{version}": code for version, (code, _) in FAULTS.items()}
        for said in (shop.status, shop.health):
            until(f"{said.__name__} says why", lambda: _unresolved(said()) == expected)  # noqa: B023
        _why(shop, registry.host)
        registry.faults.clear()
        registry.released.set()
        for name in broken:
            shop.locked(name)
        shop.ends("dev", broken[-1], "completed")
        until("nothing is unresolved", lambda: not _unresolved(shop.health()) and not shop.status()["unanswered"])
        shop.check_dense()
        shop.verify()


def _unresolved(said: dict[str, Any]) -> dict[str, str]:
    return {one["release"]: one["code"] for one in said["unanswered"]}


def _why(shop: Flow, host: str) -> None:
    """`why` and `status` tell of a run that waits for its lock what the registry said, for each way of failing."""
    places = ["--controller", shop.processes.address], ["--state-dir", str(shop.stage.state)]
    for version in ("1.0.0", "1.0.3", "1.0.6"):
        code = FAULTS[version][0]
        shop.promote("dev", f"shop-{version}")
        text = f"shop-{version} cannot be resolved"
        if code == "answer-pending":
            text = f"shop-{version} is being resolved"
        for place in places:
            blocker = until(f"why says {code}", lambda: _blocker(shop, code, *place))  # noqa: B023
            assert blocker["gate"] == "lock" and blocker["message"].startswith(text)
            if code != "answer-pending":
                assert "component api: " in blocker["message"] and f"{host}/api" in blocker["message"], blocker
                assert blocker["unblock"]
            assert text in shop.asks("status", *place)
    (alone,) = json.loads(shop.asks("-o", "json", "why", "dev"))["blockedBy"]
    assert alone["code"] == "lock-pending" and "--controller" in alone["unblock"]
    assert f"lockgate resolve shop-{version}" in alone["unblock"]


def _blocker(shop: Flow, code: str, *place: str) -> dict[str, Any]:
    answer = json.loads(shop.asks("-o", "json", "why", "dev", *place))
    return next((dict(one) for one in answer["blockedBy"] if one["code"] == code), {})


def _asked(registry: FaultRegistry) -> set[str]:
    return {path.rpartition("/v")[2] for path in registry.paths()} & set(FAULTS)


PULLS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "1.1.0": ("registry-unauthorized", "/manifests/sha256:", {"status": 401}),
    "1.1.1": ("blob-not-found", "/blobs/", {"status": 404}),
    "1.1.2": ("registry-busy", "/manifests/sha256:", {"status": 429, "headers": {"Retry-After": "3600"}}),
    "1.1.3": ("digest-mismatch", "/blobs/", {"flip": True}),
    "1.1.4": ("digest-mismatch", "/manifests/sha256:", {"flip": True}),
    "1.1.5": ("registry-unavailable", "/manifests/sha256:", {"status": 500}),
    "1.1.6": ("registry-truncated", "/blobs/", {"truncate": True}),
}
"""The release's version → the code an agent reports, and how the registry fails for its pull."""


def test_what_cannot_be_pulled_is_rolled_back_and_the_former_version_runs_on(tmp_path: Path) -> None:
    with _shop(tmp_path) as (shop, registry):
        former = shop.deploy("dev", "1.0.0")
        before = _runs(shop)
        for version, (code, path, fault) in PULLS.items():
            name = _promote(shop, registry, version, path, fault)
            state = shop.ends("dev", name, "rolled_back")
            registry.faults.clear()
            assert _results(shop, name) == [("failed", code)], version
            assert state["release"] == former and _runs(shop) == before, version
        advice = json.loads(shop.asks("-o", "json", "why", "dev"))["blockedBy"][0]["unblock"]
        assert "or what its targets met, then lockgate promote dev RELEASE" in advice
        shop.promote("dev", name)
        shop.ends("dev", name, "completed")
        shop.deploy("dev", "1.2.0")
        shop.check_dense()
        shop.verify()


def test_why_names_what_a_target_waits_for(tmp_path: Path) -> None:
    with _shop(tmp_path, deadline="60s") as (shop, registry):
        shop.deploy("dev", "1.0.0")
        name = _promote(shop, registry, "1.1.0", "/manifests/sha256:", {"status": 500})
        place = "--controller", shop.processes.address

        def held() -> dict[str, Any]:
            return _blocker(shop, "order-held-up", *place)

        blocker = until("why names the registry", held)
        assert blocker["gate"] == "targets" and blocker["unblock"]
        assert "cannot carry out the order yet; it says: registry-unavailable: " in blocker["message"]
        assert registry.host in blocker["message"]
        assert "cannot carry out the order yet" in shop.asks("status", *place)
        logs = [shop.agent_log(agent) for agent in shop.agents]
        assert max(log.count("order-held-up") for log in logs) == 1
        registry.faults.clear()
        shop.ends("dev", name, "completed")
        assert shop.status()["obstacles"] == {}


def test_what_cannot_be_pulled_pauses_the_run_if_configured(tmp_path: Path) -> None:
    with _shop(tmp_path, on_failure="pause") as (shop, registry):
        former = shop.deploy("dev", "1.0.0")
        before = _runs(shop)
        name = _promote(shop, registry, "1.1.0", "/blobs/", {"flip": True})
        until("the run is paused", lambda: shop.status()["open"].get("dev") == "paused")
        assert _results(shop, name) == [("failed", "digest-mismatch")]
        assert shop.state("dev")["release"] == former and _runs(shop) == before


@pytest.mark.parametrize("slow", ["hang", "drip"])
def test_a_pull_that_does_not_end_gives_way_to_the_rollback(tmp_path: Path, slow: str) -> None:
    with _shop(tmp_path) as (shop, registry):
        former = shop.deploy("dev", "1.0.0")
        before = _runs(shop)
        name = _promote(shop, registry, "1.1.0", "/blobs/", {slow: True})
        if slow == "hang":
            until("the rollback is ordered", lambda: _orders(shop, name)[-1] == "rollback")
            registry.released.set()
        state = shop.ends("dev", name, "rolled_back")
        # An agent that hears nothing at all cannot even say so in time; one that sees bytes come can.
        said = ("unreported", "no-report") if slow == "hang" else ("failed", "pull-late")
        assert _results(shop, name) == [said]
        assert state["release"] == former and _runs(shop) == before


def _promote(shop: Flow, registry: FaultRegistry, version: str, path: str, fault: dict[str, Any]) -> str:
    """Promote a new version that the registry will not give to agents; the release's name."""
    shop.image(version)
    name = shop.release(version)
    shop.locked(name)
    registry.fault(path=path, times=ALWAYS, **fault)
    shop.promote("dev", name)
    return name


def _of(shop: Flow, release: str, kind: str) -> list[dict[str, Any]]:
    entries = [one for one in shop.entries() if one["what"].get("release") == release]
    return [one["detail"] for one in entries if one["kind"] == kind]


def _orders(shop: Flow, release: str) -> list[str]:
    return [str(one["action"]) for one in _of(shop, release, "ordered")] or [""]


def _results(shop: Flow, release: str) -> list[tuple[str, str]]:
    """(result, code) of every target of a release's one canary stage, as the evidence has them."""
    (deployed,) = _of(shop, release, "deployed")
    return [(one["result"], one["code"]) for one in deployed["results"]]


def _runs(shop: Flow) -> list[tuple[str, dict[str, str]]]:
    """Where each agent's service answers, and the digests on its sticker."""
    found = []
    for agent in shop.agents:
        where = shop.processes.endpoint(agent, "api")
        assert where is not None and request(f"{where}/") == 200
        found.append((where, shop.sticker(agent)["digests"]))
    return found
