"""The tutorial, executed: every block in order, by bash, with the output it shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller.demo.processes import free_port

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(console|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELLIPSIS = "…"
SECONDS = 90


@dataclass
class Terminals:
    """The first terminal, whose folder, variables and functions carry over from block to block, and the others."""

    folder: Path
    others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.folder / "terminal-1"

    def run(self, text: str) -> str:
        """Run `text` in the first terminal; what it printed. Fails with its words when it fails."""
        script = f"set -euo pipefail\n[ ! -e {self.state} ] || . {self.state}\n{text}\n"
        script += f"{{ printf 'cd %q\\n' \"$PWD\"; export -p; declare -f; }} > {self.state}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"$ {text}\n{done.stdout}"
        return done.stdout

    def start(self, text: str) -> None:
        """Run `text` in a terminal of its own."""
        with (self.folder / f"terminal-{len(self.others) + 2}.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self.folder / "shop",
                env=environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.others.append(process)

    def close(self) -> None:
        """What Ctrl-C in each of them does, customers and agents before the controller."""
        for process in reversed(self.others):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            deadline = time.monotonic() + 20
            while group_lives(process.pid) and time.monotonic() < deadline:
                time.sleep(0.05)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def environ() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LOCKGATE_", "GIT_"))}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
        "LC_ALL": "C.UTF-8",
    }


def steps(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines shown after it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def matches(shown: list[str], got: list[str]) -> bool:
    """Line by line; … stands for anything within a line, and alone for any number of lines."""
    if not shown:
        return not got
    if shown[0] == ELLIPSIS:
        return any(matches(shown[1:], got[place:]) for place in range(len(got) + 1))
    pattern = ".*".join(re.escape(part) for part in shown[0].split(ELLIPSIS))
    return bool(got) and re.fullmatch(pattern, got[0].rstrip()) is not None and matches(shown[1:], got[1:])


@pytest.mark.timeout(300)
def test_tutorial_runs_as_written(tmp_path: Path) -> None:
    text = (DOCS / "tutorial" / "first-release.md").read_text().replace("7420", str(free_port()))
    terminals = Terminals(tmp_path)
    blocks = BLOCK.findall(text)
    assert len(blocks) == len(re.findall("^ *```(?:bash|console)", text, re.MULTILINE)) > 10
    try:
        for kind, block in blocks:
            if block.startswith("# terminal"):
                terminals.start(block)
            elif kind == "bash":
                terminals.run(block)
            else:
                for command, shown in steps(block):
                    got = terminals.run(command)
                    assert matches(shown, got.splitlines()), f"$ {command}\n{got}\n-- shown:\n" + "\n".join(shown)
    finally:
        terminals.close()


def test_ellipsis_matches_within_lines_and_over_lines() -> None:
    assert matches(["a …c", "…", "z"], ["a bc", "x", "y", "z"])
    assert matches(["…"], [])
    assert not matches(["a"], ["a", "b"])
    assert not matches(["a…b"], ["ab c"])
