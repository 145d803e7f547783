"""From answers to a release lock."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest

from controller.core.locking import Answer, build_lock, requirements
from controller.core.select import Choice
from controller.errors import Invalid
from controller.model.component import Component
from controller.model.intent import Loaded
from controller.model.lock import LockedComponent, ReleaseLock, lock_bytes, manifest_digest, release_digest
from controller.model.registry import ManifestAnswer
from controller.model.release import Release

NOW = datetime(2026, 2, 19, 2, 0, tzinfo=UTC)
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def loaded_component(
    name: str, repository: str = "", platforms: tuple[str, ...] = ("linux/amd64",)
) -> Loaded[Component]:
    document = {
        "apiVersion": "lockgate.dev/v1",
        "kind": "Component",
        "metadata": {"name": name},
        "spec": {"repository": repository or f"registry.example.com/shop/{name}", "platforms": list(platforms)},
    }
    return Loaded(f"components/{name}.yaml", "", digest(name), Component.model_validate(document))


def loaded_release(components: dict[str, dict[str, str]], **spec: str) -> Loaded[Release]:
    document = {
        "apiVersion": "lockgate.dev/v1",
        "kind": "Release",
        "metadata": {"name": "shop-1"},
        "spec": {"components": components, **spec},
    }
    return Loaded("releases/shop-1.yaml", "", digest("release"), Release.model_validate(document))


def answer(tag: str | None, body: dict[str, object] | str = "plain") -> Answer:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    manifest = ManifestAnswer(
        "sha256:" + hashlib.sha256(raw).hexdigest(), MANIFEST if isinstance(body, str) else INDEX, raw
    )
    return Answer(Choice(tag, None, "stable", None, (tag,) if tag else ()), manifest)


def index(*platforms: tuple[str, str]) -> dict[str, object]:
    entries = []
    for name, content in platforms:
        system, architecture, *variant = name.split("/")
        place = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        entries.append({"mediaType": MANIFEST, "digest": digest(content), "size": 1, "platform": place})
    return {"manifests": entries}


def lock(
    release: Loaded[Release], answers: dict[str, Answer], *names: Loaded[Component], **more: object
) -> ReleaseLock:
    components = {one.document.name: one for one in names}
    return build_lock(release, components, answers, resolver="lockgate/0.1.0", now=NOW, **more)  # type: ignore[arg-type]


def test_the_identity_is_the_digest_of_component_digests() -> None:
    release = loaded_release({"web": {"tag": "v1"}, "api": {"tag": "v2", "role": "migration"}})
    answers = {"web": answer("v1", "w"), "api": answer("v2", "a")}
    made = lock(release, answers, loaded_component("api"), loaded_component("web"))
    text = json.dumps({"api": digest("a"), "web": digest("w")}, separators=(",", ":"))
    assert made.spec.manifest_digest == digest(text)
    assert list(made.spec.components) == ["api", "web"]
    assert made.spec.components["api"].role == "migration"
    assert made.spec.release_digest == release_digest(release.document)
    assert made.spec.components["web"].candidates.count == 1
    assert made.name == "shop-1"
    assert lock_bytes(made) == lock_bytes(lock(release, answers, loaded_component("web"), loaded_component("api")))


def test_platforms_are_those_of_the_component() -> None:
    both = loaded_component("api", platforms=("linux/arm64/v8", "linux/amd64"))
    body = index(("linux/amd64", "x"), ("linux/arm64/v8", "y"), ("windows/amd64", "z"), ("unknown/unknown", "att"))
    made = lock(loaded_release({"api": {"tag": "v1"}}), {"api": answer("v1", body)}, both)
    assert made.spec.components["api"].platforms == {"linux/amd64": digest("x"), "linux/arm64/v8": digest("y")}
    plain = lock(loaded_release({"api": {"tag": "v1"}}), {"api": answer("v1")}, loaded_component("api"))
    assert plain.spec.components["api"].platforms == {"linux/amd64": digest("plain")}


@pytest.mark.parametrize(
    ("body", "platforms"),
    [
        (index(("linux/arm64", "y")), ("linux/amd64",)),
        (index(("linux/amd64", "x"), ("linux/amd64", "other")), ("linux/amd64",)),
        ({"manifests": [{"platform": {"os": 3}}, 7, {"digest": "sha256:x"}]}, ("linux/amd64",)),
        ("plain", ("linux/amd64", "linux/arm64")),
    ],
)
def test_a_missing_or_doubled_platform_is_said(body: dict[str, object] | str, platforms: tuple[str, ...]) -> None:
    one = loaded_component("api", platforms=platforms)
    with pytest.raises(Invalid) as caught:
        lock(loaded_release({"api": {"tag": "v1"}}), {"api": answer("v1", body)}, one)
    assert caught.value.code == "platform-missing"


def test_other_tags_are_those_of_this_resolution() -> None:
    release = loaded_release({"a": {"tag": "v1"}, "b": {"tag": "v1.0"}, "c": {"tag": "v1"}, "d": {"tag": "v2"}})
    answers = {"a": answer("v1"), "b": answer("v1.0"), "c": answer("v1"), "d": answer("v2", "other")}
    shared = [loaded_component(name, "registry.example.com/shop/api") for name in "abcd"]
    made = lock(release, answers, *shared).spec.components
    assert [made[name].other_tags for name in "abcd"] == [("v1.0",), ("v1",), ("v1.0",), ()]
    apart = lock(release, answers, *(loaded_component(name) for name in "abcd")).spec.components
    assert all(one.other_tags == () for one in apart.values())


def test_full_holds_every_component() -> None:
    names = {"api": loaded_component("api"), "web": loaded_component("web")}
    with pytest.raises(Invalid) as caught:
        requirements(loaded_release({"api": {"tag": "v1"}}, mode="full"), names)
    assert caught.value.code == "release-incomplete"
    assert requirements(loaded_release({"api": {"tag": "v1"}}, mode="pinned"), names).keys() == {"api"}


def test_partial_takes_the_others_over() -> None:
    pinned: dict[str, LockedComponent] = dict(
        lock(
            loaded_release({"api": {"tag": "v1"}, "web": {"tag": "v1"}}),
            {"api": answer("v1", "old"), "web": answer("v1", "w")},
            loaded_component("api"),
            loaded_component("web"),
        ).spec.components
    )
    release = loaded_release({"api": {"tag": "v2"}}, mode="partial", pinFrom="prod")
    both = (loaded_component("api"), loaded_component("web"))
    made = lock(release, {"api": answer("v2", "new")}, *both, pinned=pinned)
    assert made.spec.components["web"] == pinned["web"]
    assert made.spec.components["api"].digest == digest("new")
    assert made.spec.manifest_digest == manifest_digest({"api": digest("new"), "web": digest("w")})
    with pytest.raises(Invalid) as caught:
        lock(release, {"api": answer("v2", "new")}, *both)
    assert caught.value.code == "pin-source-missing"


def test_pinned_is_ignored_by_other_modes() -> None:
    pinned = dict(
        lock(loaded_release({"web": {"tag": "v"}}), {"web": answer("v")}, loaded_component("web")).spec.components
    )
    made = lock(
        loaded_release({"api": {"tag": "v"}}), {"api": answer("v")}, loaded_component("api"), pinned=pinned
    )
    assert list(made.spec.components) == ["api"]


def test_an_unknown_component_is_said() -> None:
    with pytest.raises(Invalid) as caught:
        requirements(loaded_release({"api": {"tag": "v1"}}), {})
    assert caught.value.code == "component-unknown"
    assert caught.value.where == "file releases/shop-1.yaml"
