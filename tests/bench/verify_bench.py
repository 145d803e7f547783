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

from tests.bench.cache_bench import RELEASES, STEP, grow
from tests.support.home import Home

STOCK = 1000
"""Commits that the stock tool checks; its time a commit is what is compared."""


def ours(origin: Path, root_path: Path, cores: int) -> dict[str, Any]:
    """The command as a user runs it, on that many cores: its answer, and the seconds from start to end."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "controller", "--repo", str(origin), "-o", "json"]
    done = subprocess.run(
        [*command, "verify", "--no-cache", "--trust-root", str(root_path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, set(range(cores))),
    )
    seconds = time.perf_counter() - begun
    answer: dict[str, Any] = json.loads(done.stdout)
    return {**answer, "seconds": seconds}


def stock(origin: Path, key: str, folder: Path) -> float:
    """Seconds a commit of `git log --format=%G?` on the newest commits."""
    allowed = folder / "allowed"
    allowed.write_text(f"controller {key}\n")
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
        home = Home(folder, step=STEP)
        for n in range(RELEASES):
            home.release(f"release-{n}")
        root = folder / "trust-root.json"
        home.root.save(root)
        grow(home, entries)
        home.repo.maintain(wait=True)
        home.repo.close()
        one, two = ours(home.origin, root, 1), ours(home.origin, root, 2)
        each = stock(home.origin, home.controller.public_key, folder)
        return {
            "entries": one["entries"],
            "one_core_per_s": round(one["entries"] / one["seconds"]),
            "two_cores_per_s": round(two["entries"] / two["seconds"]),
            "git_per_s": round(1 / each),
            "ratio_one_core": round(each * one["entries"] / one["seconds"], 1),
            "ratio_two_cores": round(each * two["entries"] / two["seconds"], 1),
            "finding_codes": sorted({finding["code"] for finding in one["findings"]}),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    print(json.dumps(main(*(int(a) for a in sys.argv[1:2])), indent=2))
