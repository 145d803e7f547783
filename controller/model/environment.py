"""Environment: a place a release is promoted to, and what must hold before it goes there."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from controller.model.base import INTEGRAL, Document, Name, Names, Part, PositiveDuration, SomeNames, Text


class Approvals(Part):
    """How many people, of which roles, and whether an author may be one of them."""

    count: Annotated[int, Field(ge=0), INTEGRAL] = 0
    roles: dict[Name, Annotated[int, Field(ge=1), INTEGRAL]] = Field(default_factory=dict)
    separation_of_duties: bool = True
    expires_after: PositiveDuration | None = None


class Window(Part):
    """A recurring span of time: it opens when the cron schedule fires and stays open for the duration."""

    kind: Literal["allow", "deny"]
    schedule: Text
    duration: PositiveDuration
    time_zone: Text = "UTC"


class AgentSelector(Part):
    """Which of the environment's agents are targets; nothing said: all."""

    match_labels: dict[str, str] = Field(default_factory=dict)


class SecretRef(Part):
    """Where a secret is kept; never its value."""

    provider: Name
    path: Text
    key: Text | None = None
    version: Text | None = None


class EnvironmentSpec(Part):
    """Order, conditions and targets of an environment."""

    display_name: Text | None = None
    order: Annotated[int, Field(ge=0), INTEGRAL] = 0
    region: Text | None = None
    promotes_from: Names = ()
    strategy: Name
    gates: Literal["none"] | SomeNames
    gate_max_age: PositiveDuration | None = None
    approvals: Approvals = Approvals()
    windows: Annotated[tuple[Window, ...], Strict(False)] = ()
    on_failure: Literal["rollback", "pause"] = "rollback"
    agents: AgentSelector = AgentSelector()
    variables: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, SecretRef] = Field(default_factory=dict)
    auto_promote: bool = False
    witnesses: Annotated[int, Field(ge=0), INTEGRAL] = 0

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The policies to pass; empty where the environment says `gates: none`."""
        return () if self.gates == "none" else self.gates


class Environment(Document):
    """An environment."""

    kind: Literal["Environment"]
    spec: EnvironmentSpec
