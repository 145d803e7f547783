"""The shop's service: what the demo's images hold. Runs by itself, with the standard library only.

It answers every path, tells Prometheus what it did at /metrics and whether it is well at /healthz. A version
whose FLAW is "load" is healthy, and answers 500 as soon as more than a few requests a second come in: what no
health check in a quiet environment can see.
"""

from __future__ import annotations

import http.server
import os
import socketserver
import threading
import time

VERSION = os.environ.get("SHOP_VERSION", "0")
FLAW = os.environ.get("SHOP_FLAW", "")
BUSY = 5.0
"""Requests a second above which the flawed version fails."""
BOUNDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0)


class Figures:
    """Counters since the start, as Prometheus text."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answers = {200: 0, 500: 0}
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.recent: list[float] = []

    def busy(self) -> bool:
        now = time.monotonic()
        with self.lock:
            self.recent = [at for at in self.recent if now - at < 1.0]
            self.recent.append(now)
            return len(self.recent) > BUSY

    def count(self, code: int, seconds: float) -> None:
        with self.lock:
            self.answers[code] += 1
            self.buckets[next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] += 1

    def text(self) -> str:
        with self.lock:
            lines = ["# TYPE http_requests_total counter"]
            lines += [f'http_requests_total{{code="{code}"}} {n}' for code, n in self.answers.items()]
            lines.append("# TYPE http_request_duration_seconds histogram")
            total = 0
            for bound, n in zip((*map(str, BOUNDS), "+Inf"), self.buckets, strict=True):
                total += n
                lines.append(f'http_request_duration_seconds_bucket{{le="{bound}"}} {total}')
            return "\n".join(lines) + "\n"


FIGURES = Figures()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/healthz":
            return self._answer(200, "well\n")
        if self.path == "/metrics":
            return self._answer(200, FIGURES.text())
        begun = time.monotonic()
        code = 500 if FLAW == "load" and FIGURES.busy() else 200
        self._answer(code, f"shop {VERSION}\n")
        FIGURES.count(code, time.monotonic() - begun)
        return None

    def _answer(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the figures are the log."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Without the look-up of this host's name that HTTPServer makes."""

    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT_HTTP"])), Handler).serve_forever()
