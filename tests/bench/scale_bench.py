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
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller.adapters.git.repo import GitRepo
from controller.demo.stage import Stage
from controller.ledger import append, log
from controller.model.entry import Draft
from controller.model.trustroot import TrustRoot
from controller.wiring.controller import Controller, ControllerSettings
from controller.wiring.people import commit_on, merge_branch
from tests.support.evidence import Story

BATCH = 100
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


def build(folder: Path, documents: int) -> tuple[Stage, TrustRoot]:
    """A project of that many documents."""
    stage = Stage(folder)
    root = stage.build(agents=["dev-1"])
    stage.image("1.0.0")
    repo = stage.repo()
    files = {f"policies/policy-{n:05}.yaml": POLICY.format(n=n, team=n % 40).encode() for n in range(documents)}
    commit_on(repo, "many", stage.person("alice"), files, "Many policies")
    merge_branch(repo, "many", stage.person("bob"), into="main", message="Merge branch 'many'")
    repo.close()
    return stage, root


def settings(stage: Stage, state: Path) -> ControllerSettings:
    return ControllerSettings(
        repo=str(stage.origin),
        trust_root=stage.trust_root,
        signing_key=stage.keys / "controller",
        state_dir=state,
        images=stage.images,
    )


def grow(stage: Stage, root: TrustRoot, entries: int) -> dict[str, float]:
    """Append runs until the branch has that many entries; entries a second of the first and last thousand."""
    signer = stage.person("controller").signer
    assert signer is not None
    repo = GitRepo(str(stage.origin), stage.state)
    origin = log.origin_of(root.project, root.genesis)
    tips = repo.observe()
    story = Story(genesis=root.genesis, step=STEP)
    story.main = tips.main or root.genesis
    refs = {"main": root.refs.main, "requests": root.refs.requests, "evidence": root.refs.evidence}
    ledger = append.Ledger()
    waiting: list[Draft] = [append.genesis_draft(root.project, root.genesis, refs, story.at)]
    waiting.append(story.accepted(story.main))
    for n in range(20):
        waiting.append(story.lock(f"release-{n}"))
    took: list[float] = []
    written = number = 0
    while written < entries:
        while len(waiting) < BATCH:
            waiting += story.run("dev", f"release-{number % 20}")
            number += 1
        some, waiting = waiting[:BATCH], waiting[BATCH:]
        begun = time.perf_counter()
        prepared = append.prepare(ledger, some, signer, origin)
        ledger = append.write(repo, prepared, ledger.commit, signer)
        took.append(time.perf_counter() - begun)
        written += len(some)
        repo.maintain()
    while waiting and ledger.chains:  # end the open run, so that a start finds nothing to do
        prepared = append.prepare(ledger, waiting[:1], signer, origin)
        waiting = waiting[1:]
        ledger = append.write(repo, prepared, ledger.commit, signer)
    alone = []
    for _ in range(30):
        some = [story.accepted(story.main)]
        begun = time.perf_counter()
        prepared = append.prepare(ledger, some, signer, origin)
        ledger = append.write(repo, prepared, ledger.commit, signer)
        alone.append(time.perf_counter() - begun)
    repo.maintain(wait=True)
    repo.close()
    per = max(1, 1000 // BATCH)
    first, last = statistics.fmean(took[:per]), statistics.fmean(took[-per:])
    return {
        "append_per_s": round(BATCH / statistics.fmean(took)),
        "append_first_thousand_per_s": round(BATCH / first),
        "append_last_thousand_per_s": round(BATCH / last),
        "append_last_over_first": round(first / last, 2),
        "append_alone_ms": round(statistics.median(alone) * 1000, 1),
    }


def passes(stage: Stage) -> dict[str, float]:
    """Milliseconds of a pass with nothing new, and of reading and deciding after one changed document."""
    made = Controller(settings(stage, stage.folder / "state-passes"))
    repo, alice, bob = stage.repo(), stage.person("alice"), stage.person("bob")
    while not made.reconciler.reconcile().idle:
        pass
    quiet = [_timed(made.reconciler.reconcile) for _ in range(200)]
    changed = []
    for n in range(15):
        text = POLICY.format(n=n, team="changed").encode()
        commit_on(repo, f"change-{n}", alice, {f"policies/policy-{n:05}.yaml": text}, "Change a policy")
        merge_branch(repo, f"change-{n}", bob, into="main", message="Merge")
        reconciler = made.reconciler
        tips = reconciler.observe()
        begun = time.perf_counter()
        reconciler.read(tips)
        reconciler.decide(reconciler.world(tips))
        changed.append(time.perf_counter() - begun)
        while not reconciler.reconcile().idle:
            pass
    made.close()
    repo.close()
    return {
        "nothing_new_ms": round(statistics.median(quiet) * 1000, 3),
        "one_changed_ms": round(statistics.median(changed) * 1000, 1),
    }


def _timed(act: Any) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def cold(stage: Stage, state: Path) -> dict[str, float]:
    """Seconds and resident MB of one fresh process, from before its interpreter starts to after its first pass."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.scale_bench", "--cold", str(stage.folder), str(state)],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    return {"seconds": round(seconds, 2), **json.loads(done.stdout)}


def _cold_process(folder: Path, state: Path) -> None:
    made = Controller(settings(Stage(folder), state))
    made.reconciler.reconcile()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    print(json.dumps({"mb": round(resident)}))
    made.close()


def main(entries: int = 100_000, documents: int = 10_000) -> dict[str, Any]:
    """Build, measure, clean up."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-bench-"))
    try:
        stage, root = build(folder, documents)
        figures: dict[str, Any] = {"entries": entries, "documents": documents}
        figures |= grow(stage, root, entries)
        figures |= passes(stage)
        empty, cached = folder / "cold", folder / "cold"
        first = cold(stage, empty)
        again = [cold(stage, cached) for _ in range(3)]
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
