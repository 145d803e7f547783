"""The real `lockgate` program on a staged project: answers by their schemas, exit codes, and clumsy use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from controller.demo.stage import Stage, release_file, slot_file
from controller.settings import data_dir
from controller.wiring.people import Person, commit_on

STAGING = """\
apiVersion: lockgate.dev/v1
kind: Environment
metadata: {name: staging}
spec:
  order: 20
  strategy: all-at-once
  gates: [digests-pinned]
  approvals: {count: 2, roles: {reviewers: 2}}
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shop:
    """A staged project: nobody but the controller with --once runs, so open runs wait where they are."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)
        source = folder / "source"
        shutil.copytree(data_dir("example-repo"), source)
        (source / "environments" / "staging.yaml").write_text(STAGING)
        trust = source / "trust" / "trust.yaml.j2"
        trust.write_text(trust.read_text().replace("environments: [prod]", "environments: [prod, staging]"))
        self.stage.build(source, agents=["dev-1", "staging-1", "prod-eu-1", "prod-us-1"])
        self.stage.image("1.0.0")

    def run(
        self, *words: str, repo: str | None = None, text: bool = False, env: dict[str, str] | None = None
    ) -> Answer:
        command = [sys.executable, "-m", "controller", "--repo", repo or str(self.stage.origin)]
        command += [] if text else ["-o", "json"]
        plain = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, env=plain | (env or {}), timeout=60, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    def ask(self, schema: str, *words: str, code: int = 0) -> Any:
        """Run, and hold the answer against its published schema."""
        answer = self.run(*words)
        assert answer.code == code, (words, answer)
        found = json.loads((data_dir("schemas") / "cli" / f"{schema}.schema.json").read_text())
        Draft202012Validator(found).validate(answer.json)
        return answer.json

    def fails(self, code: str, exit_code: int, *words: str, repo: str | None = None) -> str:
        """Run what must fail: one line, its code, its exit code, nothing on standard output."""
        answer = self.run(*words, repo=repo)
        assert answer.code == exit_code, answer
        assert answer.out == ""
        assert answer.err.startswith(f"lockgate: {code}: ") and answer.err.count("\n") == 1, answer.err
        return answer.err

    def key(self, name: str) -> str:
        return str(self.stage.keys / name)

    def controller(self) -> None:
        stage = self.stage
        root, key = str(stage.trust_root), self.key("controller")
        words = [
            "controller",
            "--once",
            "--trust-root",
            root,
            "--signing-key",
            key,
            "--state-dir",
            str(stage.state),
        ]
        answer = self.run(*words, "--images", str(stage.images))
        assert answer.code == 0, answer.err

    def commit(self, branch: str, who: Person, files: dict[str, bytes]) -> None:
        repo = self.stage.repo()
        commit_on(repo, branch, who, files, "Change")
        repo.close()

    def reason(self, who: str, why: str = "because") -> list[str]:
        return ["--reason", why, "--key", self.key(who)]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Described, with a release, and no controller has ever run."""
    shop = Shop(tmp_path_factory.mktemp("shop"))
    shop.commit(
        "release", shop.stage.person("alice"), {"releases/shop-1.0.0.yaml": release_file("shop-1.0.0", "1.0.0")}
    )
    return shop


@pytest.fixture(scope="module")
def shop(fresh: Shop) -> Iterator[Shop]:
    """The release locked, an open run in dev (its agent silent) and one in staging that lacks an approval."""
    test_before_anything_ran(fresh)
    landed = fresh.ask("merge", "merge", "release", "--key", fresh.key("bob"))
    assert landed["accepted"] is True
    fresh.controller()
    for environment in ("dev", "staging"):
        made = fresh.ask("promote", "promote", environment, "shop-1.0.0", *fresh.reason("alice"))
        assert made["branch"] == f"promote/{environment}-shop-1.0.0"
        landed = fresh.ask("merge", "merge", made["branch"], "--key", fresh.key("bob"))
        assert (landed["accepted"], landed["approves"]) == (True, ["bob"])
    fresh.controller()
    yield fresh


