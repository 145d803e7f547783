"""What a push brings, and what judging it needs beside the repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from controller.core.accept import MainState
from controller.core.trust import TrustState, VerifySsh
from controller.model.history import Tips
from controller.model.trustroot import TrustRoot
from controller.ports import Repo

if TYPE_CHECKING:
    from controller.uses.rules.replay_checks import Ask


@dataclass(frozen=True, slots=True)
class TrustCommits:
    """The first-parent commits of main up to `tip`, oldest first, that change the trust document."""

    tip: str
    commits: tuple[str, ...]


class TrustMemory(Protocol):
    """Where trust changed on main, kept from push to push; losing it costs time."""

    def load(self) -> TrustCommits | None: ...
    def save(self, found: TrustCommits) -> None: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What judging needs beside the repository. `ask` answers the questions of gates outside the core."""

    verify_ssh: VerifySsh
    memory: TrustMemory
    ask: Ask | None = None


@dataclass(frozen=True, slots=True)
class Coming:
    """Evidence that is to be judged: `tips` are those when the push has landed, `good` the controller's newest
    commit that stands, `start` main as that accepted it."""

    repo: Repo
    root: TrustRoot
    means: Means
    tips: Tips
    trusts: Mapping[int, tuple[TrustState, ...]]
    good: str | None
    start: MainState
