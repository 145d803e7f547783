"""One contract over every kind of origin: what a Repo does when all is well, and when somebody else is faster."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.adapters.git.people import merge, write_commit
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.errors import Conflict, Refused, Unavailable
from controller.model.history import NewCommit
from tests.support.git_servers import GitServer, http_server, silent_server, ssh_server

AT = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
REF = "lockgate/evidence"
KINDS = ("path", "file-url", "hook", "ssh", "http")


@dataclass(frozen=True)
class Origin:
    """An origin under test: its address, its bare repository for the tests' own eyes, and a rival's clone."""

    kind: str
    url: str
    bare: Path
    home: Path
    signer: FileSigner

    def open(self, name: str = "state", timeout: float = 30.0) -> GitRepo:
        return GitRepo(self.url, self.home / name, timeout=timeout)

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.bare), *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def tip(self, ref: str = REF) -> str:
        return self.git("rev-parse", f"refs/heads/{ref}")

    def rival(self, ref: str, message: str, *, parent: str | None, force: bool = False) -> str:
        """Somebody else moves a branch, with stock git, behind everybody's back."""
        tree = self.git("hash-object", "-t", "tree", "-w", "/dev/null")
        identity = ("-c", "user.name=Rival", "-c", "user.email=rival@example.com")
        parents = ("-p", parent) if parent else ()
        oid = self.git(*identity, "commit-tree", tree, *parents, "-m", message)
        old = () if force else (parent or "0" * 40,)
        self.git("update-ref", f"refs/heads/{ref}", oid, *old)
        return oid


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    home = tmp_path_factory.mktemp("ssh")
    with ssh_server(home / "server", home) as server:
        print(server.version)
        yield server


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    home = tmp_path_factory.mktemp("http")
    with http_server(home / "server", home) as server:
        print(server.version)
        yield server


@pytest.fixture(params=KINDS)
def origin(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Origin:
    kind = request.param
    server: GitServer | None = request.getfixturevalue(kind) if kind in ("ssh", "http") else None
    bare = (server.root / f"{tmp_path.name}.git") if server is not None else tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "config", "http.receivepack", "true"], check=True)
    if kind == "hook":
        hook(bare, "post-receive", "cat >> received")
    if server is not None:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
    url = server.url(bare) if server is not None else (f"file://{bare}" if kind == "file-url" else str(bare))
    return Origin(kind, url, bare, tmp_path, generate_key(tmp_path / "key", "controller@example.com"))


def hook(bare: Path, name: str, script: str) -> None:
    path = bare / "hooks" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def entry(index: int, **more: bytes | None) -> NewCommit:
    changes = {f"runs/prod/2026/05/04/{index:04d}/entry.json": b'{"n":%d}' % index, "checkpoint": b"%d" % index}
    return NewCommit({**changes, **more}, f"Record entry {index}\n\nLockgate-Entry: {index}\n", AT)


class Interfering:
    """A signer that lets something happen between reading and writing: exactly when the first commit is signed."""

    def __init__(self, signer: FileSigner, action: Callable[[], object]) -> None:
        self._signer = signer
        self._action: Callable[[], object] | None = action

    @property
    def public_key(self) -> str:
        return self._signer.public_key

    def sign_raw(self, data: bytes) -> bytes:
        return self._signer.sign_raw(data)

    def sign_ssh(self, data: bytes, namespace: str) -> str:
        if self._action is not None:
            action, self._action = self._action, None
            action()
        return self._signer.sign_ssh(data, namespace)


def assert_sound(origin: Origin, ref: str = REF) -> None:
    """Stock git finds nothing wrong, and every signature good."""
    origin.git("fsck", "--strict", "--full")
    allowed = origin.home / "allowed"
    allowed.write_text(f'controller@example.com namespaces="git" {origin.signer.public_key}\n')
    verify = ("-c", f"gpg.ssh.allowedSignersFile={allowed}")
    verdicts = origin.git(*verify, "log", "--format=%G? %GS", ref).splitlines()
    assert set(verdicts) == {"G controller@example.com"}
    origin.git(*verify, "verify-commit", origin.tip(ref))