def test_before_anything_ran(fresh: Shop) -> None:
    if fresh.stage.state.exists():
        return  # the other tests' fixture has gone on; it ran this first
    rows = fresh.ask("status", "status")
    assert [(r["environment"], r["release"], r["phase"]) for r in rows] == [
        ("dev", None, "idle"),
        ("staging", None, "idle"),
        ("prod", None, "idle"),
    ]
    assert fresh.ask("runs", "runs") == []
    assert fresh.ask("why", "why", "prod")["blockedBy"] == []
    fresh.fails("run-not-found", 1, "timeline", "dev-1-00000000")
    answer = fresh.run("verify", "--trust-root", str(fresh.stage.trust_root))
    assert answer.code == 1 and [f["code"] for f in answer.json["findings"]] == ["evidence-missing"]


def test_reading(shop: Shop) -> None:
    rows = {row["environment"]: row for row in shop.ask("status", "status")}
    assert list(rows) == ["dev", "staging", "prod"]
    assert rows["dev"]["phase"] == "deploying" and rows["dev"]["stage"] == 1
    assert rows["staging"]["phase"] == "awaiting_approval"
    assert "approve" in rows["staging"]["actions"] and rows["prod"]["actions"] == []
    assert "dev-1" in rows["dev"]["waitingFor"][0] and "carol" in rows["staging"]["waitingFor"][0]
    runs = shop.ask("runs", "runs")
    assert [(r["environment"], r["sealed"]) for r in runs] == [("dev", False), ("staging", False)]
    run = runs[0]["run"]
    story = shop.ask("timeline", "timeline", run)
    assert story["steps"][0]["kind"] == "opened" and all(step["commit"] for step in story["steps"])
    step = shop.ask("step", "step", run, "1")
    assert step["envelope"] == story["steps"][0]["envelope"]
    assert [row["result"] for row in shop.ask("targets", "targets", run)] == ["ordered"]
    states = {row["state"] for row in shop.ask("evidence", "evidence", run)}
    assert states == {"sealed", "pending"}
    blocked = shop.ask("why", "why", "dev")["blockedBy"]
    assert [b["code"] for b in blocked] == ["report-pending"] and blocked[0]["until"]
    answer = shop.run("status", text=True)
    assert answer.code == 0 and "\x1b" not in answer.out and "▶ deploying" in answer.out
    assert shop.run("-o", "yaml", "runs", text=True).out.startswith("- run: dev-1-")


def test_auditing(shop: Shop) -> None:
    root = str(shop.stage.trust_root)
    report = shop.ask("verify", "verify", "--trust-root", root)
    assert report["verified"] and report["findings"] == [] and report["runs"] == 2
    signers = shop.ask(
        "trust-allowed-signers", "trust", "allowed-signers", "--role", "controller", "--trust-root", root
    )
    assert [one["principal"] for one in signers] == ["controller"]
    assert shop.ask("trust-show", "trust", "show")["version"] == 1
    shop.fails("role-unknown", 2, "trust", "allowed-signers", "--role", "kings", "--trust-root", root)
    shop.fails("trust-root-missing", 2, "verify")


def test_files(shop: Shop, tmp_path: Path) -> None:
    assert shop.ask("validate", "validate") == []
    broken = b"apiVersion: lockgate.dev/v1\nkind: Release\nmetadata: {name: bad}\nspec: {}\n"
    shop.commit("broken", shop.stage.person("alice"), {"releases/bad.yaml": broken})
    found = shop.ask("validate", "validate", "--ref", "broken", code=1)
    assert [(d["path"], d["severity"]) for d in found] == [("releases/bad.yaml", "error")]
    images = ["--images", str(shop.stage.images)]
    resolved = shop.ask("resolve", "resolve", "shop-1.0.0", *images)
    assert set(resolved["components"]) == {"api", "web", "worker"}
    checked = shop.ask("resolve", "resolve", "shop-1.0.0", "--check", *images)
    assert not checked["changed"] and checked["moved"] == []
    shop.fails("release-unknown", 1, "resolve", "none")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(shop.stage.origin), str(clone)], check=True)
    fetched = shop.run("status", repo=str(clone)).json
    assert fetched == shop.run("status").json, "a clone tells what was fetched"
    assert shop.run("resolve", "shop-1.0.0", "--write", *images, repo=str(clone)).code == 1, (
        "locks are written once"
    )
    (clone / "releases" / "shop-1.0.0.lock.yaml").unlink()
    assert shop.run("resolve", "shop-1.0.0", "--write", *images, repo=str(clone)).code == 0
    written = yaml.safe_load((clone / "releases" / "shop-1.0.0.lock.yaml").read_text())
    assert written["spec"]["manifestDigest"] == resolved["manifestDigest"]
    assert shop.run("schema", "ReleaseLock").json["title"] == "ReleaseLock"
    shop.fails("kind-unknown", 2, "schema", "Nonsense")
    made = shop.ask("init", "init", str(tmp_path / "new"), "--owner", "ada")
    assert Path(made["trustRoot"]).is_file()
    shop.fails("directory-in-use", 2, "init", str(tmp_path / "new"))
    assert shop.run("validate", repo=str(tmp_path / "new")).json == []
    (tmp_path / "new" / "releases").mkdir(exist_ok=True)
    (tmp_path / "new" / "releases" / "bad.yaml").write_bytes(broken)
    assert shop.run("validate", repo=str(tmp_path / "new")).code == 1


