"""Authentication to registries: challenges (RFC 9110, section 11), bearer tokens, Docker's credential file.

The token flow is the distribution project's "Token Authentication Specification". Only pull is ever asked
for, whatever scope a challenge names. No error text here carries a credential.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from controller.errors import Invalid, Refused
from controller.ports import Clock

Credentials = Callable[[str], tuple[str, str] | None]
"""User and password for a registry host, or None for anonymous access."""

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*(Bearer|Basic)(?=\s|,|$)", re.IGNORECASE)
_HEADER_LIMIT: Final = 4096
_TOKEN_LIMIT: Final = 64 * 1024
_DEFAULT_LIFETIME: Final = 60.0
_LEEWAY: Final = 10.0
_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for. `scheme` is "bearer" or "basic"."""

    scheme: str
    realm: str = ""
    service: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """The challenge to answer in a WWW-Authenticate header: bearer before basic, None for neither."""
    header = header[:_HEADER_LIMIT]
    found: dict[str, Challenge] = {}
    marks = list(_SCHEME.finditer(header))
    for mark, after in zip(marks, [*marks[1:], None], strict=False):
        text = header[mark.end() : after.start() if after else len(header)]
        values = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(text)}
        scheme = mark[1].lower()
        found[scheme] = Challenge(scheme, values.get("realm", ""), values.get("service", ""))
    return found.get("bearer") or found.get("basic")


@dataclass(slots=True)
class _Token:
    """One scope's token; its lock lets one thread fetch while the others wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    header: str = ""
    until: float = 0.0


class Authenticator:
    """Authorization headers for one client, remembering challenges and tokens. Thread-safe."""

    def __init__(self, client: httpx.Client, credentials: Credentials, clock: Clock) -> None:
        self._client = client
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._challenges: dict[tuple[str, str], Challenge] = {}
        self._tokens: dict[tuple[str, str], _Token] = {}

    def header(self, host: str, name: str, *, rejected: str | None = None) -> str | None:
        """The Authorization value for a repository by the last challenge seen, None before the first.

        `rejected` is a value the registry has just refused: a token like it is fetched anew. Raises
        Refused("registry-unauthorized"), or httpx errors when the token service does not answer.
        """
        challenge = self._challenges.get((host, name))
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            pair = self._credentials(host)
            return None if pair is None else _basic(pair)
        with self._lock:
            token = self._tokens.setdefault((host, name), _Token())
        with token.lock:
            if token.header == rejected or self._clock.monotonic() >= token.until:
                token.header, lifetime = self._fetch(host, name, challenge)
                token.until = self._clock.monotonic() + max(lifetime - _LEEWAY, lifetime / 2)
            return token.header

    def learn(self, host: str, name: str, header: str, *, secure: bool) -> bool:
        """Remember a challenge; False when it is none we can answer or would leak a secret to plain http."""
        challenge = parse_challenge(header)
        if challenge is None:
            return False
        if challenge.scheme == "bearer" and not _realm_ok(challenge.realm, secure):
            return False
        self._challenges[(host, name)] = challenge
        return True

    def _fetch(self, host: str, name: str, challenge: Challenge) -> tuple[str, float]:
        """A pull token: its Authorization value and its lifetime in seconds."""
        query = {"scope": f"repository:{name}:pull"}
        if challenge.service:
            query["service"] = challenge.service
        headers = {"Accept": "application/json"}
        if (pair := self._credentials(host)) is not None:
            headers["Authorization"] = _basic(pair)
        url = httpx.URL(challenge.realm).copy_merge_params(query)
        with self._client.stream("GET", url, headers=headers, follow_redirects=False) as answer:
            if answer.status_code == 429 or answer.status_code >= 500:
                raise httpx.HTTPStatusError("token service", request=answer.request, response=answer)
            token, lifetime = _token(_limited(answer)) if answer.status_code == 200 else ("", 0.0)
        if not token:
            raise unauthorized(host, name, f"the token service answered {answer.status_code}")
        return f"Bearer {token}", lifetime


def unauthorized(host: str, name: str, got: str) -> Refused:
    """The registry does not let us read."""
    return Refused(
        "registry-unauthorized",
        "the registry does not let us read this repository",
        where=f"repository {host}/{name}",
        expected="leave to pull",
        got=got,
        cure="give credentials for this host or grant them pull on the repository",
    )


def docker_config_credentials(path: Path) -> Credentials:
    """Credentials from the `auths` of a Docker/Podman/skopeo config file, read once.

    Credential helpers in the file are not run. Raises Invalid("docker-config-invalid") when the file is
    not what `docker login` writes; a file that does not exist holds no credentials.
    """
    try:
        auths = json.loads(path.read_bytes()).get("auths", {})
        pairs = {_config_host(key): _config_pair(value) for key, value in auths.items()}
    except FileNotFoundError:
        pairs = {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise Invalid(
            "docker-config-invalid",
            "the registry credential file cannot be read",
            where=f"file {path}",
            expected='JSON with {"auths": {host: {"auth": base64}}}',
            got=type(error).__name__,
            cure="write it with `skopeo login` or `docker login`",
        ) from None
    return lambda host: pairs.get(_hub(host))


def _config_host(key: str) -> str:
    return _hub(key.split("://", 1)[-1].split("/", 1)[0])


def _hub(host: str) -> str:
    return "docker.io" if host in _DOCKER_HUB else host


def _config_pair(value: dict[str, str]) -> tuple[str, str] | None:
    if "auth" not in value:
        return (value["username"], value["password"]) if "username" in value and "password" in value else None
    try:
        user, separator, password = base64.b64decode(value["auth"], validate=True).decode().partition(":")
    except binascii.Error as error:
        raise ValueError("auth is not base64") from error
    return (user, password) if separator else None


def _basic(pair: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(f"{pair[0]}:{pair[1]}".encode()).decode("ascii")


def _realm_ok(realm: str, secure: bool) -> bool:
    try:
        url = httpx.URL(realm)
    except httpx.InvalidURL:
        return False
    return bool(url.host) and (url.scheme == "https" or (url.scheme == "http" and not secure))


def _limited(answer: httpx.Response) -> bytes:
    body = b""
    for chunk in answer.iter_raw(_TOKEN_LIMIT):
        body += chunk
        if len(body) > _TOKEN_LIMIT:
            return b""
    return body


def _token(body: bytes) -> tuple[str, float]:
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token") or ""
        lifetime = float(document.get("expires_in") or _DEFAULT_LIFETIME)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return "", 0.0
    # A header value with control characters would be an injection; httpx would raise with it in the text.
    clean = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    return (token if clean else ""), lifetime
