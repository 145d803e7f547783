"""Prometheus text into counts and percentiles; resets, restarts and bad pages."""

from __future__ import annotations

import http.server
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.agent.drivers.process import Scraped
from controller.agent.probe import (
    Traffic,
    check_command,
    check_http,
    counters,
    difference,
    parse_metrics,
    scrape,
    traffic,
)
from controller.agent.sampler import Meter

PAGE = """
# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{code="200",path="/a\\"b,c"} 90 1700000000000
http_requests_total{ code = "503" , } 10
http_request_duration_seconds_bucket{le="0.1"} 50
http_request_duration_seconds_bucket{le="0.5"} 90
http_request_duration_seconds_bucket{le="+Inf"} 100
process_open_fds 5
nonsense
broken{le="0.1" 5
"""


def test_reads_the_series_it_names() -> None:
    series = counters(PAGE)
    assert len(series) == 5
    seen = traffic([series])
    assert (seen.requests, seen.errors) == (100, 10)
    assert seen.buckets == {0.1: 50, 0.5: 90, math.inf: 100}


def test_labels_may_hold_anything() -> None:
    ((name, labels, value),) = parse_metrics('m{a="x,\\"y\\\\",b="}"} 1e3')
    assert (name, dict(labels), value) == ("m", {"a": 'x,\\"y\\\\', "b": "}"}, 1000.0)


@pytest.mark.parametrize(
    ("page", "requests", "errors"),
    [
        ('http_requests_total{status="500"} 2\nhttp_requests_total{status="404"} 3', 5, 2),
        ("http_requests_total 7\nhttp_errors_total 2", 7, 2),
        ("requests_total 7\nerrors_total 1", 7, 1),
        ('http_requests_total{code="200"} 7\nhttp_errors_total 3', 7, 0),
        ('http_requests_total{code="200"} NaN', 0, 0),
        ("", 0, 0),
    ],
)
def test_errors_are_5xx_or_a_counter_of_their_own(page: str, requests: int, errors: int) -> None:
    seen = traffic([counters(page)])
    assert (seen.requests, seen.errors) == (requests, errors)


def test_a_counter_that_fell_was_reset() -> None:
    before, after = counters("http_requests_total 100"), counters("http_requests_total 3")
    assert traffic([difference(before, after)]).requests == 3
    assert traffic([difference(after, before)]).requests == 97
    assert traffic([difference({}, before)]).requests == 100


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.05), (0.5, 0.1), (0.7, 0.3), (0.9, 0.5), (0.99, 0.5)])
def test_percentiles_are_linear_within_a_bucket(share: float, expected: float) -> None:
    assert traffic([counters(PAGE)]).percentile(share) == pytest.approx(expected)


@pytest.mark.parametrize("buckets", [None, {}, {math.inf: 5.0}, {0.1: 0.0, math.inf: 0.0}, {0.1: 5.0, 0.2: 5.0}])
def test_a_percentile_without_figures_is_unknown(buckets: dict[float, float] | None) -> None:
    assert Traffic(5, 0, buckets).percentile(0.5) is None


@given(st.text(max_size=300))
def test_no_page_breaks_the_reader(text: str) -> None:
    seen = traffic([counters(text), counters(PAGE + text)])
    assert seen.requests >= 0


def test_a_meter_begins_at_the_first_look_and_counts_new_processes_whole() -> None:
    meter = Meter()
    hundred, hundred_and_five, three = (counters(f"http_requests_total {n}") for n in (100, 105, 3))
    assert traffic(meter.look([Scraped("api/1", hundred)])).requests == 0
    assert traffic(meter.look([Scraped("api/1", hundred_and_five)])).requests == 5
    assert traffic(meter.look([Scraped("api/2", three)])).requests == 3
    assert traffic(meter.look([])).requests == 0
    assert traffic(meter.look([Scraped("api/2", hundred)])).requests == 97
    meter.forget()
    assert traffic(meter.look([Scraped("api/2", hundred_and_five)])).requests == 0


@pytest.fixture
def port() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 503)
            self.end_headers()
            self.wfile.write(PAGE.encode() + b"\xff\xfe")

        def log_message(self, *_: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_health_over_http(port: int) -> None:
    assert check_http(port, "/metrics", 2)
    assert not check_http(port, "/healthz", 2)
    series = scrape(port, "/metrics", 2)
    assert series is not None
    assert traffic([series]).requests == 100


def test_nobody_listening_is_unhealthy() -> None:
    assert not check_http(1, "/", 0.5)
    assert scrape(1, "/", 0.5) is None


@pytest.mark.parametrize(
    ("command", "healthy"),
    [
        (["true"], True),
        (["false"], False),
        (["no-such-program"], False),
        (["sleep", "5"], False),
        (["test", "-n", "$A"], True),
    ],
)
def test_health_by_command(tmp_path: Path, command: list[str], healthy: bool) -> None:
    env = {"PATH": "/usr/bin:/bin", "A": "1"}
    assert check_command(command, tmp_path, env, 0.3) is healthy
