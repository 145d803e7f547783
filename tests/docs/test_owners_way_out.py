"""When main stands still, and restoring lost evidence, executed: every block in order, with a controller's passes
in between."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controller.wiring.people import commit_on
from tests.support.flow import Flow
from tests.support.site import EVIDENCE, Site

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^( *)```bash\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[str]:
    """The page's blocks but the first, which says where one's own repository is."""
    return [block for _, block in BLOCK.findall((PAGES / name).read_text())][1:]


class Shell:
    """Runs blocks where the people's keys and the trust root lie, and the controller afterwards."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.folder = site, folder
        shutil.copytree(site.stage.keys, folder, dirs_exist_ok=True)
        shutil.copyfile(site.stage.trust_root, folder / "trust-root.json")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")} | {
            "LOCKGATE_REPO": str(site.stage.origin),
            "LOCKGATE_TRUST_ROOT": "trust-root.json",
        }

    def run(self, block: str, **more: str) -> str:
        done = subprocess.run(
            ["bash", "-c", f'set -eu\nlockgate() {{ "{sys.executable}" -m controller "$@"; }}\n{block}'],
            cwd=self.folder, env=self.environ | more, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A project with one release locked, and a clone of its evidence from before."""
    shop = Flow(tmp_path / "site", {"dev-1": "dev"})
    site = Site(tmp_path / "site")
    assert site.settle() == ""
    folder = tmp_path / "desk"
    made = Shell(site, folder)
    site.git("clone", "-q", "--bare", str(site.stage.origin), str(folder / "clone"))
    made.environ["SURVIVOR"] = site.tip()
    shop.image("1.0.0")
    shop.release("1.0.0")
    assert site.settle() == ""
    shop.people.close()
    return made


def lands(site: Site) -> str:
    """alice pushes what nobody reviewed."""
    repo = site.stage.repo()
    try:
        commit = commit_on(repo, "main", site.stage.person("alice"), {"components/api.yaml": None}, "In a hurry")
    finally:
        repo.close()
    assert site.settle() == ""
    return commit


def test_when_main_stands_still(shell: Shell) -> None:
    look, back, stand, after = blocks("when-main-stands-still.md")
    lands(shell.site)
    assert "main stands still at" in shell.run(look.replace("prod", "dev"))
    shell.run(back)
    assert shell.site.settle() == ""
    commit = lands(shell.site)
    shell.run(stand, COMMIT=commit)
    assert shell.site.settle() == ""
    said = shell.run(after)
    assert "is let stand by its owners (olivia: Reviewed" in said
    assert re.search(rf"verified: .*{commit[:8]} acknowledged", said, re.MULTILINE | re.DOTALL)


def test_restore_lost_evidence(shell: Shell) -> None:
    missed, push, propose, countersign, merge, verify = blocks("restore-lost-evidence.md")
    site, lost = shell.site, shell.site.tip()
    site.git("update-ref", "-d", EVIDENCE)
    controller = site.controller()
    assert controller.loop.pass_once() is None
    controller.close()
    shutil.copytree(site.stage.folder / "state", shell.folder / "state")
    assert f"a branch that holds {lost}" in shell.run(missed)
    shell.run(push)
    assert site.settle() == "evidence-rewound"
    said = shell.run(propose, LOST=lost)
    assert "releases/shop-1.0.0.lock.yaml" in said and "signed by olivia, 2 needed" in said
    assert "have it merged: lockgate merge restart-1" in shell.run(countersign)
    shell.run(merge)
    assert site.settle() == ""
    said = shell.run(verify)
    assert "verified: " in said and "signed by olivia, oscar: The disk of the host died" in said
