"""Evidence lasts: a history that was made once is verified by every later build."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from controller.adapters.git import sshsig
from controller.adapters.git.repo import GitRepo
from controller.ledger.rules import RULES
from controller.model.trustroot import TrustRoot
from controller.uses.audit.verify import verify
from controller.wiring.repos import ask_cel
from tests.support.golden import CHANGED, COUNTS, ROOT, clone


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("golden"))


def test_what_was_written_under_these_rules_is_verified(golden: Path) -> None:
    repo = GitRepo.read_only(str(golden))
    try:
        report = verify(repo, TrustRoot.load(ROOT), verify_ssh=sshsig.verify, ask=ask_cel())
        tip = repo.observe().evidence
        assert tip is not None
        paths = [path for path, _ in repo.files(tip) if path.endswith(".dsse.json")]
    finally:
        repo.close()
    kinds = Counter(path.rpartition("/")[2].partition("-")[2].removesuffix(".dsse.json") for path in paths)
    found = {name: getattr(report, name) for name in ("commits", "entries", "runs")}
    found |= {"refused": len(report.refused), "kinds": dict(kinds)}
    expected = json.loads(COUNTS.read_text())
    assert not report.findings, "\n".join([CHANGED, *map(str, report.findings)])
    assert expected.pop("rules") <= RULES
    assert found == expected, CHANGED


def test_whoever_verified_it_so_far_goes_on_from_any_commit(golden: Path) -> None:
    repo, root = GitRepo.read_only(str(golden)), TrustRoot.load(ROOT)
    try:
        tip = repo.observe().evidence
        assert tip is not None
        reports = {oid: verify(repo, root, verify_ssh=sshsig.verify, since=oid) for oid in repo.chain(tip)}
    finally:
        repo.close()
    assert {oid: report.findings for oid, report in reports.items() if report.findings} == {}
