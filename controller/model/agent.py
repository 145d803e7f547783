"""Agent: one target, the key it signs with and how it runs workloads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from controller.model.base import Document, Name, Part, SshKey, Text, Texts
from controller.model.trust import TimedKey


class AgentSpec(Part):
    """Where the agent belongs."""

    environment: Name
    region: Text | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    public_key: SshKey
    cert_authority: bool = False
    """Whether publicKey is an authority's: the agent signs with keys certified for its name (ssh-keygen -s)."""
    previous_keys: Annotated[tuple[TimedKey, ...], Strict(False)] = ()
    """Keys it may still sign with for a time, as while its key is rotated."""
    driver: Literal["process", "docker", "compose", "helm", "exec"] = "process"
    driver_config: dict[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    allow: Texts = ()
    """Repositories the agent may also pull workloads from that no release names; `*` at the end is any."""


class Agent(Document):
    """An agent."""

    kind: Literal["Agent"]
    spec: AgentSpec
