"""A process that has everything imported and compiled and forks a controller whenever it is asked to.

The controllers are real processes, killed by real signals; only what each would prepare anew is saved. Requests
and answers are JSON lines: {"start": settings, "environ": {}, "log": path} → {"pid": n}; {"wait": pid} →
{"status": n} (negative: the signal that ended it).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

LATE = ("anyio._backends._asyncio", "httpcore", "uvicorn.lifespan.off", "uvicorn.protocols.http.auto")
"""What libraries import when they are first used."""


class Forks:
    """The client's side."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.harness.forkserver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )

    def start(self, settings: Mapping[str, Any], environ: Mapping[str, str], log: Path) -> Forked:
        """A controller with these settings."""
        return Forked(self, self._ask(start=dict(settings), environ=dict(environ), log=str(log))["pid"])

    def wait(self, pid: int) -> int:
        return int(self._ask(wait=pid)["status"])

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Forked:
    """One controller."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid = pid
        self._forks = forks
        self._handle = os.pidfd_open(pid)
        self.status: int | None = None

    def ended(self) -> bool:
        """Whether it has ended; its status is then known."""
        if self.status is None and self._ends(0):
            self.status = self._forks.wait(self.pid)
            os.close(self._handle)
        return self.status is not None

    def _ends(self, seconds: float) -> bool:
        """Whether it ends within so long. By poll: select knows no file above 1,024, and a worker of a whole run
        holds more."""
        poller = select.poll()
        poller.register(self._handle, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def send(self, number: int) -> None:
        """Send a signal and go on."""
        signal.pidfd_send_signal(self._handle, number)

    def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        if not self.ended():
            self.send(number)
            self._ends(20)
            assert self.ended(), "the controller does not end"
        assert self.status is not None
        return self.status


def _prepare() -> None:
    """What a controller does at its start and first use of each part; no thread, socket or file is left."""
    for name in ("controller.cli.serve", "controller.wiring.controller", *LATE):
        importlib.import_module(name)
    from pydantic import BaseModel

    from controller.core.artifacts import Templates
    from controller.settings import artifact_templates
    from controller.wiring.controller import open_registry

    kinds: list[type[BaseModel]] = [BaseModel]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("controller."):
            kind.model_rebuild()
    Templates(artifact_templates())
    open_registry(None).close()


def _serve() -> None:
    _prepare()
    # What is there stays where it is: a collection in a fork would copy every page of it.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status)}
        else:
            # A SIGTERM that comes before the controller can be stopped waits until it can.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            pid = os.fork()
            if not pid:
                _become(request)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become(request: dict[str, Any]) -> None:
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    status = 3
    try:
        status = _control(request)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _control(request: dict[str, Any]) -> int:
    from controller import crashpoints
    from controller.cli.serve import _log_to_stderr
    from controller.wiring.controller import Controller, ControllerSettings

    crashpoints.configure(request["environ"])
    values = dict(request["start"])
    for name in ("trust_root", "signing_key", "state_dir", "images"):
        values[name] = Path(values[name])
    _log_to_stderr()
    made = Controller(ControllerSettings(**values, poll=timedelta(seconds=5)))
    signal.signal(signal.SIGTERM, lambda *_: made.stop())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    made.run()
    return 0


if __name__ == "__main__":
    _serve()
