"""The agents' door under attack and under load: forged, replayed, oversized and slow polls."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git.keys import FileSigner
from controller.adapters.hub import http as hub_module
from controller.agent.client import Client
from controller.errors import Refused, Unavailable
from controller.ledger import dsse
from controller.ledger.canonical import canonical
from controller.model.order import (
    POLL_TYPE,
    Delivery,
    Poll,
    Sample,
    SamplingRequest,
    statement_of,
)
from controller.model.trustroot import TrustRoot
from tests.support.agents import World, component, make_world
from tests.support.logs import client_of
from tests.support.waiting import until

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    made.declare("web-1")
    yield made
    made.close()


def now() -> datetime:
    return datetime.now(UTC)


def client(world: World, url: str = "", **changes: Any) -> Client:
    values: dict[str, Any] = {
        "agent": "web-1",
        "environment": "prod",
        "url": url or world.hub.address,
        "now": now,
        **changes,
    }
    signer = values.pop("signer", None) or world.key("web-1")
    folder = world.path / f"client-{time.monotonic_ns()}"
    return client_of(TrustRoot.load(world.root_file), folder, signer, **values)


def post(world: World, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(world.hub.address + "/agent/v1/poll", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def poll(world: World, signer: FileSigner | None = None, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "agent": "web-1",
        "environment": "prod",
        "nonce": "0123456789abcdef",
        "at": now(),
        "wait_seconds": 0,
        "trust_version": 1,
        **changes,
    }
    return dsse.sign(canonical(Poll(**values).plain()), POLL_TYPE, signer or world.key("web-1"))


@pytest.mark.parametrize(
    ("changes", "signer", "status", "code"),
    [
        ({}, "web-9", 403, "agent-unknown"),
        ({"agent": "web-2"}, "web-1", 403, "poll-foreign"),
        ({"environment": "dev"}, "web-1", 403, "poll-foreign"),
        ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, "web-1", 403, "clock-skew"),
    ],
)
def test_polls_of_strangers_are_refused(
    world: World, changes: dict[str, Any], signer: str, status: int, code: str
) -> None:
    answered, value = post(world, poll(world, world.key(signer), **changes))
    assert (answered, value["code"]) == (status, code)
    assert not world.hub.seen()


def test_a_poll_counts_once(world: World) -> None:
    body = poll(world)
    assert post(world, body)[0] == 200
    assert post(world, body) == (409, {**post(world, body)[1], "code": "nonce-replayed"})


def test_a_poll_with_a_broken_signature_is_refused(world: World) -> None:
    value = json.loads(poll(world))
    other = json.loads(poll(world, nonce="fedcba9876543210"))
    value["signatures"] = other["signatures"]
    status, answer = post(world, canonical(value))
    assert (status, answer["code"]) == (403, "envelope-signature")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"payload": 1}'])
def test_what_is_no_poll_is_refused(world: World, body: bytes) -> None:
    assert post(world, body)[0] in (400, 403)


def test_another_payload_type_is_no_poll(world: World) -> None:
    payload = dsse.split(poll(world)).payload
    status, answer = post(world, dsse.sign(payload, dsse.STATEMENT_PAYLOAD, world.key("web-1")))
    assert (status, answer["code"]) == (400, "poll-malformed")


def test_an_oversized_poll_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_BODY", 10_000)
    assert post(world, b"x" * 20_000)[1]["code"] == "poll-too-large"


def raw_post(body: bytes) -> bytes:
    return b"POST /agent/v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def sample(agent: str, sequence: int) -> Sample:
    return Sample(agent=agent, environment="prod", sequence=sequence, at=now())


def signed(body: Sample, signer: FileSigner) -> dict[str, Any]:
    return dict(json.loads(dsse.sign(canonical(statement_of(body)), dsse.STATEMENT_PAYLOAD, signer)))


def test_statements_that_do_not_hold_are_dropped_and_the_others_kept(world: World) -> None:
    own = world.key("web-1")
    forged = signed(sample("web-1", 1), world.key("web-9"))
    borrowed = signed(sample("web-2", 2), own)
    good = signed(sample("web-1", 3), own)
    twisted = json.loads(
        dsse.sign(canonical({**statement_of(sample("web-1", 4)), "subject": [1]}), dsse.STATEMENT_PAYLOAD, own)
    )
    client(world).poll(0, [forged, borrowed, twisted, {"payload": "?"}, good])
    assert [s.body.sequence for s in world.hub.inbox()] == [3]


def test_a_statement_sent_again_enters_once_and_its_acknowledgement_is_repeated(world: World) -> None:
    agent = client(world)
    statement = signed(sample("web-1", 1), world.key("web-1"))
    agent.poll(0, [statement])
    assert not agent.poll(0, [statement]).acknowledged
    (held,) = world.hub.inbox()
    world.hub.acknowledge([held.digest])
    assert agent.poll(0).acknowledged == [held.digest]
    assert not agent.poll(0).acknowledged
    assert agent.poll(0, [statement]).acknowledged == [held.digest]
    assert not world.hub.inbox()


def test_a_held_poll_is_answered_at_once_by_orders_acknowledgements_and_sampling(world: World) -> None:
    agent = client(world)
    agent.poll(0)
    took = []
    order = world.prepare(world.order("web-1", {"api": component(DIGEST)}))
    statement = signed(sample("web-1", 1), world.key("web-1"))
    changes = [
        lambda: world.hub.deliver([order]),
        lambda: world.hub.sample({"web-1": SamplingRequest(run="r", stage=1, interval_seconds=1)}),
        lambda: world.hub.acknowledge([s.digest for s in world.hub.inbox()]),
    ]
    agent.poll(0, [statement])
    for change in changes:
        answers: list[tuple[Delivery, float]] = []
        thread = threading.Thread(target=lambda a=answers: a.append((agent.poll(10), time.monotonic())))
        thread.start()
        until("the held poll", lambda: world.hub._held.get("web-1"))
        begun = time.monotonic()
        change()
        thread.join(5)
        took.append(answers[0][1] - begun)
    print("held polls answered after ms:", [round(t * 1000, 1) for t in took])
    assert max(took) < 0.5


def test_an_agent_that_hangs_up_gets_its_order_at_the_next_poll(world: World) -> None:
    agent = client(world)
    agent.poll(0)
    hung = socket.create_connection(world.hub._socket.getsockname())
    body = poll(world, wait_seconds=30)
    hung.sendall(raw_post(body))
    until("the held poll", lambda: world.hub._held.get("web-1"))
    hung.close()
    until("the hang-up", lambda: not world.hub._held.get("web-1"))
    order = world.order("web-1", {"api": component(DIGEST)})
    world.hub.deliver([world.prepare(order)])
    assert not world.hub.delivered()
    delivery = agent.poll(10)
    (envelope,) = delivery.orders
    assert agent.order(envelope, delivery) == order
    assert len(agent.poll(0).orders) == 1


def test_slow_and_silent_clients_hold_up_nobody(world: World) -> None:
    address = world.hub._socket.getsockname()
    slow = [socket.create_connection(address) for _ in range(50)]
    for sock in slow:
        sock.sendall(b"POST /agent/v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    begun = time.monotonic()
    client(world).poll(0)
    assert time.monotonic() - begun < 1
    for sock in slow:
        sock.close()


def test_one_agent_cannot_hold_more_than_a_few_polls(world: World) -> None:
    agent = client(world)
    agent.poll(0)
    held = []
    for number in range(hub_module.MAX_HELD_PER_AGENT):
        sock = socket.create_connection(world.hub._socket.getsockname())
        body = poll(world, wait_seconds=30, nonce=f"nonce-{number:016}")
        sock.sendall(raw_post(body))
        held.append(sock)
    until("all held", lambda: len(world.hub._held.get("web-1", ())) == hub_module.MAX_HELD_PER_AGENT)
    with pytest.raises(Unavailable) as caught:
        agent.poll(1)
    assert caught.value.code == "too-many-polls"
    for sock in held:
        sock.close()


def test_a_removed_agent_is_refused(world: World) -> None:
    agent = client(world)
    agent.poll(0)
    world.hub.declare({})
    with pytest.raises(Refused) as caught:
        agent.poll(0)
    assert caught.value.code == "agent-unknown"


def test_stopping_ends_held_polls_and_the_port_can_be_taken_again(world: World) -> None:
    agent = client(world)
    agent.poll(0)
    failures: list[Exception] = []

    def wait() -> None:
        try:
            agent.poll(30)
        except (Refused, Unavailable) as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    until("the held poll", lambda: world.hub._held.get("web-1"))
    begun = time.monotonic()
    world.hub.stop()
    world.hub.stop()
    thread.join(5)
    assert time.monotonic() - begun < 3
    world.hub.start()
    assert client(world).poll(0).agent == "web-1"
    with pytest.raises(Unavailable) as caught:
        type(world.hub)(
            world.hub.address.removeprefix("http://"),
            signer=world.controller,
            clock=world.hub._clock,
            wake=world.woken.set,
            trust_links=list,
            trust_version=lambda: 1,
        ).start()
    assert caught.value.code == "listen-failed"


def test_health_and_status(world: World) -> None:
    for path in ("/healthz", "/status", "/agent/v1/trust"):
        with urllib.request.urlopen(world.hub.address + path, timeout=5) as answer:
            assert answer.status == 200


class Replayer(http.server.BaseHTTPRequestHandler):
    """Answers every poll with the same recorded delivery, and the trust chain truthfully."""

    recorded = b""
    chain = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(self.recorded)

    def do_GET(self) -> None:
        self.answer(self.chain)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.mark.parametrize(
    ("changes", "signer", "code"),
    [
        ({}, "controller", "order-stale"),
        ({"nonce": "echo", "agent": "web-2"}, "controller", "order-foreign"),
        ({"nonce": "echo", "environment": "dev"}, "controller", "order-foreign"),
        ({}, "stranger", "order-untrusted-signer"),
    ],
)
def test_deliveries_that_were_not_made_for_this_poll_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], signer: str, code: str
) -> None:
    values: dict[str, Any] = {"agent": "web-1", "environment": "prod", "nonce": "0" * 32, **changes}
    if values["nonce"] == "echo":
        values["nonce"] = "7" * 32
        monkeypatch.setattr("controller.agent.client.secrets.token_hex", lambda _: "7" * 32)
    delivery = Delivery(**values, trust_version=1, at=now())
    by = world.controller if signer == "controller" else world.key(signer)
    Replayer.recorded = dsse.sign(canonical(delivery.plain()), "application/vnd.lockgate.delivery.v1+json", by)
    with urllib.request.urlopen(world.hub.address + "/agent/v1/trust", timeout=5) as answer:
        Replayer.chain = answer.read()
    server = http.server.HTTPServer(("127.0.0.1", 0), Replayer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with pytest.raises(Refused) as caught:
            client(world, url=f"http://127.0.0.1:{server.server_address[1]}").poll(0)
        assert caught.value.code == code
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_order_whose_id_says_otherwise_is_malformed(world: World) -> None:
    agent = client(world)
    order = world.order("web-1", {"api": component(DIGEST)}, deadline=now() + timedelta(seconds=5))
    world.hub.deliver([world.prepare(order.model_copy(update={"id": "another/1/1/web-1/deploy"}))])
    delivery = agent.poll(0)
    (envelope,) = delivery.orders
    with pytest.raises(Refused) as caught:
        agent.order(envelope, delivery)
    assert caught.value.code == "order-malformed"
