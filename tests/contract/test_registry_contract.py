"""One contract over every registry: a real server (open and with login), the fault server, image layouts."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.adapters.registries import (
    OciLayoutRegistry,
    OciRegistry,
    Registries,
)
from controller.adapters.registries.manifests import OCI_INDEX, OCI_MANIFEST
from controller.errors import Invalid, Refused
from controller.ports import Registry
from controller.uses.images import build_layout
from tests.support.registry import LOGIN, SECRET, RunningRegistry, skopeo


@dataclass
class Case:
    """A registry with the same images as every other, under `repository` and `index`."""

    registry: Registry
    repository: str
    index: str
    unknown: str


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
