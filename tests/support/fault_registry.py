"""A distribution-API server over image layouts that can be told to misbehave, in this process."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

REF_NAME = "org.opencontainers.image.ref.name"


@dataclass
class Fault:
    """What to do instead of answering, for the next `times` requests whose path contains `path`."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    truncate: bool = False
    flip: bool = False
    hang: bool = False
    drip: bool = False
    path: str = "/v2/"
    times: int = 1


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


class FaultRegistry:
    """Serves the layouts below `images` at `host`. Faults are consumed in the order they were given."""

    def __init__(self, images: Path) -> None:
        self.images = images
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.page_size = 1000
        self.token: str | None = None
        self.token_lifetime = 300
        self.token_login: tuple[str, str] | None = None
        self.tokens_given = 0
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"registry": self}))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"

    def fault(self, **what: Any) -> None:
        """Arrange the next misbehaviour; the fields of `Fault`."""
        with self._lock:
            self.faults.append(Fault(**what))

    def take(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.path in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def paths(self) -> list[str]:
        """The paths requested so far."""
        return [seen.path for seen in self.seen]

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultRegistry]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(5)

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        """The honest answer to a request below /v2/."""
        for kind in ("tags", "manifests", "blobs"):
            name, found, rest = path.removeprefix("/v2/").partition(f"/{kind}/")
            folder = self.images / name
            if not found:
                continue
            if not (folder / "index.json").is_file():
                return 404, {}, b'{"errors": [{"code": "NAME_UNKNOWN"}]}'
            if kind == "tags":
                return self._tags(name, folder, query)
            return self._content(folder, rest, manifest=kind == "manifests")
        return 404, {}, b"{}"

    def _tags(self, name: str, folder: Path, query: dict[str, list[str]]) -> tuple[int, dict[str, str], bytes]:
        tags = sorted(_index(folder))
        last = query.get("last", [""])[0]
        size = min(int(query.get("n", ["1000"])[0]), self.page_size)
        rest = [tag for tag in tags if tag > last]
        page, more = rest[:size], rest[size:]
        headers = {"Content-Type": "application/json"}
        if more:
            headers["Link"] = f'</v2/{name}/tags/list?n={size}&last={page[-1]}>; rel="next"'
        return 200, headers, json.dumps({"name": name, "tags": page}).encode()

    def _content(self, folder: Path, reference: str, *, manifest: bool) -> tuple[int, dict[str, str], bytes]:
        digest = reference if ":" in reference else _index(folder).get(reference, "sha256:none")
        path = folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
        if not path.is_file():
            return 404, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'
        body = path.read_bytes()
        kind = json.loads(body).get("mediaType", "") if manifest else "application/octet-stream"
        return 200, {"Content-Type": kind, "Docker-Content-Digest": digest}, body


def _index(folder: Path) -> dict[str, str]:
    entries = json.loads((folder / "index.json").read_bytes())["manifests"]
    return {entry["annotations"][REF_NAME]: entry["digest"] for entry in entries}


class _Handler(BaseHTTPRequestHandler):
    registry: FaultRegistry
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        headers = {key.lower(): value for key, value in self.headers.items()}
        registry = self.registry
        registry.seen.append(Seen(self.command, parts.path, query, headers))
        fault = registry.take(parts.path)
        if fault is not None and fault.hang:
            registry.released.wait(30)
        if parts.path == "/token":
            status, answer, body = self._token(headers)
        elif registry.token is not None and headers.get("authorization") != f"Bearer {registry.token}":
            realm = f'Bearer realm="http://{registry.host}/token",service="fault",scope="repository:x:pull,push"'
            status, answer, body = 401, {"WWW-Authenticate": realm}, b"{}"
        else:
            status, answer, body = registry.answer(parts.path, query)
        if fault is not None:
            status = fault.status if fault.status != 200 else status
            answer |= fault.headers
            body = fault.body if fault.body is not None else body
            body = bytes([body[0] ^ 1]) + body[1:] if fault.flip else body
        self._send(
            status,
            answer,
            body,
            truncate=fault is not None and fault.truncate,
            drip=fault is not None and fault.drip,
        )

    def _token(self, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        registry = self.registry
        if registry.token_login is not None:
            wanted = "Basic " + base64.b64encode(":".join(registry.token_login).encode()).decode()
            if headers.get("authorization") != wanted:
                return 401, {}, b"{}"
        registry.tokens_given += 1
        document = {"token": registry.token, "expires_in": registry.token_lifetime}
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()

    def _send(self, status: int, headers: dict[str, str], body: bytes, *, truncate: bool, drip: bool) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if drip:
            self._drip(body)
        elif self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if truncate else body)
        self.wfile.flush()
        if truncate:
            self.close_connection = True

    def _drip(self, body: bytes) -> None:
        """A byte now and then, until the other side hangs up or the registry is told to go on."""
        with contextlib.suppress(OSError):
            for place in range(len(body)):
                self.wfile.write(body[place : place + 1])
                self.wfile.flush()
                self.registry.released.wait(0.1)
