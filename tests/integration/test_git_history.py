"""Reading history: the same answers as stock git, and a refusal for everything git would pass over."""

from __future__ import annotations

import random
import subprocess
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.adapters.git import objects, people
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.errors import Conflict, Invalid, LockgateError, Refused, Unavailable, UsageError
from controller.model.history import NewCommit
from tests.support.git_servers import ssh_server

AT = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
WHO = ("Dana", "dana@example.com")


def git(bare: Path, *arguments: str, data: bytes = b"") -> str:
    command = ["git", "-C", str(bare), *arguments]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout.decode().strip()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    return path


@pytest.fixture
def repo(bare: Path, tmp_path: Path) -> GitRepo:
    return GitRepo(str(bare), tmp_path / "state")


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    return generate_key(tmp_path / "key")


def commit(repo: GitRepo, parents: list[str], at: datetime = AT, **files: bytes | None) -> str:
    return people.write_commit(repo, parents, files, message="m", author=WHO, when=at, signer=None)


def put(bare: Path, kind: str, data: bytes) -> str:
    """Write an object that stock git would not make."""
    oid = objects.object_id(kind.encode(), data)
    path = bare / "objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(b"%s %d\0" % (kind.encode(), len(data)) + data))
    return oid


def test_random_trees_read_and_compare_as_git_does(repo: GitRepo, bare: Path) -> None:
    rng = random.Random(7)
    names = ["a", "a.b", "a-b", "a0", "b", "é", "Z", "run.d"]
    tip = commit(repo, [])
    for _ in range(60):
        changes: dict[str, bytes | None] = {}
        for _ in range(rng.randint(1, 6)):
            path = "/".join(rng.choice(names) for _ in range(rng.randint(1, 4)))
            taken = any(path.startswith(p + "/") or p.startswith(path + "/") for p in changes)
            if not taken:
                changes[path] = rng.choice([None, b"%d" % rng.randint(0, 3)])
        new = commit(repo, [tip], **changes)
        listed = git(bare, "-c", "core.quotePath=false", "ls-tree", "-r", "-z", new).split("\0")
        expected = [(line.split("\t")[1], line.split()[2]) for line in listed if line]
        assert [(path, file.blob) for path, file in repo.files(new)] == expected
        out = git(bare, "diff-tree", "-r", "-z", "--no-renames", "--name-only", tip, new).split("\0")
        assert [c.path for c in repo.changes(tip, new)] == sorted(filter(None, out))
        for path, blob in expected[:5]:
            file = repo.file(new, path)
            assert file is not None and file.blob == blob
        tip = new
    assert [c.path for c in repo.changes(None, tip)] == sorted(path for path, _ in repo.files(tip))
    git(bare, "fsck", "--strict", "--full")


def test_files_below_a_prefix(repo: GitRepo) -> None:
    tip = commit(repo, [], **{"a/b/c": b"1", "a/bc": b"2", "a/b/d/e": b"3", "f": b"4"})
    assert [p for p, _ in repo.files(tip, "a/b")] == ["a/b/c", "a/b/d/e"]
    assert [p for p, _ in repo.files(tip, "a/b/")] == ["a/b/c", "a/b/d/e"]
    assert [p for p, _ in repo.files(tip, "f")] == ["f"]
    assert list(repo.files(tip, "nothing/here")) == []
    assert repo.file(tip, "a/b") is None
    assert repo.file(tip, "f/g") is None


def test_random_graphs_answer_as_git_does(repo: GitRepo, bare: Path) -> None:
    rng = random.Random(11)
    oids: list[str] = []
    for index in range(60):
        parents = rng.sample(oids[-8:], min(len(oids), rng.choice([0, 1, 1, 1, 2, 2, 3]))) if oids else []
        # Dates jump about: no walk may trust them.
        at = AT + timedelta(seconds=rng.randint(-5000, 5000))
        oids.append(commit(repo, parents, at, **{f"f{index}": b"x"}))
    for oid in oids:
        git(bare, "update-ref", f"refs/heads/{oid}", oid)
    for _ in range(80):
        one, two = rng.choice(oids), rng.choice(oids)
        done = subprocess.run(
            ["git", "-C", str(bare), "merge-base", "--all", one, two], capture_output=True, text=True, check=False
        )
        assert repo.merge_bases(one, two) == sorted(done.stdout.split())
        # git rev-list itself is fooled by such dates (its limit is a guess); the closure is computed here.
        below, above = closure(repo, one), closure(repo, two)
        brought = [c.id for c in repo.brought(one, two)]
        assert set(brought) == above - below and len(brought) == len(set(brought))
        seen = set(below)
        for oid in brought:
            assert set(repo.commit(oid).parents) <= seen
            seen.add(oid)
        assert repo.is_ancestor(one, two) == (one in above)


def closure(repo: GitRepo, tip: str) -> set[str]:
    found, stack = {tip}, [tip]
    while stack:
        for parent in repo.commit(stack.pop()).parents:
            if parent not in found:
                found.add(parent)
                stack.append(parent)
    return found


