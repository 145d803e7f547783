"""The agent's side of the talk: signed polls with fresh nonces out, deliveries verified before anything else."""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from controller.adapters.git import sshsig
from controller.adapters.signers import signing_now
from controller.agent.admission import Admission
from controller.agent.keyring import Keyring
from controller.agent.logbook import Logbook
from controller.agent.outbox import Outbox
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.ledger import dsse
from controller.ledger.canonical import canonical, parse
from controller.model.order import (
    DELIVERY_TYPE,
    ORDER_TYPE,
    POLL_TYPE,
    Delivery,
    LogProof,
    Obstacle,
    Order,
    Poll,
    order_id,
)
from controller.model.restart import RestartProof
from controller.ports import Signer

ANSWER_LIMIT = 32 << 20
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 45.0
"""A connection unused for longer is made anew: the controller may have let go of it."""
FIRST_DELAY = 0.1
LAST_DELAY = 5.0
_HTTP_REFUSALS = frozenset({400, 403, 408, 409, 413})


class Channel:
    """One connection to the controller, kept open and made anew when it breaks. Not thread-safe."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(
                "url-invalid",
                "the controller's address does not read",
                expected="http://host:port or https://host",
                got=url,
                cure="give --controller the address with its scheme",
            )
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    def request(self, method: str, path: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
        """One exchange; raises Unavailable("controller-unreachable")."""
        try:
            connection = self._connect()
            connection.timeout = timeout
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request(method, self._prefix + path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read(ANSWER_LIMIT)
            self._used = time.monotonic()
            return answer.status, data
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unavailable(
                "controller-unreachable",
                "the controller does not answer",
                where=f"{self._host}:{self._port or ''}{self._prefix}{path}",
                got=str(error) or type(error).__name__,
                cure="the agent goes on trying; check the controller and the network",
            ) from error

    def close(self) -> None:
        """Hang up; usable from another thread to end a long poll."""
        connection, self._connection = self._connection, None
        if connection is not None:
            sock = connection.sock
            if sock is not None:
                _shut(sock)
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        idle = time.monotonic() - self._used
        self._used = time.monotonic()
        if idle > IDLE_SECONDS:
            self.close()
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=CONNECT_SECONDS)
        return self._connection


def _shut(sock: Any) -> None:
    try:
        sock.shutdown(2)
    except OSError:
        return


class Client:
    """Polls in the name of one agent and verifies what comes back.

    `now` dates the polls; `heard` is told the controller's time of each verified delivery,
    and may refuse it; `obstacle` is what the order in hand waits for.
    """

    def __init__(
        self,
        *,
        agent: str,
        environment: str,
        url: str,
        signer: Signer,
        keyring: Keyring,
        logbook: Logbook,
        admission: Admission,
        now: Callable[[], datetime],
        heard: Callable[[datetime], None] = lambda _at: None,
        obstacle: Callable[[], Obstacle | None] = lambda: None,
    ) -> None:
        self._agent = agent
        self._environment = environment
        self._signer = signer
        self._keyring = keyring
        self._logbook = logbook
        self._admission = admission
        self._now = now
        self._heard = heard
        self._obstacle = obstacle
        self._channel = Channel(url)

    def poll(self, wait_seconds: float, statements: Sequence[dict[str, Any]] = ()) -> Delivery:
        """One poll; the delivery is verified: signer, nonce, agent, environment, and that its log goes on from
        the one that was seen.

        Raises Unavailable when the controller does not answer, Refused with order-untrusted-signer,
        order-stale, order-foreign, clock-skew, log-inconsistent, or the controller's own refusal of this agent.
        """
        nonce, known = secrets.token_hex(16), self._logbook.size
        key, certificate = signing_now(self._signer)
        message = Poll(
            certificate=certificate,
            agent=self._agent,
            environment=self._environment,
            nonce=nonce,
            at=self._now(),
            wait_seconds=wait_seconds,
            statements=list(statements),
            trust_version=self._keyring.version,
            log_size=known,
            cosignature=self._logbook.cosignature(),
            complaint=self._admission.complaint,
            obstacle=self._obstacle(),
        )
        body = dsse.sign(canonical(message.plain()), POLL_TYPE, key)
        status, data = self._channel.request("POST", "/agent/v1/poll", body, wait_seconds + CONNECT_SECONDS)
        if status != 200:
            raise _turned_away(status, data)
        delivery = _delivery(self._open(data, DELIVERY_TYPE))
        if delivery.nonce != nonce:
            raise Refused(
                "order-stale",
                "the delivery answers another poll: it may be an old one, played back",
                expected=f"nonce {nonce}",
                got=f"nonce {delivery.nonce}",
                cure="find out who answers at the controller's address",
            )
        if (delivery.agent, delivery.environment) != (self._agent, self._environment):
            raise foreign("the delivery", self._agent, self._environment, delivery.agent, delivery.environment)
        self._heard(delivery.at)
        if delivery.trust_version > self._keyring.version:
            self.fetch_trust()
        if delivery.log is not None:
            self._follow(delivery.log, known, delivery.restarts)
        if not delivery.orders:
            self._admission.idle()
        return delivery

    def _follow(self, log: LogProof, known: int, restarts: int) -> None:
        """Go on to the delivery's checkpoint; where it is none of this log, by the owners' restart alone."""
        try:
            self._logbook.follow(log, known, self.consistency)
        except Refused:
            if restarts <= self._logbook.restarts:
                raise
            self._logbook.restart(self.restart(), self._keyring.trust_at, sshsig.verify)
            self._logbook.follow(log, self._logbook.size, self.consistency)
        self._logbook.went_through(restarts)

    def order(self, envelope: dict[str, Any], delivery: Delivery) -> Order:
        """A verified order of this agent, out of a delivery. Raises Refused: order-untrusted-signer, -foreign,
        -malformed, and as `Admission.admit`."""
        try:
            order = Order.model_validate(parse(self._open(canonical(envelope), ORDER_TYPE)))
        except ValueError as error:
            raise _malformed(str(error)) from error
        if (order.target, order.environment) != (self._agent, self._environment):
            raise foreign("the order", self._agent, self._environment, order.target, order.environment)
        expected = order_id(order.run, order.stage, order.attempt, order.target, order.action)
        if order.id != expected:
            raise _malformed(f"id {order.id} of order {expected}")
        self._admission.admit(order, delivery, self)
        return order

    def consistency(self, start: int, size: int) -> list[str]:
        """A proof asked for, to be checked by whoever asked. Raises Refused("log-inconsistent"), Unavailable."""
        status, data = self._channel.request("GET", f"/agent/v1/log?from={start}&to={size}", None, CONNECT_SECONDS)
        try:
            if status == 200:
                return [str(item) for item in json.loads(data)["hashes"]]
        except (ValueError, KeyError, TypeError):
            status = 502
        if status >= 500:
            raise _turned_away(status, data)
        raise Refused(
            "log-inconsistent",
            "the controller cannot show that its log continues the one that was seen",
            expected=f"a proof from {start} to {size} entries",
            got=f"status {status}",
        )

    def restart(self) -> RestartProof:
        """The newest restart of the log, unchecked. Raises Refused("log-inconsistent"), Unavailable."""
        status, data = self._channel.request("GET", "/agent/v1/restart", None, CONNECT_SECONDS)
        if status != 200:
            raise _turned_away(status, data)
        try:
            return RestartProof.model_validate_json(data)
        except ValueError as error:
            raise Refused("log-inconsistent", "the restart that the controller shows does not read") from error

    def declared(self) -> bytes:
        """Main's objects that declare the agents, unchecked. Raises Refused, Unavailable."""
        status, data = self._channel.request("GET", "/agent/v1/declared", None, CONNECT_SECONDS)
        if status != 200:
            raise _turned_away(status, data)
        return data

    def fetch_trust(self) -> None:
        """Walk the chain that the controller shows. Raises Refused when it does not hold from the root."""
        status, data = self._channel.request("GET", "/agent/v1/trust", None, CONNECT_SECONDS)
        if status != 200:
            raise _turned_away(status, data)
        self._keyring.extend(data)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _open(self, data: bytes, payload_type: str) -> bytes:
        """An envelope's payload; an unknown signer is looked up once in the newest chain."""
        try:
            return self._keyring.open(data, payload_type)
        except Refused:
            self.fetch_trust()
            return self._keyring.open(data, payload_type)


