"""Agent: one target, the key it signs with and how it runs workloads."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from controller.model.base import Document, Name, Part, SshKey, Text, Texts


class AgentSpec(Part):
    """Where the agent belongs."""

    environment: Name
    region: Text | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    public_key: SshKey
    driver: Literal["process", "docker", "compose", "helm", "exec"] = "process"
    driver_config: dict[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    allow: Texts = ()
    """Repositories the agent may also pull workloads from that no release names; `*` at the end is any."""


class Agent(Document):
    """An agent."""

    directory: ClassVar[str] = "agents/"

    kind: Literal["Agent"]
    spec: AgentSpec