def test_an_append_creates_extends_and_reads_back(origin: Origin) -> None:
    repo = origin.open()
    assert repo.observe().evidence is None
    first = repo.append(REF, None, [entry(1), entry(2)], origin.signer)
    second = repo.append(REF, first[-1], [entry(3, checkpoint=None)], origin.signer)
    assert origin.tip() == second[-1] == repo.observe().evidence
    assert [c.id for c in repo.first_parents(second[-1], None)] == [*first, *second]
    commit = repo.commit(second[0])
    assert (commit.signature, commit.key) == ("good", origin.signer.public_key)
    assert commit.parents == (first[-1],)
    assert commit.committer.at == AT
    assert commit.message == "Record entry 3\n\nLockgate-Entry: 3\n"
    assert repo.file(second[0], "checkpoint") is None
    file = repo.file(second[0], "runs/prod/2026/05/04/0003/entry.json")
    assert file is not None and repo.read(file.blob) == b'{"n":3}'
    paths = [path for path, _ in repo.files(second[0])]
    assert paths == origin.git("ls-tree", "-r", "--name-only", second[0]).splitlines()
    assert [c.path for c in repo.changes(first[-1], second[0])] == [
        "checkpoint",
        "runs/prod/2026/05/04/0003/entry.json",
    ]
    assert_sound(origin)
    if origin.kind == "hook":
        assert (origin.bare / "received").read_text().count("lockgate/evidence") == 2
    repo.close()


def test_a_second_controller_goes_on_where_the_first_stopped(origin: Origin) -> None:
    one = origin.open("one")
    one.observe()
    tip = one.append(REF, None, [entry(1)], origin.signer)[-1]
    one.close()
    two = origin.open("two")
    assert two.observe().evidence == tip
    assert two.append(REF, tip, [entry(2)], origin.signer)[-1] == origin.tip()
    assert_sound(origin)
    two.close()


@pytest.mark.parametrize("exists", [True, False], ids=["moved", "created"])
def test_a_rival_between_read_and_write_wins_whole(origin: Origin, exists: bool) -> None:
    repo = origin.open()
    repo.observe()
    tip = repo.append(REF, None, [entry(1)], origin.signer)[-1] if exists else None
    won: list[str] = []
    signer = Interfering(origin.signer, lambda: won.append(origin.rival(REF, "rival", parent=tip)))
    with pytest.raises(Conflict) as caught:
        repo.append(REF, tip, [entry(2), entry(3)], signer)
    assert caught.value.code == "ref-moved"
    assert origin.tip() == won[0]
    assert "Record entry 2" not in origin.git("log", "--all", "--format=%s")
    assert repo.observe().evidence == won[0]
    after = repo.append(REF, won[0], [entry(4)], origin.signer)
    assert origin.tip() == after[-1]
    origin.git("fsck", "--strict", "--full")
    repo.close()


def test_of_two_controllers_with_one_key_and_one_mind_one_wins(origin: Origin) -> None:
    one, two = origin.open("one"), origin.open("two")
    one.observe()
    tip = one.append(REF, None, [entry(1)], origin.signer)[-1]
    assert two.observe().evidence == tip
    won: list[str] = []
    signer = Interfering(origin.signer, lambda: won.extend(one.append(REF, tip, [entry(2)], origin.signer)))
    with pytest.raises(Conflict):
        two.append(REF, tip, [entry(2)], signer)
    assert two.observe().evidence == origin.tip() == won[0]
    for repo in (one, two):
        repo.close()


def test_a_rewound_ref_loses_the_swap_and_is_seen(origin: Origin) -> None:
    repo = origin.open()
    repo.observe()
    oids = repo.append("main", None, [entry(1), entry(2), entry(3)], origin.signer)
    signer = Interfering(origin.signer, lambda: origin.git("update-ref", "refs/heads/main", oids[0]))
    with pytest.raises(Conflict):
        repo.append("main", oids[2], [entry(4)], signer)
    tips = repo.observe()
    assert tips.main == oids[0]
    with pytest.raises(Refused) as caught:
        repo.first_parents(oids[0], oids[2])
    assert caught.value.code == "main-rewound"
    repo.close()


def test_a_force_pushed_branch_is_observed_as_it_is(origin: Origin) -> None:
    repo = origin.open()
    repo.observe()
    tip = repo.append("main", None, [entry(1)], origin.signer)[-1]
    other = origin.rival("main", "another history", parent=None, force=True)
    assert repo.observe().main == other
    assert not repo.is_ancestor(tip, other)
    with pytest.raises(Refused) as caught:
        repo.first_parents(other, tip)
    assert caught.value.code == "main-rewound"
    origin.git("update-ref", "-d", "refs/heads/main")
    assert repo.observe().main is None
    repo.close()


