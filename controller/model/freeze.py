"""Freeze: a span of time in which nothing is promoted."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from controller.model.base import Document, Name, Part, PositiveDuration, Text, Time

FreezeAction = Literal["promote", "rollback"]


def _alias(name: str) -> str:
    return {"begins": "from", "time_zone": "timeZone"}.get(name, name)


def _spec_schema(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [
        {"required": ["from", "until"], "not": {"anyOf": [{"required": [f]} for f in _RECURRING]}},
        {"required": ["schedule", "duration"], "not": {"anyOf": [{"required": [f]} for f in _ONCE]}},
    ]


_ONCE = ("from", "until")
_RECURRING = ("schedule", "duration", "timeZone")


class FreezeSpec(Part):
    """Either from and until, or a schedule with a duration."""

    model_config = ConfigDict(alias_generator=_alias, json_schema_extra=_spec_schema)

    environments: Annotated[tuple[Name | Literal["*"], ...], Strict(False), Field(min_length=1)]
    begins: Time | None = None
    """`from`: when the freeze begins."""
    until: Time | None = None
    schedule: Text | None = None
    duration: PositiveDuration | None = None
    time_zone: Text = "UTC"
    actions: Annotated[tuple[FreezeAction, ...], Strict(False), Field(min_length=1)] = ("promote",)
    reason: Text

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = self.model_fields_set
        once = {"begins", "until"} <= given and not given & {"schedule", "duration", "time_zone"}
        recurring = {"schedule", "duration"} <= given and not given & {"begins", "until"}
        if once == recurring:
            raise ValueError("either from and until, or schedule and duration")
        return self


class Freeze(Document):
    """A freeze."""

    kind: Literal["Freeze"]
    spec: FreezeSpec
