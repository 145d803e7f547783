"""The agents' door over HTTP: signed long polls in, signed deliveries out, on one background thread.

POST /agent/v1/poll   a DSSE envelope of a Poll → a DSSE envelope of a Delivery bound to the poll's nonce
GET  /agent/v1/trust  the trust chain's links, for agents that meet an unknown controller key
GET  /agent/v1/log?from=N&to=M    a consistency proof of the log; proofs need no signature
GET  /agent/v1/restart  the owners' newest restart of evidence, for agents that saw more of the log
GET  /agent/v1/declared  main's objects that declare the agents, for those that check witnesses
GET  /healthz, /status
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controller.adapters.hub.mailbox import Answer, Mailbox
from controller.errors import LockgateError, Unavailable
from controller.ledger import dsse
from controller.ledger.canonical import canonical
from controller.model.order import (
    DELIVERY_TYPE,
    AgentKey,
    AgentStatement,
    Delivery,
    Obstacle,
    Poll,
    PreparedOrder,
    SamplingRequest,
)
from controller.ports import Clock, LogView, Signer, Wake

MAX_BODY = 8 << 20
"""Bytes of one poll; an agent sends at most a few hundred statements at a time."""
BODY_SECONDS = 10.0
"""A client that takes longer to send its poll is let go."""
MAX_WAIT = 60.0
MAX_HELD_PER_AGENT = 4
"""Polls of one agent held at the same time; a further one is answered 429."""
MAX_CONNECTIONS = 4096
_STATUS = {"poll-malformed": 400, "envelope-malformed": 400, "not-canonical": 400, "nonce-replayed": 409}


class HttpHub:
    """An AgentHub on `listen` ("host:port"; port 0 takes a free one, see `address`).

    `trust_links` gives the chain's links (models or plain JSON) and `status` what GET /status answers; both are
    called on worker threads. `trust_version` (the newest) and `wake` (a statement arrived, or an agent appeared
    for the first time) are called on the hub's thread: they must return at once.
    """

    def __init__(
        self,
        listen: str,
        *,
        signer: Signer,
        clock: Clock,
        wake: Wake,
        trust_links: Callable[[], Sequence[Any]],
        trust_version: Callable[[], int],
        status: Callable[[], Mapping[str, Any]] = dict,
        log: LogView | None = None,
        declared: Callable[[], Any] = dict,
        restarts: Callable[[], int] = int,
        restart: Callable[[], Any] = dict,
    ) -> None:
        self._listen = listen
        self._signer = signer
        self._clock = clock
        self._trust_links = trust_links
        self._trust_version = trust_version
        self._status = status
        self._log = log
        self._declared = declared
        self._restarts = restarts
        self._restart = restart
        self._box = Mailbox(wake, self._changed, log.witnessed if log is not None else lambda _agent, _size: [])
        self._held: dict[str, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._stopping = False

    # -- the port --------------------------------------------------------------------------------------

    def declare(self, agents: Mapping[str, AgentKey]) -> None:
        """Replace the declared agents."""
        self._box.declare(agents)

    def deliver(self, orders: Sequence[PreparedOrder]) -> None:
        """Offer orders until they are reported or cancelled; held polls are answered at once."""
        self._box.deliver(orders)

    def cancel(self, order_ids: Sequence[str]) -> None:
        """Stop offering these orders."""
        self._box.cancel(order_ids)

    def show(self, size: int) -> None:
        """Have every agent shown a log of at least `size` entries; held polls are answered at once."""
        self._box.show(size)

    def unwitnessed(self) -> Mapping[str, tuple[int, int]]:
        """Orders held back for witnesses: how many agents have cosigned, and how many must."""
        return self._box.unwitnessed()

    def sample(self, requests: Mapping[str, SamplingRequest | None]) -> None:
        """Set what the named agents sample."""
        self._box.sample(requests)

    def acknowledge(self, digests: Sequence[str]) -> None:
        """Let agents forget these statements."""
        self._box.acknowledge(digests)

    def inbox(self) -> tuple[AgentStatement, ...]:
        """Verified, unacknowledged statements in order of arrival."""
        return self._box.inbox()

    def seen(self) -> Mapping[str, datetime]:
        """When each agent's last accepted poll arrived."""
        return self._box.seen()

    def refused(self) -> Mapping[str, str]:
        """The declared names in which polls are refused, and the code; none once one was accepted."""
        return self._box.refused()

    def obstacles(self) -> Mapping[str, Obstacle]:
        """What the agents' orders in hand wait for, as they last said."""
        return self._box.obstacles()

    def skewed(self) -> Mapping[str, float]:
        """Seconds by which clocks of agents are ahead of ours, of those refused for that."""
        return self._box.skewed()

    def delivered(self) -> Mapping[str, datetime]:
        """When each order was first handed out."""
        return self._box.delivered()

    @property
    def address(self) -> str:
        """The base URL agents dial, known once started."""
        if self._socket is None:
            raise Unavailable("hub-stopped", "the agents' door is not open")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Bind and serve; raises Unavailable("listen-failed") when the address cannot be had."""
        self._socket = _bind(self._listen)
        app = Starlette(
            routes=[
                Route("/agent/v1/poll", self._poll, methods=["POST"]),
                Route("/agent/v1/trust", self._trust),
                Route("/agent/v1/log", self._tell_log),
                Route("/agent/v1/restart", self._tell_restart),
                Route("/agent/v1/declared", self._tell_declared),
                Route("/healthz", _healthz),
                Route("/status", self._tell_status),
            ]
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._stopping = False
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="agent-hub", daemon=True)
        self._thread.start()
        ready.wait(10)

    def stop(self) -> None:
        """Answer held polls, close the door and end the thread; safe to call twice."""
        self._stopping = True
        if self._server is not None and self._loop is not None and self._thread is not None:
            self._server.should_exit = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._release_all)
            self._thread.join(10)
        if self._socket is not None:
            self._socket.close()
        self._server = self._loop = self._thread = self._socket = None

    # -- HTTP ------------------------------------------------------------------------------------------

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            assert self._server is not None
            assert self._socket is not None
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(ready.set)
            await self._server.serve(sockets=[self._socket])

        asyncio.run(main())

    async def _poll(self, request: Request) -> Response:
        try:
            body = await asyncio.wait_for(_read(request), BODY_SECONDS)
            poll, sent = self._box.accept(body, self._clock.now(), self._clock.monotonic())
            if poll.cosignature is not None:
                await run_in_threadpool(self._cosigned, poll)
            held = self._held.setdefault(poll.agent, set())
            if len(held) >= MAX_HELD_PER_AGENT:
                return JSONResponse({"code": "too-many-polls"}, 429, headers={"Retry-After": "1"})
            await self._hold(request, poll, sent, held)
            answer = await run_in_threadpool(self._deliver, poll, sent)
            return Response(answer, media_type="application/json")
        except _TooLargeError:
            return JSONResponse({"code": "poll-too-large"}, 413, headers={"Connection": "close"})
        except (TimeoutError, ClientDisconnect):
            return JSONResponse({"code": "poll-too-slow"}, 408, headers={"Connection": "close"})
        except LockgateError as error:
            return JSONResponse({"code": error.code, "message": str(error)}, _STATUS.get(error.code, 403))

    async def _hold(self, request: Request, poll: Poll, sent: list[str], held: set[asyncio.Event]) -> None:
        """Wait until something is due to the agent, its patience ends, or it hangs up."""
        until = self._clock.monotonic() + min(poll.wait_seconds, MAX_WAIT)
        changed = asyncio.Event()
        held.add(changed)
        gone = asyncio.ensure_future(_hangs_up(request))
        try:
            while not self._stopping and not self._box.due(poll.agent, sent):
                left = until - self._clock.monotonic()
                if left <= 0:
                    return
                changed.clear()
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait((waiting, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if gone.done():
                    raise ClientDisconnect
        finally:
            gone.cancel()
            held.discard(changed)
            if not held:
                self._held.pop(poll.agent, None)

    def _cosigned(self, poll: Poll) -> None:
        key = self._box.key(poll.agent)
        if self._log is None or poll.cosignature is None or key is None:
            return
        if self._log.cosigned(poll.agent, key, poll.cosignature, self._clock.now()):
            self._box.cosigned()

    def _deliver(self, poll: Poll, sent: list[str]) -> bytes:
        now = self._clock.now()
        answer: Answer = self._box.answer(poll.agent, sent, now)
        # After the orders: the checkpoint covers whatever they stand in.
        proof = self._log.proof(poll.log_size) if self._log is not None else None
        if proof is not None:
            self._box.told_log(poll.agent, proof.size)
        delivery = Delivery(
            agent=poll.agent,
            environment=poll.environment,
            nonce=poll.nonce,
            orders=answer.orders,
            acknowledged=answer.acknowledged,
            sampling=answer.sampling,
            trust_version=self._trust_version(),
            at=now,
            log=proof,
            witnessed=answer.witnessed,
            certificates=self._log.certificates() if self._log is not None and answer.witnessed else {},
            restarts=self._restarts(),
            approving=answer.approving,
        )
        return dsse.sign(canonical(delivery.plain()), DELIVERY_TYPE, self._signer)

    async def _trust(self, _request: Request) -> Response:
        links = await run_in_threadpool(self._trust_links)
        return JSONResponse({"links": [_plain(link) for link in links]})

    async def _tell_log(self, request: Request) -> Response:
        try:
            start, size = int(request.query_params["from"]), int(request.query_params["to"])
            if self._log is None:
                return JSONResponse({"code": "log-range", "message": "there is no log"}, 404)
            return JSONResponse({"hashes": await run_in_threadpool(self._log.consistency, start, size)})
        except (KeyError, ValueError):
            return JSONResponse({"code": "log-range", "message": "expected from and to"}, 400)
        except LockgateError as error:
            return JSONResponse({"code": error.code, "message": str(error)}, 404)

    async def _tell_declared(self, _request: Request) -> Response:
        return JSONResponse(_plain(await run_in_threadpool(self._declared)))

    async def _tell_restart(self, _request: Request) -> Response:
        return JSONResponse(_plain(await run_in_threadpool(self._restart)))

    async def _tell_status(self, _request: Request) -> Response:
        return JSONResponse(dict(await run_in_threadpool(self._status)))

    def _changed(self, agent: str) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._release, agent)

    def _release(self, agent: str) -> None:
        for event in self._held.get(agent, ()):
            event.set()

    def _release_all(self) -> None:
        for agent in list(self._held):
            self._release(agent)


class _TooLargeError(Exception):
    """A body beyond MAX_BODY."""


async def _read(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise _TooLargeError
    return bytes(data)


async def _hangs_up(request: Request) -> None:
    receive: Callable[[], Awaitable[Any]] = request.receive
    while (await receive())["type"] != "http.disconnect":
        pass


def _plain(link: Any) -> Any:
    """A link as JSON: models by their fields, bytes as base64; plain JSON as it is."""
    return link.model_dump(mode="json", exclude_defaults=True) if isinstance(link, BaseModel) else link


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, ValueError) as error:
        raise Unavailable(
            "listen-failed",
            "the agents' door cannot open",
            where=listen,
            expected="a free host:port of this machine",
            got=str(error),
            cure="stop what listens there, or choose another --listen",
        ) from error
    return sock
