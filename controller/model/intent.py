"""The intent of one commit: every document by kind and name, and what is wrong with the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from controller.model.diagnostic import Diagnostic
from controller.model.documents import (
    Agent,
    Component,
    Document,
    Environment,
    Freeze,
    Policy,
    Project,
    Promotion,
    Release,
    ReleaseLock,
    Strategy,
    Trust,
)

D = TypeVar("D", bound=Document, covariant=True)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[D]):
    """A valid document and the file it came from. `sha256` is "sha256:<hex>" of the file's bytes."""

    path: str
    blob: str
    sha256: str
    document: D


@dataclass(frozen=True, slots=True)
class Intent:
    """What a commit of main asks for. A document with an error of its own is absent and in `broken`.

    `broken` also holds valid documents that depend on a broken one: nothing that reads them may start.
    """

    commit: str
    project: Loaded[Project] | None
    trust: Loaded[Trust] | None
    components: Mapping[str, Loaded[Component]]
    releases: Mapping[str, Loaded[Release]]
    locks: Mapping[str, Loaded[ReleaseLock]]
    environments: Mapping[str, Loaded[Environment]]
    strategies: Mapping[str, Loaded[Strategy]]
    policies: Mapping[str, Loaded[Policy]]
    promotions: Mapping[str, Loaded[Promotion]]
    agents: Mapping[str, Loaded[Agent]]
    freezes: Mapping[str, Loaded[Freeze]]
    diagnostics: tuple[Diagnostic, ...]
    broken: frozenset[str]
    memory: object | None = field(default=None, repr=False, compare=False)
    """What `assemble` remembers for the next commit; nobody else reads it."""

    def agents_of(self, environment: str) -> tuple[Loaded[Agent], ...]:
        """The environment's valid agents that its selector chooses, by name."""
        place = self.environments.get(environment)
        wanted = place.document.spec.agents.match_labels.items() if place else ()
        return tuple(
            self.agents[name]
            for name in sorted(self.agents)
            if self.agents[name].document.spec.environment == environment
            and all(self.agents[name].document.spec.labels.get(key) == value for key, value in wanted)
        )
