"""Tokens, credentials and redirects: secrets reach nobody but whom they are for."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from pathlib import Path

import httpx
import pytest

from controller.adapters.registries import (
    Limits,
    OciRegistry,
    docker_config_credentials,
)
from controller.adapters.registries.oci_auth import Authenticator, parse_challenge
from controller.errors import Invalid, Refused
from tests.support.fault_registry import FaultRegistry
from tests.support.registry import LOGIN, SECRET, FakePace


def test_tokens_are_fetched_once_and_again_when_they_expire(
    faulty: FaultRegistry, client: OciRegistry, pace: FakePace
) -> None:
    faulty.token = "first"
    repository = f"{faulty.host}/shop/api"
    threads = [threading.Thread(target=client.manifest, args=(repository, "v1.0.0")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert faulty.tokens_given == 1
    scopes = [seen.query["scope"] for seen in faulty.seen if seen.path == "/token"]
    assert scopes == [["repository:shop/api:pull"]]
    pace.extra = 291.0
    client.manifest(repository, "v1.0.0")
    assert faulty.tokens_given == 2
    faulty.token = "second"
    client.manifest(repository, "v1.0.0")
    assert faulty.tokens_given == 3


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": "a\\r\\nX: y"}', b'{"token": 7}', b" " * 100_000])
def test_a_token_service_that_talks_nonsense_is_refused(
    faulty: FaultRegistry, client: OciRegistry, body: bytes
) -> None:
    faulty.token = "given"
    faulty.fault(path="/token", body=body, times=100)
    with pytest.raises(Refused) as caught:
        client.tags(f"{faulty.host}/shop/api")
    assert caught.value.code == "registry-unauthorized"


def test_a_token_service_that_is_busy_is_asked_again(
    faulty: FaultRegistry, client: OciRegistry, pace: FakePace
) -> None:
    faulty.token = "given"
    faulty.fault(path="/token", status=503, headers={"Retry-After": "2"})
    assert client.tags(f"{faulty.host}/shop/api")
    assert pace.slept == [2.0]


@pytest.mark.parametrize(("realm", "secure", "learned"), [
    ("https://auth.example.com/token", True, True), ("http://auth.example.com/token", True, False),
    ("http://auth.example.com/token", False, True), ("ftp://auth.example.com", False, False), ("", True, False),
])  # fmt: skip
def test_tokens_are_never_asked_for_below_the_registrys_own_security(
    pace: FakePace, realm: str, secure: bool, learned: bool
) -> None:
    with httpx.Client() as http:
        authenticator = Authenticator(http, lambda _host: LOGIN, pace)
        assert (
            authenticator.learn("registry.example.com", "a", f'Bearer realm="{realm}"', secure=secure) is learned
        )


def test_tokens_by_login(faulty: FaultRegistry, client: OciRegistry) -> None:
    faulty.token, faulty.token_login = "given", LOGIN
    with pytest.raises(Refused) as caught:
        client.tags(f"{faulty.host}/shop/api")
    assert caught.value.code == "registry-unauthorized"
    with contextlib.closing(OciRegistry(credentials={faulty.host: LOGIN}.get)) as registry:
        assert registry.tags(f"{faulty.host}/shop/api")


def test_a_redirect_never_carries_credentials(images: Path, faulty: FaultRegistry) -> None:
    faulty.token, faulty.token_login = "given", LOGIN
    with FaultRegistry(images).running() as other:
        registry = OciRegistry(credentials=lambda _host: LOGIN)
        with contextlib.closing(registry):
            digest = registry.manifest(f"{faulty.host}/shop/api", "v1.0.0").digest
            place = f"http://{LOGIN[0]}:{SECRET}@{other.host}/v2/shop/api/manifests/{digest}"
            faulty.fault(status=307, headers={"Location": place})
            assert registry.manifest(f"{faulty.host}/shop/api", digest).digest == digest
        assert other.seen
        assert all("authorization" not in seen.headers for seen in other.seen)


def test_redirects_end(faulty: FaultRegistry, client: OciRegistry) -> None:
    faulty.fault(status=302, headers={"Location": "/v2/shop/api/manifests/v1.0.0"}, times=100)
    with pytest.raises(Refused) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-redirect"
    assert len(faulty.seen) == Limits().redirects + 1


@pytest.mark.parametrize(
    ("header", "scheme", "realm"),
    [
        ('Bearer realm="https://a.example.com/t",service="s",scope="x"', "bearer", "https://a.example.com/t"),
        ('Basic realm="x", Bearer realm="https://b.example.com"', "bearer", "https://b.example.com"),
        ('basic realm="registry"', "basic", "registry"),
        ("Bearer realm=https://c.example.com", "bearer", "https://c.example.com"),
        ("Negotiate", None, None),
        ("", None, None),
        ('Bearer realm="' + "x" * 100_000, "bearer", ""),
    ],
)
def test_challenges(header: str, scheme: str | None, realm: str | None) -> None:
    challenge = parse_challenge(header)
    assert (challenge.scheme if challenge else None) == scheme
    if challenge is not None and realm:
        assert challenge.realm == realm


def test_docker_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    secret = base64.b64encode(f"bob:{SECRET}:x".encode()).decode()
    auths = {"registry.example.com": {"auth": secret}, "https://index.docker.io/v1/": {"auth": secret}}
    path.write_text(json.dumps({"auths": auths}))
    credentials = docker_config_credentials(path)
    assert credentials("registry.example.com") == ("bob", f"{SECRET}:x")
    assert credentials("docker.io") == ("bob", f"{SECRET}:x")
    assert credentials("other.example.com") is None
    assert docker_config_credentials(tmp_path / "none")("registry.example.com") is None
    for text in (
        "[",
        json.dumps({"auths": {"h": {"auth": secret + "!"}}}),
        '{"auths": []}',
        '{"auths": {"h": 3}}',
    ):
        path.write_text(text)
        with pytest.raises(Invalid) as caught:
            docker_config_credentials(path)
        assert caught.value.code == "docker-config-invalid"
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "repository",
    ["", "shop/api", f"u:{SECRET}@registry.example.com/api", "registry.example.com/API", "registry.example.com",
     "registry.example.com/a/../b", "http://registry.example.com/a", "registry.example.com:99999/a"],
)  # fmt: skip
def test_bad_repositories(client: OciRegistry, repository: str) -> None:
    with pytest.raises(Invalid) as caught:
        client.tags(repository)
    assert caught.value.code == "repository-invalid"
    assert SECRET not in str(caught.value)
