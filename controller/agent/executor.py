"""Carries orders out, one at a time: journal, driver, sticker, signed report. Every step may be repeated."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import json
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from controller.adapters.signers import signing_now
from controller.agent.checks import run_checks
from controller.agent.drivers.launch import safe_name
from controller.agent.drivers.process import ProcessDriver
from controller.agent.journal import Journal
from controller.agent.outbox import Outbox
from controller.agent.sticker import read_sticker, sticker_for, write_sticker
from controller.crashpoints import reached
from controller.errors import LockgateError, Refused, Unavailable
from controller.ledger import dsse
from controller.ledger.canonical import canonical, digest, parse
from controller.model.keys import key_id
from controller.model.link import LinkSignature, deploy_link
from controller.model.order import PLAN, ComponentState, Obstacle, Order, Report, Sample, statement_of
from controller.ports import Signer

RETRY_SECONDS = 1.0
MESSAGE_LIMIT = 2000
TELLING = timedelta(seconds=2)
"""What is kept of an order's time, at most a tenth of it, to say before the deadline why it was not done."""

Now = Callable[[], datetime]


def sign_statement(body: Report | Sample, signer: Signer) -> tuple[str, dict[str, Any]]:
    """The envelope around a report or sample, and "sha256:…" over its canonical bytes."""
    key, certificate = signing_now(signer)
    if certificate is not None:
        body = body.model_copy(update={"certificate": certificate})
    data = dsse.sign(canonical(statement_of(body)), dsse.STATEMENT_PAYLOAD, key)
    return digest(data), json.loads(data)


def sign_deployed(order: Order, signer: Signer) -> LinkSignature | None:
    """This agent's signature over the in-toto link of a deployment that succeeded."""
    key, _ = signing_now(signer)
    payload = canonical(deploy_link(order.run, order.manifest_digest))
    raw = key.sign_raw(dsse.pae(dsse.STATEMENT_PAYLOAD, payload))
    return LinkSignature(keyid=key_id(key.public_key), sig=base64.b64encode(raw).decode())


