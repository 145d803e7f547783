"""The auditor's page, executed: every command, by bash, on a project with a completed run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from controller.adapters.attest.layout import make_layout
from controller.core.trust import TRUST_NAMESPACE
from controller.model.layout import LayoutTerms
from controller.model.link import LAYOUT_PATH
from controller.settings import data_dir
from tests.docs.test_tutorial import BLOCK, DOCS, Terminals
from tests.support.home import MAIN, PATHS, Home
from tests.support.shop import trust_document

OWNERS = {"olivia": "olga", "oscar": "otto"}
"""The page's owners → the project's."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A layout, a second trust version, a run that completed and one that was rolled back."""
    folder = tmp_path / "home"
    folder.mkdir()
    home = Home(folder, agents=("a", "b"))
    owners = [home.people[name] for name in OWNERS.values()]
    terms = LayoutTerms(
        project="shop",
        controllers={"controller": (home.controller.public_key,)},
        agents={name: signer.public_key for name, (_, signer) in home.story.agents.items()},
        deployed_by=2,
    )
    keys = {name: signer.public_key for name, signer in home.people.items()}
    trust = yaml.safe_dump(trust_document(2, keys=keys, paths=PATHS), sort_keys=False).encode()
    files: dict[str, bytes | None] = {LAYOUT_PATH: make_layout(terms, owners), "trust/trust.yaml": trust}
    for name in OWNERS.values():
        files[f"trust/2/{name}.sig"] = home.people[name].sign_ssh(trust, TRUST_NAMESPACE).encode()
    home.batch([home.story.accepted(home.commit(MAIN, files, "olga", "Trust version 2, and a layout"))])
    for release in ("shop-1", "shop-2"):
        home.release(release)
    home.batch(home.story.run("dev", "shop-1"))
    home.batch(home.story.run("dev", "shop-2", end="rolled_back"))
    return home


def test_every_command_of_the_auditors_page_runs(home: Home, tmp_path: Path) -> None:
    text = (DOCS / "how-to" / "audit-with-stock-tools.md").read_text()
    text = text.replace("https://git.example.com/shop/releases.git", str(home.origin))
    for theirs, ours in OWNERS.items():
        text = text.replace(theirs, ours)
    folder = tmp_path / "audit"
    folder.mkdir()
    home.root.save(folder / "trust-root.json")
    (folder / "schemas").symlink_to(data_dir("schemas"))
    terminals = Terminals(folder)
    blocks = [block for kind, block in BLOCK.findall(text) if kind == "bash"]
    said = terminals.run("\n".join(blocks))
    assert 'Good "lockgate-trust" signature for olga' in said
    assert 'Good "lockgate-trust" signature for otto' in said
    assert "completed" in said.splitlines() and "1 good signature" in said
    assert "(in-toto-verify) RuleVerificationError" in said or "BadReturnValueError" in said
    changed = [line for line in said.splitlines() if line.startswith(("runs/", "events/", "artifacts/"))]
    assert changed == []
    assert len(blocks) == text.count("```bash")
