"""A hub with real keys and a real trust chain, real agent processes, and small real HTTP services to run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from controller.adapters.git.keys import FileSigner, generate_key
from controller.adapters.hub.http import HttpHub
from controller.agent.drivers.process import stop_all
from controller.core.chain import ChainLink
from controller.ledger import dsse
from controller.ledger.canonical import canonical
from controller.model.order import (
    ORDER_TYPE,
    AgentKey,
    AgentStatement,
    Approving,
    Order,
    OrderComponent,
    PreparedOrder,
    Report,
    order_id,
)
from controller.model.trustroot import TrustRoot
from controller.ports import Signer
from controller.uses.images import build_layout
from tests.support.approving import vouched_rules
from tests.support.logs import MemoryLog
from tests.support.waiting import until

SERVICE = b"""
import http.server, os, sys
served = errors = 0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def log_message(self, *args): pass
    def do_GET(self):
        global served, errors
        code, body = 200, os.environ.get("ANSWER", MESSAGE)
        if self.path == "/healthz":
            code = 503 if SICK else 200
        elif self.path == "/metrics":
            body = ('http_requests_total{code="200"} %d\\nhttp_requests_total{code="500"} %d\\n'
                    'http_request_duration_seconds_bucket{le="0.1"} %d\\n'
                    'http_request_duration_seconds_bucket{le="+Inf"} %d\\n'
                    % (served - errors, errors, served, served))
        elif self.path == "/crash":
            os._exit(3)
        else:
            served += 1
            if FAILS:
                code = 500
                errors += 1
        data = body.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
