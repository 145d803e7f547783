"""Registries and origins behind TLS with a private authority, real servers throughout."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git.keys import KeySigner
from controller.adapters.git.repo import GitRepo
from controller.adapters.registries.oci import OciRegistry
from controller.demo.stage import Stage
from controller.errors import LockgateError, Unavailable, UsageError
from controller.model.history import NewCommit
from tests.support.git_servers import http_server, ssh_server
from tests.support.registry import RunningRegistry, running_registry
from tests.support.tls import Authority, tls_front

HOST = "registry.example.com"
MAIN = "refs/heads/main"
LOGIN = ("deploy", "correct-horse")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(home: Path) -> Authority:
    return Authority(home / "ca")


# --- registries ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(home: Path) -> Iterator[tuple[RunningRegistry, str]]:
    """A registry over plain http with one image, and that image's digest."""
    stage = Stage(home / "stage")
    digest = stage.image("1.0.0", "", components=("api",))["api"]
    with running_registry(home / "registry") as registry:
        registry.push(stage.images, "api", "v1.0.0")
        yield registry, digest


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of example.com are this machine: addresses of it would be spoken to by plain http."""
    real = socket.getaddrinfo

    def lookup(host: Any, *more: Any, **named: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith("example.com") else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def front(home: Path, authority: Authority, plain: tuple[RunningRegistry, str]) -> Iterator[int]:
    with tls_front(home / "front", authority.certificate(HOST), plain[0].host) as port:
        yield port


def digest_at(host: str, port: int) -> str:
    registry = OciRegistry()
    try:
        repository = f"{host}:{port}/api"
        found = registry.manifest(repository, "v1.0.0").digest
        assert registry.tags(repository) == ["v1.0.0"]
        return found
    finally:
        registry.close()


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("how", ["file", "folder"])
def test_a_registry_with_a_certificate_of_a_private_authority(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, front: int, plain: tuple[RunningRegistry, str], how: str
) -> None:
    if how == "file":
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    else:
        subprocess.run(["openssl", "rehash", str(authority.folder)], check=True, capture_output=True)
        monkeypatch.setenv("SSL_CERT_DIR", str(authority.folder))
    assert digest_at(HOST, front) == plain[1]


@pytest.mark.usefixtures("names")
def test_an_unknown_authority_is_said(front: int) -> None:
    with pytest.raises(Unavailable) as caught:
        digest_at(HOST, front)
    assert caught.value.code == "registry-untrusted"
    assert "issuer certificate" in caught.value.got and "SSL_CERT_FILE" in caught.value.cure


@pytest.mark.usefixtures("names")
def test_a_certificate_of_another_host_is_said(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, front: int
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with pytest.raises(Unavailable) as caught:
        digest_at("other.example.com", front)
    assert caught.value.code == "registry-untrusted" and f"other.example.com:{front}" in caught.value.where
    assert "Hostname mismatch" in caught.value.got


@pytest.mark.usefixtures("names")
def test_authorities_that_cannot_be_read_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(UsageError) as caught:
        OciRegistry()
    assert caught.value.code == "ca-unreadable" and str(tmp_path / "nowhere.pem") in caught.value.where


# --- origins ---------------------------------------------------------------------------------------------


class Origin:
    """A repository behind https and a password; `configure` is what the account's git knows."""

    def __init__(self, folder: Path, port: int, authority: Authority) -> None:
        self.folder, self.port, self.authority = folder, port, authority
        self.url = f"https://localhost:{port}/origin.git"

    def configure(self, monkeypatch: pytest.MonkeyPatch, place: Path, password: str | None, trusted: bool) -> None:
        settings = place / "gitconfig"
        lines = []
        if trusted:
            lines.append(f"[http]\n\tsslCAInfo = {self.authority.file}\n")
        if password is not None:
            known = place / "credentials"
            known.write_text(f"https://{LOGIN[0]}:{password}@localhost:{self.port}\n")
            known.chmod(0o600)
            lines.append(f"[credential]\n\thelper = store --file {known}\n")
        settings.write_text("".join(lines))
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
        monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for name in ("GIT_SSL_CAINFO", "GIT_ASKPASS"):
            monkeypatch.delenv(name, raising=False)
        # A program that would wait for a person: nobody may ever run it.
        asking = place / "ask"
        asking.write_text(f"#!/bin/sh\ntouch {place}/asked\nexec sleep 600\n")
        asking.chmod(0o755)
        monkeypatch.setenv("SSH_ASKPASS", str(asking))


