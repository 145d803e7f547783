"""Verification: an honest history passes, and each way of tampering is found under its own code."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from controller.adapters.git.repo import GitRepo
from controller.errors import Invalid
from controller.ledger.append import EVIDENCE_REF, load, prepare, write
from controller.ledger.canonical import digest
from controller.model import entry as e
from controller.model.trustroot import TrustRoot
from controller.uses.audit import segments
from tests.support.evidence import sha
from tests.support.home import MAIN, REQUESTS, Home
from tests.support.tamper import (
    a_home_to_tamper_with,
    codes,
    event,
    record_path,
    rewrite,
)
from tests.support.tamperings import (
    TAMPERINGS,
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return a_home_to_tamper_with(tmp_path)


def test_an_honest_history_is_verified(home: Home) -> None:
    report = home.verify()
    assert report.findings == ()
    assert report.verified
    count = int(home.git("rev-list", "--count", EVIDENCE_REF))
    assert (report.commits, report.entries, report.runs) == (count, count, 3)


def test_from_a_later_commit_and_for_one_run(home: Home) -> None:
    tip = home.ledger.commit
    run = home.ledger.open_entries and next(iter(home.ledger.open_entries))
    home.batch([home.story.refused(home.commit(MAIN, {"policies/x.yaml": b"x"}, "mallory"))])
    seen: list[tuple[int, int]] = []
    report = home.verify(run=run, progress=lambda done, total: seen.append((done, total)))
    assert report.verified
    assert seen[-1][0] == seen[-1][1] == report.commits
    assert home.verify(since=tip).entries == 1
    with pytest.raises(Invalid) as caught:
        home.verify(run="dev-99-00000000")
    assert caught.value.code == "run-not-found"
    with pytest.raises(Invalid) as caught:
        home.verify(since="0" * 40)
    assert caught.value.code == "commit-not-found"


def test_segments_give_the_same_answer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = home.verify()
    monkeypatch.setattr(segments, "SEGMENT", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert home.verify() == alone
    drafts = home.story.run("dev", "shop-1", sealed=False)[:1]
    rewrite(home, drafts, lambda new: {**new, "state/dev.json": b"{}"})
    assert [(f.code, f.path) for f in home.verify().findings] == [("state-mismatch", "state/dev.json")]


def test_refused_commits_on_record_are_listed_and_others_are_findings(home: Home) -> None:
    bad = home.commit(MAIN, {"releases/evil.yaml": b"x"}, "mallory", "Evil")
    report = home.verify()
    assert [(f.commit, f.rule) for f in report.findings] == [(bad, "main 7")]
    home.batch([home.story.refused(bad, report.findings[0].code)])
    report = home.verify()
    assert report.verified
    assert [(r.commit, r.ref) for r in report.refused] == [(bad, MAIN)]


def test_every_request_has_one_verdict(home: Home) -> None:
    first = home.commit(REQUESTS, {"requests/x": b"x"}, "mallory", "Request")
    second = home.commit(REQUESTS, {"requests/y": b"y"}, "mallory", "Request")
    assert codes(home) == set()  # not judged yet
    home.batch([home.story.request(second)])
    assert codes(home) == {"request-unjudged"}
    home.batch([home.story.request(first)])
    report = home.verify()
    assert report.verified
    assert {r.commit for r in report.refused} == {first, second}
    home.batch([home.story.request(first)])
    assert codes(home) == {"request-judged-twice"}


def test_a_refused_request_that_is_no_file_breaks_nothing(home: Home) -> None:
    """A submodule's id names no object here, and anybody who can push to the branch can add one."""
    tip = home.commit(REQUESTS, {"requests/x": b"x"}, "mallory", "Request")
    home.git("read-tree", tip)
    home.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},requests/y")
    forged = home.git(
        "-c", "user.name=mallory", "-c", "user.email=mallory@example.com",
        "commit-tree", home.git("write-tree").strip(), "-p", tip, "-m", "Request",
    ).strip()  # fmt: skip
    home.git("update-ref", REQUESTS, forged)
    home.batch([home.story.request(tip), home.story.request(forged)])
    assert codes(home) == set()


