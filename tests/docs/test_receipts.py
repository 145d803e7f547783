"""The page on receipts and time-stamps, executed: every command, on a project with a time-stamped run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.uses import story
from tests.docs.test_tutorial import BLOCK, DOCS, Terminals
from tests.integration.test_transparency_audit import anchor, checkpoint
from tests.support.home import Home
from tests.support.tsa import Authority


def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tsa")
    (tmp_path / "home").mkdir()
    pinned = {"example": {"certificates": [authority.certificate]}}
    home = Home(tmp_path / "home", agents=("a",), timeAuthorities=pinned)
    home.story.at = datetime.now(UTC) - timedelta(seconds=60)
    home.release("shop-1")
    home.batch(home.story.run("dev", "shop-1"))
    anchor(home, checkpoint(home), authority)
    (run,) = story.runs(home.repo, home.ledger.commit or "")
    text = (DOCS / "how-to" / "receipts-and-time-stamps.md").read_text()
    text = text.replace("https://git.example.com/shop/releases.git", str(home.origin))
    text = text.replace("prod-1-3e9eb586", run["run"])
    folder = tmp_path / "audit"
    folder.mkdir()
    home.root.save(folder / "trust-root.json")
    (folder / "ca.pem").write_text(authority.certificate)
    blocks = [block for kind, block in BLOCK.findall(text) if kind == "bash"]
    said = Terminals(folder).run("\n".join(blocks))
    assert "in the log: entry" in said
    assert "Verification: OK" in said
    assert len(blocks) == text.count("```bash")
