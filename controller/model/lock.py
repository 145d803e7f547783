"""ReleaseLock: the digests a release was resolved to, once, by the controller."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

import rfc8785
import yaml
from pydantic import Field

from controller.model.base import INTEGRAL, Digest, Document, Name, Part, Text, Texts, Time
from controller.model.component import PLATFORM_PATTERN
from controller.model.release import Release

SCHEMA_LINE = "# yaml-language-server: $schema=https://lockgate.dev/schemas/v1/release-lock.schema.json\n"


class Candidates(Part):
    """How many tags the rule chose from, and the digest of their sorted list."""

    count: Annotated[int, Field(ge=0), INTEGRAL]
    digest: Digest


class LockedComponent(Part):
    """One component's digest and how it was found."""

    repository: Text
    tag: Text | None = None
    digest: Digest
    other_tags: Texts = ()
    semver: Text | None = None
    channel: Text | None = None
    role: Literal["primary", "sidecar", "init", "migration"] = "primary"
    media_type: Text
    platforms: dict[Annotated[Text, Field(pattern=PLATFORM_PATTERN)], Digest] = Field(default_factory=dict)
    rule: Text | None = None
    candidates: Candidates


class ReleaseLockSpec(Part):
    """The identity of the release and where it came from."""

    manifest_digest: Digest
    release_digest: Digest
    components: Annotated[dict[Name, LockedComponent], Field(min_length=1)]
    resolved_at: Time
    resolver: Text


class ReleaseLock(Document):
    """A release lock; written by the controller alone, once."""

    kind: Literal["ReleaseLock"]
    spec: ReleaseLockSpec


def manifest_digest(digests: Mapping[str, str]) -> str:
    """The identity of a release: sha256 of the RFC 8785 JSON of {component: digest}."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps(dict(digests))).hexdigest()


def release_digest(release: Release) -> str:
    """What a lock answers to: sha256 of the RFC 8785 JSON of the release, its state and the reason for that
    left out, so that a locked release can still be blocked, deprecated or archived."""
    content = release.model_dump(mode="json", by_alias=True, exclude_none=True)
    for field in ("state", "reason"):
        content["spec"].pop(field, None)
    return "sha256:" + hashlib.sha256(rfc8785.dumps(content)).hexdigest()


def lock_bytes(lock: ReleaseLock) -> bytes:
    """The lock as the file that is committed: the same lock gives the same bytes.

    Keys stand in the models' order, components and platforms in the order of their names; what is
    not known (a tag, a channel) is left out.
    """
    data = lock.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not (data["metadata"]["labels"] or data["metadata"]["annotations"]):
        data["metadata"] = {"name": lock.name}
    components = data["spec"]["components"]
    data["spec"]["components"] = {name: components[name] for name in sorted(components)}
    for component in components.values():
        component["platforms"] = dict(sorted(component["platforms"].items()))
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=4096, default_flow_style=False)
    return (SCHEMA_LINE + text).encode()
