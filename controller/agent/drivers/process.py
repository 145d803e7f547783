"""The process driver: images' files in version directories, their commands as supervised local processes.

A deploy starts the new services beside the old ones, asks their health, and only then switches: one atomic
replacement of services.json. What follows (links, endpoints, stopping the old) is derived from that file and
repeated after a crash. Until the switch the old services run untouched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from controller.agent.drivers import processes
from controller.agent.drivers.launch import environment, failed, resolve, safe_name
from controller.agent.drivers.processes import Proc
from controller.agent.drivers.services import Service, Services, ServicesFile, started
from controller.agent.drivers.supervisor import Supervisor
from controller.agent.drivers.versions import Version, Versions
from controller.agent.probe import Series
from controller.crashpoints import reached
from controller.errors import LockgateError, Unavailable
from controller.model.component import Run
from controller.model.order import ComponentState, Order, OrderComponent

START_SECONDS = 60.0
"""How long a new service may take to become healthy, unless the order's deadline comes first."""
SETTLE_SECONDS = 0.15
"""How long a service without a health check must live to count as started."""
ATTEMPTS = 3
"""A start that fails at once is repeated with other ports: a free port may be taken by a stranger."""
_FIRST_ROLES = ("init", "migration")


class Steps(Protocol):
    """Told as an order comes along, so that the journal knows how far it came."""

    def note(self, text: str) -> None:
        """A line of the order's log."""
        ...

    def advance(self, state: str) -> None:
        """`pulled`, `unpacked` or `switched` is reached."""
        ...

    def ran(self, component: str) -> None:
        """An init or migration component ended well."""
        ...

    def has_run(self, component: str) -> bool:
        """Whether it did so already, under this order."""
        ...

    def check(self, *, committed: bool = False) -> None:
        """Asked while waiting: raises when the order is not worth going on with.

        With `committed` (a migration runs, and must not be torn off) only when the agent itself stops.
        """
        ...


@dataclass(frozen=True, slots=True)
class Scraped:
    """One service's counters; `instance` changes when its process does."""

    instance: str
    series: Series


