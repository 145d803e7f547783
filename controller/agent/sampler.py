"""Samples of health and traffic, one an interval, while the controller asks for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from controller.agent.drivers.process import ProcessDriver, Scraped
from controller.agent.executor import sign_statement
from controller.agent.outbox import Outbox
from controller.agent.probe import Series, difference, traffic
from controller.model.order import Sample, SamplingRequest
from controller.ports import Signer


class Meter:
    """Turns counters into what happened since the last look, service by service.

    A service seen for the first time at the first look counts from there; one that appears later is a new
    process and counts whole. One that does not answer keeps its former figures for the next look.
    """

    def __init__(self) -> None:
        self._before: dict[str, Series] | None = None

    def look(self, scraped: list[Scraped]) -> list[Series]:
        """How much each service's counters grew since the previous look."""
        grown = []
        before = self._before
        for item in scraped:
            if before is not None:
                grown.append(difference(before.get(item.instance, {}), item.series))
        self._before = {**(before or {}), **{item.instance: item.series for item in scraped}}
        return grown

    def forget(self) -> None:
        """Begin anew: the next look only sets the baseline."""
        self._before = None


class Sampler:
    """One thread that sleeps unless sampling is requested."""

    def __init__(
        self,
        *,
        agent: str,
        environment: str,
        driver: ProcessDriver,
        outbox: Outbox,
        signer: Signer,
        now: Callable[[], datetime],
        log: Callable[[str, str], None],
    ) -> None:
        self._log = log
        self._agent = agent
        self._environment = environment
        self._driver = driver
        self._outbox = outbox
        self._signer = signer
        self._now = now
        self._meter = Meter()
        self._condition = threading.Condition()
        self._request: SamplingRequest | None = None
        self._stopping = False
        # Grows over restarts without a file of its own; only order matters, not density.
        self._sequence = int(now().timestamp() * 1000)
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(5)

    def request(self, request: SamplingRequest | None) -> None:
        """Sample as asked from now on; None stops."""
        with self._condition:
            if request != self._request:
                self._request = request
                self._condition.notify_all()

    def _run(self) -> None:
        due = 0.0
        active: SamplingRequest | None = None
        while True:
            with self._condition:
                while not self._stopping and self._request is None:
                    active = None
                    self._condition.wait()
                if self._stopping:
                    return
                request: Any = self._request
                if active is not None:
                    self._condition.wait(max(0.0, due - time.monotonic()))
                    if self._request is None or self._stopping or time.monotonic() < due:
                        continue
                    request = self._request
            if active is None:
                self._meter.forget()
                self._meter.look(self._driver.scrape())
                due = time.monotonic()
            else:
                try:
                    self._sample(request)
                except Exception as error:
                    # A missing sample is unknown to the controller, and so it is; an ended thread would be worse.
                    self._log("sample-failed", repr(error))
            active = request
            due = max(due + request.interval_seconds, time.monotonic())

    def _sample(self, request: SamplingRequest) -> None:
        healthy = self._driver.healthy()
        seen = traffic(self._meter.look(self._driver.scrape()))
        self._sequence += 1
        sample = Sample(
            agent=self._agent,
            environment=self._environment,
            run=request.run,
            stage=request.stage,
            sequence=self._sequence,
            at=self._now(),
            healthy=healthy,
            requests=seen.requests,
            errors=seen.errors,
            latency_p50=seen.percentile(0.5),
            latency_p95=seen.percentile(0.95),
            latency_p99=seen.percentile(0.99),
            manifest_digest=self._driver.manifest_digest,
        )
        digest, envelope = sign_statement(sample, self._signer)
        self._outbox.add(digest, envelope, report=False)
