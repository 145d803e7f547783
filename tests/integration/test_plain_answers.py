"""What the program says when little is there or something is wrong: counted as people count, said once, and told
plainly, from a project that `init` has just made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BROKEN = "apiVersion: lockgate.dev/v1\nkind: Release\nmetadata: {name: bad}\nspec: {}\n"


@dataclass(frozen=True)
class Project:
    """What `init` made, and the program called on it."""

    repo: Path

    @property
    def private(self) -> Path:
        return self.repo.with_name(self.repo.name + "-private")

    @property
    def root(self) -> Path:
        return self.private / "trust-root.json"

    def key(self, name: str) -> str:
        return str(self.private / "keys" / name)

    def run(self, *words: str, repo: Path | None = None) -> subprocess.CompletedProcess[str]:
        """The program's answer; a traceback is never one."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
        command = [sys.executable, "-m", "controller", "--repo", str(repo or self.repo), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=plain, timeout=120, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def fails(self, code: str, exit_code: int, *words: str, repo: Path | None = None) -> str:
        """Run what must fail: one line, its code, its exit code, and what to do."""
        done = self.run(*words, repo=repo)
        assert (done.returncode, done.stdout) == (exit_code, ""), (words, done)
        assert done.stderr.startswith(f"lockgate: {code}: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def controller(self) -> None:
        """What there is to do, done."""
        pinned = ("--trust-root", str(self.root), "--signing-key", self.key("controller"))
        done = self.run("controller", "--once", *pinned, "--state-dir", str(self.private / "state"))
        assert done.returncode == 0, done.stderr

    def commit(self, subject: str, *words: str) -> None:
        """Everything in the work tree, with stock git and the owner's key."""
        who = {
            "user.name": "ada",
            "user.email": "ada@example.com",
            "gpg.format": "ssh",
            "user.signingkey": self.key("ada"),
        }
        options = [part for name, value in who.items() for part in ("-c", f"{name}={value}")]
        git = ["git", "-C", str(self.repo), *options]
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", subject, *words], check=True)

    def json(self, *words: str, repo: Path | None = None) -> Any:
        return json.loads(self.run("-o", "json", *words, repo=repo).stdout)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return made_at(tmp_path / "shop")


def made_at(folder: Path) -> Project:
    made = Project(folder)
    done = made.run("init", str(folder), "--owner", "ada")
    assert done.returncode == 0, done.stderr
    return made


def test_what_is_counted_stands_in_its_number(project: Project) -> None:
    (project.repo / "releases").mkdir()
    (project.repo / "releases" / "bad.yaml").write_text(BROKEN)
    said = project.run("validate").stdout.splitlines()
    assert said[-1].startswith("✗ 1 error in "), said
    (project.repo / "releases" / "worse.yaml").write_text(BROKEN.replace("bad", "worse"))
    said = project.run("validate").stdout.splitlines()
    assert said[-1].startswith("✗ 2 errors in "), said
    (project.repo / "releases" / "bad.yaml").unlink()
    (project.repo / "releases" / "worse.yaml").unlink()
    project.controller()
    said = project.run("verify", "--trust-root", str(project.root)).stdout.splitlines()
    assert "2 commits, 2 entries, 0 runs" in said[0], said


def test_what_holds_every_environment_up_is_said_once(project: Project, tmp_path: Path) -> None:
    dev = project.repo / "environments" / "dev.yaml"
    dev.with_name("prod.yaml").write_text(dev.read_text().replace("name: dev", "name: prod"))
    project.commit("Prod", "-S")
    health = {"state": "stalled", "code": "main-rewound", "message": "main was rewritten", "at": "-"}
    (tmp_path / "health.json").write_text(json.dumps(health))
    told = project.run("status", "--state-dir", str(tmp_path)).stdout
    assert told.count("main was rewritten") == 1, told
    rows = project.json("status", "--state-dir", str(tmp_path))
    assert len(rows) == 2 and all("main was rewritten" in row["waitingFor"][0] for row in rows)
    project.controller()
    project.commit("Nothing", "--allow-empty", "-S")
    told = project.run("status").stdout
    assert told.count("controller has judged it up to") == 1 and "\ndev, prod: main is at " in told, told


def test_a_repository_that_is_not_the_trust_roots_is_called_that(project: Project, tmp_path: Path) -> None:
    empty = tmp_path / "empty.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(empty)], check=True)
    for stranger in (empty, made_at(tmp_path / "other").repo):
        done = project.run("-o", "json", "verify", "--trust-root", str(project.root), repo=stranger)
        assert done.returncode == 1
        assert [found["code"] for found in json.loads(done.stdout)["findings"]] == ["genesis-mismatch"]
        said = project.run("trust", "allowed-signers", "--trust-root", str(project.root), repo=stranger)
        assert said.returncode == 1 and "genesis-mismatch: the repository is not the one" in said.stderr
