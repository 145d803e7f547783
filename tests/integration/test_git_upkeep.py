"""Waking, repacking, many threads, and the cache that may vanish."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.adapters.git.blobcache import BlobCache
from controller.adapters.git.program import environment
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.errors import Conflict, Unavailable
from controller.model.history import NewCommit

AT = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


def entry(index: int) -> NewCommit:
    return NewCommit({f"runs/{index // 10}/{index}.json": b"%d" % index, "head": b"%d" % index}, f"{index}", AT)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    return path


@pytest.fixture
def signer(tmp_path: Path) -> FileSigner:
    return generate_key(tmp_path / "key")


@pytest.fixture
def repo(bare: Path, tmp_path: Path) -> Iterator[GitRepo]:
    made = GitRepo(str(bare), tmp_path / "state")
    yield made
    made.close()


def settle(repo: GitRepo) -> None:
    """Consume what is pending, until nothing came for a while."""
    while repo.wait(0.1):
        pass


def test_a_push_by_stock_git_wakes_in_milliseconds(bare: Path, repo: GitRepo, tmp_path: Path) -> None:
    work = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", str(bare), str(work)], check=True, capture_output=True)
    identity = ["-c", "user.name=D", "-c", "user.email=d@example.com"]
    git = ["git", "-C", str(work), *identity]
    for branch in ("main", "lockgate/requests", "some/deep/new/branch", "main"):
        settle(repo)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
        before = repo.observe()
        subprocess.run([*git, "push", "-q", "origin", f"HEAD:refs/heads/{branch}"], check=True)
        assert repo.wait(5.0)
        if branch.startswith(("main", "lockgate")):
            deadline = time.monotonic() + 5
            while repo.observe() == before:
                assert repo.wait(deadline - time.monotonic())


def test_nothing_is_lost_between_observe_and_wait(repo: GitRepo, signer: FileSigner, bare: Path) -> None:
    other = GitRepo(str(bare), bare.parent / "other")
    assert repo.wait(0.0), "the first wait starts the watch and asks for a look"
    tip: str | None = None
    latencies = []
    for index in range(20):
        assert repo.observe().evidence == tip
        tip = other.append("lockgate/evidence", tip, [entry(index)], signer)[-1]
        started = time.monotonic()
        while repo.observe().evidence != tip or not repo.wait(2.0):
            assert time.monotonic() - started < 2
        latencies.append(time.monotonic() - started)
    assert sorted(latencies)[10] < 0.1
    other.close()


def test_wake_ends_a_wait_and_is_kept_for_the_next(repo: GitRepo, tmp_path: Path) -> None:
    for target in (repo, GitRepo("http://127.0.0.1:9/x.git", tmp_path / "remote")):
        settle(target)
        assert not target.wait(0.01)
        target.wake()
        assert target.wait(0.0)
        assert not target.wait(0.0)
        threading.Timer(0.05, target.wake).start()
        started = time.monotonic()
        assert target.wait(10)
        assert time.monotonic() - started < 5
    target.close()


def test_a_repack_disturbs_neither_readers_nor_the_writer(repo: GitRepo, signer: FileSigner, bare: Path) -> None:
    tip: str | None = None
    oids: list[str] = []
    for index in range(140):
        tip = repo.append("main", tip, [entry(index)], signer)[-1]
        oids.append(tip)
    packs = bare / "objects" / "pack"
    assert len(list(packs.glob("*.idx"))) == 140
    reader = GitRepo.read_only(bare)
    assert reader.commit(oids[0]).signature == "good"
    assert repo.maintain()
    for index in range(140, 160):
        tip = repo.append("main", tip, [entry(index)], signer)[-1]
        oids.append(tip)
    repo.maintain(wait=True)
    assert len(list(packs.glob("*.idx"))) < 30
    for each in (reader, repo, GitRepo.read_only(bare)):
        assert [c.id for c in each.first_parents(oids[-1], None)] == oids
        for oid in oids:
            for _, file in each.files(oid, "head"):
                assert each.read(file.blob) == each.commit(oid).message.strip().encode()
    assert not repo.maintain()
    subprocess.run(["git", "-C", str(bare), "fsck", "--strict", "--full"], check=True, capture_output=True)
    reader.close()


def held(bare: Path) -> int:
    """How many packs of this repository the process holds open, those taken away from it included."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += descriptor.readlink().is_relative_to(bare / "objects" / "pack")
    return found


