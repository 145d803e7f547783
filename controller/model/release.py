"""Release: which components go together, by version, tag, digest or channel."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from controller.model.base import Digest, Document, Name, Part, Text, one_of

CommitId = Annotated[Text, Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$", description="A whole commit id.")]
TAG_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"


class ReleaseComponent(Part):
    """Exactly one of version, tag, digest and channel."""

    model_config = ConfigDict(json_schema_extra=one_of("version", "tag", "digest", "channel"))

    version: Text | None = None
    tag: Annotated[Text, Field(pattern=TAG_PATTERN, description="A tag of an OCI image.")] | None = None
    digest: Digest | None = None
    channel: Name | None = None
    role: Literal["primary", "sidecar", "init", "migration"] = "primary"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set & {"version", "tag", "digest", "channel"}) != 1:
            raise ValueError("exactly one of version, tag, digest and channel")
        return self


class SourceRef(Part):
    """Where the release was built from."""

    commit_sha: CommitId | None = None
    branch: Text | None = None
    build_id: Text | None = None
    pipeline_url: Text | None = None


def _spec_schema(schema: dict[str, Any]) -> None:
    schema["allOf"] = [
        {
            "if": {"properties": {"state": {"const": "active"}}},
            "else": {"required": ["reason"]},
        },
        {
            "if": {"properties": {"mode": {"const": "partial"}}, "required": ["mode"]},
            "then": {"required": ["pinFrom"]},
        },
        {
            "if": {"properties": {"mode": {"const": "channel"}}, "required": ["mode"]},
            "then": {"required": ["channel"]},
        },
    ]


class ReleaseSpec(Part):
    """What the release holds and whether it may be used."""

    model_config = ConfigDict(json_schema_extra=_spec_schema)

    display_name: Text | None = None
    mode: Literal["full", "partial", "pinned", "channel"] = "pinned"
    pin_from: Name | None = None
    channel: Name | None = None
    components: Annotated[dict[Name, ReleaseComponent], Field(min_length=1)]
    source_ref: SourceRef | None = None
    state: Literal["active", "deprecated", "archived", "blocked"] = "active"
    reason: Text | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.state != "active" and self.reason is None:
            raise ValueError("a release that is not active says why in `reason`")
        if self.mode == "partial" and self.pin_from is None:
            raise ValueError("a partial release names `pinFrom`")
        if self.mode == "channel" and self.channel is None:
            raise ValueError("a channel release names `channel`")
        return self


class Release(Document):
    """A release."""

    kind: Literal["Release"]
    spec: ReleaseSpec