class Executor:
    """The queue of orders of one target. `take` is called by the client, `run` is a thread of its own."""

    def __init__(
        self,
        *,
        directory: Path,
        journal: Journal,
        driver: ProcessDriver,
        outbox: Outbox,
        signer: Signer,
        now: Now,
        log: Callable[[str, str], None],
        allow: Sequence[str] = (),
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._driver = driver
        self._outbox = outbox
        self._signer = signer
        self._now = now
        self._log = log
        self._allow = tuple(allow)
        self._queue: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._newest = 0
        self._lock = threading.Lock()

    def resume(self) -> None:
        """After a restart: send reports that were not acknowledged, and go on with unfinished orders."""
        for envelope in self._journal.unacknowledged():
            self._outbox.add(digest(canonical(envelope)), envelope, report=True)
        for line in self._journal.unfinished():
            assert line.envelope is not None
            payload = dsse.split(canonical(line.envelope)).payload
            self._log("order-resumed", f"{line.order}, which came as far as {line.state}")
            self._enqueue(Order.model_validate(parse(payload)))

    def _enqueue(self, order: Order) -> None:
        if order.action != "check":
            self._newest = max(self._newest, order.entry_index)
        self._queue.put(order)

    def take(self, order: Order, envelope: dict[str, Any]) -> None:
        """Accept a verified order once; a repetition is answered from the journal."""
        with self._lock:
            line = self._journal.line(order.id)
            if line is None:
                self._journal.receive(order.id, envelope, order.deadline, self._now())
                reached("agent-received")
                self._enqueue(order)
            elif line.report is not None:
                self._outbox.add(digest(canonical(line.report)), line.report, report=True)

    def acknowledged(self, digests: Sequence[str]) -> None:
        """The controller holds these statements."""
        for item in self._outbox.acknowledge(digests):
            self._journal.acknowledge(item, self._now())

    def run(self) -> None:
        """Carry out orders until `stop`."""
        while (order := self._queue.get()) is not None and not self._stopping.is_set():
            pause = RETRY_SECONDS
            while not self._stopping.is_set():
                try:
                    self._execute(order)
                    break
                except Exception as error:
                    # The answer could not be written down (a full disk): what was done is done, say it later.
                    self._log("order-waits", f"{order.id}: {error!r}")
                    self._stopping.wait(pause)
                    pause = min(pause * 2, 30.0)

    def stop(self) -> None:
        """End `run` after the order in hand, which gives up waiting."""
        self._stopping.set()
        self._queue.put(None)

    def _execute(self, order: Order) -> None:
        line = self._journal.line(order.id)
        assert line is not None
        begun = datetime.fromisoformat(line.received)
        steps = _OrderSteps(
            order, self._journal, self._directory, self._now, lambda c: self._check(order, c), self._goes_on
        )
        steps.note(f"{order.action} of {order.release}, run {order.run}, stage {order.stage}")
        states: dict[str, ComponentState] = {}
        code, message, sticker = "ok", f"{order.action} of {order.release}", None
        try:
            states, sticker = self._carry_out(order, steps, min(TELLING, (order.deadline - begun) / 10))
        except LockgateError as error:
            if self._stopping.is_set():
                return
            code, message = error.code, str(error)
        except OSError as error:
            code, message = "target-io", f"this host refuses a file or process: {error}"
        except Exception as error:
            code, message = "agent-error", f"the agent failed in a way it does not know: {error!r}"
        steps.note(f"{code}: {message}")
        if code != "ok":
            states = self._driver.running()
            sticker = _sticker_digest(self._directory)
            self._log("order-failed", f"{order.id}: {message}")
        report = Report(
            order=order.id,
            run=order.run,
            stage=order.stage,
            attempt=order.attempt,
            target=order.target,
            action=order.action,
            sequence=self._journal.reports + 1,
            status="succeeded" if code == "ok" else "failed",
            code=code,
            message=message[:MESSAGE_LIMIT],
            release=order.release,
            manifest_digest=order.manifest_digest,
            plan=order.artifacts.get(PLAN),
            components=states,
            sticker=sticker,
            log=steps.digest(),
            healthy=self._driver.healthy(),
            link=sign_deployed(order, self._signer) if code == "ok" and order.action == "deploy" else None,
            started=begun,
            finished=self._now(),
        )
        reached("agent-report-before")
        item, envelope = sign_statement(report, self._signer)
        self._journal.report(order.id, envelope, self._now())
        reached("agent-report-after")
        self._goes_on()
        self._outbox.add(item, envelope, report=True)

    def _carry_out(
        self, order: Order, steps: _OrderSteps, telling: timedelta
    ) -> tuple[dict[str, ComponentState], str | None]:
        """Do what the order says; what is out of reach is tried again until `telling` before the deadline."""
        self._check_allowed(order)
        out_of_reach: Unavailable | None = None
        while True:
            left = (order.deadline - self._now()).total_seconds()
            work = left - telling.total_seconds()
            if work <= 0 and out_of_reach is not None:
                raise out_of_reach
            if left <= 0:
                raise Refused(
                    "order-expired",
                    "the order's deadline passed",
                    where=f"order {order.id}",
                    expected=f"to be done by {order.deadline.isoformat()}",
                    got=self._now().isoformat(),
                    cure="retry the stage, or set the clock of this host",
                )
            try:
                if order.action == "check":
                    return self._compare(order)
                states = self._driver.deploy(order, work, steps)
                sticker = write_sticker(self._directory, sticker_for(order, self._now()))
                reached("agent-sticker-after")
                return states, sticker
            except Unavailable as error:
                out_of_reach = error
                pause = error.retry_after or RETRY_SECONDS
                steps.note(f"waiting {pause:.1f} s: {error}")
                self._held_up(order, error)
                until = order.deadline - telling
                if pause >= (until - self._now()).total_seconds() or self._stopping.wait(pause):
                    raise

    def _held_up(self, order: Order, error: LockgateError) -> None:
        """Tell what is waited for: the controller, for people who ask it, and once the log."""
        before = self._outbox.obstacle
        if before is None or before.code != error.code:
            self._log("order-held-up", f"{order.id}: {error}")
        self._outbox.obstacle = Obstacle(order=order.id, code=error.code, message=str(error)[:MESSAGE_LIMIT])

    def _goes_on(self) -> None:
        self._outbox.obstacle = None

    def _check(self, order: Order, committed: bool) -> None:
        """A deploy or rollback recorded later replaces this one; stopping leaves it to the next start."""
        if self._stopping.is_set() or (self._newest > order.entry_index and not committed):
            raise Refused(
                "order-superseded",
                "a later order came before this one was done",
                where=f"order {order.id}",
                cure="nothing: the later order is carried out",
            )

    def _compare(self, order: Order) -> tuple[dict[str, ComponentState], str | None]:
        """Compare what runs, and what the sticker says, with the order."""
        states = self._driver.states(order)
        running = {n: s for n, s in states.items() if order.components[n].role in ("primary", "sidecar")}
        for name, state in running.items():
            wanted = order.components[name].digest
            if state.digest != wanted or not state.running:
                got = f"{state.digest}, {'running' if state.running else 'not running'}"
                raise _differs("digest-drift", f"component {name}", f"{wanted}, running", got)
        strangers = sorted(self._driver.running().keys() - running.keys())
        if strangers:
            raise _differs("digest-drift", "services", "only ordered ones", ", ".join(strangers))
        sticker, sticker_digest = read_sticker(self._directory)
        if sticker is None or sticker.manifest_digest != order.manifest_digest:
            got = sticker.manifest_digest if sticker else "no sticker"
            raise _differs("sticker-mismatch", "lockgate.version.json", order.manifest_digest, got)
        if running and self._driver.healthy() is not True:
            raise _differs("unhealthy", "health check", "every service healthy", "at least one is not")
        run_checks(order.checks, self._driver.services())
        return states, sticker_digest

    def _check_allowed(self, order: Order) -> None:
        for name, component in order.components.items():
            if self._allow and not any(fnmatch.fnmatchcase(component.repository, p) for p in self._allow):
                raise Refused(
                    "order-not-allowed",
                    "this agent does not take images from there",
                    where=f"component {name}",
                    expected=" or ".join(self._allow),
                    got=component.repository,
                    cure="start the agent with a wider --allow, or correct the component's repository",
                )


class _OrderSteps:
    """One order's log and journal, as the driver's Steps; `goes_on` is called at each step forward."""

    def __init__(
        self,
        order: Order,
        journal: Journal,
        directory: Path,
        now: Now,
        check: Callable[[bool], None],
        goes_on: Callable[[], None],
    ) -> None:
        self._order = order
        self._check = check
        self._goes_on = goes_on
        self._journal = journal
        self._now = now
        self._path = directory / "logs" / "orders" / f"{safe_name(order.id)}.log"
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{self._now().isoformat()} {text}\n")

    def advance(self, state: str) -> None:
        self._journal.advance(self._order.id, state, self._now())
        self._goes_on()

    def ran(self, component: str) -> None:
        self._journal.ran(self._order.id, component, self._now())

    def has_run(self, component: str) -> bool:
        line = self._journal.line(self._order.id)
        return line is not None and component in line.ran

    def check(self, *, committed: bool = False) -> None:
        self._check(committed)

    def digest(self) -> str | None:
        if not self._path.exists():
            return None
        return "sha256:" + hashlib.sha256(self._path.read_bytes()).hexdigest()


def _sticker_digest(directory: Path) -> str | None:
    try:
        return read_sticker(directory)[1]
    except LockgateError:
        return None


def _differs(code: str, where: str, expected: str, got: str) -> Refused:
    return Refused(
        code,
        "the target is not as it was ordered",
        where=where,
        expected=expected,
        got=got,
        cure="deploy again, and find out who changed the target",
    )