def test_clumsy_use(shop: Shop, tmp_path: Path) -> None:
    shop.fails("key-missing", 2, "pause", "dev", "--reason", "x")
    shop.fails("reason-missing", 2, "pause", "dev", "--key", shop.key("alice"))
    shop.fails("key-not-principal", 1, "pause", "dev", *shop.reason("dev-1"))
    shop.fails("key-unreadable", 1, "pause", "dev", "--reason", "x", "--key", str(tmp_path / "none"))
    shop.fails("duration-malformed", 2, "pause", "dev", *shop.reason("alice"), "--expires-after", "soon")
    shop.fails("environment-unknown", 1, "pause", "moon", *shop.reason("alice"))
    shop.fails("run-not-open", 1, "pause", "prod", *shop.reason("olga"))
    shop.fails("action-not-safe", 1, "resume", "dev", *shop.reason("alice"))
    shop.fails("no-rollback-target", 1, "rollback", "dev", "--preview")
    shop.fails("release-unknown", 1, "promote", "dev", "shop-9", *shop.reason("alice"))
    shop.fails("branch-unknown", 1, "merge", "nowhere", "--key", shop.key("bob"))
    shop.fails("nothing-to-merge", 1, "merge", "release", "--key", shop.key("bob"))
    shop.fails("main-not-refused", 1, "restore-main", "--key", shop.key("bob"))
    shop.fails("origin-invalid", 2, "status", repo="/nonexistent")
    shop.fails("origin-invalid", 2, "status", repo=str(tmp_path))
    shop.fails("usage", 2, "--nonsense")
    shop.fails("step-not-found", 1, "step", shop.ask("runs", "runs")[0]["run"], "99")
    assert "expected a run's whole id" in shop.fails("run-not-found", 1, "timeline", "dev-9")
    file = tmp_path / "file"
    file.write_text("x")
    for unusable in (file, file / "below", Path("/proc/none")):
        shop.fails("directory-unusable", 2, "demo", "--dir", str(unusable))


@pytest.mark.parametrize("branch", ["main", "lockgate/evidence", "lockgate/requests", "refs/heads/main", "HEAD"])
def test_nothing_is_proposed_on_a_branch_of_the_project(shop: Shop, branch: str) -> None:
    """A promotion there would be a push around review, at which main stands still."""
    before = [shop.stage.repo().known(f"refs/heads/{ref}") for ref in ("main", "lockgate/evidence")]
    words = ("promote", "prod", "shop-1.0.0", *shop.reason("alice"), "--branch", branch)
    shop.fails("branch-reserved", 2, *words)
    assert before == [shop.stage.repo().known(f"refs/heads/{ref}") for ref in ("main", "lockgate/evidence")]


@pytest.mark.parametrize("branch", ["a b", "-x", "a..b", "a.lock", "refs/tags/x"])
def test_a_branch_has_a_name_that_git_takes(shop: Shop, branch: str) -> None:
    shop.fails("branch-malformed", 2, "promote", "prod", "shop-1.0.0", *shop.reason("alice"), "--branch", branch)


def test_the_environment_may_hold_what_other_tools_call_lockgate_version(shop: Shop) -> None:
    """Installers and CI name what they install; only --version asks for the version."""
    env = {"LOCKGATE_VERSION": "0.1.0", "LOCKGATE_INSTALL_COMPLETION": "yes", "LOCKGATE_HELP": "1"}
    assert shop.run("runs", env=env).json == shop.run("runs").json


