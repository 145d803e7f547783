"""The performance table: `python -m tests.bench [NAME…]`, with `bench-results.json` beside it.

Every ratio is taken against a stock tool in the same run. Bars are those of the project's goals; a figure
that misses its bar is shown, never hidden, and the exit status stays 0: speed is reported, not tested.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import cache_bench, latency_bench, resolve_bench, scale_bench, verify_bench

RESULTS = Path("bench-results.json")

SUITES: dict[str, Callable[[], dict[str, Any]]] = {
    "latency": latency_bench.main,
    "scale": scale_bench.main,
    "verify": verify_bench.main,
    "verify_cached": cache_bench.main,
    "resolve": lambda: dict(resolve_bench.measure(500)),
}

Row = tuple[str, str, str, str, Callable[[Any], bool]]
ROWS: tuple[Row, ...] = (
    ("latency", "ratio_direct", "merge → order delivered / shell job", "≤ 0.5", lambda v: v <= 0.5),
    ("latency", "ratio_hooked", "the same, origin written by git push", "≤ 1", lambda v: v <= 1),
    ("scale", "nothing_new_ms", "pass with nothing new, 10,000 documents, ms", "≤ 2", lambda v: v <= 2),
    ("scale", "one_changed_ms", "pass after one changed document, ms", "≤ 50", lambda v: v <= 50),
    ("scale", "append_per_s", "evidence appended in batches of 100, /s", "≥ 400", lambda v: v >= 400),
    ("scale", "append_alone_ms", "one entry alone, durable, ms", "≤ 20", lambda v: v <= 20),
    ("scale", "append_last_over_first", "last thousand of 100,000 / first", "≥ 0.8", lambda v: v >= 0.8),
    ("verify", "ratio_one_core", "verify against git log %G?, one core", "≥ 15 ×", lambda v: v >= 15),
    ("verify", "ratio_two_cores", "verify against git log %G?, two cores", "≥ 30 ×", lambda v: v >= 30),
    ("verify_cached", "signature_over_bare", "CPU a signature / bare Ed25519 check", "≤ 2", lambda v: v <= 2),
    (
        "verify_cached",
        "anew_resident_mb",
        "largest process of verify, 100,000 entries, MB",
        "≤ 300",
        lambda v: v <= 300,
    ),
    ("verify_cached", "cached_s", "verify after 100 new entries, cached, s", "≤ 0.6", lambda v: v <= 0.6),
    ("scale", "cold_cached_s", "cold start, 100,000 entries, cache kept, s", "≤ 2", lambda v: v <= 2),
    ("scale", "cold_empty_s", "cold start, empty state directory, s", "≤ 8", lambda v: v <= 8),
    ("scale", "resident_mb", "resident after the cold start, MB", "≤ 200", lambda v: v <= 200),
    ("resolve", "ratio", "500 tags resolved / bare HTTP in parallel", "≤ 1.5", lambda v: v <= 1.5),
)


def main(names: list[str]) -> None:
    """Run the named suites (all by default), print the table, write the JSON."""
    results: dict[str, Any] = {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "git": subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.strip(),
            "load": os.getloadavg()[0],
        }
    }
    for name in names or list(SUITES):
        begun = time.monotonic()
        results[name] = SUITES[name]()
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    width = max(len(row[2]) for row in ROWS)
    for suite, key, title, bar, good in ROWS:
        if suite in results and key in results[suite]:
            value = results[suite][key]
            print(f"{title:<{width}}  {value:>9}  {bar:<7} {'✓' if good(value) else '✗'}")
    print(f"every figure: {RESULTS}")


if __name__ == "__main__":
    main(sys.argv[1:])