class ProcessDriver:
    """Runs what orders say under `directory`; one deploy at a time."""

    def __init__(self, directory: Path, versions: Versions, log: Callable[[str, str], None]) -> None:
        self._directory = directory
        self._versions = versions
        self._log = log
        self._file = ServicesFile(directory)
        self._lock = threading.RLock()
        self._services = self._file.read()
        self._supervisor = Supervisor(self._restart, self._crashed)

    # -- doors -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over after a restart of the agent: finish a switch, end half-started services, adopt the rest."""
        with self._lock:
            self._drop_candidates()
            self._finish_switch()
        self._supervisor.start()

    def close(self, *, stop_services: bool) -> None:
        """Stop supervising; with `stop_services` end the services too."""
        self._supervisor.stop()
        if stop_services:
            stop_all(self._directory)

    def deploy(self, order: Order, seconds: float, steps: Steps) -> dict[str, ComponentState]:
        """Make this target run exactly the order's components within `seconds`.

        Raises what pulling raises (digest-mismatch, …), Refused("init-failed"), Refused("start-failed"),
        Refused("unhealthy"); the services that ran before then still run.
        """
        until = time.monotonic() + seconds
        steps.check()
        versions = self._fetch(order, until, steps)
        with self._lock:
            if self._services.order != order.id:
                self._run_first(order, versions, until, steps)
                wanted = {
                    name: self._service(name, component, versions[name], order.variables)
                    for name, component in order.components.items()
                    if component.role not in _FIRST_ROLES
                }
                fresh = self._start_candidates(wanted, until, steps)
                self._switch(order, wanted, fresh)
            steps.advance("switched")
            self._finish_switch()
            reached("agent-stop-after")
        self._versions.prune({name: service.digest for name, service in self._services.current.items()})
        return self.states(order)

    def states(self, order: Order) -> dict[str, ComponentState]:
        """Each component of the order as it is here now."""
        current = self._services.current
        found = {}
        for name, component in order.components.items():
            service = current.get(name)
            if component.role in _FIRST_ROLES:
                version = self._versions.find(name, component.digest)
                platform = version.platform_digest if version else None
                found[name] = ComponentState(digest=component.digest, platform_digest=platform, running=False)
            elif service is not None:
                found[name] = ComponentState(
                    digest=service.digest, platform_digest=service.platform_digest, running=service.alive()
                )
            else:
                found[name] = ComponentState(digest=component.digest, running=False)
        return found

    def running(self) -> dict[str, ComponentState]:
        """Every service that is here, ordered or not."""
        return {
            name: ComponentState(digest=s.digest, platform_digest=s.platform_digest, running=s.alive())
            for name, s in self._services.current.items()
        }

    def services(self) -> Mapping[str, Service]:
        """The services that run now, by component."""
        return self._services.current

    @property
    def manifest_digest(self) -> str | None:
        """The release's manifest digest that was switched to last."""
        return self._services.manifest_digest

    def healthy(self) -> bool | None:
        """Whether every service is healthy; None without services."""
        return self._services.healthy()

    def scrape(self) -> list[Scraped]:
        """The counters of every service that tells them."""
        found = []
        for name, service in self._services.current.items():
            series = service.scrape()
            if series is not None:
                found.append(Scraped(f"{name}/{service.pid}/{service.start}", series))
        return found

    # -- steps of a deploy -----------------------------------------------------------------------------

    def _fetch(self, order: Order, until: float, steps: Steps) -> dict[str, Version]:
        def check() -> None:
            steps.check()
            if time.monotonic() >= until:
                raise Unavailable(
                    "pull-late",
                    "the images do not come in time",
                    where=f"order {order.id}",
                    expected="all of them before the deadline",
                    got="a download that goes on",
                    cure="give the stage a later deadline, or check the registry and the network",
                )

        reached("agent-pull-before")
        images = {}
        for name, component in order.components.items():
            images[name] = self._versions.pull(name, component, check)
            steps.note(f"pulled {component.repository}@{component.digest}")
        reached("agent-pull-after")
        steps.advance("pulled")
        reached("agent-unpack-before")
        found = {
            name: self._versions.unpack(name, component, images[name])
            for name, component in order.components.items()
        }
        reached("agent-unpack-after")
        steps.advance("unpacked")
        return found

    def _run_first(self, order: Order, versions: Mapping[str, Version], until: float, steps: Steps) -> None:
        """Init and migration components, one after the other, to their end."""
        names = [n for role in _FIRST_ROLES[::-1] for n, c in order.components.items() if c.role == role]
        for name in names:
            component = order.components[name]
            mark = f"{name}@{component.digest}"
            if steps.has_run(name) or (component.role == "migration" and mark in self._services.done):
                steps.note(f"{name} ran here before")
                continue
            self._run_once(order, self._service(name, component, versions[name], order.variables), until, steps)
            done = self._services.done if component.role == "init" else (*self._services.done, mark)
            first = {k: v for k, v in self._services.first.items() if k != name}
            self._write(replace(self._services, first=first, done=done))
            steps.ran(name)
            steps.note(f"{name} ended with status 0")

    def _run_once(self, order: Order, service: Service, until: float, steps: Steps) -> None:
        """Run to the end; one that was under way when the agent died is waited for, not started again."""
        name = service.component
        work = self._directory / "work"
        work.mkdir(exist_ok=True)
        status = work / f"{name}.{safe_name(order.id)}.status"
        before = self._services.first.get(name)
        if before is None or not (status.exists() or before.alive()) or before.env != service.env:
            status.unlink(missing_ok=True)
            before = self._spawn(
                service, lambda s: replace(self._services, first={**self._services.first, name: s}), status
            )
        while not processes.wait(before.proc, min(0.25, until - time.monotonic())):
            steps.check(committed=True)
            if time.monotonic() < until:
                continue
            processes.stop(before.proc, 1.0)
            raise failed("init-failed", name, "an end before the deadline", "still running", self._tail(name))
        try:
            code = status.read_text().strip()
        except FileNotFoundError:
            code = "killed"
        status.unlink(missing_ok=True)
        if code != "0":
            raise failed("init-failed", name, "exit status 0", f"status {code}", self._tail(name))

    def _start_candidates(self, wanted: Mapping[str, Service], until: float, steps: Steps) -> dict[str, Service]:
        """Start what differs from what runs, and wait until all of it is healthy."""
        reached("agent-start-before")
        self._drop_candidates()
        fresh: dict[str, Service] = {}
        kept: dict[str, Service] = {}
        try:
            for name, service in wanted.items():
                current = self._services.current.get(name)
                if current is not None and current.same_workload(service) and current.alive():
                    kept[name] = current
                    continue
                fresh[name] = self._start_healthy(service, until, steps)
                steps.note(f"started {name} as process {fresh[name].pid} on {fresh[name].ports}")
            # What depends on something that is replaced now may be sick until it is: nothing waits for that.
            for name, current in kept.items() if not fresh else ():
                if not self._stays(current, until, steps):
                    fresh[name] = self._start_healthy(wanted[name], until, steps)
                    steps.note(f"started {name} again as process {fresh[name].pid} on {fresh[name].ports}")
        except (LockgateError, OSError):
            self._drop_candidates()
            raise
        reached("agent-start-after")
        return fresh

    def _stays(self, service: Service, until: float, steps: Steps) -> bool:
        """Whether a service that is ordered again lives on. One that has just been started gets the rest of a new
        one's time to become healthy; one that stays sick is kept, and the report says how it is."""
        left = START_SECONDS - processes.age(service.proc)
        if left > 0 and not service.healthy():
            self._becomes_healthy(service, service.spec(), min(until, time.monotonic() + left), steps)
        return service.alive()

    def _drop_candidates(self) -> None:
        """End what was started and never switched to."""
        if self._services.candidates:
            for service in self._services.candidates.values():
                processes.stop(service.proc, service.grace())
            self._write(replace(self._services, candidates={}))

    def _start_healthy(self, service: Service, until: float, steps: Steps) -> Service:
        spec = service.spec()
        for attempt in range(1, ATTEMPTS + 1):
            ports = processes.free_ports(list(spec.ports))
            candidate = self._spawn(replace(service, ports=ports), self._with_candidate)
            if self._becomes_healthy(candidate, spec, min(until, time.monotonic() + START_SECONDS), steps):
                return candidate
            lived = candidate.alive()
            processes.stop(candidate.proc, candidate.grace())
            if lived:
                raise failed(
                    "unhealthy", service.component, "a good health check", "none", self._tail(service.component)
                )
            if attempt == ATTEMPTS or time.monotonic() > until:
                break
        raise failed(
            "start-failed", service.component, "a process that lives", "it ended", self._tail(service.component)
        )

    def _becomes_healthy(self, service: Service, spec: Run, until: float, steps: Steps) -> bool:
        pause = 0.02
        begun = time.monotonic()
        while service.alive() and time.monotonic() < until:
            steps.check()
            settled = spec.health is not None or time.monotonic() - begun >= SETTLE_SECONDS
            if settled and service.healthy():
                return True
            if processes.wait(service.proc, pause):
                return False
            pause = min(pause * 1.5, 0.25)
        return False

    def _switch(self, order: Order, wanted: Mapping[str, Service], fresh: Mapping[str, Service]) -> None:
        """The one moment at which the target changes over: an atomic, durable replacement of one file."""
        reached("agent-switch-before")
        old = self._services
        current = {name: fresh.get(name) or old.current[name] for name in wanted}
        kept = {service.proc for service in current.values()}
        self._write(
            Services(
                current=current,
                retiring=(*old.retiring, *(s for s in old.current.values() if s.proc not in kept)),
                done=old.done,
                release=order.release,
                manifest_digest=order.manifest_digest,
                order=order.id,
            )
        )
        reached("agent-switch-after")

    def _finish_switch(self) -> None:
        """Everything that follows from the services file; safe to repeat."""
        self._file.publish(self._services)
        self._supervisor.watch({name: service.proc for name, service in self._services.current.items()})
        if self._services.retiring:
            for service in self._services.retiring:
                processes.stop(service.proc, service.grace())
            self._write(replace(self._services, retiring=()))

    # -- processes -------------------------------------------------------------------------------------

    def _service(
        self, name: str, component: OrderComponent, version: Version, variables: Mapping[str, str]
    ) -> Service:
        run = Run.model_validate(component.run or {})
        command = tuple(run.command or version.command)
        if not command:
            raise failed("start-failed", name, "a command in the component or its image", "none", "")
        return Service(
            component=name,
            digest=component.digest,
            platform_digest=version.platform_digest,
            directory=str(version.workdir),
            command=resolve(command, version.rootfs),
            env=environment(version, run, variables, name),
            run=component.run or {},
            variables=dict(variables),
        )

    def _spawn(
        self, service: Service, record: Callable[[Service], Services], status: Path | None = None
    ) -> Service:
        made: list[Service] = []

        def remember(proc: Proc) -> None:
            made.append(started(service, proc))
            self._write(record(made[0]))

        try:
            processes.spawn(
                service.command,
                cwd=Path(service.directory),
                env=service.environment(),
                log=self._log_file(service.component),
                record=remember,
                status_file=status,
            )
        except OSError as error:
            raise failed("start-failed", service.component, "a process that starts", str(error), "") from error
        return made[0]

    def _with_candidate(self, service: Service) -> Services:
        return replace(self._services, candidates={**self._services.candidates, service.component: service})

    def _crashed(self, name: str, delay: float) -> None:
        self._log("service-ended", f"{name} ended; it starts again in {delay:.1f} s")

    def _restart(self, name: str) -> None:
        """Start a crashed service again, on its former ports when they are free. On the supervisor's thread."""
        with self._lock:
            service = self._services.current.get(name)
            if service is None or service.alive():
                return
            ports = processes.free_ports(list(service.ports), service.ports)
            try:
                self._spawn(
                    replace(service, ports=ports),
                    lambda s: replace(self._services, current={**self._services.current, name: s}),
                )
                self._finish_switch()
            except (LockgateError, OSError) as error:
                self._log("restart-failed", f"{name}: {error}")
                # Watched as dead, it comes up for another start later.
                self._supervisor.watch({n: s.proc for n, s in self._services.current.items()})

    def _write(self, services: Services) -> None:
        self._file.write(services)
        self._services = services

    def _log_file(self, name: str) -> Path:
        return self._directory / "logs" / f"{name}.log"

    def _tail(self, name: str) -> str:
        try:
            return self._log_file(name).read_bytes()[-400:].decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""


def stop_all(directory: Path) -> None:
    """End every process that the agent of `directory` recorded, by pid and start time; no agent may run."""
    file = ServicesFile(directory)
    services = file.read()
    everything: Sequence[Service] = (
        *services.current.values(),
        *services.candidates.values(),
        *services.first.values(),
        *services.retiring,
    )
    for service in everything:
        processes.stop(service.proc, service.grace())