def test_requests_are_judged(shop: Shop) -> None:
    """Environment variables stand for options; what may not be asked is refused by the controller, on record."""
    env = {
        "LOCKGATE_KEY": shop.key("alice"),
        "LOCKGATE_REASON": "look first",
        "LOCKGATE_REPO": str(shop.stage.origin),
    }
    command = [sys.executable, "-m", "controller", "pause", "dev"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)
    assert done.returncode == 0 and done.stdout.startswith("asked: pause dev"), done.stderr
    asked = shop.ask("request", "approve", "staging", *shop.reason("alice"))
    assert asked["verdict"] is None
    waiting = shop.ask("why", "why", "dev")["blockedBy"]
    assert "requests-not-judged" in [b["code"] for b in waiting]
    shop.controller()
    assert shop.ask("status", "status", "dev")[0]["phase"] == "paused"
    blocked = shop.ask("why", "why", "dev")["blockedBy"]
    assert "alice" in blocked[0]["message"] and "look first" in blocked[0]["message"]
    assert shop.ask("status", "status", "staging")[0]["phase"] == "awaiting_approval"
    shop.ask("request", "approve", "staging", *shop.reason("carol"))
    shop.ask("request", "abort", "dev", *shop.reason("alice", "wrong one"))
    shop.controller()
    assert shop.ask("status", "status", "staging")[0]["phase"] == "deploying"
    row = shop.ask("status", "status", "dev")[0]
    assert row["phase"] == "aborted" and row["actions"] == [] and "wrong one" in row["waitingFor"][0]
    followed = shop.run("timeline", "--follow", row["run"], text=True)
    assert followed.code == 0 and "sealed" in followed.out.splitlines()[-1]


def test_main_stands_still_and_goes_on(shop: Shop) -> None:
    """A promotion to prod merged by its own author: landed, said at once, refused, explained, taken back."""
    repo = shop.stage.repo()
    files = {"promotions/prod.yaml": slot_file("prod", "shop-1.0.0", "alone")}
    commit_on(repo, "alone", shop.stage.person("bob"), files, "Promote")
    repo.close()
    shop.fails("branch-exists", 2, "promote", "prod", "shop-1.0.0", "--branch", "alone", *shop.reason("alice"))
    landed = shop.ask("merge", "merge", "alone", "--key", shop.key("bob"))
    assert landed["accepted"] is False and landed["code"] == "self-approval"
    shop.controller()
    blocked = shop.ask("why", "why", "prod")["blockedBy"][0]
    assert (blocked["gate"], blocked["code"]) == ("main", "self-approval")
    assert landed["commit"][:8] in blocked["message"] and "shop-1.0.0" in blocked["message"]
    assert blocked["unblock"].startswith("carol: lockgate restore-main")
    text = shop.run("status", text=True).out
    assert text.startswith(f"✗ main stands still at {landed['commit'][:8]}")
    back = shop.ask("merge", "restore-main", "--key", shop.key("carol"))
    assert back["accepted"] is True
    shop.controller()
    assert shop.ask("why", "why", "prod")["blockedBy"] == []
    report = shop.ask("verify", "verify", "--trust-root", str(shop.stage.trust_root))
    assert report["verified"] and report["refused"] >= 1


def test_what_the_controller_says_of_itself(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "health.json").write_text(
        json.dumps({"state": "stalled", "code": "main-rewound", "message": "main was rewritten", "at": "-"})
    )
    without = shop.fails("origin-invalid", 2, "status", "--state-dir", str(tmp_path), repo="/nonexistent")
    assert "the controller is stalled: main was rewritten" in without
    rows = shop.ask("status", "status", "--state-dir", str(tmp_path))
    assert all("main was rewritten" in row["waitingFor"][0] for row in rows)
    (tmp_path / "health.json").write_text("{")
    assert "cannot be read" in shop.ask("status", "status", "--state-dir", str(tmp_path))[0]["waitingFor"][0]
    answer = shop.ask("why", "why", "prod", "--controller", "127.0.0.1:9")
    assert answer["blockedBy"][0]["code"] == "controller-unreachable"
