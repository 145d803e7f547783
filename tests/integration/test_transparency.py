"""Witnesses, time-stamps and receipts of a whole project: real processes, a real time-stamp authority."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.adapters.git import sshsig
from controller.ledger.cosign import cosigners
from controller.ledger.timestamp import check_token
from controller.model.trustroot import TrustRoot
from controller.uses.exports.receipts import check
from tests.support.flow import SOURCE, Flow, environment, flow
from tests.support.tsa import Authority, Server, serving
from tests.support.waiting import until

AGENTS = {"dev-1": "dev", "dev-2": "dev"}
TRUST = (SOURCE / "trust" / "trust.yaml.j2").read_text()
PROJECT = "apiVersion: lockgate.dev/v1\nkind: Project\nmetadata: {name: shop}\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


def files(authority: Authority | None = None, url: str = "", witnesses: int = 0) -> dict[str, str]:
    """An environment that asks for witnesses, and a project that has its checkpoints time-stamped."""
    found = {"environments/dev.yaml": environment("dev", witnesses=witnesses)}
    if authority is not None:
        pinned = {"timeAuthorities": {"example": {"certificates": [authority.certificate]}}}
        found["trust/trust.yaml.j2"] = TRUST + "".join(
            f"  {line}\n" for line in yaml.safe_dump(pinned, sort_keys=False).splitlines()
        )
        stamping = {"timeStamping": {"authority": "example", "url": url}}
        found["lockgate.yaml"] = f"{PROJECT}spec: {json.dumps(stamping)}\n"
    return found


def lockgate(shop: Flow, *arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "controller", "--repo", str(shop.stage.origin), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def events(shop: Flow, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in shop.entries() if entry["kind"] == kind]


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    with serving(authority.reply) as made:
        yield made


def test_a_run_is_witnessed_time_stamped_and_receipted(
    tmp_path: Path, authority: Authority, server: Server
) -> None:
    with flow(tmp_path, AGENTS, files=files(authority, server.url, witnesses=1)) as shop:
        shop.start()
        shop.deploy("dev", "1.0.0")
        witnessed = until("the seal is witnessed", lambda: events(shop, "witnessed"))[0]
        anchored = until("the seal is time-stamped", lambda: events(shop, "time-anchored"))[0]
        seal = next(entry for entry in shop.entries() if entry["kind"] == "sealed")
        assert witnessed["detail"]["size"] > seal["index"]
        keys = {name: _key(shop, name) for name in AGENTS}
        for note in witnessed["detail"]["checkpoints"]:
            assert cosigners(note.encode(), keys)
        detail = anchored["detail"]
        assert (detail["run"], detail["authority"]) == (seal["run"], "example")
        assert detail["size"] > seal["index"]
        check_token(base64.b64decode(detail["token"]), detail["checkpoint"].encode(), [authority.certificate])
        # Neither event calls for another one: the log comes to rest.
        shop.deploy("dev", "1.1.0")
        for kind in ("witnessed", "time-anchored"):
            until("the next seal is visible", lambda kind=kind: len(events(shop, kind)) == 2)
        shop.verify()
        root = ["--trust-root", str(shop.stage.trust_root)]
        assert "time-anchored to" in lockgate(shop, "verify", *root)
        said = lockgate(shop, "evidence", seal["run"])
        assert "time-anchored.dsse.json" in said
        assert "not time-anchored" not in said
        _receipts(shop, tmp_path / "receipts", seal["run"], root)


def _key(shop: Flow, agent: str) -> str:
    return " ".join((shop.stage.keys / f"{agent}.pub").read_text().split()[:2])


def _receipts(shop: Flow, folder: Path, run: str, root: list[str]) -> None:
    lockgate(shop, "receipt", "make", run, "--out", str(folder), *root)
    proofs = sorted(folder.glob("*.tlog-proof"))
    assert len(proofs) == len([entry for entry in shop.entries() if entry.get("run") == run])
    lonely = folder.parent / "no-repository"
    lonely.mkdir()
    pinned = TrustRoot.load(shop.stage.trust_root)
    for proof in proofs:
        envelope = proof.with_suffix(".dsse.json")
        held = check(proof.read_bytes(), envelope.read_bytes(), pinned, sshsig.verify)
        assert (held.entry.run, held.cosignatures >= 1) == (run, True)
    for proof in proofs[-1:]:
        command = [sys.executable, "-m", "controller", "-o", "json", "receipt", "check", str(proof), str(envelope)]
        done = subprocess.run([*command, *root], cwd=lonely, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run"] == run
        assert json.loads(done.stdout)["cosignatures"] >= 1
    first, second = proofs[:2]
    other = second.with_suffix(".dsse.json")
    assert "log-inconsistent" in lockgate(shop, "receipt", "check", str(first), str(other), *root, code=1)
    forged = folder / "forged.json"
    data = bytearray(first.with_suffix(".dsse.json").read_bytes())
    data[40] ^= 1
    forged.write_bytes(data)
    lockgate(shop, "receipt", "check", str(first), str(forged), *root, code=1)
    lockgate(shop, "receipt", "check", str(first), str(folder / "none"), *root, code=2)
    lockgate(shop, "receipt", "check", str(forged), str(forged), *root, code=1)
    assert "run-not-found" in lockgate(shop, "receipt", "make", "dev-9-00000000", *root, code=1)


def test_no_authority_and_no_witness_hold_nothing_up(tmp_path: Path, authority: Authority) -> None:
    """An authority that hangs, then answers for another root, then well: the run is sealed all the while."""
    release, mode = threading.Event(), ["hang"]

    def answer(query: bytes) -> bytes:
        if mode[0] == "hang":
            release.wait(60)
        return authority.reply(query) if mode[0] == "good" else b"no token"

    with serving(answer) as server, flow(tmp_path, AGENTS, files=files(authority, server.url)) as shop:
        shop.start()
        shop.deploy("dev", "1.0.0")
        until("it is asked", lambda: server.asked)
        root = ["--trust-root", str(shop.stage.trust_root)]
        assert "not time-anchored" in lockgate(shop, "verify", *root)
        run = shop.state("dev")["lastRun"]["run"]
        assert "not time-anchored" in lockgate(shop, "evidence", run)
        shop.deploy("dev", "1.1.0")
        assert not events(shop, "time-anchored")
        mode[0] = "wrong"
        release.set()
        asked = server.asked
        until("it is asked again", lambda: server.asked > asked, 40)
        assert not events(shop, "time-anchored")
        mode[0] = "good"
        until("the newest seal is time-stamped", lambda: events(shop, "time-anchored"), 60)
        shop.verify()
        assert not events(shop, "witnessed")


def test_a_controller_restored_from_an_old_clone(tmp_path: Path) -> None:
    """Evidence is put back to an older tip, the state directory is lost: agents refuse what goes on from there."""
    with flow(tmp_path, AGENTS) as shop:
        shop.start()
        shop.deploy("dev", "1.0.0")
        old = {branch: shop.tip(branch) for branch in ("lockgate/evidence", "main")}
        shop.deploy("dev", "1.1.0")
        shop.stop_controller()
        for branch, tip in old.items():
            shop.git("update-ref", f"refs/heads/{branch}", tip)
        for path in shop.stage.state.rglob("*"):
            if path.is_file():
                path.unlink()
        shop.processes.start_controller(poll="1s")
        until("the agents refuse", lambda: all("log-inconsistent" in shop.agent_log(name) for name in AGENTS))
        wanted = dict.fromkeys(AGENTS, "log-inconsistent")
        until("it is told", lambda: shop.status()["refused"] == wanted)
        shop.image("1.2.0")
        name = shop.release("1.2.0")
        shop.locked(name)
        shop.promote("dev", name)
        until("it is ordered", lambda: shop.status()["open"].get("dev") == "deploying")
        assert shop.sticker("dev-1")["release"] == "shop-1.1.0"
