"""From a release, its components and what the registry answered to the release lock. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from controller.core.select import Choice, candidates_digest
from controller.errors import Invalid
from controller.model.base import DIGEST_PATTERN, Metadata, ecma
from controller.model.component import Component
from controller.model.intent import Loaded
from controller.model.lock import (
    Candidates,
    LockedComponent,
    ReleaseLock,
    ReleaseLockSpec,
    manifest_digest,
    release_digest,
)
from controller.model.registry import ManifestAnswer
from controller.model.release import Release, ReleaseComponent

_INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
_DIGEST = ecma(DIGEST_PATTERN)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one component's requirement was resolved to."""

    choice: Choice
    manifest: ManifestAnswer


def requirements(
    release: Loaded[Release],
    components: Mapping[str, Loaded[Component]],
    pinned: Mapping[str, LockedComponent] | None = None,
) -> dict[str, ReleaseComponent]:
    """What must be resolved, by component name, sorted.

    Raises Invalid("component-unknown"), for mode full Invalid("release-incomplete") when a component of the
    project is missing, for mode partial Invalid("pin-source-missing") without `pinned`.
    """
    spec, where = release.document.spec, f"file {release.path}"
    for name in sorted(spec.components):
        if name not in components:
            raise Invalid(
                "component-unknown",
                "the release names a component that does not exist",
                where=where,
                expected=f"components/{name}.yaml",
                got="no such valid document",
                cure="add the component or correct the name",
            )
    missing = sorted(set(components) - set(spec.components))
    if spec.mode == "full" and missing:
        raise Invalid(
            "release-incomplete",
            "a release of mode full holds every component",
            where=where,
            expected=f"{len(components)} components",
            got=f"none for {', '.join(missing[:10])}",
            cure="add the components, or use mode pinned or partial",
        )
    if spec.mode == "partial" and pinned is None:
        raise Invalid(
            "pin-source-missing",
            "there is nothing to take the other components from",
            where=where,
            expected=f"a completed release in environment {spec.pin_from}",
            got="none",
            cure="promote a full release there first",
        )
    return dict(sorted(spec.components.items()))


def channel_of(release: Release) -> str | None:
    """The channel that narrows version requirements: that of a release of mode channel."""
    return release.spec.channel if release.spec.mode == "channel" else None


def build_lock(
    release: Loaded[Release],
    components: Mapping[str, Loaded[Component]],
    answers: Mapping[str, Answer],
    *,
    resolver: str,
    now: datetime,
    pinned: Mapping[str, LockedComponent] | None = None,
) -> ReleaseLock:
    """The lock of a release whose every requirement is in `answers`.

    In mode partial, components of `pinned` that the release does not name are taken over as they are.
    Raises as `requirements`, and Invalid("platform-missing").
    """
    locked: dict[str, LockedComponent] = {}
    if release.document.spec.mode == "partial" and pinned is not None:
        locked.update(pinned)
    wanted = requirements(release, components, pinned)
    for name, requirement in wanted.items():
        locked[name] = _locked(components[name].document, requirement, answers[name])
    tags = _tags_by_digest(locked[name] for name in wanted)
    for name in wanted:
        one = locked[name]
        others = tags[(one.repository, one.digest)] - {one.tag}
        locked[name] = one.model_copy(update={"other_tags": tuple(sorted(tag for tag in others if tag))})
    spec = ReleaseLockSpec(
        manifest_digest=manifest_digest({name: one.digest for name, one in locked.items()}),
        release_digest=release_digest(release.document),
        components=dict(sorted(locked.items())),
        resolved_at=now,
        resolver=resolver,
    )
    return ReleaseLock(
        api_version="lockgate.dev/v1", kind="ReleaseLock", metadata=Metadata(name=release.document.name), spec=spec
    )


def platform_digests(component: Component, manifest: ManifestAnswer) -> dict[str, str]:
    """The manifest digest for each of the component's platforms.

    A plain manifest serves the one platform of its component (the agent checks its configuration against
    it). Raises Invalid("platform-missing") when the image lacks a platform or lists one twice.
    """
    wanted = component.spec.platforms
    if manifest.media_type not in _INDEX_TYPES:
        if len(wanted) == 1:
            return {wanted[0]: manifest.digest}
        raise _platform_missing(component, manifest, wanted[1], "an image for one platform")
    offered: dict[str, set[str]] = {}
    for entry in _entries(manifest.body):
        name = _platform_name(entry.get("platform"))
        digest = entry.get("digest")
        if name and isinstance(digest, str) and _DIGEST.match(digest):
            offered.setdefault(name, set()).add(digest)
    found: dict[str, str] = {}
    for platform in sorted(wanted):
        digests = offered.get(platform, set())
        if len(digests) != 1:
            got = f"{len(digests)} manifests for it" if digests else ", ".join(sorted(offered)[:10]) or "none"
            raise _platform_missing(component, manifest, platform, got)
        found[platform] = next(iter(digests))
    return found


def _locked(component: Component, requirement: ReleaseComponent, answer: Answer) -> LockedComponent:
    choice = answer.choice
    return LockedComponent(
        repository=component.spec.repository,
        tag=choice.tag,
        digest=answer.manifest.digest,
        semver=choice.semver,
        channel=choice.channel,
        role=requirement.role,
        media_type=answer.manifest.media_type,
        platforms=platform_digests(component, answer.manifest),
        rule=choice.rule,
        candidates=Candidates(count=len(choice.candidates), digest=candidates_digest(choice.candidates)),
    )


def _tags_by_digest(locked: Any) -> dict[tuple[str, str], set[str | None]]:
    tags: dict[tuple[str, str], set[str | None]] = {}
    for one in locked:
        tags.setdefault((one.repository, one.digest), set()).add(one.tag)
    return tags


def _entries(body: bytes) -> list[dict[str, Any]]:
    entries = json.loads(body).get("manifests", [])
    return [entry for entry in entries if isinstance(entry, dict)]


def _platform_name(platform: Any) -> str | None:
    """os/architecture[/variant]; attestations are listed by builders as unknown/unknown."""
    if not isinstance(platform, dict):
        return None
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    text = "/".join(part for part in parts if isinstance(part, str) and part)
    return None if text.startswith("unknown") else text


def _platform_missing(component: Component, manifest: ManifestAnswer, platform: str, got: str) -> Invalid:
    return Invalid(
        "platform-missing",
        "the image does not offer a platform of its component",
        where=f"component {component.name}, {component.spec.repository}@{manifest.digest}",
        expected=platform,
        got=got,
        cure="build the image for it, or correct spec.platforms of the component",
    )
