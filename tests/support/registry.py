"""A real registry server (Debian's docker-registry) on a free port, with its own folder."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.components import used

SECRET = "correct-horse-battery"
LOGIN = ("puller", SECRET)

PROGRAM = "docker-registry"
READY_SECONDS = 15.0


@dataclass(frozen=True)
class RunningRegistry:
    """Where a started registry listens ("127.0.0.1:port") and what it says of itself."""

    host: str
    version: str
    user: str = ""
    password: str = ""
    log: Path = Path()

    def reads(self) -> int:
        """How often a manifest was read since the start."""
        return self.log.read_text(errors="replace").count("GET /v2/")

    def push(self, images: Path, name: str, tag: str, *, to: str | None = None) -> str:
        """Copy an image of a layout to this registry with skopeo; returns the repository it is in."""
        repository = f"{self.host}/{to or name}"
        login = ["--dest-creds", f"{self.user}:{self.password}"] if self.user else []
        skopeo(
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            *login,
            f"oci:{images / name}:{tag}",
            f"docker://{repository}:{tag}",
        )
        return repository


@functools.cache
def _skopeo_version() -> str:
    return subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=True).stdout


def skopeo(*arguments: str) -> str:
    """Run skopeo and return what it prints; its own message is in the error."""
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"skopeo {arguments[0]}: {done.stderr}")
    used("skopeo", _skopeo_version())
    return done.stdout


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_registry(folder: Path, *, user: str = "", password: str = "") -> Iterator[RunningRegistry]:
    """Start a registry that stores below `folder`; with a user it asks for basic authentication."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "config.yml"
    config.write_text(_config(folder, port, user, password))
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    used("docker-registry", version)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(config)], stdout=log, stderr=log)
    try:
        _wait(process, port, folder / "log")
        yield RunningRegistry(f"127.0.0.1:{port}", version, user, password, folder / "log")
    finally:
        process.terminate()
        process.wait(10)


def _config(folder: Path, port: int, user: str, password: str) -> str:
    lines = [
        "version: 0.1",
        "log: {level: warn}",
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '127.0.0.1:{port}', secret: throw-away}}",
    ]
    if user:
        file = folder / "htpasswd"
        subprocess.run(
            ["htpasswd", "-Bbc", str(file), user, password], check=True, capture_output=True, timeout=20
        )
        lines.append(f"auth: {{htpasswd: {{realm: registry, path: {file}}}}}")
    return "\n".join(lines) + "\n"


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(f"the registry did not start: {log.read_text()[-2000:]}")


class FakePace:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.extra = 0.0

    def now(self) -> datetime:
        return datetime(2026, 2, 19, 2, 0, tzinfo=UTC) + timedelta(seconds=sum(self.slept) + self.extra)

    def monotonic(self) -> float:
        return sum(self.slept) + self.extra

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
