"""What the hub holds between the reconciler and its agents: orders going out, statements coming in.

Transport-free and thread-safe; nothing in it is durable. `HttpHub` puts HTTP around it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.errors import LockgateError, Refused
from controller.ledger.canonical import canonical, digest, parse_canonical
from controller.ledger.dsse import STATEMENT_PAYLOAD, split
from controller.ledger.speaker import check_spoken, claimed
from controller.model.keys import key_id
from controller.model.order import (
    MAX_CLOCK_SKEW,
    POLL_TYPE,
    AgentKey,
    AgentStatement,
    Approving,
    Obstacle,
    Poll,
    PreparedOrder,
    Report,
    SamplingRequest,
    body_of,
    order_id,
)

MAX_SKEW = MAX_CLOCK_SKEW
"""A nonce is remembered for twice as long."""
MAX_REMEMBERED = 20_000
"""Acknowledged digests and finished orders remembered, so that one sent twice counts once."""
MAX_PENDING_STATEMENTS = 10_000
"""Statements of one agent held unacknowledged; further ones wait on the agent's side."""


@dataclass(slots=True)
class _Offered:
    order: PreparedOrder
    value: dict[str, Any]


@dataclass(slots=True)
class _Box:
    """One agent's side of the mailbox; `told` is what a finished answer already carried."""

    key: AgentKey
    orders: dict[str, _Offered] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    told_log: int = 0
    sampling: SamplingRequest | None = None
    told_sampling: SamplingRequest | None = None
    acknowledged: list[str] = field(default_factory=list)
    pending: int = 0
    nonces: OrderedDict[str, float] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a delivery carries; the transport adds nonce, time, the log's checkpoint and signature."""

    orders: list[dict[str, Any]]
    acknowledged: list[str]
    sampling: SamplingRequest | None
    witnessed: list[str]
    approving: dict[str, Approving]