class Loop:
    """A thread's life: call `step` until stopped, and wait longer after each failure, with jitter."""

    def __init__(self, name: str, step: Callable[[bool], None], log: Callable[[str, str], None]) -> None:
        self._step = step
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; the caller then makes its blocking call return."""
        self._stopping.set()

    def join(self) -> None:
        self._thread.join(3)

    def _run(self) -> None:
        delay = FIRST_DELAY
        fresh = True
        last = ""
        while not self._stopping.is_set():
            try:
                self._step(fresh)
                delay, fresh, last = FIRST_DELAY, False, ""
            except Exception as error:
                # Whatever it is, an agent that stopped talking would be lost: say it once, and go on.
                fresh = True
                code = error.code if isinstance(error, LockgateError) else "agent-error"
                if not self._stopping.is_set() and code != last:
                    self._log(code, str(error) or repr(error))
                last = code
                self._stopping.wait(delay * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                delay = min(delay * 2, LAST_DELAY)


class Talk:
    """Listens for orders with one long poll and sends statements with another connection."""

    def __init__(
        self,
        make_client: Callable[[], Client],
        outbox: Outbox,
        log: Callable[[str, str], None],
        handle: Callable[[Client, Delivery], None],
        wait_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._handle = handle
        self._wait = wait_seconds
        self._listening = make_client()
        self._sending = make_client()
        self._listener = Loop("listener", self._listen, log)
        self._sender = Loop("sender", self._send, log)

    def start(self) -> None:
        self._listener.start()
        self._sender.start()

    def stop(self) -> None:
        """Hang up and end both threads."""
        self._listener.stop()
        self._sender.stop()
        self._outbox.close()
        self._listening.close()
        self._sending.close()
        self._listener.join()
        self._sender.join()

    def _listen(self, fresh: bool) -> None:
        # After a start or an error nothing is known to have arrived: a poll without patience gets it all.
        self._handle(self._listening, self._listening.poll(0 if fresh else self._wait))

    def _send(self, _fresh: bool) -> None:
        due = self._outbox.due()
        if due is not None:
            obstacle = self._outbox.obstacle
            delivery = self._sending.poll(0, [envelope for _, envelope in due])
            self._outbox.sent([digest for digest, _ in due], obstacle)
            self._handle(self._sending, delivery)


def foreign(what: str, agent: str, environment: str, other: str, elsewhere: str) -> Refused:
    """The refusal of what is meant for somebody else."""
    return Refused(
        "order-foreign",
        f"{what} is for another agent or environment",
        expected=f"{agent} in {environment}",
        got=f"{other} in {elsewhere}",
        cure="compare this agent's --name and --environment with agents/ on main",
    )


def _malformed(got: str) -> Refused:
    return Refused("order-malformed", "the order does not read", got=" ".join(got.split())[:300])


def _delivery(payload: bytes) -> Delivery:
    try:
        return Delivery.model_validate(parse(payload))
    except ValueError as error:
        raise _malformed(str(error)) from error


def _turned_away(status: int, data: bytes) -> LockgateError:
    try:
        value = json.loads(data)
        code, message = str(value["code"]), str(value.get("message", ""))
    except (ValueError, KeyError, TypeError):
        code, message = "controller-refused", ""
    what = f"the controller answers {status}" + (f": {message}" if message else "")
    if status in _HTTP_REFUSALS:
        return Refused(code, what, cure="compare this agent's name, environment and key with agents/ on main")
    return Unavailable(code, what)
