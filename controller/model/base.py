"""What every document shares: the envelope, the strictness and the small types with their JSON Schemas.

A constraint lives in a model only if JSON Schema can say it too, so that the published schemas and these
models accept the same files; what a schema cannot say (a cron expression, a time zone, an order of
percentages) is checked in `controller.core.checks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, Strict, WithJsonSchema
from pydantic.alias_generators import to_camel

API_VERSION = "lockgate.dev/v1"
NAME_PATTERN = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
NAME_MAX = 128
NAME_DESCRIPTION = "A name of lower-case letters, digits, dots and dashes."
DIGEST_PATTERN = "^sha256:[0-9a-f]{64}$"
DURATION_PATTERN = "^(?=[0-9])([0-9]{1,5}d)?([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$"
POSITIVE_DURATION_PATTERN = DURATION_PATTERN.replace("^(?=[0-9])", "^(?=[0-9])(?=.*[1-9])")
RATIO_PATTERN = "^(100(\\.0{1,3})?|[0-9]{1,2}(\\.[0-9]{1,3})?)%$"
TIME_PATTERN = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
SSH_KEY_PATTERN = (
    "^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\\.com"
    "|sk-ecdsa-sha2-nistp256@openssh\\.com) [A-Za-z0-9+/]{16,4096}={0,2}( [^\\r\\n]*)?$"
)

_DURATION = re.compile(
    "(?=[0-9])(?:([0-9]{1,5})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,7})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?"
)

T = TypeVar("T")


def ecma(pattern: str) -> re.Pattern[str]:
    """A JSON Schema pattern as Python reads it: `$` is the end of the text, never before a last newline."""
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


def parse_duration(text: str) -> timedelta:
    """'30m', '1h30m', '7d', '500ms' as a timedelta. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("a duration is written like 30m, 1h30m, 7d or 500ms")
    d, h, m, s, ms = (int(group or 0) for group in found.groups())
    return timedelta(days=d, hours=h, minutes=m, seconds=s, milliseconds=ms)


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as `value` (whole milliseconds)."""
    rest = value // timedelta(milliseconds=1)
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as an aware datetime in UTC. Raises ValueError."""
    if _TIME.match(text) is None:
        raise ValueError("a time is written like 2026-02-19T02:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with Z; fractions only when there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_ratio(text: str) -> float:
    """'95%' as 0.95. Raises ValueError."""
    if _RATIO.match(text) is None:
        raise ValueError("a share is written like 95%")
    return float(text[:-1]) / 100


def format_ratio(value: float) -> str:
    """0.95 as '95%'."""
    return f"{round(value * 100, 3):g}%"


_TIME = ecma(TIME_PATTERN)
_RATIO = ecma(RATIO_PATTERN)


def _text(parse: Callable[[str], T], kind: type | None = None) -> BeforeValidator:
    """Parse text; a value of `kind`, which no YAML gives, passes."""

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            return parse(value)
        if kind is not None and isinstance(value, kind):
            return value
        raise ValueError("expected text")

    return BeforeValidator(convert)


def _positive_duration(text: str) -> timedelta:
    value = parse_duration(text)
    if not value:
        raise ValueError("the duration must be longer than nothing")
    return value


def _matches(pattern: str, most: int | None = None) -> BeforeValidator:
    compiled = ecma(pattern)

    def check(value: Any) -> Any:
        if isinstance(value, str) and (compiled.match(value) is None or (most and len(value) > most)):
            raise ValueError(f"does not match {pattern}")
        return value

    return BeforeValidator(check)


def _integral(value: Any) -> Any:
    # JSON Schema calls 10.0 an integer; the models agree with it.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def _schema(pattern: str, description: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "description": description, **more})


_write_duration = PlainSerializer(format_duration, return_type=str, when_used="json")
Duration = Annotated[
    timedelta,
    _text(parse_duration, timedelta),
    _write_duration,
    _schema(DURATION_PATTERN, "A duration such as 30m, 1h30m, 7d or 500ms."),
]
PositiveDuration = Annotated[
    timedelta,
    _text(_positive_duration, timedelta),
    _write_duration,
    _schema(POSITIVE_DURATION_PATTERN, "A duration longer than nothing, such as 30m, 1h30m, 7d or 500ms."),
]
Time = Annotated[
    datetime,
    _text(parse_time, datetime),
    PlainSerializer(format_time, return_type=str, when_used="json"),
    _schema(TIME_PATTERN, "An RFC 3339 time with its offset.", format="date-time"),
]
Ratio = Annotated[
    float,
    _text(parse_ratio),
    PlainSerializer(format_ratio, return_type=str, when_used="json"),
    _schema(RATIO_PATTERN, "A share of the whole, such as 95%."),
]
Digest = Annotated[str, _matches(DIGEST_PATTERN), _schema(DIGEST_PATTERN, "A SHA-256 digest.")]
Name = Annotated[
    str,
    _matches(NAME_PATTERN, NAME_MAX),
    _schema(NAME_PATTERN, NAME_DESCRIPTION, maxLength=NAME_MAX),
]
SshKey = Annotated[str, _matches(SSH_KEY_PATTERN), _schema(SSH_KEY_PATTERN, "An OpenSSH public key.")]
Text = Annotated[str, Field(min_length=1)]
INTEGRAL = BeforeValidator(_integral)
"""JSON Schema calls 10.0 an integer; the models agree with it."""
Names = Annotated[tuple[Name, ...], Strict(False)]
Texts = Annotated[tuple[Text, ...], Strict(False)]
SomeTexts = Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)]
SomeNames = Annotated[tuple[Name, ...], Strict(False), Field(min_length=1)]


class Part(BaseModel):
    """A frozen, closed object inside a document."""

    model_config = ConfigDict(
        # Built when first used: a command that needs none of them starts without waiting for all of them.
        defer_build=True,
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        allow_inf_nan=False,
    )


class Metadata(Part):
    """What a document is called."""

    name: Name
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Document(Part):
    """The envelope of every document; each kind narrows `kind` and adds `spec`."""

    api_version: Literal["lockgate.dev/v1"]
    kind: str
    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name


def one_of(*fields: str, most: bool = True) -> dict[str, Any]:
    """The JSON Schema clause for "exactly one of these fields", or without `most` for "at least one"."""
    return {"oneOf" if most else "anyOf": [{"required": [field]} for field in fields]}
