"""Promotion: the slot of one environment; the file's stem is the environment."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Strict, model_validator

from controller.model.base import Document, Name, Part, PositiveDuration, Text, Time, one_of


class Precondition(Part):
    """Something that must hold when the schedule starts: exactly one."""

    model_config = ConfigDict(json_schema_extra=one_of("feedsFresh", "integrationsHealthy"))

    feeds_fresh: PositiveDuration | None = None
    integrations_healthy: Literal["warn", "block"] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("exactly one of feedsFresh and integrationsHealthy")
        return self


class Schedule(Part):
    """Not before a time, and for how long after it a start is still wanted."""

    not_before: Time
    window: PositiveDuration | None = None
    preconditions: Annotated[tuple[Precondition, ...], Strict(False)] = ()


class PromotionSpec(Part):
    """Which release, why, and when."""

    release: Name
    reason: Text
    ticket: Text | None = None
    schedule: Schedule | None = None
    expires_after: PositiveDuration | None = None


class Promotion(Document):
    """A promotion."""

    kind: Literal["Promotion"]
    spec: PromotionSpec
