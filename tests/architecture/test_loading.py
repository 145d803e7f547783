"""What a short command loads: its start is most of its time, so what it has no use for stays unloaded.

Held by what was imported and not by a clock, which the machine's load would move.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

OUTSIDE = frozenset(
    (
        *("asyncio", "cel", "cryptography.x509", "httpx", "in_toto", "jinja2", "jsonschema", "rfc3161_client"),
        *("rich", "securesystemslib", "sqlite3", "starlette", "structlog", "uvicorn", "watchfiles", "zstandard"),
    )
)
"""Libraries that only some commands need."""
OURS = (
    "controller.adapters.attest",
    "controller.adapters.hub",
    "controller.adapters.registries",
    "controller.adapters.signers",
    "controller.agent",
    "controller.demo",
    "controller.loop",
    "controller.reconcile",
    "controller.wiring.controller",
    "controller.wiring.making",
)
"""Rooms of ours that only long-running processes, writers or the demo need."""
MODELS = frozenset(
    f"controller.model.{name}" for name in ("component", "environment", "order", "project", "release", "strategy")
)
REPORT = """
import json, sys
from controller.__main__ import main
try:
    main()
except SystemExit as stop:
    code = stop.code
sys.stderr.write("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


@dataclass(frozen=True)
class Project:
    """A project with evidence, for whom a command is started."""

    repo: Path
    root: Path
    cache: Path

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", "-C", self.repo, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def loaded(self, *words: str, stdin: str = "", code: int = 0) -> frozenset[str]:
        """The modules that a command has loaded when it ends."""
        done = subprocess.run(
            [sys.executable, "-c", REPORT, "--repo", str(self.repo), *words],
            input=stdin,
            capture_output=True,
            text=True,
        )
        found, modules = json.loads(done.stderr.rpartition("\n")[2])
        assert found == code, done.stdout + done.stderr[:2000]
        return frozenset(modules)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("start")
    made = Project(folder / "shop", folder / "private" / "trust-root.json", folder / "cache")
    made.loaded("init", str(made.repo), "--outside", str(folder / "private"))
    key = folder / "private" / "keys" / "controller"
    trusted = ("--trust-root", str(made.root))
    made.loaded("controller", *trusted, "--signing-key", str(key), "--state-dir", str(folder / "s"), "--once")
    made.loaded("verify", *trusted, "--cache", str(made.cache))
    return made


def ours(modules: frozenset[str]) -> set[str]:
    return {name for name in modules if name.startswith(OURS)}


COMMANDS: dict[str, Callable[[Project], frozenset[str]]] = {
    "status": lambda at: at.loaded("status"),
    "why": lambda at: at.loaded("why", "dev"),
    "runs": lambda at: at.loaded("runs"),
    "verify": lambda at: at.loaded("verify", "--trust-root", str(at.root), "--cache", str(at.cache)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_reads_loads_no_more_than_it_uses(project: Project, command: str) -> None:
    modules = COMMANDS[command](project)
    assert modules & OUTSIDE == set()
    assert ours(modules) == set()
    groups = {name for name in modules if name.startswith("controller.cli.")}
    assert "controller.cli.ask" not in groups and "controller.cli.serve" not in groups


def judged(project: Project, ref: str, old: str, new: str, code: int) -> frozenset[str]:
    line = f"{old} {new} {ref}\n"
    return project.loaded("guard", "--trust-root", str(project.root), stdin=line, code=code)


def test_the_guard_loads_nothing_for_a_branch_that_it_does_not_guard(project: Project) -> None:
    modules = judged(project, "refs/heads/topic", "0" * 40, project.git("rev-parse", "main"), 0)
    assert modules & (OUTSIDE | MODELS | {"pygit2", "yaml", "controller.core.trust"}) == set()


def test_the_guard_judges_main_without_the_documents_it_does_not_read(project: Project) -> None:
    tip = project.git("rev-parse", "main")
    author = ("-c", "user.name=Mallory", "-c", "user.email=mallory@example.com")
    new = project.git(*author, "commit-tree", f"{tip}^{{tree}}", "-p", tip, "-m", "Nobody signed this")
    modules = judged(project, "refs/heads/main", tip, new, 1)
    assert "controller.core.judge" in modules
    assert modules & (OUTSIDE | MODELS) == set()
    assert ours(modules) == set()


def test_the_guard_judges_evidence_without_what_rolls_out(project: Project) -> None:
    ref = "refs/heads/lockgate/evidence"
    tip = project.git("rev-parse", ref)
    project.git("update-ref", "-d", ref)
    try:
        modules = judged(project, ref, "0" * 40, tip, 0)
    finally:
        project.git("update-ref", ref, tip)
    assert modules & OUTSIDE == set()
    assert ours(modules) == set()


def test_help_reads_no_repository(project: Project) -> None:
    assert "pygit2" not in project.loaded("--help")
