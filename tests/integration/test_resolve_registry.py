"""From a release document to verified, unpacked images, over a real registry, layouts and faults."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.adapters.registries import Limits, OciLayoutRegistry, OciRegistry, Registries
from controller.agent.puller import PulledImage, Puller
from controller.agent.unpack import unpack
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.model.component import Component
from controller.model.intent import Loaded
from controller.model.lock import lock_bytes
from controller.model.release import Release
from controller.uses.images import build_index, build_layout
from controller.uses.resolve import check, report, resolve
from tests.support.fault_registry import FaultRegistry
from tests.support.registry import RunningRegistry, running_registry, skopeo

NOW = datetime(2026, 2, 19, 2, 0, tzinfo=UTC)
AMD64 = "linux/amd64"


def component(name: str, repository: str, **spec: object) -> Loaded[Component]:
    rules = [
        {"pattern": r"^v\d+\.\d+\.\d+$", "channel": "stable"},
        {"pattern": "-rc", "channel": "beta", "prerelease": True},
    ]
    document = {
        "apiVersion": "lockgate.dev/v1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"repository": repository, "rules": rules, **spec},
    }
    return Loaded(f"components/{name}.yaml", "", "", Component.model_validate(document))


def release(
    components: dict[str, dict[str, str]], sha256: str = "sha256:" + "1" * 64, **spec: str
) -> Loaded[Release]:
    document = {
        "apiVersion": "lockgate.dev/v1",
        "kind": "Release",
        "metadata": {"name": "shop-1"},
        "spec": {"components": components, **spec},
    }
    return Loaded("releases/shop-1.yaml", "", sha256, Release.model_validate(document))


def fill(images: Path) -> None:
    for tag in ("v1.0.0", "v1.1.0", "v2.0.0-rc.1"):
        build_layout(
            images, "api", tag, {"app/main": b"#!/bin/sh\n", "app/version": tag.encode()}, command=["/app/main"]
        )
    build_index(images, "web", "v1.0.0", {AMD64: {"web": b"amd"}, "linux/arm64": {"web": b"arm"}})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    images = tmp_path_factory.mktemp("images")
    fill(images)
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        for tag in ("v1.0.0", "v1.1.0", "v2.0.0-rc.1"):
            running.push(images, "api", tag)
        running.push(images, "web", "v1.0.0")
        yield running


@pytest.fixture
def oci() -> Iterator[OciRegistry]:
    limits = Limits(timeout=5, attempts=2, backoff=0.01)
    with contextlib.closing(OciRegistry(limits=limits)) as registry:
        yield registry


@pytest.fixture
def images(tmp_path: Path) -> Path:
    fill(tmp_path / "images")
    return tmp_path / "images"


@pytest.fixture
def faulty(images: Path) -> Iterator[FaultRegistry]:
    with FaultRegistry(images).running() as running:
        yield running


def both(base: str) -> dict[str, Loaded[Component]]:
    return {"api": component("api", f"{base}api"), "web": component("web", f"{base}web", platforms=[AMD64])}


WANTED = {"api": {"version": "^1"}, "web": {"tag": "v1.0.0"}}


# Resolving


def test_a_release_is_resolved_on_a_real_registry(server: RunningRegistry, oci: OciRegistry) -> None:
    lock = resolve(release(WANTED), both(f"{server.host}/"), oci, resolver_version="lockgate/0.1.0", now=NOW)
    api, web = lock.spec.components["api"], lock.spec.components["web"]
    said = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{server.host}/api:v1.1.0"))
    assert (api.tag, api.semver, api.channel, api.digest) == ("v1.1.0", "1.1.0", "stable", said["Digest"])
    assert api.candidates.count == 2
    index = json.loads(oci.manifest(f"{server.host}/web", "v1.0.0").body)
    assert web.platforms == {AMD64: index["manifests"][0]["digest"]}
    shown = report(lock)
    assert shown["manifestDigest"] == lock.spec.manifest_digest
    assert shown["components"]["web"] == {
        "tag": "v1.0.0",
        "digest": web.digest,
        "semver": "1.0.0",
        "channel": "stable",
    }
    assert (shown["moved"], shown["changed"]) == ([], False)


def test_the_same_images_have_the_same_identity_everywhere(
    server: RunningRegistry, oci: OciRegistry, images: Path
) -> None:
    registries = Registries(oci=oci, images_dir=images)
    locks = [
        resolve(release(WANTED), both(base), registries, resolver_version="v", now=NOW)
        for base in (f"{server.host}/", "oci-layout:")
    ]
    assert locks[0].spec.manifest_digest == locks[1].spec.manifest_digest
    again = resolve(release(WANTED), both("oci-layout:"), registries, resolver_version="v", now=NOW)
    assert lock_bytes(again) == lock_bytes(locks[1])


def test_channels_and_digests(images: Path) -> None:
    registry = OciLayoutRegistry(images)
    digest = registry.manifest("oci-layout:web", "v1.0.0").digest
    wanted = release({"api": {"channel": "beta"}, "web": {"digest": digest}})
    made = resolve(wanted, both("oci-layout:"), registry, resolver_version="v", now=NOW).spec.components
    assert (made["api"].tag, made["api"].channel) == ("v2.0.0-rc.1", "beta")
    assert (made["web"].tag, made["web"].digest, made["web"].candidates.count) == (None, digest, 0)
    narrowed = release({"api": {"version": "*"}}, mode="channel", channel="beta")
    made = resolve(narrowed, both("oci-layout:"), registry, resolver_version="v", now=NOW).spec.components
    assert made["api"].tag == "v2.0.0-rc.1"


def test_tags_are_listed_only_when_needed_and_references_read_once(
    faulty: FaultRegistry, oci: OciRegistry
) -> None:
    names = {f"c{number}": component(f"c{number}", f"{faulty.host}/api") for number in range(6)}
    by_tag = release({name: {"tag": "v1.0.0"} for name in names})
    resolve(by_tag, names, oci, resolver_version="v", now=NOW)
    assert faulty.paths() == ["/v2/api/manifests/v1.0.0"]
    faulty.seen.clear()
    by_range = release({name: {"version": "^1"} for name in names})
    resolve(by_range, names, oci, resolver_version="v", now=NOW)
    assert faulty.paths() == ["/v2/api/tags/list", "/v2/api/manifests/v1.1.0"]


def test_a_moved_tag_and_a_changed_file_are_reported(images: Path) -> None:
    registry = OciLayoutRegistry(images)
    first = release(WANTED)
    lock = resolve(first, both("oci-layout:"), registry, resolver_version="v", now=NOW)
    found = check(lock, first, registry)
    assert not found.moved and not found.changed
    moved_to = build_layout(images, "api", "v1.1.0", {"app/main": b"something else"})
    checked = check(lock, release({**WANTED, "web": {"tag": "v1.0"}}), registry)
    shown = report(lock, checked)
    assert shown["changed"] is True
    assert shown["moved"] == [
        {
            "component": "api",
            "repository": "oci-layout:api",
            "tag": "v1.1.0",
            "locked": lock.spec.components["api"].digest,
            "now": moved_to,
        }
    ]
    index = images / "web" / "index.json"
    index.write_text(index.read_text().replace('"v1.0.0"', '"v7"'))
    gone = check(lock, first, registry)
    assert [(one.component, one.now) for one in gone.moved] == [("api", moved_to), ("web", None)]


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ({"status": 401}, Refused, "registry-unauthorized"),
        ({"status": 404}, Invalid, "tag-not-found"),
        ({"status": 429}, Unavailable, "registry-busy"),
        ({"status": 500}, Unavailable, "registry-unavailable"),
        ({"truncate": True}, Unavailable, "registry-truncated"),
        ({"flip": True}, Refused, "digest-mismatch"),
    ],
)
def test_a_faulty_registry_gives_a_typed_error(
    faulty: FaultRegistry, oci: OciRegistry, fault: dict[str, object], kind: type[LockgateError], code: str
) -> None:
    faulty.fault(path="/api/manifests/", times=100, **fault)
    with pytest.raises(kind) as caught:
        resolve(release(WANTED), both(f"{faulty.host}/"), oci, resolver_version="v", now=NOW)
    assert caught.value.code == code
    assert caught.value.cure
    digest = OciLayoutRegistry(faulty.images).manifest("oci-layout:api", "v1.0.0").digest
    with pytest.raises(kind):
        Puller(oci, faulty.images / "store").pull(f"{faulty.host}/api", digest, AMD64)


# Pulling


def text(image: PulledImage, dest: Path, name: str) -> str:
    with contextlib.ExitStack() as stack:
        unpack([(one.media_type, stack.enter_context(one.path.open("rb"))) for one in image.layers], dest)
    return (dest / name).read_text()


def test_what_was_locked_is_pulled_and_unpacked(server: RunningRegistry, oci: OciRegistry, tmp_path: Path) -> None:
    lock = resolve(release(WANTED), both(f"{server.host}/"), oci, resolver_version="v", now=NOW)
    puller = Puller(oci, tmp_path / "store")
    api, web = lock.spec.components["api"], lock.spec.components["web"]
    image = puller.pull(api.repository, api.digest, AMD64)
    assert (image.command, image.platform_digest) == (("/app/main",), api.digest)
    assert text(image, tmp_path / "api", "app/version") == "v1.1.0"
    assert os.access(tmp_path / "api" / "app" / "main", os.X_OK)
    image = puller.pull(web.repository, web.digest, AMD64)
    assert image.platform_digest == web.platforms[AMD64]
    assert text(image, tmp_path / "web", "web") == "amd"
    assert text(puller.pull(web.repository, web.digest, "linux/arm64"), tmp_path / "arm", "web") == "arm"
    assert not list((tmp_path / "store" / "partial").iterdir())


def api_digest(faulty: FaultRegistry, oci: OciRegistry) -> str:
    return oci.manifest(f"{faulty.host}/api", "v1.0.0").digest


def test_a_second_pull_downloads_no_blob_and_mends_the_store(
    faulty: FaultRegistry, oci: OciRegistry, tmp_path: Path
) -> None:
    repository, digest = f"{faulty.host}/api", api_digest(faulty, oci)
    first = Puller(oci, tmp_path / "store").pull(repository, digest, AMD64)
    faulty.seen.clear()
    assert Puller(oci, tmp_path / "store").pull(repository, digest, AMD64) == first
    assert [path for path in faulty.paths() if "/blobs/" in path] == []
    first.layers[0].path.write_bytes(b"rot")
    assert Puller(oci, tmp_path / "store").pull(repository, digest, AMD64) == first
    assert [path for path in faulty.paths() if "/blobs/" in path] == [f"/v2/api/blobs/{first.layers[0].digest}"]
    assert text(first, tmp_path / "out", "app/version") == "v1.0.0"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"flip": True}, "digest-mismatch"),
        ({"body": b"x" * 5_000_000}, "digest-mismatch"),
        ({"body": b""}, "digest-mismatch"),
        ({"truncate": True}, "registry-truncated"),
    ],
)
def test_a_bad_blob_leaves_nothing_and_can_be_pulled_later(
    faulty: FaultRegistry, oci: OciRegistry, tmp_path: Path, fault: dict[str, object], code: str
) -> None:
    repository, digest = f"{faulty.host}/api", api_digest(faulty, oci)
    layer = json.loads(oci.manifest(repository, digest).body)["layers"][0]["digest"]
    faulty.fault(path=layer, **fault)
    puller = Puller(oci, tmp_path / "store")
    with pytest.raises(LockgateError) as caught:
        puller.pull(repository, digest, AMD64)
    assert caught.value.code == code
    if code == "digest-mismatch":
        assert caught.value.expected == layer
    stored = [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert layer.removeprefix("sha256:") not in stored
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert puller.pull(repository, digest, AMD64).layers[0].digest == layer


def test_a_half_written_file_of_a_killed_agent_is_no_obstacle(
    faulty: FaultRegistry, oci: OciRegistry, tmp_path: Path
) -> None:
    repository, digest = f"{faulty.host}/api", api_digest(faulty, oci)
    layer = json.loads(oci.manifest(repository, digest).body)["layers"][0]["digest"]
    (tmp_path / "store" / "partial").mkdir(parents=True)
    (tmp_path / "store" / "partial" / layer.removeprefix("sha256:")).symlink_to(tmp_path / "elsewhere")
    Puller(oci, tmp_path / "store").pull(repository, digest, AMD64)
    assert not (tmp_path / "elsewhere").exists()


def test_platforms_must_fit(images: Path, tmp_path: Path) -> None:
    registry = OciLayoutRegistry(images)
    puller = Puller(registry, tmp_path / "store")
    with pytest.raises(Invalid) as missing:
        puller.pull("oci-layout:web", registry.manifest("oci-layout:web", "v1.0.0").digest, "linux/s390x")
    assert missing.value.code == "platform-missing"
    with pytest.raises(Refused) as mismatch:
        puller.pull("oci-layout:api", registry.manifest("oci-layout:api", "v1.0.0").digest, "linux/arm64")
    assert mismatch.value.code == "platform-mismatch"
    with pytest.raises(Invalid) as tag:
        puller.pull("oci-layout:api", "v1.0.0", AMD64)
    assert tag.value.code == "digest-required"


def test_limits_and_a_full_disk(images: Path, tmp_path: Path) -> None:
    registry = OciLayoutRegistry(images)
    digest = build_layout(images, "big", "v1", {"noise": os.urandom(100_000)})
    with pytest.raises(Refused) as caught:
        Puller(registry, tmp_path / "store", image_limit=1000).pull("oci-layout:big", digest, AMD64)
    assert caught.value.code == "image-too-large"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(Unavailable) as full:
            Puller(registry, tmp_path / "store").pull("oci-layout:big", digest, AMD64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.code == "disk-full"
    assert not list((tmp_path / "store" / "partial").iterdir())
    assert Puller(registry, tmp_path / "store").pull("oci-layout:big", digest, AMD64).layers
