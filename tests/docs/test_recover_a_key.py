"""The page about the controller's key, executed: every command, by bash, against a thief."""

from __future__ import annotations

import shutil
from pathlib import Path

from controller.adapters.git.keys import FileSigner
from controller.adapters.git.people import write_commit
from controller.wiring.people import now
from tests.docs.test_tutorial import BLOCK, DOCS, Terminals
from tests.support.flow import Flow
from tests.support.site import EVIDENCE, Site


def write(site: Site, key: str) -> str:
    """What a thief signs with a key of the controller: a state that no entry adds up to."""
    repo = site.stage.repo()
    try:
        who, signer = ("Lockgate", "lockgate@example.com"), FileSigner(site.stage.folder / key)
        files: dict[str, bytes | None] = {"state/dev.json": b'{"environment":"dev"}'}
        oid = write_commit(repo, (site.tip(),), files, message="dev: ok", author=who, when=now(), signer=signer)
    finally:
        repo.close()
    site.git("update-ref", EVIDENCE, oid)
    return oid


def test_every_command_of_the_page_runs(tmp_path: Path) -> None:
    shop = Flow(tmp_path, {"dev-1": "dev"})
    shop.image("1.0.0")
    shop.release("1.0.0")
    shop.people.close()
    site = Site(tmp_path)
    assert site.settle() == ""
    for name in ("olivia", "oscar"):
        shutil.copyfile(site.stage.keys / name, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    text = (DOCS / "how-to" / "recover-a-controller-key.md").read_text()
    text = text.replace("https://git.example.com/shop/releases.git", str(site.stage.origin))
    text = "\n".join(line.removeprefix("   ") for line in text.splitlines()) + "\n"
    blocks = [block for kind, block in BLOCK.findall(text) if kind == "bash"]
    assert len(blocks) == text.count("```bash")
    terminals = Terminals(tmp_path)
    said: list[str] = []
    for block in blocks:
        if "--compromised" in block:
            good = site.tip()
            first = write(site, "controller-2")
            write(site, "controller-2")
        if "evidence-repaired" in block:
            late = write(site, "controller-2")
            assert site.settle("elsewhere", "../controller-3") == ""
        said.append(terminals.run(block))
    listed = next(out for block, out in zip(blocks, said, strict=True) if "allowed-signers" in block)
    assert len(listed.splitlines()) == 2 and listed.count("valid-before=") == 1
    assert any(f"first bad commit: {first}" in out for out in said)
    assert site.git("merge-base", good, EVIDENCE) == good
    assert "Evidence restored to" in said[-1]
    report = site.verify()
    assert report.findings == ()
    assert [one.commit for one in report.refused] == [late]
