"""Real runs by a real controller and real agents, recorded once and then only read: two completed, one open."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.cli.app import run
from controller.demo.stage import slot_file
from tests.support.flow import HEAD, Flow, environment, flow, strategy
from tests.support.waiting import until

HOSTILE = "</td><script>alert(1)</script><img src=//evil.example.com/x onerror=alert(2)> &amp; \"q\" 'q' {run}"
STAGES = (
    "    - {percent: 50, minHealthyTime: 200ms, deadline: 60s}\n"
    "    - {percent: 100, minHealthyTime: 200ms, deadline: 60s}\n"
)
RULE = (
    "spec:\n  gate: cel\n  variables:\n    names: 'inputs.environment.variables.map(k, k)'\n"
    "    all: 'inputs.environment.variables'\n  rule: \"'a' in names\"\n  message: 'only {names} of {all}'\n"
)
FILES = {
    "environments/dev.yaml": environment(
        "dev", gates=["named", "advice", "quiet"], variables={name: name for name in "abcdefgh"}
    ),
    "environments/staging.yaml": environment("staging", order=20, approvals={"count": 2}),
    "strategies/dev.yaml": strategy("dev", STAGES),
    "policies/named.yaml": f"{HEAD}kind: Policy\nmetadata: {{name: named}}\n{RULE}",
    "policies/advice.yaml": f"{HEAD}kind: Policy\nmetadata: {{name: advice}}\n"
    + RULE.replace("'a' in names", "'z' in names").replace("spec:\n", "spec:\n  level: warn\n"),
    "policies/quiet.yaml": f"{HEAD}kind: Policy\nmetadata: {{name: quiet}}\nspec: {{gate: freeze}}\n",
}


@dataclass(frozen=True)
class Recorded:
    """The origin, its pinned root, and the runs: `first` and `second` completed, `held` waits for approvals."""

    folder: Path
    origin: Path
    root: Path
    first: str
    second: str
    held: str
    replayed: dict[str, Any]
    """What the command answered that asked for a recorded replay of `first`."""


def lockgate(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command; with variables in a process of its own and a clean environment."""
    if environ:
        return _process(*arguments, **environ)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def _process(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKGATE_", "GIT_"))}
    return subprocess.run(
        [sys.executable, "-m", "controller", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=clean | {"PYTHONPATH": str(Path(__file__).parents[2])} | environ,
        timeout=120,
        check=False,
    )


def answer(*arguments: object, code: int = 0, **environ: str) -> Any:
    """The JSON answer of a command that ends with `code`."""
    done = lockgate("-o", "json", *arguments, **environ)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    with flow(folder / "stage", {"dev-1": "dev", "dev-2": "dev", "staging-1": "staging"}, files=FILES) as shop:
        yield _play(folder, shop)


def _play(folder: Path, shop: Flow) -> Recorded:
    shop.start()
    shop.deploy("dev", "1.0.0")
    shop.image("1.1.0")
    release = shop.release("1.1.0")
    shop.locked(release)
    shop.land("promote-hostile", {"promotions/dev.yaml": slot_file("dev", release, HOSTILE)})
    shop.ends("dev", release, "completed")
    shop.land("promote-held", {"promotions/staging.yaml": slot_file("staging", release, "later")})
    rows = until("a run is held", lambda: _held(shop))
    origin, root = shop.stage.origin, shop.stage.trust_root
    first, second, held = (row["run"] for row in rows)
    key = shop.stage.keys / "olga"
    asked = ("replay", first, "--record", "--reason", "the audit asks", "--key", key, "--wait", "60s")
    replayed = answer("--repo", origin, *asked)
    until("the replay is on record", lambda: "replayed" in shop.kinds(), 60)
    shop.processes.stop()
    return Recorded(folder, origin, root, first, second, held, replayed)


def _held(shop: Flow) -> list[dict[str, Any]]:
    rows = [] if not shop.tip() else answer("--repo", shop.stage.origin, "runs")
    return rows if [row["phase"] for row in rows] == ["completed", "completed", "awaiting_approval"] else []


# --- audit packs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def packs(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both completed runs, the second (whose reason is hostile) with its history, and the open one."""
    folder = tmp_path_factory.mktemp("packs")
    found = {"first": folder / "first.tar", "second": folder / "second.tar", "held": folder / "held.tar"}
    answer("--repo", recorded.origin, "export", recorded.first, "--out", found["first"])
    answer("--repo", recorded.origin, "export", recorded.second, "--bundle", "--out", found["second"])
    answer("--repo", recorded.origin, "export", recorded.held, "--partial", "--out", found["held"])
    return found


def check(recorded: Recorded, path: Path, code: int = 0, *more: object) -> dict:
    return dict(answer("verify", "--bundle", path, "--trust-root", recorded.root, *more, code=code))


def codes(recorded: Recorded, path: Path, *more: object) -> set[str]:
    return {finding["code"] for finding in check(recorded, path, 1, *more)["findings"]}


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:") as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
