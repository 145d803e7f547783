"""A real agent's talk without its work: polls, notes when an order arrives, reports success at once."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

from controller.demo.stage import Stage
from controller.errors import LockgateError
from controller.ledger import dsse
from controller.ledger.canonical import canonical, digest
from controller.model.order import PLAN, ComponentState, Order, Report, statement_of
from controller.model.trustroot import TrustRoot
from tests.support.logs import client_of


class Poller:
    """Polls for one agent in a thread of its own."""

    def __init__(self, stage: Stage, url: str, agent: str, environment: str) -> None:
        from controller.adapters.git.keys import FileSigner

        root = TrustRoot.load(stage.trust_root)
        self._signer = FileSigner(stage.keys / agent)
        self._client = client_of(
            root,
            stage.agents / agent,
            self._signer,
            agent=agent,
            environment=environment,
            url=url,
            now=self._now,
        )
        self._agent = agent
        self._unsent: dict[str, dict[str, Any]] = {}
        self._done: set[str] = set()
        self._sequence = 0
        self._arrived = threading.Event()
        self._at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._client.close()

    def expect(self) -> None:
        """Forget earlier arrivals."""
        self._arrived.clear()

    def wait(self, seconds: float) -> float:
        """When the next deploy order arrived, on time.perf_counter's clock."""
        if not self._arrived.wait(seconds):
            raise TimeoutError("no order arrived")
        return self._at

    @staticmethod
    def _now() -> datetime:
        return datetime.now(UTC)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                delivery = self._client.poll(20, list(self._unsent.values()))
            except LockgateError:
                self._stop.wait(0.05)
                continue
            for sha in delivery.acknowledged:
                self._unsent.pop(sha, None)
            for envelope in delivery.orders:
                order = self._client.order(envelope, delivery)
                if order.id not in self._done:
                    self._done.add(order.id)
                    if order.action == "deploy":
                        self._at = time.perf_counter()
                        self._arrived.set()
                    self._report(order)

    def _report(self, order: Order) -> None:
        self._sequence += 1
        now = self._now()
        report = Report(
            order=order.id,
            run=order.run,
            stage=order.stage,
            attempt=order.attempt,
            target=order.target,
            action=order.action,
            sequence=self._sequence,
            status="succeeded",
            code="ok",
            message="done",
            release=order.release,
            manifest_digest=order.manifest_digest,
            plan=order.artifacts.get(PLAN),
            components={n: ComponentState(digest=c.digest, running=True) for n, c in order.components.items()},
            healthy=True,
            started=now,
            finished=now,
        )
        data = dsse.sign(canonical(statement_of(report)), dsse.STATEMENT_PAYLOAD, self._signer)
        self._unsent[digest(data)] = json.loads(data)
