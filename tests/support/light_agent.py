"""An agent in a thread: the real protocol, journal, executor and sampler over a driver without processes.

What it carries out it appends to a file first, so that an order carried out twice shows. It outlives the
controllers it talks to, and its folder outlives it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.adapters.git import sshsig
from controller.adapters.git.keys import FileSigner
from controller.agent import client as talking
from controller.agent import outbox as sending
from controller.agent.admission import Admission
from controller.agent.approved import Approved
from controller.agent.client import Client, Talk
from controller.agent.drivers.process import Scraped
from controller.agent.executor import Executor
from controller.agent.files import write_atomic
from controller.agent.journal import Journal
from controller.agent.keyring import Keyring
from controller.agent.logbook import Logbook
from controller.agent.outbox import Outbox
from controller.agent.sampler import Sampler
from controller.core.chain import Chain, walk_states
from controller.errors import LockgateError
from controller.model.order import ComponentState, Delivery, Order
from controller.model.trustroot import TrustRoot

talking.FIRST_DELAY, talking.LAST_DELAY = 0.02, 0.04
sending.RESEND_SECONDS = 0.1
"""A controller that was killed is back within a moment here: agents do not wait long before they dial again, nor
before they send again what it had not acknowledged."""
_OK, _BAD = (("http_requests_total", (("code", code),)) for code in ("200", "500"))


class LightDriver:
    """Keeps what would run in a file. A release in `flawed` answers every request with an error."""

    def __init__(self, directory: Path, flawed: Collection[str]) -> None:
        self._file = directory / "running.json"
        self._log = directory / "executions.log"
        self._flawed = flawed
        self._served = 0
        self._state: dict[str, Any] = {}
        if self._file.exists():
            self._state = json.loads(self._file.read_bytes())

    def deploy(self, order: Order, _seconds: float, steps: Any) -> dict[str, ComponentState]:
        """Run the order's components, in name."""
        steps.check()
        with self._log.open("a") as log:
            log.write(f"{order.id}\n")
        for state in ("pulled", "unpacked"):
            steps.advance(state)
        self._state = {
            "release": order.release,
            "manifest": order.manifest_digest,
            "digests": {name: component.digest for name, component in order.components.items()},
        }
        write_atomic(self._file, json.dumps(self._state).encode())
        steps.advance("switched")
        return self.running()

    def states(self, order: Order) -> dict[str, ComponentState]:
        """The order's components as they are here."""
        return {name: state for name, state in self.running().items() if name in order.components}

    def running(self) -> dict[str, ComponentState]:
        """Everything that is here."""
        digests = self._state.get("digests", {})
        return {name: ComponentState(digest=digest, running=True) for name, digest in digests.items()}

    def services(self) -> dict[str, Any]:
        """No process runs here, so a strategy's own checks have nothing to ask."""
        return {}

    @property
    def manifest_digest(self) -> str | None:
        return self._state.get("manifest")

    def healthy(self) -> bool | None:
        """Healthy once anything runs."""
        return True if self._state else None

    def scrape(self) -> list[Scraped]:
        """One request more than at the last look."""
        self._served += 1
        kind = _BAD if self._state.get("release") in self._flawed else _OK
        return [Scraped(f"api/{self._state.get('release')}", {kind: float(self._served)})]


class LightAgent:
    """One agent over `directory`; `stop` leaves everything as it is for the next one."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str,
        environment: str,
        key: Path,
        trust_root: Path,
        url: str,
        flawed: Collection[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name, self.directory = name, directory
        signer, root = FileSigner(key), TrustRoot.load(trust_root)
        keyring = Keyring(lambda data: walk_states(root, Chain.loads(data).links, sshsig.verify), _now)
        self.journal = Journal(directory / "journal.jsonl")
        self._outbox = Outbox()
        driver: Any = LightDriver(directory, flawed)
        shared: dict[str, Any] = {"driver": driver, "outbox": self._outbox, "signer": signer}
        shared |= {"now": _now, "log": self._log}
        self._executor = Executor(directory=directory, journal=self.journal, **shared)
        self._sampler = Sampler(agent=name, environment=environment, **shared)
        talk: dict[str, Any] = {"agent": name, "environment": environment, "url": url, "signer": signer}
        logbook = Logbook(directory, root, name, signer, keyring.keys, _now)
        journal = self.journal
        approved = Approved(
            directory,
            root,
            keyring,
            _now,
            lambda order: journal.line(order) is not None,
            refused=lambda order, why: journal.refuse(order, why.code, str(why), _now()),
        )
        talk |= {"logbook": logbook, "admission": Admission(logbook, 0, keyring.declared, approved)}
        self._talk = Talk(
            lambda: Client(keyring=keyring, now=_now, **talk), self._outbox, self._log, self._handle, 5.0
        )
        self._worker = threading.Thread(target=self._executor.run, daemon=True)
        self.said: list[str] = []

    def start(self) -> None:
        """Dial."""
        self._executor.resume()
        self._worker.start()
        self._sampler.start()
        self._talk.start()

    def stop(self) -> None:
        """Hang up."""
        self._executor.stop()
        self._talk.stop()
        self._sampler.stop()
        self._worker.join(5)
        self.journal.close()

    def _handle(self, client: Client, delivery: Delivery) -> None:
        self._executor.acknowledged(delivery.acknowledged)
        self._sampler.request(delivery.sampling)
        for envelope in delivery.orders:
            try:
                self._executor.take(client.order(envelope, delivery), envelope)
            except LockgateError as error:
                self._log(error.code, str(error))

    def _log(self, code: str, message: str) -> None:
        self.said.append(f"{code}: {message}")


def _now() -> datetime:
    return datetime.now(UTC)