class Server(http.server.HTTPServer):
    def server_bind(self):  # without a lookup of the host's name
        import socketserver
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", self.server_address[1]
Server(("127.0.0.1", int(os.environ["PORT_HTTP"])), Handler).serve_forever()
"""
RUN: dict[str, Any] = {
    "command": [sys.executable, "-I", "-S", "server.py"],
    "ports": {"http": 8080},
    "health": {"http": "/healthz"},
    "metrics": {"http": "/metrics"},
    "stopTimeout": "2s",
}


def service(message: str, *, sick: bool = False, fails: bool = False) -> dict[str, bytes]:
    """The files of an image whose service answers `message`."""
    head = f"MESSAGE, SICK, FAILS = {message!r}, {sick}, {fails}\n".encode()
    return {"server.py": head + SERVICE}


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def _object(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def trust_chain(controller: str, owner: str) -> tuple[TrustRoot, list[Any]]:
    """A genesis commit made by hand: its root, and the chain that proves its trust document."""
    document = yaml.safe_dump(
        {
            "apiVersion": "lockgate.dev/v1",
            "kind": "Trust",
            "metadata": {"name": "trust"},
            "spec": {
                "version": 1,
                "principals": {"olga": {"keys": [owner]}, "controller": {"keys": [controller]}},
                "roles": {"owners": ["olga"], "controller": ["controller"]},
                "paths": [{"match": "**", "write": "owners"}],
            },
        }
    ).encode()
    folder = b"100644 trust.yaml\0" + bytes.fromhex(_object("blob", document))
    tree = b"40000 trust\0" + bytes.fromhex(_object("tree", folder))
    commit = f"tree {_object('tree', tree)}\nauthor O <o@example.com> 0 +0000\n\ngenesis\n".encode()
    root = TrustRoot(project="shop", genesis=_object("commit", commit))
    return root, [ChainLink(document=document, commit=commit, trees=[tree, folder])]


@dataclass
class AgentProcess:
    """One `lockgate agent` as its own process."""

    directory: Path
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    def codes(self) -> list[str]:
        return [json.loads(line)["code"] for line in self.log.read_text().splitlines() if line.startswith("{")]

    def endpoint(self, component: str) -> str:
        ports = json.loads((self.directory / "endpoints.json").read_bytes())[component]
        return f"http://127.0.0.1:{ports['http']}"

    def sticker(self) -> dict[str, Any]:
        return json.loads((self.directory / "lockgate.version.json").read_bytes())

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "journal.jsonl").read_bytes().splitlines()]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=3) as answer:
        return answer.read().decode()


@dataclass
class World:
    """One environment, its hub, and agents by name."""

    path: Path
    hub: HttpHub
    controller: Signer
    root_file: Path
    images: Path
    woken: threading.Event
    log: MemoryLog
    keys: dict[str, FileSigner] = field(default_factory=dict)
    declared: dict[str, AgentKey] = field(default_factory=dict)
    running: list[AgentProcess] = field(default_factory=list)
    entry: int = 0
    rules: dict[str, Approving] = field(default_factory=dict)

    def key(self, name: str) -> FileSigner:
        if name not in self.keys:
            self.keys[name] = generate_key(self.path / f"{name}.key")
        return self.keys[name]

    def declare(self, *names: str, environment: str = "prod") -> None:
        for name in names:
            self.declared[name] = AgentKey(environment, self.key(name).public_key)
        self.hub.declare(self.declared)

    def agent(self, name: str, *, crash_at: str = "", url: str = "", **settings: Any) -> AgentProcess:
        """Start an agent (again, over the same directory)."""
        self.key(name)
        directory = self.path / "agents" / name
        values = {
            "trust_root": str(self.root_file),
            "name": name,
            "environment": "prod",
            "key": str(self.path / f"{name}.key"),
            "controller": url or self.hub.address,
            "directory": str(directory),
            "images": str(self.images),
            **settings,
        }
        code = (
            "import json,sys;from pathlib import Path;from controller.agent.main import *;"
            "v=json.loads(sys.argv[1]);"
            "v.update({k:Path(v[k]) for k in ('trust_root','key','directory','images')});"
            "sys.exit(run_agent(AgentSettings(**v)))"
        )
        log = self.path / f"{name}.{len(self.running)}.log"
        env = {k: v for k, v in os.environ.items() if k != "LOCKGATE_CRASH_AT"}
        if crash_at:
            env["LOCKGATE_CRASH_AT"] = crash_at
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(values)], stdout=out, stderr=out, env=env
            )
        agent = AgentProcess(directory, process, log)
        self.running.append(agent)
        return agent

    def image(self, name: str, tag: str, files: Mapping[str, bytes], **more: Any) -> str:
        return build_layout(self.images, name, tag, files, **more)

    def order(self, target: str, components: Mapping[str, OrderComponent], **changes: Any) -> Order:
        self.entry += 1
        now = datetime.now(UTC)
        digests = {name: component.digest for name, component in components.items()}
        values: dict[str, Any] = {
            "run": f"prod-{self.entry}-0123abcd",
            "environment": "prod",
            "stage": 1,
            "attempt": 1,
            "target": target,
            "action": "deploy",
            "release": f"shop-{self.entry}",
            "manifest_digest": "sha256:" + hashlib.sha256(canonical(digests)).hexdigest(),
            "components": dict(components),
            "deadline": now + timedelta(seconds=60),
            "entry_index": self.entry,
            "evidence_commit": "0" * 40,
            "log": changes.pop("log", None) or self.log.record(),
            "at": now,
            **changes,
        }
        named = order_id(*(values[k] for k in ("run", "stage", "attempt", "target", "action")))
        return Order(**{"id": named, **values})

    def prepare(self, order: Order, *, signer: Signer | None = None, agent: str = "") -> PreparedOrder:
        data = dsse.sign(canonical(order.plain()), ORDER_TYPE, signer or self.controller)
        if order.environment not in self.rules:
            self.rules[order.environment] = vouched_rules(FileSigner(self.path / "owner.key"), order.environment)
        return PreparedOrder(agent or order.target, order.id, data, approving=self.rules[order.environment])

    def report(self, order: Order, seconds: float = 20.0) -> Report:
        """The report on an order, once it arrives."""
        return until(f"a report on {order.id}", lambda: self._report(order.id), seconds)

    def reports(self, order: Order) -> list[AgentStatement]:
        return [s for s in self.hub.inbox() if isinstance(s.body, Report) and s.body.order == order.id]

    def deploy(self, target: str, components: Mapping[str, OrderComponent], **changes: Any) -> Report:
        order = self.order(target, components, **changes)
        self.hub.deliver([self.prepare(order)])
        return self.report(order)

    def close(self) -> None:
        for agent in self.running:
            if agent.process.poll() is None:
                agent.kill()
        for directory in (self.path / "agents").glob("*"):
            stop_all(directory)
        self.hub.stop()

    def _report(self, name: str) -> Report | None:
        found = [s.body for s in self.hub.inbox() if isinstance(s.body, Report) and s.body.order == name]
        return found[0] if found else None


def make_world(path: Path, listen: str = "127.0.0.1:0") -> World:
    """A started hub with fresh keys; nothing is declared yet."""
    controller = generate_key(path / "controller.key")
    owner = generate_key(path / "owner.key")
    root, links = trust_chain(controller.public_key, owner.public_key)
    root.save(path / "trust-root.json")
    woken = threading.Event()
    log = MemoryLog(root, controller, shared=1)
    hub = HttpHub(
        listen,
        signer=controller,
        clock=SystemClock(),
        wake=woken.set,
        trust_links=lambda: links,
        trust_version=lambda: 1,
        log=log.book,
    )
    hub.start()
    return World(path, hub, controller, path / "trust-root.json", path / "images", woken, log)


def component(digest: str, name: str = "api", **changes: Any) -> OrderComponent:
    return OrderComponent(repository=f"oci-layout:{name}", digest=digest, **{"run": RUN, **changes})
