"""The agent: one process on one target that dials the controller, carries out orders and tells what it sees."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from controller.adapters.git import sshsig
from controller.adapters.signers import CertifiedSigner, open_signer
from controller.agent.admission import Admission
from controller.agent.approved import Approved
from controller.agent.client import Client, Talk
from controller.agent.clock import ControllerTime
from controller.agent.drivers.process import ProcessDriver
from controller.agent.drivers.versions import Versions
from controller.agent.executor import Executor
from controller.agent.journal import Journal
from controller.agent.keyring import Keyring, Walk
from controller.agent.logbook import Logbook
from controller.agent.outbox import Outbox
from controller.agent.sampler import Sampler
from controller.core.chain import Chain, walk_states
from controller.errors import LockgateError, Stalled
from controller.model.order import Delivery
from controller.model.trustroot import TrustRoot
from controller.ports import Signer

if TYPE_CHECKING:
    from controller.agent.puller import Puller

POLL_SECONDS = 25.0
FORGET_AFTER = timedelta(days=7)
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7"}


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent is started with.

    `allow` are patterns of image repositories, empty allows all; `docker_config` a file that `docker login`
    wrote; `certificate` the file in which an authority certifies the key; `insecure` registries ("host:port")
    spoken to by plain http; `poll_seconds` how long a poll is held;
    `witnesses` how many other agents must have cosigned the log before an order counts, whatever it says itself;
    `approvals` how many people must have approved what is deployed, whatever the environment asks for.
    """

    trust_root: Path
    name: str
    environment: str
    key: str | Path
    controller: str
    directory: Path
    images: Path | None = None
    allow: tuple[str, ...] = ()
    platform: str = ""
    docker_config: Path | None = None
    insecure: tuple[str, ...] = ()
    poll_seconds: float = POLL_SECONDS
    stop_services: bool = False
    certificate: Path | None = None
    witnesses: int = 0
    approvals: int = 0


