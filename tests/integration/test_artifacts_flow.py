"""Artifacts end to end: on the evidence branch before the order that carries them, and of use to an operator."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.core.artifacts import COMPOSE, NAMES, SCRIPT
from controller.demo.processes import LOCKGATE
from controller.ledger.canonical import canonical
from controller.ledger.entry import artifact_path
from controller.model.order import PLAN
from controller.uses.images import build_layout
from tests.support.flow import Flow, flow
from tests.support.registry import running_registry
from tests.unit.test_artifacts import component, lock_of, rendered

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C"}


def run_script(script: bytes, into: Path, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run pull.sh as an operator would, with nothing of this process's environment."""
    place = into.parent / "pull.sh"
    place.write_bytes(script)
    command = ["/bin/sh", str(place), into.name]
    return subprocess.run(command, cwd=into.parent, capture_output=True, timeout=60, env={**ENVIRON, **environ})


def artifact(shop: Flow, digest: str) -> bytes:
    """The artifact as stock git gives it, its bytes checked against its name."""
    data = subprocess.run(
        ["git", "-C", str(shop.stage.origin), "cat-file", "blob", f"lockgate/evidence:{artifact_path(digest)}"],
        capture_output=True,
        check=True,
    ).stdout
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def added(shop: Flow, path: str) -> int:
    """The place on the evidence branch of the one commit that ever touched a path."""
    (commit,) = shop.git("log", "--format=%H", "lockgate/evidence", "--", path).splitlines()
    return int(shop.git("rev-list", "--count", commit))


def of_kind(shop: Flow, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in shop.entries() if entry["kind"] == kind]


def predicates(shop: Flow, ending: str) -> list[dict[str, Any]]:
    """What agents said, from the reports that end so."""
    found = []
    for path in shop.git("ls-tree", "-r", "--name-only", "lockgate/evidence").splitlines():
        if path.endswith(ending):
            for line in shop.git("show", f"lockgate/evidence:{path}").splitlines():
                found.append(json.loads(base64.b64decode(json.loads(line)["payload"]))["predicate"])
    return found


