"""The pages about replays and audit packs: every command, executed over real runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.real_run import Recorded, recorded

__all__ = ["recorded"]
DOCS = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["replay-a-run.md", "export-an-audit-pack.md"])
def test_every_command_of_the_page_runs(recorded: Recorded, tmp_path: Path, page: str) -> None:
    shutil.copytree(recorded.origin, tmp_path / "releases.git")
    shutil.copy(recorded.root, tmp_path / "trust-root.json")
    shutil.copytree(recorded.root.parent / "keys", tmp_path / "keys")
    text = (DOCS / page).read_text().replace("https://git.example.com/shop/releases.git", "releases.git")
    text = text.replace("prod-1-3e9eb586", recorded.first).replace("prod-2-77aa01c4", recorded.held)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKGATE_", "GIT_"))}
    path = f"{Path(sys.executable).parent}:{clean['PATH']}"
    blocks = BLOCK.findall(text)
    assert len(blocks) >= 4
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=clean | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