@pytest.mark.parametrize("how", list(TAMPERINGS))
def test_tampering_is_found(home: Home, how: str) -> None:
    tamper, expected = TAMPERINGS[how]
    tamper(home)
    assert codes(home) == expected


def test_the_trust_roots_checkpoint_holds(home: Home) -> None:
    log = home.ledger.log
    pinned = {"size": log.size, "root": base64.b64encode(log.root).decode()}
    home.root = TrustRoot.model_validate({**home.root.model_dump(by_alias=True), "checkpoint": pinned})
    home.batch(home.story.run("dev", "shop-2", sealed=False))
    assert home.verify().verified
    for other in ({**pinned, "size": 10**6}, {**pinned, "size": log.size - 1}):
        home.root = TrustRoot.model_validate({**home.root.model_dump(by_alias=True), "checkpoint": other})
        assert codes(home) == {"checkpoint-mismatch"}


def test_a_repaired_foreign_commit_is_listed_as_refused(home: Home) -> None:
    good = home.ledger.commit or ""
    foreign = home.commit(EVIDENCE_REF, {"events/x": b"x", "state/dev.json": b"{}"}, "mallory", "Foreign")
    detail = e.EvidenceRepaired(removed=(foreign,), restored=good)
    draft = home.story.draft("evidence-repaired", detail)
    prepared = prepare(home.ledger, [draft, *event(home)], home.controller, home.origin_line)
    home.ledger = write(home.repo, prepared, foreign, home.controller)
    report = home.verify()
    assert report.findings == ()
    assert [(r.commit, r.code) for r in report.refused] == [(foreign, "foreign-evidence")]
    assert load(home.repo, home.ledger.commit or "").state == home.ledger.state


@pytest.mark.parametrize("kind", ["blob", "tree", "commit"])
def test_damaged_and_missing_objects_are_findings(home: Home, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "copy.git"
    subprocess.run(["git", "clone", "-q", "--mirror", str(home.origin), str(copy)], check=True)
    path = record_path(home, "003-gates.dsse.json")
    at = home.git("log", "--format=%H", "--diff-filter=A", EVIDENCE_REF, "--", path).strip()
    oid = {"blob": f"{at}:{path}", "tree": f"{at}:{path.rpartition('/')[0]}", "commit": at}[kind]
    oid = home.git("rev-parse", oid).strip()
    for pack in (copy / "objects" / "pack").glob("*.pack"):
        shutil.move(pack, tmp_path / "moved.pack")
        pack.with_suffix(".idx").unlink()
        with (tmp_path / "moved.pack").open("rb") as file:
            subprocess.run(["git", "-C", str(copy), "unpack-objects", "-q"], stdin=file, check=True)
    loose = copy / "objects" / oid[:2] / oid[2:]
    data = bytearray(loose.read_bytes())
    data[len(data) // 2] ^= 1
    loose.chmod(0o600)
    loose.write_bytes(bytes(data))
    report = home.verify(copy)
    assert not report.verified
    # The damage, and once each what cannot be rebuilt because of it: nothing about later entries.
    seal = path.replace("003-gates", "009-sealed")
    assert [(f.code, f.path) for f in report.findings] == {
        "blob": [("log-mismatch", "log/checkpoint"), ("object-corrupt", path), ("seal-mismatch", seal)],
        "tree": sorted([("object-corrupt", oid), ("log-mismatch", "log/checkpoint")], key=lambda f: f[1]),
        "commit": [("object-corrupt", "")],
    }[kind]
    assert {f.commit for f in report.findings if f.code == "object-corrupt"} == {at}
    loose.unlink()
    assert [f.code for f in home.verify(copy).findings] == [f.code for f in report.findings]


def test_a_shallow_clone_is_refused(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "shallow.git"
    subprocess.run(
        ["git", "clone", "-q", "--mirror", "--depth", "3", f"file://{home.origin}", str(copy)], check=True
    )
    with pytest.raises(Exception, match="history-incomplete"):
        GitRepo.read_only(copy)


def test_time_moves_by_the_day(tmp_path: Path) -> None:
    home = Home(tmp_path, step=timedelta(hours=7))
    home.release("shop-1")
    home.batch(home.story.run("dev", "shop-1"))
    assert home.verify().verified
    assert digest(b"") == sha("")