@pytest.fixture(scope="module")
def origin(home: Path, authority: Authority) -> Iterator[Origin]:
    root = home / "git"
    root.mkdir()
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(root / "origin.git")], check=True)
    subprocess.run(["git", "-C", str(root / "origin.git"), "config", "http.receivepack", "true"], check=True)
    with (
        http_server(home / "git-server", root) as server,
        tls_front(
            home / "git-front", authority.certificate("localhost"), server.prefix.removeprefix("http://"), LOGIN
        ) as port,
    ):
        yield Origin(root / "origin.git", port, authority)


def observed(origin: Origin, state: Path) -> GitRepo:
    repo = GitRepo(origin.url, state, timeout=20)
    repo.observe()
    return repo


def fails(origin: Origin, place: Path) -> LockgateError:
    with pytest.raises(LockgateError) as caught:
        observed(origin, place / "state")
    assert not (place / "asked").exists()
    return caught.value


def test_an_origin_over_https_with_a_password(
    monkeypatch: pytest.MonkeyPatch, origin: Origin, tmp_path: Path
) -> None:
    origin.configure(monkeypatch, tmp_path, LOGIN[1], trusted=True)
    repo = observed(origin, tmp_path / "state")
    signer = KeySigner(ed25519.Ed25519PrivateKey.generate())
    tip = repo.append(MAIN, repo.observe().main, [NewCommit({"a": b"1"}, "One", datetime.now(UTC))], signer)[-1]
    assert repo.observe().main == tip
    shown = subprocess.run(
        ["git", "-C", str(origin.folder), "rev-parse", MAIN], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == tip
    repo.close()


@pytest.mark.parametrize("password", ["wrong-battery", None], ids=["wrong", "none"])
def test_a_password_that_is_not_taken_is_said_and_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, origin: Origin, tmp_path: Path, password: str | None
) -> None:
    origin.configure(monkeypatch, tmp_path, password, trusted=True)
    error = fails(origin, tmp_path)
    assert error.code == "origin-unauthorized" and "credential helper" in error.cure
    assert "wrong-battery" not in str(error)


def test_an_origin_of_an_unknown_authority_is_said(
    monkeypatch: pytest.MonkeyPatch, origin: Origin, tmp_path: Path
) -> None:
    origin.configure(monkeypatch, tmp_path, LOGIN[1], trusted=False)
    error = fails(origin, tmp_path)
    assert error.code == "origin-untrusted" and "http.sslCAInfo" in error.cure
    assert LOGIN[1] not in str(error)


def test_an_address_with_a_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        GitRepo("https://deploy:correct-horse@git.example.com/shop.git", tmp_path / "state")
    assert caught.value.code == "origin-password" and "correct-horse" not in str(caught.value)
    assert caught.value.where == "https://deploy@git.example.com"


def test_an_ssh_host_with_another_key_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure is known_hosts, not an authority; and the reason is not lost in ssh's banner."""
    bare = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    with ssh_server(tmp_path / "server", tmp_path) as server:
        monkeypatch.setenv("GIT_SSH_COMMAND", server.env["GIT_SSH_COMMAND"])
        known = tmp_path / "server" / "known"
        host, kind, _ = known.read_text().split()
        other = (tmp_path / "server" / "client.pub").read_text().split()[1]
        known.write_text(f"{host} {kind} {other}\n")
        repo = GitRepo(server.url(bare), tmp_path / "state")
        with pytest.raises(Unavailable) as caught:
            repo.observe()
        repo.close()
    error = caught.value
    assert error.code == "origin-untrusted" and "known_hosts" in error.cure and "sslCAInfo" not in error.cure
    assert error.got.startswith("Offending ED25519 key") and "Host key verification failed" in error.got
