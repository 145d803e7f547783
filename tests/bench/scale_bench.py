"""A controller on a large project: passes over 10,000 documents, and cold starts over 100,000 evidence commits.

`python -m tests.bench.scale_bench [ENTRIES] [DOCUMENTS]` prints one JSON object. The evidence is written by the
ledger itself through the git adapter, in batches of 100, durable at each batch's end; that is measured too.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from controller.model.entry import Draft, SlotChange
from controller.wiring.controller import Controller, ControllerSettings
from tests.support import home as people
from tests.support.home import Home

BATCH = 100
RELEASES = 20
STEP = timedelta(seconds=30)
"""Between entries: 360 runs a day in one environment, which is a lot."""
POLICY = """apiVersion: lockgate.dev/v1
kind: Policy
metadata:
  name: policy-{n:05}
  labels: {{team: team-{team}, purpose: measuring}}
spec:
  description: no critical findings without a waiver, rule number {n}
  level: block
  gate: cel
  rule: "inputs.components.size() > {n}"
  message: "{n} components"
"""


PATHS = [*people.PATHS, {"match": "policies/**", "write": "developers"}]


def build(folder: Path, documents: int) -> Home:
    """A project of that many documents, and of releases that are locked."""
    home = Home(folder, STEP, ("dev-1",), paths=PATHS)
    home.root.save(folder / "trust-root.json")
    private = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (folder / "controller").touch(0o600)
    (folder / "controller").write_bytes(people.private_key("controller").private_bytes(*private))
    for n in range(RELEASES):
        home.release(f"release-{n}")
    files = {f"policies/policy-{n:05}.yaml": POLICY.format(n=n, team=n % 40).encode() for n in range(documents)}
    home.batch([home.accepting(home.commit(people.MAIN, files, "dave", "Many policies"))])
    return home


def settings(folder: Path, state: Path) -> ControllerSettings:
    return ControllerSettings(
        repo=str(folder / "origin.git"),
        trust_root=folder / "trust-root.json",
        signing_key=folder / "controller",
        state_dir=state,
    )


def grow(home: Home, entries: int) -> dict[str, float]:
    """Promote, deploy and seal until the branch has that many entries, many runs in one push; entries a second of
    the first and last thousand, appending alone."""
    waiting: list[Draft] = []
    took: list[float] = []

    def land(env: str, release: str) -> tuple[str, SlotChange]:
        tip = home.promote(env, release)
        waiting.append(home.accepting(tip))
        return tip, waiting[-1].detail.slots[-1]

    def append(drafts: Sequence[Draft]) -> float:
        begun = time.perf_counter()
        home.append(drafts)
        return time.perf_counter() - begun

    home.story.land = land
    run = 0
    while home.ledger.state.cursors.index + len(waiting) < entries:
        while len(waiting) < BATCH:
            waiting += home.story.run("dev", f"release-{run % RELEASES}")
            run += 1
        took.append(append(waiting[:BATCH]))
        del waiting[:BATCH]
        home.repo.maintain()
    append(waiting)
    alone = []
    for n in range(30):
        text = POLICY.format(n=n, team="alone").encode()
        tip = home.commit(people.MAIN, {f"policies/policy-{n:05}.yaml": text}, "dave", "Change a policy")
        alone.append(append([home.accepting(tip)]))
    home.repo.maintain(wait=True)
    per = max(1, 1000 // BATCH)
    first, last = statistics.fmean(took[:per]), statistics.fmean(took[-per:])
    return {
        "append_per_s": round(BATCH / statistics.fmean(took)),
        "append_first_thousand_per_s": round(BATCH / first),
        "append_last_thousand_per_s": round(BATCH / last),
        "append_last_over_first": round(first / last, 2),
        "append_alone_ms": round(statistics.median(alone) * 1000, 1),
    }


def passes(home: Home, folder: Path) -> dict[str, float]:
    """Milliseconds of a pass with nothing new, and of reading and deciding after one changed document."""
    made = Controller(settings(folder, folder / "state-passes"))
    reconciler = made.reconciler
    while not reconciler.reconcile().idle:
        pass
    quiet = [_timed(reconciler.reconcile) for _ in range(200)]
    changed = []
    for n in range(15):
        text = POLICY.format(n=n, team="changed").encode()
        home.commit(people.MAIN, {f"policies/policy-{n:05}.yaml": text}, "dave", "Change a policy")
        tips = reconciler.observe()
        begun = time.perf_counter()
        reconciler.read(tips)
        reconciler.decide(reconciler.world(tips))
        changed.append(time.perf_counter() - begun)
        while not reconciler.reconcile().idle:
            pass
    made.close()
    return {
        "nothing_new_ms": round(statistics.median(quiet) * 1000, 3),
        "one_changed_ms": round(statistics.median(changed) * 1000, 1),
    }


def _timed(act: Any) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def cold(folder: Path, state: Path) -> dict[str, float]:
    """Seconds and resident MB of one fresh process, from before its interpreter starts to after its first pass."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale_bench", "--cold", str(folder), str(state)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    return {"seconds": round(seconds, 2), **json.loads(done.stdout)}


def _cold_process(folder: Path, state: Path) -> None:
    made = Controller(settings(folder, state))
    made.reconciler.reconcile()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    print(json.dumps({"mb": round(resident)}))
    made.close()


def main(entries: int = 100_000, documents: int = 10_000) -> dict[str, Any]:
    """Build, measure, clean up."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-bench-"))
    try:
        home = build(folder, documents)
        figures: dict[str, Any] = {"entries": entries, "documents": documents}
        figures |= grow(home, entries)
        figures |= passes(home, folder)
        home.repo.close()
        empty, cached = folder / "cold", folder / "cold"
        first = cold(folder, empty)
        again = [cold(folder, cached) for _ in range(3)]
        figures["cold_empty_s"] = first["seconds"]
        figures["cold_cached_s"] = statistics.median(one["seconds"] for one in again)
        figures["resident_mb"] = max(one["mb"] for one in (first, *again))
        return figures
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cold"]:
        _cold_process(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(main(*(int(a) for a in sys.argv[1:3])), indent=2))