def test_a_controller_that_runs_for_long_lets_go_of_packs_that_were_repacked(
    repo: GitRepo, signer: FileSigner, bare: Path
) -> None:
    tip: str | None = None
    most = 0
    for index in range(400):
        tip = repo.append("main", tip, [entry(index)], signer)[-1]
        assert repo.files(tip, "head")
        repo.maintain(wait=True)
        most = max(most, held(bare))
    assert 0 < most < 300, "the limit of a process is often 1024 files"


def test_a_closed_repository_holds_no_files(repo: GitRepo, signer: FileSigner, bare: Path) -> None:
    tip = repo.append("main", None, [entry(0)], signer)[-1]
    assert list(repo.files(tip))
    assert held(bare) > 0
    repo.close()
    assert held(bare) == 0


def test_of_many_writers_at_once_each_swap_has_one_winner(bare: Path, signer: FileSigner, tmp_path: Path) -> None:
    wins: list[str] = []

    def compete(number: int) -> None:
        mine = GitRepo(str(bare), tmp_path / f"state{number}")
        won = 0
        while won < 8:
            tip = mine.observe().evidence
            try:
                wins.append(mine.append("lockgate/evidence", tip, [entry(won)], signer)[-1])
                won += 1
            except (Conflict, Unavailable):
                continue
        mine.close()

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = GitRepo.read_only(bare)
    tip = reader.observe().evidence
    assert tip is not None
    assert sorted(c.id for c in reader.first_parents(tip, None)) == sorted(wins)
    assert len(wins) == 32
    reader.close()


def test_git_variables_of_the_caller_do_not_reach_git(monkeypatch: pytest.MonkeyPatch, repo: GitRepo) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -i key")
    found = environment()
    assert not {"GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG_COUNT"} & set(found)
    assert found["GIT_SSH_COMMAND"] == "ssh -i key -o BatchMode=yes"
    assert found["GIT_TERMINAL_PROMPT"] == "0"
    assert repo.observe().main is None


def test_the_cache_survives_a_restart_and_belongs_to_one_version(tmp_path: Path) -> None:
    path = tmp_path / "state" / "blobs.sqlite"
    cache = BlobCache(path, "1")
    values = {f"{index:040x}": b"%d" % index for index in range(2000)}
    assert cache.put_many(values)
    cache.close()
    cache = BlobCache(path, "1")
    assert cache.get_many([*values, "absent"]) == values
    assert cache.get_many([]) == {}
    cache.close()
    newer = BlobCache(path, "2")
    assert newer.get_many(values) == {}
    newer.close()


@pytest.mark.parametrize("spoil", ["noise", "empty", "truncated", "foreign", "absent", "folder"])
def test_a_spoilt_cache_is_rebuilt_or_done_without(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "blobs.sqlite"
    cache = BlobCache(path, "1")
    cache.put_many({f"{index:040x}": b"x" * 200 for index in range(500)})
    cache.close()
    whole = path.read_bytes()
    path.unlink()
    if spoil == "foreign":
        import sqlite3

        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE cache(something)")
        db.close()
    elif spoil == "folder":
        path.mkdir()
    elif spoil != "absent":
        path.write_bytes({"noise": b"noise" * 999, "empty": b"", "truncated": whole[: len(whole) // 2]}[spoil])
    cache = BlobCache(path, "1")
    cache.get_many([f"{index:040x}" for index in range(500)])
    assert cache.put_many({"k": b"v"}) == (spoil != "folder")
    assert cache.get_many(["k"]) == ({} if spoil == "folder" else {"k": b"v"})
    cache.close()


def test_a_full_disk_is_done_without(tmp_path: Path) -> None:
    import resource

    cache = BlobCache(tmp_path / "blobs.sqlite", "1")
    assert cache.put_many({"small": b"1"})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
    try:
        assert not cache.put_many({"large": bytes(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert cache.get_many(["small", "large"]) == {"small": b"1"}
    assert cache.put_many({"large": bytes(1_000_000)})
    cache.close()
