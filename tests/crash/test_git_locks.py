"""A process killed inside the swap: its lock is cleared, anybody else's stays, and what it wrote is harmless."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import generate_key
from controller.errors import Unavailable
from controller.model.history import NewCommit

AT = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
REF = "lockgate/evidence"
# Ends itself with SIGKILL at the moment of one system call, by Python's own audit events.
VICTIM = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import FileSigner
from controller.model.history import NewCommit

home, event, word = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
repo = GitRepo(str(home / "origin.git"), home / "state")
tip = repo.observe().evidence

def kill(name, arguments):
    if name == event and any(word in str(argument) for argument in arguments):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
commit = NewCommit({"b": b"2"}, "lost", datetime(2026, 5, 4, tzinfo=UTC))
repo.append("lockgate/evidence", tip, [commit], FileSigner(home / "key"))
"""
POINTS = [
    ("os.rename", "tmp_pack_"),
    ("os.rename", ".idx"),
    ("os.mkdir", "lockgate-locks"),
    ("os.link", "evidence.lock"),
    ("os.rename", "evidence.lock"),
    ("os.remove", "lockgate-locks"),
]


@pytest.mark.parametrize(("event", "word"), POINTS, ids=" ".join)
def test_a_killed_append_stops_nobody(tmp_path: Path, event: str, word: str) -> None:
    bare = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    signer = generate_key(tmp_path / "key")
    repo = GitRepo(str(bare), tmp_path / "state")
    tip = None if word == "lockgate-locks" and event == "os.mkdir" else _first(repo, signer)
    repo.close()
    done = subprocess.run([sys.executable, "-c", VICTIM, str(tmp_path), event, word], check=False)
    assert done.returncode == -signal.SIGKILL
    locked = (bare / "refs/heads/lockgate/evidence.lock").exists()
    assert locked == (word == "evidence.lock" and event == "os.rename")
    again = GitRepo(str(bare), tmp_path / "state")
    now = again.observe().evidence
    assert (now == tip) == (event != "os.remove")
    new = again.append(REF, now, [NewCommit({"c": b"3"}, "after", AT)], signer)[-1]
    assert again.observe().evidence == new
    assert not list(bare.rglob("*.lock"))
    subprocess.run(["git", "-C", str(bare), "fsck", "--strict", "--full"], check=True, capture_output=True)
    again.close()


def _first(repo: GitRepo, signer: object) -> str:
    from controller.adapters.git.sshsig import FileSigner

    assert isinstance(signer, FileSigner)
    return repo.append(REF, None, [NewCommit({"a": b"1"}, "first", AT)], signer)[-1]


def test_a_lock_of_somebody_else_stays(tmp_path: Path) -> None:
    bare = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    signer = generate_key(tmp_path / "key")
    repo = GitRepo(str(bare), tmp_path / "state")
    tip = _first(repo, signer)
    lock = bare / "refs/heads/lockgate/evidence.lock"
    lock.touch()
    with pytest.raises(Unavailable) as caught:
        repo.append(REF, tip, [NewCommit({"b": b"2"}, "m", AT)], signer)
    assert (caught.value.code, caught.value.where) == ("ref-locked", str(lock))
    assert lock.exists()
    assert repo.observe().evidence == tip
    lock.unlink()
    repo.append(REF, tip, [NewCommit({"b": b"2"}, "m", AT)], signer)
    repo.close()
