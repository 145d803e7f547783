"""The page about protecting the origin, executed: every command, by bash, at a real bare repository."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

from tests.support.flow import Flow
from tests.support.site import Site

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "protect-the-origin.md"
BLOCK = re.compile(r"^( *)```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    Flow(tmp_path, {"dev-1": "dev"}).people.close()
    site = Site(tmp_path)
    assert site.settle() == ""
    program = tmp_path / "bin" / "lockgate"
    program.parent.mkdir()
    # As in the environment that Lockgate is installed in: outside of it, Debian has no `python`.
    for name, words in {
        "lockgate": f'"{sys.executable}" -P -m controller',
        "python": f'"{sys.executable}"',
    }.items():
        made = program.with_name(name)
        made.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        made.chmod(made.stat().st_mode | stat.S_IXUSR)
    text = PAGE.read_text().replace("/srv/git/releases.git", str(site.stage.origin))
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```bash")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKGATE_", "GIT_"))}
    environ |= {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    said = []
    for indent, block in blocks:
        lines = "\n".join(line.removeprefix(indent) for line in block.splitlines())
        done = subprocess.run(
            ["bash", "-c", f"set -eu\n{lines}\n"],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    assert "hooks/pre-receive guards refs/heads/main" in said[0]
    assert sum("remote: lockgate: unsigned: " in out for out in said) == 2
    assert "verified" in said[-1]
