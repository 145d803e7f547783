"""Verification that goes on from what was verified before says the same as one from genesis, and sooner."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

import controller
from controller.adapters.git.integrity import intact
from controller.adapters.git.keys import KeySigner
from controller.cli.app import run as lockgate
from controller.core.trust import TRUST_NAMESPACE
from controller.errors import Invalid
from controller.ledger.append import EVIDENCE_REF, load
from controller.ledger.canonical import canonical, digest
from controller.model.trustroot import TrustRoot
from controller.uses.audit.findings import VerifyReport
from controller.uses.audit.past import Past, past_bytes, read_past
from controller.uses.audit.past_file import PastFile, cache_path, rules_digest
from tests.support.growth import (
    GROWTH,
    WAITING,
    a_cure,
    a_refused_commit,
    a_release,
    a_release_while_it_stands,
    a_request,
    rest_of_the_run,
)
from tests.support.home import MAIN, PATHS, REQUESTS, Home
from tests.support.shop import trust_document
from tests.support.tamper import a_home_to_tamper_with, event
from tests.support.tamperings import TAMPERINGS


class Cached:
    """Verifies a project with what the last clean verification left."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.past: Past | None = None
        self.walked = 0
        self.notices: list[str] = []

    def verify(self) -> VerifyReport:
        """`walked` says how many evidence commits the last look took."""

        def progress(_done: int, total: int) -> None:
            self.walked = total

        self.walked = 0
        return self.home.verify(past=self.past, keep=self._keep, progress=progress, notice=self.notices.append)

    def _keep(self, past: Past) -> None:
        data = past_bytes(past, self.home.root, "rules")
        self.past = read_past(data, self.home.root, "rules")
        assert self.past == past


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One completed run with an agent's report, one rolled back, one begun."""
    home = Home(tmp_path, agents=("a",))
    home.release("shop-1")
    home.release("shop-2")
    home.batch(home.story.run("dev", "shop-1"))
    home.batch(home.story.run("dev", "shop-2", end="rolled_back"))
    drafts = home.story.run("dev", "shop-2")
    home.batch(drafts[:4])
    WAITING[home] = drafts[4:]
    return home


@pytest.fixture
def cached(home: Home) -> Cached:
    """With one clean verification behind it."""
    made = Cached(home)
    assert made.verify().verified
    assert made.past is not None
    return made


@pytest.mark.parametrize("seed", range(3))
def test_growing_in_steps_it_says_the_same_as_anew(cached: Cached, seed: int) -> None:
    dice, home = random.Random(seed), cached.home
    for _ in range(6):
        before = cached.past
        assert before is not None
        for grow in dice.choices(GROWTH, k=dice.randrange(1, 4)):
            grow(home, dice)
        anew = home.verify()
        assert anew.verified
        assert cached.verify() == anew
        assert cached.past is not None
        first_requests = before.requests is None and cached.past.requests is not None
        assert cached.walked == anew.commits - (0 if first_requests else before.commits)
        since = dice.choice(home.repo.chain(home.ledger.commit or ""))
        assert home.verify(since=since).findings == (), since
    assert cached.notices == []
    past: list[Past] = []
    home.verify(keep=past.append)
    assert cached.past == past[0]
    assert cached.past.evidence == load(home.repo, home.ledger.commit or "").commit


def test_main_that_stands_still_and_goes_on(cached: Cached) -> None:
    home, dice = cached.home, random.Random(0)
    rest_of_the_run(home)
    begun = cached.past
    for grow in (a_refused_commit, a_release_while_it_stands, a_cure, a_release, a_refused_commit, a_cure):
        grow(home, dice)
        assert cached.verify() == home.verify()
    for oid in home.repo.chain(home.ledger.commit or ""):
        assert home.verify(since=oid).findings == ()
    assert begun is not None
    assert cached.past is not None
    assert cached.past.main == home.tips[MAIN] != begun.main
    assert cached.walked == 1
    assert len(cached.past.refused) >= 2


