"""One contract over every registry: a real server (open and with login), the fault server, image layouts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from controller.adapters.registries import (
    Limits,
    OciLayoutRegistry,
    OciRegistry,
    Registries,
    docker_config_credentials,
)
from controller.adapters.registries.manifests import OCI_INDEX, OCI_MANIFEST, read_manifest
from controller.adapters.registries.oci_auth import Authenticator, parse_challenge
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.ports import Registry
from controller.uses.images import build_index, build_layout
from tests.support.fault_registry import FaultRegistry
from tests.support.registry import RunningRegistry, running_registry, skopeo

SECRET = "correct-horse-battery"
LOGIN = ("puller", SECRET)


class FakePace:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.extra = 0.0

    def now(self) -> datetime:
        return datetime(2026, 2, 19, 2, 0, tzinfo=UTC) + timedelta(seconds=sum(self.slept) + self.extra)

    def monotonic(self) -> float:
        return sum(self.slept) + self.extra

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass
class Case:
    """A registry with the same images as every other, under `repository` and `index`."""

    registry: Registry
    repository: str
    index: str
    unknown: str


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        build_layout(folder, "shop/api", f"v1.0.{number}", {"app/main": b"#!/bin/sh\necho %d\n" % number})
    build_index(
        folder, "shop/multi", "v1", {"linux/amd64": {"a": b"amd"}, "linux/arm64/v8": {"a": b"arm"}}, command=["/a"]
    )
    return folder


@pytest.fixture(scope="module")
def open_server(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("open")) as server:
        _fill(server, images)
        yield server


@pytest.fixture(scope="module")
def login_server(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("login"), user=LOGIN[0], password=SECRET) as server:
        _fill(server, images)
        yield server


def _fill(server: RunningRegistry, images: Path) -> None:
    for number in range(3):
        server.push(images, "shop/api", f"v1.0.{number}")
    server.push(images, "shop/multi", "v1")


@pytest.fixture
def faulty(images: Path) -> Iterator[FaultRegistry]:
    with FaultRegistry(images).running() as server:
        yield server


@pytest.fixture
def pace() -> FakePace:
    return FakePace()


@pytest.fixture
def client(pace: FakePace) -> Iterator[OciRegistry]:
    with contextlib.closing(OciRegistry(pace=pace, limits=Limits(timeout=5))) as registry:
        yield registry


@pytest.fixture(params=["open", "login", "fault", "layout", "router"])
def case(request: pytest.FixtureRequest, images: Path) -> Iterator[Case]:
    with contextlib.ExitStack() as stack:
        registry: OciRegistry | OciLayoutRegistry | Registries
        if request.param == "layout":
            registry, base = OciLayoutRegistry(images), "oci-layout:"
        elif request.param == "router":
            registry, base = Registries(oci=OciRegistry(), images_dir=images), "oci-layout:"
        elif request.param == "fault":
            server = request.getfixturevalue("faulty")
            server.page_size = 1
            registry, base = OciRegistry(), f"{server.host}/"
        elif request.param == "login":
            host = request.getfixturevalue("login_server").host
            registry, base = OciRegistry(credentials={host: LOGIN}.get), f"{host}/"
        else:
            registry, base = OciRegistry(), f"{request.getfixturevalue('open_server').host}/"
        stack.callback(registry.close)
        yield Case(registry, f"{base}shop/api", f"{base}shop/multi", f"{base}shop/nothing")


# What every registry does


def test_tags_are_listed_sorted_over_all_pages(case: Case) -> None:
    assert case.registry.tags(case.repository) == ["v1.0.0", "v1.0.1", "v1.0.2"]


def test_a_tag_and_its_digest_give_the_same_bytes(case: Case) -> None:
    by_tag = case.registry.manifest(case.repository, "v1.0.1")
    by_digest = case.registry.manifest(case.repository, by_tag.digest)
    assert by_tag == by_digest
    assert by_tag.media_type == OCI_MANIFEST
    assert by_tag.digest == "sha256:" + hashlib.sha256(by_tag.body).hexdigest()


def test_an_index_is_served_as_it_is(case: Case) -> None:
    answer = case.registry.manifest(case.index, "v1")
    assert answer.media_type == OCI_INDEX
    platforms = [entry["platform"] for entry in json.loads(answer.body)["manifests"]]
    assert platforms[1] == {"os": "linux", "architecture": "arm64", "variant": "v8"}


def test_blobs_come_whole(case: Case) -> None:
    manifest = json.loads(case.registry.manifest(case.repository, "v1.0.0").body)
    for descriptor in (manifest["config"], *manifest["layers"]):
        data = b"".join(case.registry.blob(case.repository, descriptor["digest"]))
        assert len(data) == descriptor["size"]
        assert "sha256:" + hashlib.sha256(data).hexdigest() == descriptor["digest"]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (lambda c: c.registry.manifest(c.repository, "v9"), "tag-not-found"),
        (lambda c: c.registry.manifest(c.repository, "sha256:" + "0" * 64), "manifest-not-found"),
        (lambda c: list(c.registry.blob(c.repository, "sha256:" + "0" * 64)), "blob-not-found"),
        (lambda c: c.registry.tags(c.unknown), "repository-not-found"),
        (lambda c: c.registry.manifest(c.repository, "../../etc/passwd"), "reference-invalid"),
        (lambda c: c.registry.manifest(c.repository, "sha256:../x"), "reference-invalid"),
        (lambda c: c.registry.tags(c.repository + "/../../x"), "repository-invalid"),
        (lambda c: c.registry.tags(c.repository + "?n=1"), "repository-invalid"),
    ],
)
def test_what_is_not_there_is_said(case: Case, what, expected: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Invalid) as caught:
        what(case)
    assert caught.value.code == expected
    assert caught.value.cure


# Against other tools


def test_digests_agree_with_skopeo(open_server: RunningRegistry, images: Path, client: OciRegistry) -> None:
    for name, tag in (("shop/api", "v1.0.2"), ("shop/multi", "v1")):
        place = f"docker://{open_server.host}/{name}:{tag}"
        said = json.loads(skopeo("inspect", "--tls-verify=false", "--no-tags", place))["Digest"]
        assert client.manifest(f"{open_server.host}/{name}", tag).digest == said
        assert client.claimed_digest(f"{open_server.host}/{name}", tag) == said
        assert OciLayoutRegistry(images).manifest(f"oci-layout:{name}", tag).digest == said
    assert json.loads(skopeo("inspect", f"oci:{images / 'shop/api'}:v1.0.2"))["Os"] == "linux"


def test_a_layout_of_skopeo_is_read(open_server: RunningRegistry, tmp_path: Path, client: OciRegistry) -> None:
    source = f"docker://{open_server.host}/shop/api:v1.0.0"
    skopeo("copy", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:v1.0.0")
    copied = OciLayoutRegistry(tmp_path).manifest("oci-layout:copy", "v1.0.0")
    assert copied == client.manifest(f"{open_server.host}/shop/api", "v1.0.0")


def test_a_zstd_image_reaches_the_server_unchanged(open_server: RunningRegistry, tmp_path: Path) -> None:
    digest = build_layout(tmp_path, "z", "v1", {"a": b"x" * 1000}, compression="zstd")
    repository = open_server.push(tmp_path, "z", "v1")
    with contextlib.closing(OciRegistry()) as registry:
        assert registry.manifest(repository, "v1").digest == digest


def test_a_login_is_required(login_server: RunningRegistry, client: OciRegistry) -> None:
    wrong = OciRegistry(credentials=lambda _host: ("puller", "not-" + SECRET))
    for registry in (client, wrong):
        with pytest.raises(Refused) as caught:
            registry.manifest(f"{login_server.host}/shop/api", "v1.0.0")
        assert caught.value.code == "registry-unauthorized"
        assert SECRET not in str(caught.value) + repr(vars(caught.value))
    wrong.close()


# Faults


def test_busy_is_waited_for_as_long_as_asked(faulty: FaultRegistry, client: OciRegistry, pace: FakePace) -> None:
    faulty.fault(status=429, headers={"Retry-After": "7"})
    faulty.fault(status=503, headers={"Retry-After": "Thu, 19 Feb 2026 02:00:20 GMT"})
    faulty.fault(status=500)
    client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert pace.slept == [7.0, 13.0, 1.0]


def test_patience_ends(faulty: FaultRegistry, client: OciRegistry, pace: FakePace) -> None:
    faulty.fault(status=500, times=100)
    with pytest.raises(Unavailable) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-unavailable"
    assert len(faulty.seen) == Limits().attempts
    assert pace.slept == [0.25, 0.5, 1.0]


def test_a_long_retry_after_is_handed_on(faulty: FaultRegistry, client: OciRegistry, pace: FakePace) -> None:
    faulty.fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(Unavailable) as caught:
        client.tags(f"{faulty.host}/shop/api")
    assert (caught.value.code, caught.value.retry_after, pace.slept) == ("registry-busy", 3600.0, [])


@pytest.mark.parametrize(("status", "expected"), [(401, "registry-unauthorized"), (403, "registry-unauthorized")])
def test_refusals_are_not_retried(faulty: FaultRegistry, client: OciRegistry, status: int, expected: str) -> None:
    faulty.fault(status=status, times=100)
    with pytest.raises(Refused) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == expected
    assert len(faulty.seen) == 1


def test_one_truncated_answer_is_asked_again(faulty: FaultRegistry, client: OciRegistry) -> None:
    faulty.fault(truncate=True)
    assert client.manifest(f"{faulty.host}/shop/api", "v1.0.0").media_type == OCI_MANIFEST


def test_truncated_answers_are_unavailable(faulty: FaultRegistry, client: OciRegistry) -> None:
    digest = json.loads(client.manifest(f"{faulty.host}/shop/api", "v1.0.0").body)["layers"][0]["digest"]
    faulty.fault(truncate=True, times=100)
    with pytest.raises(Unavailable) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-truncated"
    with pytest.raises(Unavailable) as caught:
        list(client.blob(f"{faulty.host}/shop/api", digest))
    assert caught.value.code == "registry-truncated"


def test_a_server_that_hangs_times_out(faulty: FaultRegistry, pace: FakePace) -> None:
    faulty.fault(hang=True)
    limits = Limits(timeout=0.1, attempts=1)
    with (
        contextlib.closing(OciRegistry(pace=pace, limits=limits)) as registry,
        pytest.raises(Unavailable) as caught,
    ):
        registry.tags(f"{faulty.host}/shop/api")
    assert caught.value.code == "registry-timeout"


def test_nobody_listening_is_unavailable(faulty: FaultRegistry, client: OciRegistry) -> None:
    with pytest.raises(Unavailable) as caught:
        client.tags("127.0.0.1:1/shop/api")
    assert caught.value.code == "registry-unavailable"


def test_wrong_bytes_are_refused(faulty: FaultRegistry, client: OciRegistry) -> None:
    repository = f"{faulty.host}/shop/api"
    good = client.manifest(repository, "v1.0.0")
    other = client.manifest(repository, "v1.0.1")
    faulty.fault(body=other.body, times=2)
    for reference in (good.digest, "v1.0.0"):
        with pytest.raises(Refused) as caught:
            client.manifest(repository, reference)
        assert caught.value.code == "digest-mismatch"
        assert (caught.value.expected, caught.value.got) == (good.digest, other.digest)
    faulty.fault(flip=True)
    with pytest.raises(Refused):
        client.manifest(repository, good.digest)


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ({"mediaType": OCI_INDEX, "manifests": [], "layers": []}, OCI_INDEX, "manifest-ambiguous"),
        ({"mediaType": OCI_INDEX, "manifests": [], "config": {}}, OCI_INDEX, "manifest-ambiguous"),
        ({"mediaType": OCI_MANIFEST, "layers": []}, OCI_INDEX, "manifest-ambiguous"),
        ({"mediaType": OCI_MANIFEST, "layers": []}, "application/json", "manifest-ambiguous"),
        ({"layers": []}, OCI_INDEX, "manifest-ambiguous"),
        ({"schemaVersion": 1, "fsLayers": []}, "application/json", "manifest-unsupported"),
    ],
)
def test_ambiguous_manifests_are_refused(
    faulty: FaultRegistry, client: OciRegistry, body: dict[str, object], kind: str, expected: str
) -> None:
    raw = json.dumps(body).encode()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    faulty.fault(body=raw, headers={"Content-Type": kind, "Docker-Content-Digest": digest})
    with pytest.raises(LockgateError) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == expected


def test_a_key_twice_is_ambiguous() -> None:
    body = b'{"mediaType": "%s", "layers": [], "layers": []}' % OCI_MANIFEST.encode()
    with pytest.raises(Refused) as caught:
        read_manifest(body, OCI_MANIFEST, repository="r", reference="t")
    assert caught.value.code == "manifest-ambiguous"


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000, b"\xff", b"{", b'"x"'])
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_manifest(body, OCI_MANIFEST, repository="r", reference="t")
    assert caught.value.code == "manifest-malformed"


def test_huge_answers_are_cut_off(faulty: FaultRegistry, client: OciRegistry) -> None:
    faulty.fault(body=b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(Refused) as caught:
        client.manifest(f"{faulty.host}/shop/api", "v1.0.0")
    assert caught.value.code == "registry-answer-too-large"


@pytest.mark.parametrize(
    "link",
    [
        '</v2/shop/api/tags/list?n=1000>; rel="next"',
        '<http://other.example.com/v2/shop/api/tags/list?n=1>; rel="next"',
        '</v2/other/tags/list?n=1>; rel="next"',
    ],
)
def test_pages_must_end_within_the_repository(faulty: FaultRegistry, client: OciRegistry, link: str) -> None:
    faulty.fault(headers={"Link": link}, times=100)
    with pytest.raises(Refused) as caught:
        client.tags(f"{faulty.host}/shop/api")
    assert caught.value.code == "registry-pagination"


# Tokens, credentials, redirects


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


# Layouts


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/../../b", "", "UPPER", "a//b", ".hidden"])
def test_layout_names_stay_in_the_folder(images: Path, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        OciLayoutRegistry(images / "shop").tags(f"oci-layout:{name}")
    assert caught.value.code == "repository-invalid"


def test_links_out_of_the_folder_are_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images / "shop" / "api")
    with pytest.raises(Refused) as caught:
        OciLayoutRegistry(tmp_path).tags("oci-layout:link")
    assert caught.value.code == "repository-escapes"


def test_a_changed_blob_of_a_layout_is_refused(tmp_path: Path) -> None:
    digest = build_layout(tmp_path, "api", "v1", {"a": b"1"})
    path = tmp_path / "api" / "blobs" / "sha256" / digest.removeprefix("sha256:")
    path.write_bytes(path.read_bytes().replace(b"linux", b"linus") + b" ")
    with pytest.raises(Refused) as caught:
        OciLayoutRegistry(tmp_path).manifest("oci-layout:api", "v1")
    assert caught.value.code == "digest-mismatch"


def test_a_tag_on_two_digests_is_ambiguous(tmp_path: Path) -> None:
    build_layout(tmp_path, "api", "v1", {"a": b"1"})
    build_layout(tmp_path, "api", "v2", {"a": b"2"})
    index = tmp_path / "api" / "index.json"
    index.write_text(index.read_text().replace('"v2"', '"v1"'))
    with pytest.raises(Refused) as caught:
        OciLayoutRegistry(tmp_path).tags("oci-layout:api")
    assert caught.value.code == "manifest-ambiguous"


def test_building_is_deterministic_and_a_tag_can_move(tmp_path: Path) -> None:
    first = build_layout(tmp_path / "one", "api", "v1", {"b": b"2", "a": b"1"}, env={"X": "1"}, command=["/a"])
    second = build_layout(tmp_path / "two", "api", "v1", {"a": b"1", "b": b"2"}, env={"X": "1"}, command=["/a"])
    assert first == second
    moved = build_layout(tmp_path / "two", "api", "v1", {"a": b"other"})
    registry = OciLayoutRegistry(tmp_path / "two")
    assert registry.tags("oci-layout:api") == ["v1"]
    assert registry.manifest("oci-layout:api", "v1").digest == moved != first


def test_the_router_needs_an_images_folder() -> None:
    with contextlib.closing(Registries(oci=OciRegistry())) as registry, pytest.raises(Invalid) as caught:
        registry.tags("oci-layout:api")
    assert caught.value.code == "images-folder-missing"
