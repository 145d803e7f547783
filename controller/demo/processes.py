"""The story's processes: one controller, the agents, each its own; and the load that customers make."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from controller.demo.stage import Stage
from controller.errors import Unavailable

LOCKGATE = (sys.executable, "-P", "-m", "controller")
"""Never what happens to lie in the current folder."""


class Processes:
    """Starts processes and ends exactly those, by id."""

    def __init__(self, stage: Stage, environ: Mapping[str, str] | None = None) -> None:
        self.stage = stage
        self.repo = str(stage.origin)
        """The origin as the controller is told of it."""
        self.address = f"127.0.0.1:{free_port()}"
        self._environ = {**os.environ, **(environ or {})}
        self.controller: subprocess.Popen[bytes] | None = None
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def start_controller(
        self, environ: Mapping[str, str] | None = None, poll: str = "5s", options: Iterable[str] = ()
    ) -> None:
        """Start the controller; returns when it listens."""
        stage = self.stage
        command = [
            *LOCKGATE,
            *("--repo", self.repo, "controller", "--trust-root", str(stage.trust_root)),
            *("--signing-key", str(stage.keys / "controller"), "--state-dir", str(stage.state)),
            *("--listen", self.address, "--images", str(stage.images), "--poll", poll, *options),
        ]
        self.controller = self._start(command, stage.folder / "controller.log", environ)
        self.wait_for(self._listens, "the controller does not listen", 20)

    def start_agents(self, agents: Mapping[str, str]) -> None:
        """Start agents: name → environment."""
        for name, environment in agents.items():
            self.start_agent(name, environment)

    def start_agent(
        self, name: str, environment: str, environ: Mapping[str, str] | None = None, options: Iterable[str] = ()
    ) -> None:
        """Start one agent; its services end with it."""
        stage = self.stage
        folder = stage.agents / name
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            *LOCKGATE,
            *("agent", "--trust-root", str(stage.trust_root), "--name", name, "--environment", environment),
            *("--key", str(stage.keys / name), "--controller", f"http://{self.address}"),
            *("--dir", str(folder), "--images", str(stage.images), "--stop-services", *options),
        ]
        self.agents[name] = self._start(command, folder / "agent.log", environ)

    def stop(self) -> None:
        """End what was started: agents first, so that their services end with them."""
        started = [*self.agents.values(), *([self.controller] if self.controller else [])]
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until `ready()`. Raises Unavailable naming what did not happen."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.controller is not None and self.controller.poll() is not None:
                log = (self.stage.folder / "controller.log").read_text()[-500:]
                raise Unavailable("demo-failed", f"the controller ended ({self.controller.returncode})", got=log)
            if time.monotonic() > deadline:
                raise Unavailable("demo-failed", what, expected=f"within {seconds:g} s", got="nothing")
            time.sleep(0.02)

    def endpoint(self, agent: str, component: str) -> str | None:
        """Where an agent's service listens now, as it published it."""
        try:
            published = json.loads((self.stage.agents / agent / "endpoints.json").read_bytes())
        except (OSError, ValueError):
            return None
        return endpoint_of(published, component)

    def _listens(self) -> bool:
        host, _, port = self.address.partition(":")
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex((host, int(port))) == 0

    def _start(self, command: list[str], log: Path, environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**self._environ, **(environ or {})},
            )


class Load:
    """Customers: a steady rate of real requests at every service of the named agents, until stopped."""

    def __init__(
        self, processes: Processes, agents: Iterable[str], component: str = "api", rate: float = 10.0
    ) -> None:
        self._processes = processes
        self._agents = tuple(agents)
        self._component = component
        self._pause = 1.0 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: dict[int, int] = {}

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            for agent in self._agents:
                where = self._processes.endpoint(agent, self._component)
                code = request(f"{where}/") if where else 0
                self.answers[code] = self.answers.get(code, 0) + 1
            self._stop.wait(max(0.0, self._pause - (time.monotonic() - begun)))


def request(address: str) -> int:
    """One request's status; 0 when nobody answered."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310 - our own services
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def free_port() -> int:
    """A port of the loopback address that nobody has right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def endpoint_of(published: Mapping[str, object], component: str) -> str | None:
    """The http address of a component in an agent's endpoints.json."""
    found = published.get(component)
    if isinstance(found, Mapping):
        port = found.get("http")
        if isinstance(port, int):
            return f"http://127.0.0.1:{port}"
    return None