def test_the_first_requests_take_a_whole_walk_once(cached: Cached) -> None:
    home, dice = cached.home, random.Random(1)
    a_request(home, dice)
    assert cached.verify() == home.verify()
    pending = home.commit(REQUESTS, {"requests/later": b"x"}, "mallory", "Request")
    assert cached.verify() == home.verify()
    assert cached.walked == 0
    home.batch([home.story.request(pending)])
    a_request(home, dice)
    assert cached.verify() == home.verify()
    assert cached.walked == 2
    home.batch([home.story.request(pending)])  # a second verdict, of what was judged before the last look
    report = cached.verify()
    assert report == home.verify()
    assert {finding.code for finding in report.findings} == {"request-judged-twice"}


# --- tampering, before and after ------------------------------------------------------------------------


@pytest.mark.parametrize("how", list(TAMPERINGS))
def test_tampering_after_a_look_is_found(tmp_path: Path, how: str) -> None:
    cached = Cached(a_home_to_tamper_with(tmp_path))
    assert cached.verify().verified
    home, (tamper, expected) = cached.home, TAMPERINGS[how]
    kept, root = cached.past, cached.home.root
    assert kept is not None
    tamper(home)
    if home.root != root:
        with pytest.raises(Invalid, match="another trust root"):
            read_past(past_bytes(kept, root, "rules"), home.root, "rules")
        cached.past = None
    report = cached.verify()
    assert {finding.code for finding in report.findings} == expected
    assert not report.verified
    assert cached.past in (kept, None)  # nothing is kept of what is not clean


@pytest.mark.parametrize("ref", [EVIDENCE_REF, MAIN, REQUESTS])
def test_a_past_that_was_rewritten_counts_for_nothing(cached: Cached, ref: str) -> None:
    home = cached.home
    a_request(home, random.Random(2))
    a_request(home, random.Random(3))
    assert cached.verify().verified
    home.git("update-ref", ref, home.git("rev-parse", f"{ref}~1").strip())
    anew = home.verify()
    assert cached.verify() == anew
    assert len(cached.notices) == 1
    assert ref in cached.notices[0]


def test_evidence_rewritten_from_the_middle_and_signed_again_is_noticed(cached: Cached, tmp_path: Path) -> None:
    """The controller's own key tells another past: clean in itself, and not what was seen before."""
    home = cached.home
    old = home.git("rev-parse", f"{EVIDENCE_REF}~3").strip()
    good = next(
        oid
        for oid in home.git("rev-list", "--first-parent", f"{EVIDENCE_REF}~1").split()
        if home.git("diff-tree", "-r", "--name-only", f"{oid}~1", oid).count("log/checkpoint")
    )
    assert good != old
    home.ledger = load(home.repo, good)
    home.tips[EVIDENCE_REF] = good
    home.git("update-ref", EVIDENCE_REF, good)
    home.batch(event(home))
    assert home.verify().verified
    report = cached.verify()
    assert report.verified
    assert cached.walked == report.commits
    assert "was verified before" in cached.notices[0]


def test_a_rewritten_past_is_refused_where_the_trust_root_pins_the_log(cached: Cached) -> None:
    home = cached.home
    log = home.ledger.log
    pinned = {"size": log.size, "root": base64.b64encode(log.root).decode()}
    home.root = TrustRoot.model_validate({**home.root.model_dump(by_alias=True), "checkpoint": pinned})
    home.batch(event(home))
    assert cached.verify().verified
    assert cached.walked == 1  # a pinned checkpoint is compared each time, and does not change what counts
    beyond = {**pinned, "size": 10**6}
    home.root = TrustRoot.model_validate({**home.root.model_dump(by_alias=True), "checkpoint": beyond})
    assert {finding.code for finding in cached.verify().findings} == {"checkpoint-mismatch"}


# --- keys change after it -------------------------------------------------------------------------------


