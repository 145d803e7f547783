"""Health and figures of a workload: HTTP or command checks, and Prometheus text read into differences.

Series that are read (Prometheus text format 0.0.4,
https://prometheus.io/docs/instrumenting/exposition_formats/):

- `http_requests_total` (or `requests_total`): requests; those whose `code` or `status` label starts with 5
  are errors,
- `http_errors_total` (or `errors_total`): errors, where no requests series has such a label,
- `http_request_duration_seconds_bucket` with `le`: cumulative latency buckets, in seconds.
"""

from __future__ import annotations

import http.client
import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REQUESTS = ("http_requests_total", "requests_total")
ERRORS = ("http_errors_total", "errors_total")
BUCKETS = "http_request_duration_seconds_bucket"
MAX_TEXT = 4 << 20
_LINE = re.compile(r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?\s*$")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')

Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], float]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What happened between two scrapes: counts, and per upper bound (seconds) the requests within it."""

    requests: int = 0
    errors: int = 0
    buckets: Mapping[float, float] | None = None

    def percentile(self, share: float) -> float | None:
        """The latency (seconds) below which `share` of the requests lie; None when not known.

        Linear within a bucket, as Prometheus' histogram_quantile
        (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile): what lies
        beyond the last finite bound is reported as that bound.
        """
        if not self.buckets:
            return None
        bounds = sorted(self.buckets)
        total = self.buckets[bounds[-1]]
        if total <= 0 or not math.isinf(bounds[-1]) or len(bounds) < 2:
            return None
        rank = share * total
        lower = below = 0.0
        for bound in bounds:
            count = self.buckets[bound]
            if count >= rank:
                if math.isinf(bound):
                    return bounds[-2]
                inside = count - below
                return lower + (bound - lower) * ((rank - below) / inside if inside > 0 else 1.0)
            lower, below = bound, count
        return bounds[-2]


def parse_metrics(text: str) -> Iterator[tuple[str, Labels, float]]:
    """The samples of a Prometheus text page; lines that are none are passed over."""
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        labels = tuple(sorted((m[1], m[2]) for m in _LABEL.finditer(found[2] or "")))
        yield found[1], labels, value


def counters(text: str) -> Series:
    """The counter series of a page that this module reads."""
    wanted = {*REQUESTS, *ERRORS, BUCKETS}
    return {(n, labels): v for n, labels, v in parse_metrics(text) if n in wanted and math.isfinite(v)}


def difference(before: Series, after: Series) -> Series:
    """How much each counter grew; one that fell was reset, and counts from zero (as Prometheus' increase)."""
    return {
        key: value - before[key] if key in before and value >= before[key] else value
        for key, value in after.items()
    }


def traffic(grown: Iterable[Series]) -> Traffic:
    """Requests, errors and latency buckets of all workloads of a target together."""
    requests = errors = 0.0
    buckets: dict[float, float] = {}
    for series in grown:
        counted = _first(series, REQUESTS)
        requests += sum(value for _, value in counted)
        by_code = [(dict(labels), value) for labels, value in counted]
        if any("code" in labels or "status" in labels for labels, _ in by_code):
            errors += sum(v for labels, v in by_code if _code(labels).startswith("5"))
        else:
            errors += sum(value for _, value in _first(series, ERRORS))
        for (name, labels), value in series.items():
            if name == BUCKETS and "le" in dict(labels):
                bound = _bound(dict(labels)["le"])
                if bound is not None:
                    buckets[bound] = buckets.get(bound, 0.0) + value
    return Traffic(round(requests), round(errors), buckets or None)


def check_http(port: int, path: str, timeout: float) -> bool:
    """Whether GET on this machine's `port` answers 2xx within `timeout` seconds."""
    answer = _get(port, path, timeout)
    return answer is not None and 200 <= answer[0] < 300


def http_status(port: int, path: str, timeout: float) -> int | None:
    """The status of GET on this machine's `port`; None when nobody answers within `timeout` seconds."""
    answer = _get(port, path, timeout)
    return None if answer is None else answer[0]


def scrape(port: int, path: str, timeout: float) -> Series | None:
    """The counters a workload tells on `port`; None when it does not answer in `timeout` seconds."""
    answer = _get(port, path, timeout)
    if answer is None or not 200 <= answer[0] < 300:
        return None
    return counters(answer[1].decode("utf-8", "replace"))


def check_command(command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> bool:
    """Whether `command` ends with status 0 within `timeout` seconds."""
    try:
        done = subprocess.run(
            list(command),
            cwd=cwd,
            env=dict(env),
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _get(port: int, path: str, timeout: float) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_TEXT)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _first(series: Series, names: tuple[str, ...]) -> list[tuple[Labels, float]]:
    for name in names:
        found = [(labels, value) for (n, labels), value in series.items() if n == name]
        if found:
            return found
    return []


def _code(labels: dict[str, str]) -> str:
    return labels.get("code") or labels.get("status") or ""


def _bound(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