def run_agent(settings: AgentSettings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status.

    Services go on running unless `stop_services` is set; the next start adopts them. Raises Stalled when
    another agent has the directory, Invalid for settings, keys and state files that do not read.
    """
    agent = Agent(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # By a thread: a handler could interrupt the wait below just while it holds the event's own lock.
        signal.signal(number, lambda *_: threading.Thread(target=stop.set, daemon=True).start())
    agent.start()
    stop.wait()
    agent.stop()
    return 0


class Agent:
    """The parts of one agent, put together. `start` returns at once; `stop` takes at most a few seconds.

    `own` reads this machine's clock.
    """

    def __init__(self, settings: AgentSettings, own: Callable[[], datetime] | None = None) -> None:
        self._settings = settings
        own = own or _now
        time_here = ControllerTime(own, time.monotonic, log)
        directory = settings.directory
        directory.mkdir(parents=True, exist_ok=True)
        self._held = _lock(directory)
        self._directory = directory.resolve()
        signer = _signer(settings)
        root = TrustRoot.load(settings.trust_root)
        self._keyring = Keyring(_walk_from(root), own)
        logbook = Logbook(self._directory, root, settings.name, signer, self._keyring.keys, own)
        self._journal = journal = Journal(self._directory / "journal.jsonl", forget_before=own() - FORGET_AFTER)
        approved = Approved(
            self._directory,
            root,
            self._keyring,
            own,
            lambda order: journal.line(order) is not None,
            settings.approvals,
            lambda order, why: journal.refuse(order, why.code, str(why), own()),
        )
        admission = Admission(logbook, settings.witnesses, self._keyring.declared, approved)
        self._outbox = Outbox()
        versions = Versions(self._directory, self._puller, settings.platform or this_platform())
        self._driver = ProcessDriver(self._directory, versions, log)
        self._executor = Executor(
            directory=self._directory,
            journal=self._journal,
            driver=self._driver,
            outbox=self._outbox,
            signer=signer,
            now=time_here.now,
            log=log,
            allow=settings.allow,
        )
        self._sampler = Sampler(
            agent=settings.name,
            environment=settings.environment,
            driver=self._driver,
            outbox=self._outbox,
            signer=signer,
            now=time_here.now,
            log=log,
        )

        def client() -> Client:
            return Client(
                agent=settings.name,
                environment=settings.environment,
                url=settings.controller,
                signer=signer,
                keyring=self._keyring,
                logbook=logbook,
                admission=admission,
                now=own,
                heard=time_here.heard,
                obstacle=lambda: self._outbox.obstacle,
            )

        self._talk = Talk(client, self._outbox, log, self._handle, settings.poll_seconds)
        self._worker = threading.Thread(target=self._executor.run, name="executor", daemon=True)
        self._complaints: set[str] = set()

    def start(self) -> None:
        """Adopt services, resume orders, and dial."""
        self._driver.start()
        self._executor.resume()
        self._worker.start()
        self._sampler.start()
        self._talk.start()
        log("agent-started", f"{self._settings.name} in {self._settings.environment}, pid {os.getpid()}")

    def stop(self) -> None:
        """Hang up; an order in hand is resumed at the next start."""
        self._executor.stop()
        self._talk.stop()
        self._sampler.stop()
        self._worker.join(1)
        self._driver.close(stop_services=self._settings.stop_services)
        self._journal.close()
        os.close(self._held)

    def _handle(self, client: Client, delivery: Delivery) -> None:
        self._executor.acknowledged(delivery.acknowledged)
        self._sampler.request(delivery.sampling)
        for envelope in delivery.orders:
            try:
                self._executor.take(client.order(envelope, delivery), envelope)
            except LockgateError as error:
                self._complain(error)

    def _complain(self, error: LockgateError) -> None:
        """Say each refusal once: a refused order is offered again with every poll."""
        text = str(error)
        if text not in self._complaints:
            if len(self._complaints) > 1000:
                self._complaints.clear()
            self._complaints.add(text)
            log(error.code, text)

    def _puller(self) -> Puller:
        # The HTTP stack is loaded only by an agent that pulls: idle agents stay small.
        from controller.adapters.registries import Registries
        from controller.adapters.registries.oci import Limits, OciRegistry
        from controller.adapters.registries.oci_auth import docker_config_credentials
        from controller.agent.puller import Puller

        # The executor tries again by itself, and looks in between whether the order still stands.
        limits = Limits(attempts=1)
        config = self._settings.docker_config
        insecure = frozenset(self._settings.insecure)
        if config is None:
            oci = OciRegistry(insecure=insecure, limits=limits)
        else:
            oci = OciRegistry(insecure=insecure, limits=limits, credentials=docker_config_credentials(config))
        registries = Registries(oci=oci, images_dir=self._settings.images)
        return Puller(registries, self._directory / "store")


def _signer(settings: AgentSettings) -> Signer:
    if settings.certificate is not None:
        return CertifiedSigner(settings.key, settings.certificate)
    return open_signer(settings.key)


def this_platform() -> str:
    """This machine in OCI's words, such as linux/amd64."""
    machine = platform.machine()
    return f"linux/{_MACHINES.get(machine, machine)}"


def log(code: str, message: str) -> None:
    """One JSON line to standard error."""
    line = {"at": _now().isoformat(timespec="milliseconds"), "code": code, "message": message}
    sys.stderr.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stderr.flush()


def _now() -> datetime:
    return datetime.now(UTC)


def _walk_from(root: TrustRoot) -> Walk:
    return lambda data: walk_states(root, Chain.loads(data).links, sshsig.verify)


def _lock(directory: Path) -> int:
    """Hold the directory: two agents on one target would fight over its services."""
    fd = os.open(directory / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        raise Stalled(
            "directory-taken",
            "another agent runs on this directory",
            where=str(directory),
            got=f"process {holder}" if holder else "a process",
            cure="stop that agent, or give this one its own --dir",
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
