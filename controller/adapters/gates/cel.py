"""CEL gates, asked of a worker process that is killed when a question costs too much."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

SECONDS = 2.0
"""Wall time of one question, the worker's start not included."""
LENGTH = 4096
"""Characters of a rule or variable."""


class CelWorker:
    """One worker, started when first asked and again after every kill. Thread-safe; questions queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question's payload {config, inputs}.

        Exceeding time, memory or length is {"error": "cost-exceeded"}, which the core records as FAIL.
        """
        config = payload["config"]
        if any(len(text) > LENGTH for text in (config["rule"], *config.get("variables", {}).values())):
            return {"error": "cost-exceeded", "message": f"the rule is longer than {LENGTH} characters"}
        line = json.dumps(payload).encode() + b"\n"
        with self._lock:
            try:
                return self._ask(line)
            except (OSError, ValueError):
                self._kill()
                return {"error": "cost-exceeded", "message": "the rule ended its worker process"}

    def warm(self) -> None:
        """Start the worker now, beside whatever the caller does next."""

        def start() -> None:
            with self._lock, contextlib.suppress(OSError, ValueError):
                self._running()

        threading.Thread(target=start, name="cel-warm", daemon=True).start()

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._kill()

    def _ask(self, line: bytes) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        deadline = time.monotonic() + SECONDS
        chunks: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not (chunks and chunks[-1].endswith(b"\n")):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._kill()
                    return {"error": "cost-exceeded", "message": f"no answer within {SECONDS:g} seconds"}
                chunk = process.stdout.read1(65536)  # type: ignore[attr-defined]
                if not chunk:
                    raise OSError("the worker ended")
                chunks.append(chunk)
        answer: dict[str, Any] = json.loads(b"".join(chunks))
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "controller.adapters.gates.cel_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            # The first answer waits for the interpreter's start; only questions are timed.
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(b'{"config": {"rule": "true"}, "inputs": {}}\n')
            self._process.stdin.flush()
            self._process.stdout.readline()
        return self._process

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            self._process = None
