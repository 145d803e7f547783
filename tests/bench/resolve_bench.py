"""500 tags resolved against a local registry server, beside the bare parallel HTTP requests.

Run: python tests/bench/resolve_bench.py [TAGS]. Prints JSON; the bar is a ratio of at most 1.5.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import httpx

from controller.adapters.registries import OciRegistry
from controller.adapters.registries.manifests import ACCEPT
from controller.model.component import Component
from controller.model.intent import Loaded
from controller.model.release import Release
from controller.uses.images import build_layout
from controller.uses.resolve import resolve
from tests.support.registry import RunningRegistry, running_registry

ROUNDS = 5
WORKERS = 16


def documents(host: str, count: int) -> tuple[Loaded[Release], dict[str, Loaded[Component]]]:
    """A release of `count` components by tag, all in one repository."""
    spec = {"repository": f"{host}/api"}
    components = {}
    for number in range(count):
        name = f"c{number:04}"
        document = {"apiVersion": "lockgate.dev/v1", "kind": "Component", "metadata": {"name": name}, "spec": spec}
        components[name] = Loaded(f"components/{name}.yaml", "", "", Component.model_validate(document))
    wanted = {name: {"tag": f"v{number}"} for number, name in enumerate(components)}
    release = Release.model_validate(
        {
            "apiVersion": "lockgate.dev/v1",
            "kind": "Release",
            "metadata": {"name": "all"},
            "spec": {"components": wanted},
        }
    )
    return Loaded("releases/all.yaml", "", "sha256:" + "0" * 64, release), components


def fill(server: RunningRegistry, folder: Path, count: int) -> None:
    """One image pushed by skopeo, then `count` tags with a manifest of their own."""
    build_layout(folder, "api", "v0", {"a": b"x"})
    server.push(folder, "api", "v0")
    url = f"http://{server.host}/v2/api/manifests/"
    with httpx.Client(headers={"Accept": ACCEPT}) as client:
        manifest = client.get(url + "v0").json()
        for number in range(count):
            body = json.dumps({**manifest, "annotations": {"n": str(number)}}).encode()
            headers = {"Content-Type": manifest["mediaType"]}
            client.put(url + f"v{number}", content=body, headers=headers).raise_for_status()


def bare(host: str, count: int) -> float:
    """Seconds for the same GETs with nothing around them, on a new connection pool."""
    with httpx.Client(headers={"Accept": ACCEPT}, trust_env=False) as client:
        started = time.perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            urls = [f"http://{host}/v2/api/manifests/v{number}" for number in range(count)]
            answers = list(pool.map(client.get, urls))
        taken = time.perf_counter() - started
    if any(answer.status_code != 200 for answer in answers):
        raise SystemExit("the registry did not answer every request")
    return taken


def resolved(release: Loaded[Release], components: dict[str, Loaded[Component]]) -> float:
    """Seconds to resolve everything, on a new connection pool."""
    with contextlib.closing(OciRegistry()) as registry:
        started = time.perf_counter()
        lock = resolve(release, components, registry, resolver_version="bench", now=datetime.now(UTC))
        taken = time.perf_counter() - started
    if len({one.digest for one in lock.spec.components.values()}) != len(components):
        raise SystemExit("the lock is wrong")
    return taken


def measure(count: int) -> dict[str, float | int | str]:
    """Medians over alternating rounds, in seconds, and their ratio."""
    with tempfile.TemporaryDirectory() as name, running_registry(Path(name) / "registry") as server:
        fill(server, Path(name) / "images", count)
        release, components = documents(server.host, count)
        runs: list[tuple[Callable[[], float], list[float]]] = [
            (lambda: bare(server.host, count), []),
            (lambda: resolved(release, components), []),
        ]
        for _ in range(ROUNDS + 1):
            for run, times in runs:
                times.append(run())
        bare_median, resolve_median = (statistics.median(times[1:]) for _, times in runs)
        return {
            "measure": "tags resolved against bare parallel requests",
            "tags": count,
            "bare_seconds": round(bare_median, 4),
            "resolve_seconds": round(resolve_median, 4),
            "ratio": round(resolve_median / bare_median, 3),
            "bar": 1.5,
            "registry": server.version,
        }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 500)))
