"""A registry that speaks the OCI distribution API (v1.1, Docker's v2) over HTTP. Reading only."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeVar

import httpx

from controller.adapters.clock import SystemClock
from controller.adapters.registries.manifests import (
    ACCEPT,
    MANIFEST_LIMIT,
    check_reference,
    is_digest,
    is_name,
    is_tag,
    not_found,
    parse_json_object,
    read_manifest,
    too_large,
    truncated,
)
from controller.adapters.registries.oci_auth import Authenticator, Credentials, unauthorized
from controller.adapters.registries.tls import authorities, untrusted
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.model.registry import ManifestAnswer
from controller.ports import Clock

T = TypeVar("T")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_NEXT = re.compile(r'<([^<>]{1,2000})>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})


class Pace(Clock, Protocol):
    """A clock one can also wait on."""

    def sleep(self, seconds: float) -> None: ...


class SystemPace(SystemClock):
    """The machine's own time."""

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much patience and memory one request may cost. Times in seconds."""

    timeout: float = 10.0
    deadline: float = 60.0
    attempts: int = 4
    backoff: float = 0.25
    retry_after_cap: float = 30.0
    redirects: int = 5
    tags: int = 200_000
    pages: int = 2_000
    connections: int = 32


@dataclass(frozen=True, slots=True)
class _Place:
    """A repository split into where it is served and what it is called there."""

    repository: str
    host: str
    name: str
    base: httpx.URL

    def url(self, kind: str, rest: str) -> httpx.URL:
        return self.base.copy_with(path=f"/v2/{self.name}/{kind}/{rest}")


class _AgainError(Exception):
    """This attempt failed in a way that may pass; `error` is what to raise when patience ends."""

    def __init__(self, error: Unavailable) -> None:
        super().__init__(error.code)
        self.error = error


def _anonymous(_host: str) -> None:
    return None


class OciRegistry:
    """Tags, manifests and blobs over HTTP: pooled, thread-safe, with bounded retries."""

    def __init__(
        self,
        *,
        credentials: Credentials = _anonymous,
        insecure: frozenset[str] = frozenset(),
        pace: Pace | None = None,
        limits: Limits | None = None,
    ) -> None:
        """`insecure` names hosts ("host:port") spoken to by plain http; loopback addresses always are."""
        self._insecure = insecure
        self._pace = pace or SystemPace()
        self._limits = limits or Limits()
        pool = httpx.Limits(
            max_connections=self._limits.connections, max_keepalive_connections=self._limits.connections
        )
        direct = ("all://127.0.0.1", "all://localhost", "all://[::1]")
        checked = authorities()
        self._client = httpx.Client(
            timeout=self._limits.timeout,
            limits=pool,
            verify=checked,
            mounts={pattern: httpx.HTTPTransport(verify=checked, limits=pool) for pattern in direct},
            follow_redirects=False,
            headers={"User-Agent": "lockgate", "Accept-Encoding": "identity"},
        )
        self._auth = Authenticator(self._client, credentials, self._pace)
        self._places: dict[str, _Place] = {}

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def tags(self, repository: str) -> list[str]:
        """Every tag, sorted. Raises Invalid("repository-not-found"), Refused("registry-pagination")."""
        place = self._place(repository)
        url: httpx.URL | None = place.url("tags", "list").copy_merge_params({"n": "1000"})
        found: set[str] = set()
        seen: set[str] = set()
        while url is not None:
            if str(url) in seen or len(seen) >= self._limits.pages or len(found) > self._limits.tags:
                raise _pagination(place, "more pages or tags than allowed, or a page twice")
            seen.add(str(url))
            response, body = self._get(place, url, "application/json", f"tags of {repository}")
            if response.status_code == 404:
                raise _no_repository(place)
            tags = parse_json_object(body, f"tags of {repository}").get("tags") or []
            found.update(tag for tag in tags if isinstance(tag, str) and is_tag(tag))
            url = self._next_page(place, url, response)
        return sorted(found)

    def manifest(self, repository: str, reference: str) -> ManifestAnswer:
        """The manifest or index at a tag or digest. Raises as `read_manifest`, and Invalid when not there."""
        check_reference(repository, reference)
        place = self._place(repository)
        where = f"{repository}@{reference}" if is_digest(reference) else f"{repository}:{reference}"
        response, body = self._get(place, place.url("manifests", reference), ACCEPT, where)
        if response.status_code == 404:
            raise not_found(repository, reference)
        return read_manifest(
            body,
            response.headers.get("Content-Type"),
            repository=repository,
            reference=reference,
            claimed=response.headers.get("Docker-Content-Digest"),
        )

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The blob in chunks, unverified: the caller hashes them. Raises Invalid("blob-not-found")."""
        check_reference(repository, digest)
        place = self._place(repository)
        where = f"{repository}@{digest}"
        url = place.url("blobs", digest)
        response = self._retrying(where, lambda: self._open(place, url, "*/*", where))
        with contextlib.closing(response):
            if response.status_code == 404:
                raise Invalid(
                    "blob-not-found",
                    "the repository has no such blob",
                    where=f"repository {repository}",
                    expected=digest,
                    got="nothing",
                    cure="push the image again",
                )
            try:
                yield from response.iter_raw()
            except httpx.TimeoutException:
                raise _unavailable(where, "registry-timeout", "the registry stopped sending") from None
            except httpx.TransportError:
                raise truncated(where) from None

    def _place(self, repository: str) -> _Place:
        if (known := self._places.get(repository)) is not None:
            return known
        host, _, name = repository.partition("/")
        if not _is_host(host) or not is_name(name):
            raise Invalid(
                "repository-invalid",
                "this is not a repository",
                where="component repository",
                expected="host[:port]/name in lower case, without user, password, tag or digest",
                got="text with a user or password" if "@" in repository else repository[:140],
                cure="correct spec.repository of the component",
            )
        served = "registry-1.docker.io" if host == "docker.io" else host
        scheme = "http" if host in self._insecure or _is_loopback(host) else "https"
        base = httpx.URL(f"{scheme}://{served}")
        place = _Place(repository, host, name, base)
        self._places[repository] = place
        return place

    def _get(self, place: _Place, url: httpx.URL, accept: str, where: str) -> tuple[httpx.Response, bytes]:
        """A whole answer, 200 or 404, of at most the manifest limit."""

        def attempt() -> tuple[httpx.Response, bytes]:
            with contextlib.closing(self._open(place, url, accept, where)) as response:
                return response, self._read(response, where)

        return self._retrying(where, attempt)

    def _read(self, response: httpx.Response, where: str) -> bytes:
        until = self._pace.monotonic() + self._limits.deadline
        parts: list[bytes] = []
        size = 0
        for chunk in response.iter_raw():  # as it comes: a body that drips must not pass the deadline unseen
            parts.append(chunk)
            size += len(chunk)
            if size > MANIFEST_LIMIT:
                raise too_large(where, MANIFEST_LIMIT)
            if self._pace.monotonic() > until:
                raise _unavailable(where, "registry-timeout", f"the answer took over {self._limits.deadline:g} s")
        return b"".join(parts)

    def _retrying(self, where: str, attempt: Callable[[], T]) -> T:
        """Run `attempt` until it answers, waiting between attempts as long as the registry asks."""
        for number in range(1, self._limits.attempts + 1):
            try:
                return attempt()
            except _AgainError as again:
                error = again.error
            except httpx.RemoteProtocolError:
                error = truncated(where)
            except httpx.TimeoutException:
                error = _unavailable(where, "registry-timeout", f"no answer within {self._limits.timeout:g} s")
            except httpx.HTTPStatusError as failed:
                error = self._busy(failed.response, f"the token service for {where}")
            except (httpx.TransportError, httpx.InvalidURL) as failed:
                if (refused := untrusted(failed, where)) is not None:
                    raise refused from None  # trying again gives the same certificate
                error = _unavailable(where, "registry-unavailable", type(failed).__name__)
            asked = error.retry_after
            if number == self._limits.attempts or (asked or 0) > self._limits.retry_after_cap:
                raise error from None
            self._pace.sleep(asked if asked is not None else self._limits.backoff * 2 ** (number - 1))
        raise AssertionError("attempts is at least one")

    def _open(self, place: _Place, url: httpx.URL, accept: str, where: str) -> httpx.Response:
        """An open answer, 200 or 404, after authentication and redirects."""
        header = self._auth.header(place.host, place.name)
        response = self._follow(place, url, accept, header)
        if response.status_code == 401:
            response.close()
            challenge = response.headers.get("WWW-Authenticate", "")
            if self._auth.learn(place.host, place.name, challenge, secure=place.base.scheme == "https"):
                fresh = self._auth.header(place.host, place.name, rejected=header)
                if fresh is not None and fresh != header:
                    response = self._follow(place, url, accept, fresh)
        status = response.status_code
        if status in (200, 404):
            return response
        response.close()
        if status in (401, 403):
            raise unauthorized(place.host, place.name, f"HTTP {status}")
        if status in _RETRIED:
            raise _AgainError(self._busy(response, where))
        raise Refused(
            "registry-answer",
            "the registry gave an answer that makes no sense here",
            where=where,
            expected="HTTP 200",
            got=f"HTTP {status}",
            cure="check that this host is a registry",
        )

    def _follow(self, place: _Place, url: httpx.URL, accept: str, authorization: str | None) -> httpx.Response:
        """Send, following redirects; the Authorization value goes to the registry's own origin only."""
        for _ in range(self._limits.redirects + 1):
            headers = {"Accept": accept}
            if authorization is not None and _origin(url) == _origin(place.base):
                headers["Authorization"] = authorization
            response = self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            onward = url.join(response.headers.get("Location", ""))
            if onward.scheme not in ("http", "https") or (url.scheme, onward.scheme) == ("https", "http"):
                break
            url = onward.copy_with(userinfo=b"", fragment=None)
        raise Refused(
            "registry-redirect",
            "the registry redirects in a way that is not followed",
            where=f"repository {place.repository}",
            expected=f"at most {self._limits.redirects} redirects, never from https to another scheme",
            got="more, or a downgrade",
            cure="check the registry's configuration",
        )

    def _next_page(self, place: _Place, url: httpx.URL, response: httpx.Response) -> httpx.URL | None:
        match = _NEXT.search(response.headers.get("Link", ""))
        if match is None:
            return None
        onward = url.join(match[1])
        # Some registries behind a proxy write http:// into Link; only path and query are taken from it.
        if onward.host != place.base.host or not onward.path.startswith(f"/v2/{place.name}/"):
            raise _pagination(place, "a link out of the repository")
        return place.base.copy_with(raw_path=onward.raw_path)

    def _busy(self, response: httpx.Response, where: str) -> Unavailable:
        code = "registry-busy" if response.status_code == 429 else "registry-unavailable"
        return Unavailable(
            code,
            "the registry cannot answer now",
            where=where,
            expected="HTTP 200",
            got=f"HTTP {response.status_code}",
            cure="try again later",
            retry_after=self._retry_after(response.headers.get("Retry-After")),
        )

    def _retry_after(self, value: str | None) -> float | None:
        """Seconds from a Retry-After header in either of its forms (RFC 9110, section 10.2.3)."""
        if value is None:
            return None
        if value.strip().isascii() and value.strip().isdigit():
            return float(value.strip()[:9])
        try:
            at = parsedate_to_datetime(value)
            return max(0.0, (at.astimezone(UTC) - self._pace.now()).total_seconds())
        except (ValueError, OverflowError):
            return None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_host(host: str) -> bool:
    """A host as image references write it: with a dot, a port, or "localhost"."""
    if _HOST.fullmatch(host) is None or not ("." in host or ":" in host or host == "localhost"):
        return False
    port = host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else "443"
    return 0 < int(port) <= 65535


def _is_loopback(host: str) -> bool:
    bare = host[1 : host.index("]")] if host.startswith("[") else host.rpartition(":")[0] or host
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(bare).is_loopback
    return bare == "localhost"


def _unavailable(where: str, code: str, got: str) -> Unavailable:
    return Unavailable(
        code,
        "the registry does not answer",
        where=where,
        expected="an answer",
        got=got,
        cure="check the registry and the network, then try again",
    )


def _no_repository(place: _Place) -> LockgateError:
    return Invalid(
        "repository-not-found",
        "the registry has no such repository",
        where=f"repository {place.repository}",
        expected="a repository with tags",
        got="nothing",
        cure="push an image or correct spec.repository of the component",
    )


def _pagination(place: _Place, got: str) -> Refused:
    return Refused(
        "registry-pagination",
        "the registry's tag list does not end properly",
        where=f"repository {place.repository}",
        expected="pages that end, within the repository",
        got=got,
        cure="check the registry's configuration",
    )
