"""From a merge pushed to a local bare origin to the first order recorded, durable and delivered to its agent.

Against it, in the same run: the shell job a team would write (`git fetch`, `skopeo inspect` for each component,
`git commit -S`, `git push`). Prints one JSON object.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from controller.demo.processes import Processes
from controller.demo.stage import COMPONENTS, Stage, release_file, slot_file
from controller.wiring.people import commit_on, merge_branch
from tests.bench.poller import Poller

ROUNDS = 20


def ours(folder: Path, rounds: int, hook: bool) -> list[float]:
    """Seconds of each round: the merge's push → the order in the agent's hands."""
    stage = Stage(folder)
    stage.build(agents=["dev-1"])
    stage.image("1.0.0")
    if hook:
        path = stage.origin / "hooks" / "post-receive"
        path.write_text("#!/bin/sh\ncat >/dev/null\n")
        path.chmod(0o755)
    repo = stage.repo()
    alice, bob = stage.person("alice"), stage.person("bob")
    processes = Processes(stage)
    took: list[float] = []
    try:
        processes.start_controller(poll="60s")
        for name in ("shop-a", "shop-b"):
            commit_on(repo, name, alice, {f"releases/{name}.yaml": release_file(name, "1.0.0")}, "Release")
            merge_branch(repo, name, bob, into="main", message="Merge")
        lock = "releases/shop-b.lock.yaml"
        processes.wait_for(lambda: repo.file(repo.observe().main or "", lock) is not None, "no lock", 20)
        poller = Poller(stage, f"http://{processes.address}", "dev-1", "dev")
        poller.start()
        for n in range(rounds):
            slot = slot_file("dev", "shop-a" if n % 2 else "shop-b", f"round {n}")
            commit_on(repo, f"p{n}", alice, {"promotions/dev.yaml": slot}, "Promote")
            poller.expect()
            merge_branch(repo, f"p{n}", bob, into="main", message="Merge")
            begun = time.perf_counter()
            took.append(poller.wait(20) - begun)
        poller.stop()
    finally:
        processes.stop()
        repo.close()
    return took


def shell(folder: Path, rounds: int) -> list[float]:
    """The shell job, against the same kind of origin."""
    stage = Stage(folder)
    stage.build(agents=["dev-1"])
    stage.image("1.0.0")
    clone = folder / "clone"
    run = lambda *a, **k: subprocess.run(a, check=True, capture_output=True, **k)  # noqa: E731
    run("git", "clone", "-q", str(stage.origin), str(clone))
    key = stage.keys / "controller"
    settings = [
        "-c",
        "gpg.format=ssh",
        "-c",
        f"user.signingkey={key}",
        "-c",
        "user.name=ci",
        "-c",
        "user.email=ci@example.com",
    ]
    repo, alice, bob = stage.repo(), stage.person("alice"), stage.person("bob")
    took = []
    for n in range(rounds):
        commit_on(repo, f"p{n}", alice, {"promotions/dev.yaml": slot_file("dev", "shop", f"round {n}")}, "Promote")
        merge_branch(repo, f"p{n}", bob, into="main", message="Merge")
        begun = time.perf_counter()
        run("git", "-C", str(clone), "fetch", "-q", "origin", "main")
        run("git", "-C", str(clone), "reset", "-q", "--hard", "origin/main")
        digests = {}
        for name in COMPONENTS:
            answer = run("skopeo", "inspect", "--no-tags", f"oci:{stage.images / name}:v1.0.0")
            digests[name] = json.loads(answer.stdout)["Digest"]
        (clone / f"deploy-{n}.json").write_text(json.dumps(digests))
        run("git", "-C", str(clone), "add", f"deploy-{n}.json")
        run("git", "-C", str(clone), *settings, "commit", "-q", "-S", "-m", f"Deploy {n}")
        run("git", "-C", str(clone), "push", "-q", "origin", "HEAD:refs/heads/deployed", "--force")
        took.append(time.perf_counter() - begun)
    repo.close()
    return took


def main() -> dict[str, object]:
    """Measure and return the figures (milliseconds, ratios)."""
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as two,
        tempfile.TemporaryDirectory() as three,
    ):
        a, b, c = ours(Path(one), ROUNDS, False), shell(Path(two), ROUNDS), ours(Path(three), ROUNDS, True)
    ms = lambda values: round(statistics.median(values) * 1000, 1)  # noqa: E731
    return {
        "direct_ms": ms(a),
        "shell_ms": ms(b),
        "ratio_direct": round(statistics.median(a) / statistics.median(b), 3),
        "hooked_ms": ms(c),
        "ratio_hooked": round(statistics.median(c) / statistics.median(b), 3),
        "rounds": ROUNDS,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