def test_a_commit_signed_by_stock_git_is_good_and_a_changed_one_bad(
    bare: Path, repo: GitRepo, signer: FileSigner, tmp_path: Path
) -> None:
    tree = git(bare, "hash-object", "-t", "tree", "-w", "/dev/null")
    git(bare, "config", "user.name", "Dana")
    git(bare, "config", "user.email", "dana@example.com")
    signing = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={tmp_path / 'key'}")
    oid = git(bare, *signing, "commit-tree", "-S", tree, "-m", "Grüße\n\nein Körper")
    read = repo.commit(oid)
    assert (read.signature, read.key, read.malformed) == ("good", signer.public_key, None)
    assert (read.author.name, read.message) == ("Dana", "Grüße\n\nein Körper\n")
    raw = repo.store.raw(oid, b"commit")
    bad = repo.commit(put(bare, "commit", raw.replace(b"Dana", b"Dora")))
    assert (bad.signature, bad.key) == ("bad", None)
    assert repo.commit(commit(repo, [oid])).signature == "none"


def test_a_commit_that_breaks_its_own_rules_is_malformed(bare: Path, repo: GitRepo, signer: FileSigner) -> None:
    raw = repo.store.raw(repo.append("main", None, [NewCommit({"a": b"1"}, "m", AT)], signer)[0], b"commit")
    head, _, body = raw.partition(b"\n\n")
    signature = head[head.index(b"\ngpgsig ") :]
    unsigned = head.replace(signature, b"")
    spoilt = [
        head + signature + b"\n\n" + body,
        head + b"\ngpgsig-sha256 x\n\n" + body,
        head + b"\n\n" + body + b"\0hidden",
        unsigned + b"\nauthor A <a@example.com> 1 +0000\n\n" + body,
        unsigned.replace(b"\nauthor", b"\nparent zz\nauthor") + b"\n\n" + body,
        unsigned.replace(b"+0000", b"later") + b"\n\n" + body,
        b"\n\n" + body,
    ]
    for data in spoilt:
        read = objects.parse_commit(objects.object_id(b"commit", data), data)
        assert read.malformed == "commit-malformed", data
        assert read.key is None and read.signature != "good"
    tagged = unsigned + b"\nmergetag object 1\n type commit\n gpgsig no header\n" + b"\n" + body
    assert objects.parse_commit("0" * 40, tagged).malformed is None


