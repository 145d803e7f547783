"""Verification of evidence with its envelopes, against `git log --format=%G?` over the same commits.

`python -m tests.bench.verify_bench [ENTRIES]` prints one JSON object. One core by CPU affinity, then both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from controller.adapters.git import sshsig
from controller.model.trustroot import TrustRoot
from controller.uses.verify import verify
from controller.wiring.controller import open_repo
from tests.bench.scale_bench import build, grow

STOCK = 1000
"""Commits that the stock tool checks; its time a commit is what is compared."""


def ours(origin: Path, root_path: Path, cores: int) -> dict[str, Any]:
    """Entries a second of one fresh process on that many cores, its start included."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.verify_bench", "--one", str(origin), str(root_path), str(cores)],
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["seconds"] = time.perf_counter() - begun
    return answer


def _one(origin: str, root_path: str, cores: int) -> None:
    os.sched_setaffinity(0, set(range(cores)))
    root = TrustRoot.load(Path(root_path))
    repo = open_repo(origin, root)
    report = verify(repo, root, verify_ssh=sshsig.verify)
    codes = sorted({f.code for f in report.findings})
    print(json.dumps({"entries": report.entries, "findings": codes}))


def stock(origin: Path, keys: Path, folder: Path) -> float:
    """Seconds a commit of `git log --format=%G?` on the newest commits."""
    allowed = folder / "allowed"
    public = (keys / "controller.pub").read_text().split()
    allowed.write_text(f"controller {public[0]} {public[1]}\n")
    begun = time.perf_counter()
    subprocess.run(
        [
            "git",
            "-C",
            str(origin),
            "-c",
            f"gpg.ssh.allowedSignersFile={allowed}",
            "log",
            "-n",
            str(STOCK),
            "--format=%G?",
            "lockgate/evidence",
        ],
        capture_output=True,
        check=True,
    )
    return (time.perf_counter() - begun) / STOCK


def main(entries: int = 10_000) -> dict[str, Any]:
    """Build, measure, clean up."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-bench-"))
    try:
        stage, root = build(folder, 10)
        grow(stage, root, entries)
        one, two = ours(stage.origin, stage.trust_root, 1), ours(stage.origin, stage.trust_root, 2)
        each = stock(stage.origin, stage.keys, folder)
        return {
            "entries": one["entries"],
            "one_core_per_s": round(one["entries"] / one["seconds"]),
            "two_cores_per_s": round(two["entries"] / two["seconds"]),
            "git_per_s": round(1 / each),
            "ratio_one_core": round(each * one["entries"] / one["seconds"], 1),
            "ratio_two_cores": round(each * two["entries"] / two["seconds"], 1),
            "finding_codes": one["findings"],
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        print(json.dumps(main(*(int(a) for a in sys.argv[1:2])), indent=2))
