"""A controller's start: it acts only on the repository that its trust root names, whatever the branches claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.demo.stage import Stage
from controller.model.trustroot import TrustRoot
from controller.wiring.people import commit_on


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path / "shop")
    made.folder.mkdir()
    made.build(agents=["dev-1"])
    made.image("1.0.0")
    assert once(made).returncode == 0
    return made


def once(stage: Stage, root: Path | None = None, key: str = "controller") -> subprocess.CompletedProcess[str]:
    """`controller --once` with a state directory that knows nothing."""
    state = stage.folder / f"state-{len(list(stage.folder.glob('state-*')))}"
    return subprocess.run(
        [
            *(sys.executable, "-P", "-m", "controller", "--repo", str(stage.origin), "controller", "--once"),
            *("--trust-root", str(root or stage.trust_root), "--signing-key", str(stage.keys / key)),
            *("--state-dir", str(state), "--images", str(stage.images)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )


def tips(stage: Stage) -> str:
    done = subprocess.run(["git", "-C", str(stage.origin), "show-ref"], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("change", [{"genesis": "0" * 40}, {"project": "other"}])
def test_another_root_is_refused(stage: Stage, change: dict[str, str]) -> None:
    root = stage.folder / "other-root.json"
    TrustRoot.load(stage.trust_root).model_copy(update=change).save(root)
    before = tips(stage)
    done = once(stage, root)
    assert (done.returncode, done.stderr.split(":")[1].strip()) == (1, "genesis-mismatch")
    assert tips(stage) == before


def test_the_same_trust_under_a_new_genesis_is_another_project(stage: Stage, tmp_path: Path) -> None:
    other = Stage(tmp_path / "twin")
    other.folder.mkdir()
    subprocess.run(["cp", "-r", str(stage.keys), str(other.keys)], check=True)
    repo, mine = stage.repo(), TrustRoot.load(stage.trust_root)
    files = {p: repo.read(f.blob) for p, f in repo.files(mine.genesis)}
    twin = commit_on(
        repo, "twin", stage.person("oscar"), {**files, "lockgate.yaml": files["lockgate.yaml"]}, "Twin"
    )
    repo.close()
    root = stage.folder / "twin-root.json"
    mine.model_copy(update={"genesis": twin}).save(root)
    done = once(stage, root)
    assert (done.returncode, done.stderr.split(":")[1].strip()) == (1, "genesis-mismatch")


@pytest.mark.parametrize("who", ["alice", "nobody"])
def test_evidence_of_somebody_else_is_not_trusted_by_a_fresh_start(stage: Stage, who: str) -> None:
    repo = stage.repo()
    person = stage.person("alice")
    if who == "nobody":
        person = type(person)("nobody", "nobody@example.com", None)
    commit_on(repo, "lockgate/evidence", person, {"state/prod.json": b"{}"}, "prod: all is well")
    repo.close()
    assert once(stage).returncode == 0
    shown = ["git", "-C", str(stage.origin), "show", "--format=%B", "--name-only", "lockgate/evidence"]
    done = subprocess.run(shown, capture_output=True, text=True, check=True)
    assert "Lockgate-Kind: evidence-repaired" in done.stdout and "state/prod.json" in done.stdout


def test_a_key_that_is_not_the_controllers_records_nothing(stage: Stage) -> None:
    before = tips(stage)
    done = once(stage, key="alice")
    assert (done.returncode, done.stderr.split(":")[1].strip()) == (2, "signer-not-controller")
    assert tips(stage) == before
