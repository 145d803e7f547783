"""Policy: one gate, its type and its configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from controller.model.base import Document, Name, Part, PositiveDuration, Text


def _alias(name: str) -> str:
    return "for" if name == "duration" else name


def _spec_schema(schema: dict[str, Any]) -> None:
    schema["allOf"] = [
        {"if": {"properties": {"gate": {"const": gate}}}, "then": {"required": [field]}}
        for gate, field in (("cel", "rule"), ("soak", "for"))
    ]


class PolicySpec(Part):
    """A gate; `cel` and the built-in types need no plugin."""

    model_config = ConfigDict(alias_generator=_alias, json_schema_extra=_spec_schema)

    description: Text | None = None
    level: Literal["block", "warn"] = "block"
    gate: Name
    duration: PositiveDuration | None = None
    """`for`: how long a soak gate asks the release to have run before."""
    deadline: PositiveDuration | None = None
    variables: dict[Annotated[Text, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")], Text] = Field(default_factory=dict)
    rule: Text | None = None
    message: Text | None = None
    config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.gate == "cel" and self.rule is None:
            raise ValueError("a cel policy has a rule")
        if self.gate == "soak" and self.duration is None:
            raise ValueError("a soak policy says for how long")
        return self


class Policy(Document):
    """A policy."""

    kind: Literal["Policy"]
    spec: PolicySpec
