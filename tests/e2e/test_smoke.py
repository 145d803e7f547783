"""The installed command: it answers, makes a project, and finds its schemas and templates."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.components import used


def lockgate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that LOCKGATE names, by default the one beside this interpreter."""
    program = os.environ.get("LOCKGATE") or str(Path(sys.executable).parent / "lockgate")
    return subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_it_says_its_version(tmp_path: Path) -> None:
    done = lockgate("--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"lockgate \d+\.\d+\.\d+\n", done.stdout)
    used("lockgate", f"{done.stdout.split()[1]} ({'installed wheel' if 'LOCKGATE' in os.environ else 'checkout'})")


def test_it_prints_a_schema(tmp_path: Path) -> None:
    done = lockgate("schema", "Release", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["title"] == "Release"


def test_a_new_project_validates(tmp_path: Path) -> None:
    made = lockgate("init", "project", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = lockgate("--repo", "project", "-o", "json", "validate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert [d for d in json.loads(done.stdout) if d["severity"] == "error"] == []


def test_an_unknown_command_is_told_without_a_traceback(tmp_path: Path) -> None:
    done = lockgate("no-such-command", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("lockgate: usage: ")
    assert "Traceback" not in done.stderr
