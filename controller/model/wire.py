"""What entries are made of: the base of everything that is hashed, and the parts that details share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with fixed microseconds, so that equal instants have equal bytes."""
    text = value.isoformat(timespec="microseconds")
    if not text.endswith("+00:00"):
        text = value.astimezone(UTC).isoformat(timespec="microseconds")
    return text[:-6] + "Z"


Time = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}),
]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
GitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_T = TypeVar("_T")
Maybe = Annotated[_T | None, Field(default=None)]
"""What may not be there. It is left out where it is written; whoever makes a value says so all the same."""


class Wire(BaseModel):
    """Base of everything that is hashed: frozen, closed, camelCase on the wire.

    A member that is None is left out, never written as null: a member that comes later, with None as its default,
    changes nothing that was written before (ADR 40).
    """

    model_config = ConfigDict(
        # Built when first used: a command that needs none of them starts without waiting for all of them.
        defer_build=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_timedelta="float",
    )

    def wire(self) -> dict[str, Any]:
        """Plain JSON values, ready for canonical bytes; members that say nothing are left out."""
        value: dict[str, Any] = self.__pydantic_serializer__.to_python(
            self, mode="json", by_alias=True, exclude_none=True
        )
        return value


class Actor(Wire):
    """Somebody who did something: a principal and the key it was proven with."""

    principal: str
    key_id: str | None = None


class Observed(Wire):
    """The tips a decision was made from; rules of another branch are judged by these."""

    main: Maybe[GitId]
    requests: Maybe[GitId]
    trust_version: int


class What(Wire):
    """What an entry is about. `digests` maps components to image digests."""

    release: str | None = None
    manifest_digest: Sha256 | None = None
    environment: str | None = None
    targets: tuple[str, ...] = ()
    digests: dict[str, Sha256] = {}


class When(Wire):
    """The instants an entry knows: asked for, decided, carried out, finished."""

    requested: Time | None = None
    decided: Time | None = None
    executed: Time | None = None
    completed: Time | None = None


class Pin(Wire):
    """One file of main that a run executes, by path and blob; `sha256` is over the file's bytes."""

    path: str
    blob: GitId
    sha256: Sha256


class StagePlan(Wire):
    """One stage of the plan: its own targets (not cumulative), in order."""

    percent: int
    targets: tuple[str, ...]


class CompletedRun(Wire):
    """A completed run an environment can go back to; `pins` are the files it executed (lock included),
    `artifacts` the digests of what was rendered for it."""

    run: str
    release: str
    manifest_digest: Sha256
    slot: Maybe[Pin]
    pins: tuple[Pin, ...] = ()
    artifacts: dict[str, Sha256] = {}


class Precondition(Wire):
    """Something a schedule wants to hold at its start; `level` is what its absence means."""

    name: str
    level: Literal["block", "warn"]
