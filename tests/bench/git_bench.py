"""Figures of the git adapter: `python tests/bench/git_bench.py [COMMITS]`, a throw-away repository."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.model.history import NewCommit

BATCH = 100
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
REF = "lockgate/evidence"


def entry(index: int) -> NewCommit:
    """What a pass records: an envelope in a run folder, a tile, a checkpoint, a cursor, a state file."""
    run = index // 12
    day = EPOCH + timedelta(minutes=run)
    digest = hashlib.sha256(str(index).encode()).hexdigest()
    folder = f"runs/prod/{day:%Y}/{day:%m}/{day:%d}/{run:08d}"
    return NewCommit(
        {
            f"{folder}/evidence/{index:012d}.dsse.json": (digest * 47)[:3000].encode(),
            f"log/tile/0/{index // 256 // 1000:03d}/{index // 256:06d}": digest.encode() * (index % 256 // 8 + 1),
            "log/checkpoint": f"lockgate.invalid/log\n{index}\n{digest}\n".encode(),
            f"open/prod/{run % 7}.json": f'{{"entry":{index}}}'.encode(),
            "state/prod.json": f'{{"entry":{index},"hash":"{digest}"}}'.encode(),
        },
        f"Record entry {index} of run {run}\n\nLockgate-Entry: {index}\n",
        EPOCH + timedelta(seconds=index),
    )


def timed(repo: GitRepo, signer: FileSigner, tip: str | None, start: int, size: int) -> tuple[str, float]:
    """Append `size` entries; (new tip, seconds)."""
    commits = [entry(index) for index in range(start, start + size)]
    begin = time.perf_counter()
    tip = repo.append(REF, tip, commits, signer)[-1]
    return tip, time.perf_counter() - begin


def main(total: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        home = Path(name)
        origin = home / "origin.git"
        subprocess.run(["git", "init", "-q", "--bare", str(origin)], check=True)
        signer = generate_key(home / "key")
        repo = GitRepo(str(origin), home / "state")
        tip: str | None = None
        batches: list[float] = []
        for start in range(0, total, BATCH):
            tip, seconds = timed(repo, signer, tip, start, BATCH)
            batches.append(seconds)
            repo.maintain()
        repo.maintain(wait=True)
        thousand = 1000 // BATCH
        first, last = sum(batches[:thousand]), sum(batches[-thousand:])
        print(
            f"append, batches of {BATCH}: first 1000 {1000 / first:.0f}/s,"
            f" last 1000 of {total} {1000 / last:.0f}/s,"
            f" all {total / sum(batches):.0f}/s, slowest batch {max(batches) * 1000:.0f} ms"
        )
        single: list[float] = []
        for index in range(total, total + 100):
            tip, seconds = timed(repo, signer, tip, index, 1)
            single.append(seconds)
        print(
            f"append of one alone, durable: median {statistics.median(single) * 1000:.2f} ms,"
            f" p90 {sorted(single)[90] * 1000:.2f} ms"
        )
        begin = time.perf_counter()
        for _ in range(1000):
            repo.observe()
        print(f"observe, nothing new: {(time.perf_counter() - begin):.3f} ms")
        repo.close()
        read(home, origin, signer, tip)


def read(home: Path, origin: Path, signer: FileSigner, tip: str | None) -> None:
    """Verify natively and with git on the same repository."""
    assert tip is not None
    repo = GitRepo.read_only(origin)
    begin = time.perf_counter()
    commits = repo.first_parents(tip, None)
    ours = len(commits) / (time.perf_counter() - begin)
    assert all(commit.signature == "good" for commit in commits)
    begin = time.perf_counter()
    for old, new in zip(commits[-2000:], commits[-1999:], strict=False):
        repo.changes(old.id, new.id)
    compared = 1999 / (time.perf_counter() - begin)
    repo.close()
    allowed = home / "allowed"
    allowed.write_text(f'controller@lockgate.invalid namespaces="git" {signer.public_key}\n', encoding="utf-8")
    command = ["git", "-C", str(origin), "-c", f"gpg.ssh.allowedSignersFile={allowed}"]
    begin = time.perf_counter()
    out = subprocess.run(
        [*command, "log", "-300", "--format=%G?", tip], check=True, capture_output=True, text=True
    )
    git = 300 / (time.perf_counter() - begin)
    assert set(out.stdout.split()) == {"G"}
    print(f"read and verify: {ours:.0f}/s, git log --format=%G? {git:.0f}/s, ratio {ours / git:.1f}")
    print(f"changes() between neighbours: {compared:.0f}/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
