"""The whole story, as a user plays it, and what auditors find in what it left."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from controller.adapters.git.keys import FileSigner
from controller.model.keys import public_key
from controller.settings import data_dir
from tests.support.components import used
from tests.support.stock import checkout, in_toto_verify, pem, sealed_folders

PROGRAM = os.environ.get("LOCKGATE") or str(Path(sys.executable).parent / "lockgate")
EVIDENCE = "refs/heads/lockgate/evidence"

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Played:
    """What a play left and said."""

    folder: Path
    output: str
    seconds: float

    @property
    def origin(self) -> Path:
        return self.folder / "origin.git"

    def lockgate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, "--repo", str(self.origin), *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)

    def answer(self, *arguments: str, code: int = 0) -> Any:
        done = self.lockgate("-o", "json", *arguments)
        assert done.returncode == code, done.stderr or done.stdout
        return json.loads(done.stdout)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.origin), *arguments], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def entries(self) -> Iterator[tuple[str, bytes]]:
        for line in self.git("ls-tree", "-r", EVIDENCE).splitlines():
            about, path = line.split("\t")
            if path.endswith(".dsse.json"):
                blob = subprocess.run(
                    ["git", "-C", str(self.origin), "cat-file", "blob", about.split()[2]],
                    capture_output=True,
                    check=True,
                )
                yield path, blob.stdout


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("demo") / "D"
    begun = time.monotonic()
    # As a user has it: what was verified once is kept, and the changed byte must be found all the same.
    environ = {name: value for name, value in os.environ.items() if name != "LOCKGATE_NO_CACHE"}
    done = subprocess.run(
        [PROGRAM, "demo", "--dir", str(folder), "--keep"],
        cwd=folder.parent,
        env=environ | {"XDG_CACHE_HOME": str(folder.parent / "cache")},
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert done.stderr == ""
    used("demo", f"played in {seconds:.0f} s")
    return Played(folder, done.stdout, seconds)


def test_it_leaves_what_it_promises(played: Played) -> None:
    for name in ("origin.git", "trust-root.json", "keys", "images", "agents/prod-eu-1", "state"):
        assert (played.folder / name).exists(), name
    seen = ("api     v1.0.0 → sha256:", "dave merges his own promotion", "main goes on, and nothing was deployed")
    for line in (*seen, "NOT verified"):
        assert line in played.output
    left = subprocess.run(["pgrep", "-f", str(played.folder)], capture_output=True, text=True)
    assert left.stdout == "", "processes of the demo still run"


def test_the_commands_of_the_closing_screen_work(played: Played) -> None:
    """As they stand there, from where the demo was called."""
    closing = played.output.partition("\nLook further:\n")[2].splitlines()
    commands = [line.strip() for line in closing if line.startswith("  ")]
    assert len(commands) == 7
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=played.folder.parent, env=environ, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stderr) == (0, ""), (command, done)
        assert done.stdout or ">" in command
    assert "No signature" not in done.stdout and 'Good "git" signature' in done.stdout


def test_its_runs_ended_as_they_must(played: Played) -> None:
    runs = played.answer("runs")
    ends = sorted((run["environment"], run["release"], run["phase"]) for run in runs)
    assert ends == [
        ("dev", "shop-1.0.0", "completed"),
        ("dev", "shop-1.1.0", "completed"),
        ("prod", "shop-1.0.0", "completed"),
        ("prod", "shop-1.1.0", "rolled_back"),
        ("staging", "shop-1.0.0", "completed"),
        ("staging", "shop-1.1.0", "completed"),
    ]
    assert all(run["sealed"] for run in runs)


def test_the_failing_canary_touched_one_target(played: Played) -> None:
    run = next(run["run"] for run in played.answer("runs") if run["phase"] == "rolled_back")
    steps = played.answer("timeline", run)["steps"]
    assert [s["kind"] for s in steps if s["kind"] in ("ordered", "evaluated", "rolled-back", "sealed")] == [
        "ordered",
        "evaluated",
        "ordered",
        "rolled-back",
        "sealed",
    ]
    assert next(s for s in steps if s["kind"] == "evaluated")["result"] == "FAILED"
    stickers = [
        json.loads(p.read_bytes()) for p in sorted(played.folder.glob("agents/prod-*/lockgate.version.json"))
    ]
    assert len(stickers) == 10
    assert {s["release"] for s in stickers} == {"shop-1.0.0"}
    assert sum(s["run"] == run for s in stickers) == 1
    slot = played.git("show", "main:promotions/prod.yaml")
    assert "release: shop-1.0.0" in slot
    revert = played.git("log", "-n", "1", "--format=%an %s%n%b", "--grep=Lockgate-Kind: slot-revert", "main")
    assert "Take prod back to shop-1.0.0" in revert and f"Lockgate-Run: {run}" in revert


def test_the_shapes_that_outside_checks_read(played: Played) -> None:
    assert played.answer("validate") == []
    status = {row["environment"]: row for row in played.answer("status")}
    assert set(status) == {"dev", "staging", "prod"}
    for row in status.values():
        assert {"release", "manifestDigest", "since", "run", "phase", "stage", "waitingFor", "actions"} <= set(row)
    assert status["prod"]["release"] == "shop-1.0.0"
    why = played.answer("why", "prod")
    assert {"environment", "run", "phase", "blockedBy"} <= set(why)
    verified = played.answer("verify", "--trust-root", str(played.folder / "trust-root.json"))
    assert (verified["verified"], verified["findings"], verified["refused"]) == (True, [], 2)
    assert verified["runs"] == 6 and verified["entries"] >= 80
    gone = played.lockgate("timeline", "no-such-run")
    assert gone.returncode in (1, 2) and re.fullmatch(r"lockgate: run-not-found: .+\n", gone.stderr)


def test_stock_git_accepts_the_evidence(played: Played) -> None:
    subprocess.run(
        ["git", "-C", str(played.origin), "fsck", "--strict", "--full"], check=True, capture_output=True
    )
    allowed = played.folder / "allowed"
    root = str(played.folder / "trust-root.json")
    done = played.lockgate("trust", "allowed-signers", "--role", "controller", "--trust-root", root)
    assert done.returncode == 0, done.stderr
    allowed.write_text(done.stdout)
    signed = played.git("-c", f"gpg.ssh.allowedSignersFile={allowed}", "log", "--format=%G? %GS", EVIDENCE)
    assert set(signed.splitlines()) == {"G controller"}
    assert played.git("rev-list", "--merges", EVIDENCE) == ""
    changed = ("log", "--no-renames", "--diff-filter=a", "--name-only", "--format=", EVIDENCE)
    assert played.git(*changed, "--", "runs", "events", "artifacts").split() == []


def test_stock_in_toto_accepts_what_completed(played: Played, tmp_path: Path) -> None:
    keys = [
        pem(tmp_path / f"{name}.pem", FileSigner(played.folder / "keys" / name).public_key)
        for name in ("olivia", "oscar")
    ]
    layout = tmp_path / "layout.json"
    layout.write_text(played.git("show", "main:trust/layout.json"))
    phases = {run["run"]: run["phase"] for run in played.answer("runs")}
    said = {}
    for run, folder in sealed_folders(played.origin).items():
        place = checkout(played.origin, folder, tmp_path / run)
        said[run] = "completed" if in_toto_verify(place, folder, layout, keys).returncode == 0 else "rolled_back"
    assert said == phases


def test_stock_tools_accept_every_entry(played: Played) -> None:
    schemas = {
        path.name.removesuffix(".schema.json"): json.loads(path.read_bytes())
        for path in (data_dir("schemas") / "evidence").glob("*.json")
    }
    checkers = {kind: jsonschema.Draft202012Validator(schema) for kind, schema in schemas.items()}
    signer = FileSigner(played.folder / "keys" / "controller")
    key = SSlibKey.from_crypto(public_key(signer.public_key))
    count = 0
    for path, data in played.entries():
        envelope = json.loads(data)
        statement = json.loads(base64.b64decode(envelope["payload"]))
        checkers[statement["predicate"]["kind"]].validate(statement)
        Envelope.from_dict(envelope).verify([key], 1)
        assert path.endswith(f"-{statement['predicate']['kind']}.dsse.json")
        count += 1
    assert count == int(played.git("rev-list", "--count", EVIDENCE))