def test_a_rejecting_hook_is_refused_with_its_words(origin: Origin) -> None:
    hook(origin.bare, "pre-receive", "echo not on a Friday >&2\nexit 1")
    repo = origin.open()
    repo.observe()
    with pytest.raises(Refused) as caught:
        repo.append(REF, None, [entry(1)], origin.signer)
    assert caught.value.code == "push-rejected"
    assert "not on a Friday" in caught.value.got
    assert repo.observe().evidence is None
    hook(origin.bare, "pre-receive", "exit 1")
    with pytest.raises(Refused, match="push-rejected"):
        repo.append(REF, None, [entry(1)], origin.signer)
    (origin.bare / "hooks" / "pre-receive").unlink()
    assert repo.append(REF, None, [entry(1)], origin.signer)[-1] == origin.tip()
    repo.close()


def test_a_hook_that_appears_later_is_asked(origin: Origin) -> None:
    repo = origin.open()
    repo.observe()
    tip = repo.append(REF, None, [entry(1)], origin.signer)[-1]
    hook(origin.bare, "pre-receive", "echo frozen >&2\nexit 1")
    with pytest.raises(Refused, match="push-rejected") as caught:
        repo.append(REF, tip, [entry(2)], origin.signer)
    assert "frozen" in caught.value.got
    assert repo.observe().evidence == origin.tip() == tip
    repo.close()


def test_an_update_hook_that_guards_one_branch_leaves_the_others(origin: Origin) -> None:
    hook(origin.bare, "update", 'test "$1" != refs/heads/main')
    repo = origin.open()
    repo.observe()
    with pytest.raises(Refused, match="push-rejected"):
        repo.append("main", None, [entry(1)], origin.signer)
    assert repo.append(REF, None, [entry(1)], origin.signer)[-1] == origin.tip()
    repo.close()


def test_an_origin_that_went_away_is_unavailable_and_comes_back(origin: Origin) -> None:
    repo = origin.open()
    repo.observe()
    tip = repo.append(REF, None, [entry(1)], origin.signer)[-1]
    away = origin.bare.with_suffix(".away")
    origin.bare.rename(away)
    with pytest.raises(Unavailable) as caught:
        repo.observe()
    assert caught.value.code == "origin-unavailable"
    with pytest.raises((Unavailable, Conflict)):
        repo.append(REF, tip, [entry(2)], origin.signer)
    away.rename(origin.bare)
    assert repo.observe().evidence == tip
    assert repo.append(REF, tip, [entry(2)], origin.signer)[-1] == origin.tip()
    repo.close()


def test_a_slow_hook_is_unavailable_within_the_timeout(origin: Origin) -> None:
    hook(origin.bare, "pre-receive", "exec sleep 30")
    repo = origin.open(timeout=1.5)
    repo.observe()
    started = datetime.now(UTC)
    with pytest.raises(Unavailable) as caught:
        repo.append(REF, None, [entry(1)], origin.signer)
    assert caught.value.code == "origin-unavailable"
    assert (datetime.now(UTC) - started).total_seconds() < 6
    repo.close()


def test_a_silent_origin_is_unavailable_within_the_timeout(tmp_path: Path) -> None:
    with silent_server() as url:
        repo = GitRepo(url, tmp_path / "state", timeout=0.7)
        with pytest.raises(Unavailable) as caught:
            repo.observe()
        assert caught.value.code == "origin-unavailable"
        assert "0.7 s" in caught.value.got
        repo.close()


def test_people_merge_and_the_merge_is_attributed(origin: Origin) -> None:
    repo = origin.open()
    repo.observe()
    base = repo.append("main", None, [entry(1)], origin.signer)[-1]
    developer = generate_key(origin.home / "developer")
    who = ("Dana", "dana@example.com")
    side = write_commit(
        repo,
        [base],
        {"promotions/prod.yaml": b"to: 2\n"},
        message="Promote",
        author=who,
        when=AT,
        signer=developer,
    )
    landed = merge(repo, "main", side, message="Merge", author=who, when=AT, signer=origin.signer, expected=base)
    assert origin.tip("main") == landed == repo.observe().main
    commit = repo.commit(landed)
    assert commit.parents == (base, side)
    assert commit.key == origin.signer.public_key
    assert [c.key for c in repo.brought(base, side)] == [developer.public_key]
    assert [c.id for c in repo.first_parents(landed, base)] == [landed]
    with pytest.raises(Refused) as caught:
        repo.first_parents(landed, side)
    assert caught.value.code == "main-not-first-parent"
    origin.git("fsck", "--strict", "--full")
    repo.close()