@pytest.mark.parametrize(
    "entries",
    [
        [b"100644 a", b"100644 a"],
        [b"100644 a", b"40000 a"],
        [b"100644 b", b"100644 a"],
        [b"100644 .git"],
        [b"100644 .GIT"],
        [b"100644 .."],
        [b"100644 a/b"],
        [b"040000 a"],
        [b"100600 a"],
    ],
    ids=lambda entries: b",".join(entries).decode(),
)
def test_an_ambiguous_tree_is_refused(bare: Path, repo: GitRepo, entries: list[bytes]) -> None:
    blob = put(bare, "blob", b"x")
    oid = put(bare, "tree", b"".join(entry + b"\0" + bytes.fromhex(blob) for entry in entries))
    tip = git(bare, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit-tree", oid, "-m", "m")
    with pytest.raises(Refused) as caught:
        list(repo.files(tip))
    assert (caught.value.code, caught.value.where) == ("tree-malformed", oid)


@pytest.mark.parametrize("code", ["tree-malformed", "commit-malformed"])
def test_a_fetch_refuses_what_fsck_refuses(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    blob = bytes.fromhex(put(bare, "blob", b"x"))
    entries = b"100644 a\0" + blob
    if code == "tree-malformed":
        tree, tail = put(bare, "tree", entries + entries), b""
    else:
        tree, tail = put(bare, "tree", entries), b"\0hidden"
    who = b"D <d@example.com> 1 +0000"
    raw = b"tree %s\nauthor %s\ncommitter %s\n\nm\n%s" % (tree.encode(), who, who, tail)
    oid = put(bare, "commit", raw)
    (bare / "refs/heads/main").write_text(oid + "\n")
    with ssh_server(tmp_path / "server", bare.parent) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        mirrored = GitRepo(server.url(bare), tmp_path / "mirror")
        with pytest.raises(Refused) as caught:
            mirrored.observe()
    assert (caught.value.code, caught.value.where) == (code, tree if code == "tree-malformed" else oid)


def test_a_damaged_or_missing_object_is_refused(bare: Path, repo: GitRepo) -> None:
    tip = commit(repo, [], a=b"content")
    file = repo.file(tip, "a")
    assert file is not None
    path = bare / "objects" / file.blob[:2] / file.blob[2:]
    path.parent.mkdir(exist_ok=True)
    for pack in (bare / "objects" / "pack").iterdir():
        pack.unlink()
    path.write_bytes(zlib.compress(b"blob 7\0CONTENT"))
    fresh = GitRepo.read_only(bare)
    for oid in (file.blob, "1" * 40):
        with pytest.raises(Refused) as caught:
            fresh.read(oid)
        assert (caught.value.code, caught.value.where) == ("object-corrupt", oid)
    with pytest.raises(Refused, match="object-corrupt"):
        fresh.commit(tip)


def test_an_incomplete_history_is_refused(bare: Path, repo: GitRepo, tmp_path: Path) -> None:
    one = commit(repo, [], a=b"1")
    people.swap(repo, "main", None, commit(repo, [one], a=b"2"))
    git(bare, "config", "uploadpack.allowFilter", "true")
    for name, options in (("shallow", ["--depth=1"]), ("partial", ["--filter=blob:none"])):
        clone = tmp_path / name
        subprocess.run(["git", "clone", "-q", "--bare", *options, f"file://{bare}", str(clone)], check=True)
        with pytest.raises(Refused, match="history-incomplete"):
            GitRepo.read_only(clone)
    for pack in (False, True):
        clone = tmp_path / f"replaced-{pack}"
        subprocess.run(["git", "clone", "-q", "--bare", str(bare), str(clone)], check=True)
        git(clone, "update-ref", f"refs/replace/{one}", git(clone, "rev-parse", "main"))
        if pack:
            git(clone, "pack-refs", "--all")
        with pytest.raises(Refused, match="history-incomplete"):
            GitRepo.read_only(clone)
    (bare / "info").mkdir(exist_ok=True)
    (bare / "info" / "grafts").write_text(f"{one}\n")
    with pytest.raises(Refused, match="history-incomplete"):
        GitRepo.read_only(bare)


def test_packed_refs_and_work_trees_are_read(bare: Path, repo: GitRepo, tmp_path: Path) -> None:
    tip = commit(repo, [], a=b"1")
    people.swap(repo, "main", None, tip)
    git(bare, "pack-refs", "--all")
    assert not (bare / "refs/heads/main").exists()
    assert repo.observe().main == tip
    new = commit(repo, [tip], a=b"2")
    people.swap(repo, "main", tip, new)
    assert repo.observe().main == git(bare, "rev-parse", "main") == new
    subprocess.run(["git", "clone", "-q", str(bare), str(tmp_path / "work")], check=True)
    git(tmp_path / "work", "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    for path in (tmp_path / "work", tmp_path / "work" / ".git", tmp_path / "linked"):
        assert GitRepo.read_only(path).observe().main == new


def test_merge_conflicts_and_odd_names_have_their_codes(repo: GitRepo, tmp_path: Path) -> None:
    base = commit(repo, [], a=b"1\n")
    one, two = commit(repo, [base], a=b"2\n"), commit(repo, [base], a=b"3\n")
    with pytest.raises(Conflict) as caught:
        people.merge_tree(repo, one, two)
    assert (caught.value.code, caught.value.where) == ("merge-conflict", "a")
    for path in ("../up", "a//b", "/a", ".git/config", "a/.GIT/x", "", "nul\0"):
        with pytest.raises(Invalid, match="path-invalid"):
            commit(repo, [base], **{path: b"x"})
    for origin in ("", "ftp://example.com/x", str(tmp_path / "absent"), "-u", "ext::sh -c id"):
        with pytest.raises(LockgateError) as wrong:
            GitRepo(origin, tmp_path / "s").observe()
        assert isinstance(wrong.value, UsageError | Unavailable)
    people.swap(repo, "lockgate", None, base)
    with pytest.raises(Refused, match="ref-name-taken"):
        people.swap(repo, "lockgate/evidence", None, base)


def test_a_full_disk_is_unavailable_and_leaves_nothing(bare: Path, repo: GitRepo, signer: FileSigner) -> None:
    import resource

    tip = repo.append("main", None, [NewCommit({"a": b"1"}, "m", AT)], signer)[-1]
    before = sorted((bare / "objects" / "pack").iterdir())
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        big = random.Random(1).randbytes(100_000)
        with pytest.raises(Unavailable, match="disk-unavailable"):
            repo.append("main", tip, [NewCommit({"b": big}, "m", AT)], signer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted((bare / "objects" / "pack").iterdir()) == before
    assert repo.observe().main == tip
    repo.append("main", tip, [NewCommit({"b": big}, "m", AT)], signer)
    git(bare, "fsck", "--strict", "--full")


def test_a_disk_with_no_room_for_the_branch_is_unavailable_and_leaves_nothing(
    bare: Path, repo: GitRepo, signer: FileSigner
) -> None:
    """The objects fit, the file that moves the branch does not."""
    tip = repo.append("main", None, [NewCommit({"a": b"1"}, "m", AT)], signer)[-1]
    markers = bare / "lockgate-locks"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(markers)], check=True)
    try:
        (markers / "clearing").write_bytes(bytes(4096))
        with pytest.raises(Unavailable, match=r"disk-unavailable.*No space left"):
            repo.append("main", tip, [NewCommit({"b": b"2"}, "m", AT)], signer)
        assert [path.name for path in markers.iterdir()] == ["clearing"]
    finally:
        subprocess.run(["umount", str(markers)], check=True)
    assert repo.observe().main == tip
    repo.append("main", tip, [NewCommit({"b": b"2"}, "m", AT)], signer)
    git(bare, "fsck", "--strict", "--full")
