"""Where the pass that made an entry began: what it decided from is the state before the first of its entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.ledger.fold import State, load_state
from controller.ledger.log import CHECKPOINT
from controller.ports import Repo


@dataclass(frozen=True, slots=True)
class Begun:
    """A pass's beginning: the evidence commit before it (None: there was none) and the state there."""

    commit: str | None
    state: State


class Passes:
    """The entries of a pass bear one time and are pushed together; a checkpoint ends what is pushed together.

    `begun` is None where that is not known: after damage within the pass.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._at: datetime | None = None
        self._walking = False
        self.begun: Begun | None = None

    def enter(self, last: str | None, state: State, at: datetime) -> None:
        """Before an entry of `at` is looked at; `last` and `state` are what it follows on."""
        if not self._walking:
            self.begun = self._before(last, state, at)
        elif at != self._at:
            self.begun = Begun(last, state)
        self._walking, self._at = True, at

    def end(self) -> None:
        """What is pushed together ends after the last entry."""
        self._at = None

    def lose(self, at: datetime | None) -> None:
        """What the pass of `at` began with is not known any more."""
        self._walking, self._at, self.begun = True, at, None

    def _before(self, last: str | None, state: State, at: datetime) -> Begun:
        """The beginning of a pass in the middle of which a walk began."""
        while last is not None and state.cursors.at == at:
            parents = self._repo.commit(last).parents
            before = parents[0] if parents else None
            if before is None:
                return Begun(None, State())
            if self._repo.file(last, CHECKPOINT) != self._repo.file(before, CHECKPOINT):
                break
            last, state = before, load_state(self._repo, before)
        return Begun(last, state)