def test_a_reader_needs_no_state_directory(origin: Origin) -> None:
    repo = origin.open()
    repo.observe()
    tip = repo.append(REF, None, [entry(1)], origin.signer)[-1]
    repo.close()
    reader = GitRepo.read_only(origin.url)
    assert reader.observe().evidence == tip
    assert reader.commit(tip).signature == "good"
    reader.close()


def test_a_branch_that_people_name_is_known_and_followed(origin: Origin) -> None:
    """What is to be merged, or added to, is on none of the three branches that every pass looks at."""
    repo = origin.open()
    repo.observe()
    base = repo.append("main", None, [entry(1)], origin.signer)[-1]
    assert repo.known("promote/dev") is None
    first = origin.rival("promote/dev", "Promote", parent=None)
    longer = origin.rival("promote/dev-2", "Another whose name begins alike", parent=None, force=True)
    repo.observe()
    assert repo.known("promote/dev") == first
    assert [commit.id for commit in repo.brought(base, first)] == [first]
    assert repo.known("promote/dev-2") == longer
    second = origin.rival("promote/dev", "Promote again", parent=first)
    repo.observe()
    assert repo.known("promote/dev") == second
    origin.git("update-ref", "-d", "refs/heads/promote/dev")
    repo.observe()
    assert repo.known("promote/dev") is None
    assert repo.known("promote/*") is None
    repo.close()
    fresh = GitRepo(origin.url, None)
    assert fresh.known("promote/dev-2") == longer
    fresh.close()


@pytest.mark.parametrize("origin", ["http"], indirect=True)
@pytest.mark.parametrize("torn", ["HEAD", "objects", "tracked", "gone", "emptied"])
def test_a_mirror_that_a_power_cut_tore_is_made_again(origin: Origin, torn: str) -> None:
    """The mirror of a remote origin is a cache: what a cut of the power leaves of it stops no controller."""
    first = origin.open()
    first.observe()
    tip = first.append(REF, None, [entry(1), entry(2)], origin.signer)[-1]
    first.close()
    mirror = origin.home / "state" / "repo.git"
    if torn == "HEAD":
        (mirror / "HEAD").write_bytes(b"")
    elif torn == "objects":
        shutil.rmtree(mirror / "objects")
    elif torn == "tracked":
        (mirror / "refs" / "remotes" / "origin" / "heads" / REF).write_bytes(b"")
    for path in list((mirror / "objects" / "pack").glob("*")):
        if torn == "gone":
            path.unlink()
        elif torn == "emptied":
            path.chmod(0o600)
            path.write_bytes(b"")
    again = origin.open()
    assert again.observe().evidence == tip
    assert again.commit(tip).signature == "good"
    added = again.append(REF, tip, [entry(3)], origin.signer)[-1]
    assert origin.tip() == added
    again.close()


def test_an_origin_whose_disk_is_full_is_unavailable_and_not_a_refusal(tmp_path: Path) -> None:
    """Over a push as in place: nobody's rights or hooks are at fault, and it is tried again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        bare = disk / "origin.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
        hook(bare, "post-receive", "exit 0")
        origin = Origin("hook", str(bare), bare, tmp_path, generate_key(tmp_path / "key"))
        repo = origin.open()
        repo.observe()
        first = repo.append(REF, None, [entry(1)], origin.signer)[-1]
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.raises(Unavailable) as caught:
            repo.append(REF, first, [entry(2)], origin.signer)
        assert caught.value.code == "origin-unavailable" and "No space left" in caught.value.got
        assert "disk" in caught.value.cure
        (disk / "filler").unlink()
        second = repo.append(REF, repo.observe().evidence, [entry(2)], origin.signer)[-1]
        assert origin.tip() == second
        origin.git("fsck", "--strict", "--full")
        repo.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