def rotated(home: Home) -> KeySigner:
    """Trust version 2 gives the controller another key, and evidence goes on with it; the old one."""
    old, new = home.people["controller"], KeySigner(ed25519.Ed25519PrivateKey.generate())
    keys = {name: signer.public_key for name, signer in home.people.items()} | {"controller": new.public_key}
    data = yaml.safe_dump(trust_document(2, keys=keys, paths=PATHS), sort_keys=False).encode()
    files: dict[str, bytes | None] = {"trust/trust.yaml": data}
    for name in ("olga", "otto"):
        files[f"trust/2/{name}.sig"] = home.people[name].sign_ssh(data, TRUST_NAMESPACE).encode()
    tip = home.commit(MAIN, files, "olga", "Rotate the controller's key")
    home.people["controller"] = new
    draft = home.story.accepted(tip)
    home.batch([draft.model_copy(update={"observed": draft.observed.model_copy(update={"trust_version": 2})})])
    return old


def test_a_key_that_ended_after_the_look_counts_for_nothing(cached: Cached) -> None:
    home = cached.home
    old = rotated(home)
    anew = home.verify()
    assert anew.verified, anew.findings
    assert cached.verify() == anew
    assert cached.walked == 1
    assert cached.past is not None
    assert len(cached.past.trust) == 2
    home.people["controller"] = old
    home.batch(event(home))
    report = cached.verify()
    assert report == home.verify()
    assert {finding.code for finding in report.findings} == {"foreign-evidence"}


# --- the file ------------------------------------------------------------------------------------------


def test_a_file_that_does_not_count_is_said_and_ignored(cached: Cached, tmp_path: Path) -> None:
    root, past = cached.home.root, cached.past
    assert past is not None
    path = tmp_path / "cache" / "one.json"
    file = PastFile(path, root, "rules")
    assert file.load() is None
    file.save(past)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert PastFile(path, root, "rules").load() == past
    good = path.read_bytes()
    body = json.loads(good)
    other = TrustRoot(project="other", genesis=root.genesis)
    worse = {**body["past"], "entries": "many"}
    bare = {key: value for key, value in {**body, "past": worse}.items() if key != "sha256"}
    for data, against, rules, why in (
        (good.replace(b'"entries":', b'"entries":1'), root, "rules", "checksum"),
        (good[:-20], root, "rules", "form"),
        (b"[]", root, "rules", "form"),
        (b"\xff", root, "rules", "form"),
        (canonical(bare | {"sha256": digest(canonical(bare))}), root, "rules", "form"),
        (good, root, "newer rules", "version"),
        (good, other, "rules", "trust root"),
    ):
        path.write_bytes(data)
        with pytest.raises(Invalid, match=why):
            PastFile(path, against, rules).load()
    path.write_bytes(good)
    path.chmod(0o622)
    with pytest.raises(Invalid, match="others may write"):
        PastFile(path, root, "rules").load()
    path.chmod(0o600)
    path.parent.chmod(0o777)
    with pytest.raises(Invalid, match="folder"):
        PastFile(path, root, "rules").load()
    path.parent.chmod(0o700)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    for odd in (link, tmp_path):
        with pytest.raises(Invalid, match=r"cannot be read|no file"):
            PastFile(odd, root, "rules").load()