class Mailbox:
    """The state of an AgentHub. `changed(agent)` is called (outside the lock) when an answer is due to it.

    `witnesses(agent, size)` are the checkpoints of at least `size` entries that other agents cosigned.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        changed: Callable[[str], None],
        witnesses: Callable[[str, int], list[str]] = lambda _agent, _size: [],
    ) -> None:
        self._wake = wake
        self._changed = changed
        self._witnesses = witnesses
        self._shown = 0
        """Size of the log that every agent is to be shown."""
        self._lock = threading.Lock()
        self._boxes: dict[str, _Box] = {}
        self._names: dict[str, str] = {}
        self._inbox: dict[str, AgentStatement] = {}
        self._acknowledged: OrderedDict[str, None] = OrderedDict()
        self._reported: OrderedDict[str, None] = OrderedDict()
        self._seen: dict[str, datetime] = {}
        self._skewed: dict[str, float] = {}
        self._delivered: OrderedDict[str, datetime] = OrderedDict()
        self._refused: dict[str, str] = {}
        self._obstacles: dict[str, Obstacle] = {}

    # -- the reconciler's side -------------------------------------------------------------------------

    def declare(self, agents: Mapping[str, AgentKey]) -> None:
        """Replace the declared agents; an agent whose key or environment changed starts with an empty box."""
        with self._lock:
            boxes = {}
            for name, key in agents.items():
                old = self._boxes.get(name)
                boxes[name] = old if old is not None and old.key == key else _Box(key)
            self._obstacles = {
                name: one for name, one in self._obstacles.items() if boxes.get(name) is self._boxes.get(name)
            }
            self._boxes = boxes
            self._names = {
                key_id(known): name
                for name, key in agents.items()
                for known in ([] if key.authority else [key.public_key]) + [one.public_key for one in key.previous]
            }
            self._refused = {name: code for name, code in self._refused.items() if name in boxes}
            self._skewed = {name: skew for name, skew in self._skewed.items() if name in boxes}

    def deliver(self, orders: Sequence[PreparedOrder]) -> None:
        """Offer orders; one that was offered or reported already is ignored. Raises Refused("agent-unknown")."""
        touched: list[str] = []
        with self._lock:
            for order in orders:
                if order.agent not in self._boxes:
                    raise _unknown(order.agent)
            for order in orders:
                box = self._boxes[order.agent]
                if order.order_id in box.orders or order.order_id in self._reported:
                    continue
                box.orders[order.order_id] = _Offered(order, parse_canonical(order.envelope))
                touched.append(order.agent)
            wanted = max((order.log_size for order in orders if order.witnesses), default=0)
        self._tell(touched)
        self.show(wanted)

    def show(self, size: int) -> None:
        """Answer every agent that was not told of a log of `size` entries."""
        with self._lock:
            self._shown = max(self._shown, size)
            behind = [name for name, box in self._boxes.items() if box.told_log < self._shown]
        self._tell(behind)

    def told_log(self, agent: str, size: int) -> None:
        """Note that an answer with the checkpoint of `size` goes out to an agent."""
        with self._lock:
            box = self._boxes.get(agent)
            if box is not None:
                box.told_log = size

    def cosigned(self) -> None:
        """A witness signed: orders that waited for it may be due, and the controller may want to record it."""
        with self._lock:
            waiting = [
                name for name, box in self._boxes.items() if any(o.order.witnesses for o in box.orders.values())
            ]
        self._tell(waiting)
        self._wake()

    def unwitnessed(self) -> dict[str, tuple[int, int]]:
        """Orders held back, with how many agents have cosigned and how many must."""
        with self._lock:
            held = [o.order for box in self._boxes.values() for o in box.orders.values() if o.order.witnesses]
        found = {o.order_id: (len(self._witnesses(o.agent, o.log_size)), o.witnesses) for o in held}
        return {name: (have, need) for name, (have, need) in found.items() if have < need}

    def cancel(self, order_ids: Sequence[str]) -> None:
        """Stop offering these orders."""
        with self._lock:
            for box in self._boxes.values():
                for order_id in order_ids:
                    box.orders.pop(order_id, None)
                    box.told.discard(order_id)

    def sample(self, requests: Mapping[str, SamplingRequest | None]) -> None:
        """Set what the named agents sample; names that are not declared are ignored."""
        touched: list[str] = []
        with self._lock:
            for name, request in requests.items():
                box = self._boxes.get(name)
                if box is not None and box.sampling != request:
                    box.sampling = request
                    touched.append(name)
        self._tell(touched)

    def acknowledge(self, digests: Sequence[str]) -> None:
        """Take statements out of the inbox and let their agents forget them."""
        touched: list[str] = []
        with self._lock:
            for item in digests:
                statement = self._inbox.pop(item, None)
                self._acknowledged[item] = None
                if statement is not None and statement.agent in self._boxes:
                    box = self._boxes[statement.agent]
                    box.acknowledged.append(item)
                    box.pending -= 1
                    touched.append(statement.agent)
            _bound(self._acknowledged)
        self._tell(touched)

    def inbox(self) -> tuple[AgentStatement, ...]:
        """Verified, unacknowledged statements in order of arrival."""
        with self._lock:
            return tuple(self._inbox.values())

    def seen(self) -> dict[str, datetime]:
        """When each agent's last accepted poll arrived."""
        with self._lock:
            return dict(self._seen)

    def refused(self) -> dict[str, str]:
        """The declared names in which polls are refused, and the code; none once one was accepted."""
        with self._lock:
            return dict(self._refused)

    def obstacles(self) -> dict[str, Obstacle]:
        """What the agents' orders in hand wait for, as they last said."""
        with self._lock:
            return dict(self._obstacles)

    def skewed(self) -> dict[str, float]:
        """Seconds by which clocks of agents are ahead of ours, of those refused for that; proven by their keys."""
        with self._lock:
            return dict(self._skewed)

    def delivered(self) -> dict[str, datetime]:
        """When each order was first handed out."""
        with self._lock:
            return dict(self._delivered)

    # -- the agents' side ------------------------------------------------------------------------------

    def key(self, agent: str) -> AgentKey | None:
        """The key of a declared agent, or of who certifies its keys."""
        with self._lock:
            box = self._boxes.get(agent)
            return box.key if box is not None else None

    def accept(self, data: bytes, now: datetime, monotonic: float) -> tuple[Poll, list[str]]:
        """Judge a poll's envelope and take in its statements; returns the poll and its statements' digests.

        Raises Refused: agent-unknown, envelope-*, poll-malformed, poll-foreign, clock-skew, nonce-replayed.
        """
        try:
            return self._accept(data, now, monotonic)
        except Refused as error:
            self._remember_refused(data, error.code)
            raise

    def _remember_refused(self, data: bytes, code: str) -> None:
        """Note whom a refused poll claims to be, for people to see: nothing is decided by it."""
        try:
            name = claimed(split(data)).get("agent")
        except LockgateError:
            return
        with self._lock:
            if isinstance(name, str) and name in self._boxes:
                self._refused[name] = code

    def _accept(self, data: bytes, now: datetime, monotonic: float) -> tuple[Poll, list[str]]:
        parts = split(data)
        with self._lock:
            name = self._names.get(parts.keyid, "")
            box = self._boxes.get(name)
        said = {} if box is not None else claimed(parts)
        if box is None:
            name = str(said.get("agent"))
            with self._lock:
                box = self._boxes.get(name)
            if box is None or not box.key.authority:
                raise _unknown(f"key {parts.keyid[:16]}")
        check_spoken(parts, box.key, name, now, said.get("certificate"))
        poll = _poll(parts.payload_type, parts.payload)
        if (poll.agent, poll.environment) != (name, box.key.environment):
            raise Refused(
                "poll-foreign",
                "the poll is not this agent's",
                expected=f"{name} in {box.key.environment}",
                got=f"{poll.agent} in {poll.environment}",
            )
        skew = (poll.at - now).total_seconds()
        if abs(skew) > MAX_SKEW:
            with self._lock:
                fresh = self._skewed.get(name) is None
                self._skewed[name] = skew
            if fresh:
                self._wake()
            raise Refused(
                "clock-skew",
                "the agent's clock is off",
                expected=f"within {MAX_SKEW:.0f} s",
                got=f"{skew:.0f} s",
                cure="set the clock of the agent's host",
            )
        statements = list(self._statements(name, box.key, poll.statements))
        with self._lock:
            self._nonce(box, poll.nonce, monotonic)
            fresh = name not in self._seen
            self._seen[name] = now
            self._skewed.pop(name, None)
            if poll.complaint is None:
                self._refused.pop(name, None)
            else:
                self._refused[name] = poll.complaint
            if poll.obstacle is None:
                self._obstacles.pop(name, None)
            else:
                self._obstacles[name] = poll.obstacle
            for statement in statements:
                fresh |= self._take(box, statement)
        if fresh:
            self._wake()
        return poll, [statement.digest for statement in statements]

    def due(self, agent: str, sent: Sequence[str]) -> bool:
        """Whether an answer to this agent carries something that no finished answer carried."""
        with self._lock:
            box = self._boxes.get(agent)
            return (
                box is None
                or bool(box.acknowledged)
                or box.sampling != box.told_sampling
                or box.told_log < self._shown
                or any(name not in box.told and self._ready(one.order) for name, one in box.orders.items())
                or any(item in self._acknowledged for item in sent)
            )

    def answer(self, agent: str, sent: Sequence[str], now: datetime) -> Answer:
        """Everything due to an agent now: open orders, all of them, acknowledgements and sampling."""
        with self._lock:
            box = self._boxes.get(agent)
            if box is None:
                raise _unknown(agent)
            acknowledged = dict.fromkeys(box.acknowledged)
            acknowledged.update(dict.fromkeys(item for item in sent if item in self._acknowledged))
            box.acknowledged = []
            box.told_sampling = box.sampling
            ready = {name: one for name, one in box.orders.items() if self._ready(one.order)}
            box.told = set(ready)
            for order_id in ready:
                self._delivered.setdefault(order_id, now)
            _bound(self._delivered)
            least = min((one.order.log_size for one in ready.values() if one.order.witnesses), default=None)
            witnessed = self._witnesses(agent, least) if least is not None else []
            orders = [one.value for one in ready.values()]
            carried = {n: one.order.approving for n, one in ready.items() if one.order.approving is not None}
            return Answer(orders, list(acknowledged), box.sampling, witnessed, carried)

    def _ready(self, order: PreparedOrder) -> bool:
        return not order.witnesses or len(self._witnesses(order.agent, order.log_size)) >= order.witnesses

    def _statements(self, name: str, key: AgentKey, values: Iterable[dict[str, Any]]) -> Iterable[AgentStatement]:
        """The statements that hold; one that does not is dropped, so that it cannot hold up the others."""
        for value in values:
            try:
                data = canonical(value)
                parts = split(data)
                if parts.payload_type != STATEMENT_PAYLOAD:
                    continue
                body = body_of(parse_canonical(parts.payload))
                check_spoken(parts, key, name, body.said_at, body.certificate)
            except (LockgateError, ValueError):
                continue
            if isinstance(body, Report) and body.order != _own_order(body):
                continue  # it would settle an order that is not this agent's
            author = body.target if isinstance(body, Report) else body.agent
            if author != name or (not isinstance(body, Report) and body.environment != key.environment):
                continue
            kind = "report" if isinstance(body, Report) else "sample"
            yield AgentStatement(name, kind, digest(data), data, body)  # type: ignore[arg-type]

    def _take(self, box: _Box, statement: AgentStatement) -> bool:
        if isinstance(statement.body, Report):
            self._reported[statement.body.order] = None
            _bound(self._reported)
            box.orders.pop(statement.body.order, None)
            box.told.discard(statement.body.order)
        if statement.digest in self._acknowledged or statement.digest in self._inbox:
            return False
        if box.pending >= MAX_PENDING_STATEMENTS and statement.kind == "sample":
            return False
        box.pending += 1
        self._inbox[statement.digest] = statement
        return True

    def _nonce(self, box: _Box, nonce: str, monotonic: float) -> None:
        while box.nonces and next(iter(box.nonces.values())) < monotonic - 2 * MAX_SKEW:
            box.nonces.popitem(last=False)
        if nonce in box.nonces:
            raise Refused("nonce-replayed", "this poll was seen before", cure="poll with a fresh nonce")
        box.nonces[nonce] = monotonic

    def _tell(self, agents: Iterable[str]) -> None:
        for agent in dict.fromkeys(agents):
            self._changed(agent)


def _bound(memory: OrderedDict[str, Any]) -> None:
    while len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def _poll(payload_type: str, payload: bytes) -> Poll:
    try:
        if payload_type != POLL_TYPE:
            raise ValueError(f"payload type is {payload_type}")
        return Poll.model_validate(parse_canonical(payload))
    except (LockgateError, ValueError) as error:
        raise Refused("poll-malformed", "the poll is not readable", got=str(error)[:200]) from error


def _unknown(who: str) -> Refused:
    return Refused(
        "agent-unknown",
        "no declared agent",
        got=who,
        cure="declare the agent with its public key under agents/ on main",
    )


def _own_order(report: Report) -> str:
    """The id of the order that a report's other fields speak of."""
    return order_id(report.run, report.stage, report.attempt, report.target, report.action)