def test_artifacts_stand_before_the_order_and_agents_say_which_plan_they_followed(tmp_path: Path) -> None:
    with flow(tmp_path, {"dev-1": "dev"}) as shop:
        shop.start()
        first = shop.deploy("dev", "1.0.0")
        shop.deploy("dev", "2.0.0")
        shop.promote("dev", first)
        shop.ends("dev", first, "completed")
        inputs, ordered = of_kind(shop, "inputs"), of_kind(shop, "ordered")
        assert len(inputs) == 3
        for entry in inputs:
            named = entry["detail"]["artifacts"]
            orders = [other for other in ordered if other["run"] == entry["run"]]
            assert set(named) == set(entry["detail"]["templates"]) == set(NAMES)
            assert [other["detail"]["artifacts"] for other in orders] == [named] * len(orders)
            assert orders[0]["how"] == {"artifacts": named}
            for digest in named.values():
                assert (
                    added(shop, artifact_path(digest))
                    <= added(shop, entry["path"])
                    < added(shop, orders[0]["path"])
                )
            plan = artifact(shop, named[PLAN])
            assert plan == canonical(json.loads(plan))
            assert json.loads(plan)["run"] == entry["run"]
            assert json.loads(plan)["stages"][0]["targets"] == ["dev-1"]
            assert json.loads(plan)["artifacts"] == {name: named[name] for name in (COMPOSE, SCRIPT)}
        # Going back renders what the first run rendered, and it is not stored twice; only the plan is its own.
        once, _, again = (entry["detail"]["artifacts"] for entry in inputs)
        assert [name for name in NAMES if once[name] != again[name]] == [PLAN]
        assert shop.sticker("dev-1")["artifacts"] == again
        assert again in journal(shop)
        said = predicates(shop, ".jsonl")
        reports = [body for body in said if "action" in body]
        plans = {entry["run"]: entry["detail"]["artifacts"][PLAN] for entry in inputs}
        assert {(body["run"], body["plan"]) for body in reports} == set(plans.items())
        check_compose(shop, again[COMPOSE])
        check_script(shop, artifact(shop, again[SCRIPT]), tmp_path)
        shop.verify()
        done = subprocess.run(
            [*LOCKGATE, "--repo", str(shop.stage.origin), "verify", "--trust-root", str(shop.stage.trust_root)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def journal(shop: Flow) -> list[dict[str, str]]:
    """The artifacts of every order in the agent's journal."""
    lines = (shop.stage.agents / "dev-1" / "journal.jsonl").read_text().splitlines()
    taken = [record["envelope"] for record in map(json.loads, lines) if record.get("envelope")]
    return [json.loads(base64.b64decode(one["payload"]))["artifacts"] for one in taken]


def check_compose(shop: Flow, digest: str) -> None:
    made = yaml.safe_load(artifact(shop, digest))
    (locked,) = yaml.safe_load(shop.main_file("releases/shop-1.0.0.lock.yaml"))["spec"]["components"].values()
    service = made["services"]["api"]
    assert made["name"] == "lockgate-dev"
    assert service["image"].endswith(f"}}/api@{locked['digest']}")
    assert service["command"] == ["python3", "server.py"]
    assert service["ports"] == [{"target": 8080}]
    assert "PORT_HTTP=8080" in service["environment"]
    assert service["labels"]["dev.lockgate.health.http"] == "/healthz"


def check_script(shop: Flow, script: bytes, tmp_path: Path) -> None:
    images = str(shop.stage.images)
    done = run_script(script, tmp_path / "pulled", LOCKGATE_IMAGES=images)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"shop-1.0.0 for dev: every image is as it was locked\n"
    (blob,) = sorted((tmp_path / "pulled" / "api" / "blobs" / "sha256").iterdir())[:1]
    # A folder of layouts in which somebody changed a byte, and none at all.
    other = tmp_path / "other"
    subprocess.run(["cp", "-R", images, str(other)], check=True)
    (other / "api" / "blobs" / "sha256" / blob.name).write_bytes(b"evil")
    done = run_script(script, tmp_path / "refused", LOCKGATE_IMAGES=str(other))
    assert (done.returncode, done.stderr) == (1, f"pull.sh: api: the bytes of {blob.name} are others\n".encode())
    done = run_script(script, tmp_path / "nothing")
    assert done.returncode != 0
    assert b"LOCKGATE_IMAGES" in done.stderr


def test_the_script_fetches_from_a_real_registry_by_digest(tmp_path: Path) -> None:
    found = build_layout(
        tmp_path / "images", "api", "v1", {"server.py": b"print()"}, command=("python3", "server.py")
    )
    settings = tmp_path / ".config" / "containers" / "registries.conf"
    settings.parent.mkdir(parents=True)
    with running_registry(tmp_path / "registry") as server:
        settings.write_text(f'[[registry]]\nlocation = "{server.host}"\ninsecure = true\n')
        repository = server.push(tmp_path / "images", "api", "v1", to="shop/api")
        for digest, code in ((found, 0), ("sha256:" + "0" * 64, 1)):
            lock = lock_of({"api": "primary"}, repository)
            locked = lock.spec.components["api"].model_copy(update={"digest": digest})
            manifest = "sha256:" + hashlib.sha256(canonical({"api": digest})).hexdigest()
            spec = lock.spec.model_copy(update={"components": {"api": locked}, "manifest_digest": manifest})
            script = rendered({"api": component("api")}, lock.model_copy(update={"spec": spec}))[SCRIPT]
            done = run_script(script, tmp_path / f"pulled-{code}", HOME=str(tmp_path))
            assert done.returncode == code, done.stderr


@pytest.mark.parametrize("arguments", [(), ("",), ("a", "b")])
def test_the_script_wants_one_folder(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    script = rendered({"api": component("api")}, lock_of({"api": "primary"}))[SCRIPT]
    done = subprocess.run(
        ["/bin/sh", "-s", *arguments], input=script, cwd=tmp_path, capture_output=True, env=ENVIRON
    )
    assert (done.returncode, done.stderr) == (2, b"usage: sh pull.sh DIRECTORY\n")
    assert list(tmp_path.iterdir()) == []