def test_rules_are_the_packages_own_bytes(tmp_path: Path) -> None:
    assert rules_digest(asked=True) == rules_digest(asked=True) != rules_digest(asked=False)
    package = tmp_path / "controller"
    shutil.copytree(Path(controller.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    words = "from controller.uses.audit.past_file import rules_digest; print(rules_digest(asked=True))"

    def there() -> str:
        done = subprocess.run(
            [sys.executable, "-c", words], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert there() == rules_digest(asked=True)
    decides = package / "core" / "gates.py"
    decides.write_text(f"{decides.read_text()}# one byte more decides otherwise\n")
    assert there() != rules_digest(asked=True)


def test_the_command_keeps_what_it_verified(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LOCKGATE_NO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    home.root.save(tmp_path / "root.json")
    words = ["--repo", str(home.origin), "-o", "json", "verify", "--trust-root", str(tmp_path / "root.json")]

    def said(*more: str, code: int = 0) -> tuple[dict[str, object], str]:
        assert lockgate([*words, *more]) == code
        out, err = capsys.readouterr()
        return json.loads(out), err

    path = cache_path(home.root)
    assert said("--no-cache")[1] == ""
    assert not path.exists()
    first = said()
    assert first[1] == ""
    kept = path.read_bytes()
    assert said() == first
    home.batch(event(home))
    assert said()[0]["entries"] == home.verify().entries
    assert path.read_bytes() != kept
    path.write_bytes(b"{}")
    answer, note = said()
    assert answer["verified"]
    assert "the cache is not used: it is not in its form" in note
    elsewhere = tmp_path / "else.json"
    assert said("--cache", str(elsewhere))[1] == ""
    assert elsewhere.exists()
    inside = home.origin / "cache.json"
    assert "would stand in the repository" in said("--cache", str(inside))[1]
    assert not inside.exists()
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setenv("LOCKGATE_NO_CACHE", "1")
        said()
    assert not path.exists()
    with monkeypatch.context() as patch:
        patch.setenv("LOCKGATE_CACHE", str(path))
        said()
    kept = path.read_bytes()
    home.commit(EVIDENCE_REF, {"events/x": b"x"}, "mallory")
    assert not said(code=1)[0]["verified"]
    assert path.read_bytes() == kept


def rot(home: Home) -> str:
    """Change one byte of a past entry in the stored object itself, its name left as it was; the entry's path."""
    rows = home.git("ls-tree", "-r", EVIDENCE_REF).splitlines()
    path = next(row.partition("\t")[2] for row in rows if "-opened" in row)
    blob = home.git("rev-parse", f"{EVIDENCE_REF}:{path}").strip()
    objects = home.origin / "objects"
    for pack in list((objects / "pack").glob("*.pack")):
        loose = home.origin / pack.name
        pack.rename(loose)
        for other in (objects / "pack").glob(f"{pack.stem}.*"):
            other.unlink()
        with loose.open("rb") as stream:
            subprocess.run(["git", "-C", str(home.origin), "unpack-objects", "-q"], stdin=stream, check=True)
    file = objects / blob[:2] / blob[2:]
    data = bytearray(zlib.decompress(file.read_bytes()))
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(zlib.compress(bytes(data)))
    return path


def test_a_byte_that_rots_in_the_verified_past_is_found(cached: Cached) -> None:
    home = cached.home
    path = rot(home)
    report = cached.verify()
    assert not report.verified
    assert path in {finding.path for finding in report.findings}
    assert report == home.verify()


def test_a_look_reads_only_the_objects_that_came_since(cached: Cached) -> None:
    home, objects = cached.home, cached.home.origin / "objects"
    mark = intact(objects)
    assert mark is not None
    assert intact(objects, mark) == mark
    home.batch(event(home))
    later = intact(objects, mark)
    assert later not in (None, mark)
    assert intact(objects, "another folder's") == later
    assert cached.verify() == home.verify()
    assert cached.past is not None
    assert cached.past.objects == later
    rot(home)
    assert intact(objects, later or "") is None
    assert intact(objects) is None


def test_a_past_holds_in_another_copy_that_is_whole(cached: Cached, tmp_path: Path) -> None:
    home = cached.home
    home.git("clone", "-q", "--mirror", str(home.origin), str(tmp_path / "copy.git"))
    home.batch(event(home))
    mine, home.origin = home.origin, tmp_path / "copy.git"
    try:
        assert cached.verify().verified
        assert cached.walked == 0
        rot(home)
        assert not cached.verify().verified
    finally:
        home.origin = mine
