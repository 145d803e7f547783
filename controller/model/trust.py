"""Trust: who may sign what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from controller.model.base import (
    INTEGRAL,
    NAME_MAX,
    NAME_PATTERN,
    Document,
    Name,
    Names,
    Part,
    SshKey,
    Text,
    Time,
)
from controller.model.request import Verb

Action = Verb
"""What Trust grants: the verbs of requests, all of them."""
Count = Annotated[int, Field(ge=1), INTEGRAL]
_NAME = {"type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_MAX}
RoleOrRoles = Annotated[
    tuple[Name, ...],
    Strict(False),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_NAME, {"type": "array", "items": _NAME, "minItems": 1}]}),
]


class TimedKey(Part):
    """A key that may sign for a time only, as while it is rotated."""

    public_key: SshKey
    valid_after: Time | None = None
    valid_before: Time | None = None


class Principal(Part):
    """A person or machine and its keys; a key is its public line, or that line with a time of its own."""

    keys: Annotated[tuple[SshKey | TimedKey, ...], Strict(False), Field(min_length=1)]
    emails: Annotated[tuple[Text, ...], Strict(False)] = ()
    valid_after: Time | None = None
    valid_before: Time | None = None

    @property
    def timed_keys(self) -> tuple[TimedKey, ...]:
        """Every key with the time within which it may sign, the principal's own included."""
        return tuple(self._timed(key) for key in self.keys)

    def _timed(self, key: str | TimedKey) -> TimedKey:
        own = TimedKey(public_key=key) if isinstance(key, str) else key
        after = [time for time in (own.valid_after, self.valid_after) if time is not None]
        before = [time for time in (own.valid_before, self.valid_before) if time is not None]
        return TimedKey(
            public_key=own.public_key,
            valid_after=max(after, default=None),
            valid_before=min(before, default=None),
        )


class Role(Part):
    """Principals that act as one role; written as a list of names, or with the threshold it signs by."""

    members: Names
    threshold: Count = 1

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"members": value} if isinstance(value, list | tuple) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        shape = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "array", "items": _NAME}, dict(shape)]}


class PathRule(Part):
    """Who may change the paths that match; the first rule that matches decides."""

    match: Text
    write: RoleOrRoles
    approvals: dict[Name, Count] = Field(default_factory=dict)


class ActionRule(Part):
    """Who may ask for which actions in these environments."""

    environments: Annotated[tuple[Name | Literal["*"], ...], Strict(False), Field(min_length=1)]
    allow: dict[Name, Annotated[tuple[Action, ...], Strict(False), Field(min_length=1)]]


class TimeAuthority(Part):
    """A time-stamp authority: the PEM certificates that its tokens must lead to."""

    certificates: Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)]


class TransparencyLog(Part):
    """A public transparency log: the first line of its checkpoints, and the PEM keys that sign them."""

    origin: Text
    keys: Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)]


class TrustSpec(Part):
    """Principals, roles and rules; in force only under its owners' signatures."""

    version: Count
    principals: Annotated[dict[Name, Principal], Field(min_length=1)]
    roles: Annotated[dict[Name, Role], Field(min_length=1)]
    paths: Annotated[tuple[PathRule, ...], Strict(False), Field(min_length=1)]
    actions: Annotated[tuple[ActionRule, ...], Strict(False)] = ()
    merge_approval: Literal["signature", "trailer"] = "signature"
    time_authorities: dict[Name, TimeAuthority] = Field(default_factory=dict)
    transparency_logs: dict[Name, TransparencyLog] = Field(default_factory=dict)


class Trust(Document):
    """The trust document."""

    kind: Literal["Trust"]
    spec: TrustSpec
