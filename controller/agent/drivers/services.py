"""What runs on this target, written down: the services file, and the endpoints that load generators read."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller.agent.drivers import processes
from controller.agent.drivers.processes import Proc
from controller.agent.files import point_link, write_atomic
from controller.agent.probe import Series, check_command, check_http, scrape
from controller.errors import Invalid
from controller.model.component import Run

PROBE_SECONDS = 2.0
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """One running workload: what it is, and which process it is."""

    component: str
    digest: str
    platform_digest: str | None
    directory: str
    command: tuple[str, ...]
    env: dict[str, str]
    run: dict[str, Any]
    variables: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    pid: int = 0
    start: int = 0

    @property
    def proc(self) -> Proc:
        return Proc(self.pid, self.start)

    def alive(self) -> bool:
        return processes.alive(self.proc)

    def same_workload(self, other: Service) -> bool:
        """Whether both run the same bytes in the same way, whatever their ports and processes."""
        return (self.digest, self.run, self.variables) == (other.digest, other.run, other.variables)

    def spec(self) -> Run:
        """The Component document's `spec.run`."""
        return Run.model_validate(self.run)

    def grace(self) -> float:
        return seconds(self.spec().stop_timeout, STOP_SECONDS)

    def healthy(self) -> bool:
        """Alive, and its health check (if any) says so."""
        health = self.spec().health
        if not self.alive():
            return False
        if health is None:
            return True
        timeout = seconds(health.timeout, PROBE_SECONDS)
        if health.http is not None:
            port = self.port(health.port)
            if port is None or not check_http(port, health.http, timeout):
                return False
        if health.command is not None:
            return check_command(health.command, Path(self.directory), self.environment(), timeout)
        return True

    def scrape(self) -> Series | None:
        """Its counters; None when it tells none or does not answer."""
        metrics = self.spec().metrics
        port = self.port(metrics.port) if metrics is not None else None
        if metrics is None or port is None:
            return None
        return scrape(port, metrics.http, PROBE_SECONDS)

    def port(self, name: str | None) -> int | None:
        """The real port of a named one; unnamed: `http`, otherwise the first."""
        if name is not None:
            return self.ports.get(name)
        return self.ports.get("http", next(iter(self.ports.values()), None))

    def environment(self) -> dict[str, str]:
        """The process's whole environment: its own, and where its ports really are."""
        env = dict(self.env)
        for name, port in self.ports.items():
            env[f"PORT_{re.sub(r'[^A-Z0-9]', '_', name.upper())}"] = str(port)
        default = self.port(None)
        if default is not None:
            env["PORT"] = str(default)
        return env


@dataclass(frozen=True, slots=True)
class Services:
    """The target as a whole. Replacing it on disk is the moment of the switch."""

    current: dict[str, Service] = field(default_factory=dict)
    candidates: dict[str, Service] = field(default_factory=dict)
    retiring: tuple[Service, ...] = ()
    first: dict[str, Service] = field(default_factory=dict)
    done: tuple[str, ...] = ()
    """Migrations that ran here to a good end, as "component@digest"."""
    release: str | None = None
    manifest_digest: str | None = None
    order: str | None = None

    def healthy(self) -> bool | None:
        """Whether every service is; None when nothing is there to be asked."""
        return all(service.healthy() for service in self.current.values()) if self.current else None


class ServicesFile:
    """The services file, symlinks and endpoints of one agent's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "services.json"

    def read(self) -> Services:
        """What was written last; raises Invalid("services-corrupt")."""
        try:
            raw = json.loads(self._path.read_bytes())
            return Services(
                current=_services(raw["current"]),
                candidates=_services(raw["candidates"]),
                retiring=tuple(_service(value) for value in raw["retiring"]),
                first=_services(raw["first"]),
                done=tuple(raw["done"]),
                release=raw["release"],
                manifest_digest=raw["manifest_digest"],
                order=raw["order"],
            )
        except FileNotFoundError:
            return Services()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(
                "services-corrupt",
                "the agent's record of its services is damaged",
                where=str(self._path),
                cure="stop what still runs by hand, then remove the file; the next order starts anew",
            ) from error

    def write(self, services: Services) -> None:
        """Replace it, durably."""
        data = json.dumps(asdict(services), sort_keys=True, separators=(",", ":"))
        write_atomic(self._path, data.encode())

    def publish(self, services: Services) -> None:
        """Make `current/<component>` and endpoints.json say what the services file says."""
        links = self._directory / "current"
        links.mkdir(exist_ok=True)
        for name, service in services.current.items():
            point_link(links / name, f"../versions/{name}/{short(service.digest)}")
        for link in links.iterdir():
            if link.is_symlink() and link.name not in services.current and not link.name.startswith("."):
                link.unlink()
        endpoints = {name: service.ports for name, service in sorted(services.current.items())}
        data = json.dumps(endpoints, sort_keys=True).encode() + b"\n"
        path = self._directory / "endpoints.json"
        if not path.exists() or path.read_bytes() != data:
            write_atomic(path, data)


def short(digest: str) -> str:
    """The version directory's name for a digest: its first twelve hex digits."""
    return digest.removeprefix("sha256:")[:12]


def seconds(value: timedelta | None, default: float) -> float:
    """A duration in seconds, or the default."""
    return default if value is None else value.total_seconds()


def started(service: Service, proc: Proc) -> Service:
    """The service with the process that runs it."""
    return replace(service, pid=proc.pid, start=proc.start)


def _services(raw: dict[str, Any]) -> dict[str, Service]:
    return {name: _service(value) for name, value in raw.items()}


def _service(raw: dict[str, Any]) -> Service:
    return Service(**{**raw, "command": tuple(raw["command"])})
