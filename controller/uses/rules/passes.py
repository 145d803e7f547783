"""Where the pass that made an entry began: what it decided from is the state before the first of its entries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.ledger.fold import State


@dataclass(frozen=True, slots=True)
class Begun:
    """A pass's beginning: the evidence commit before it (None: there was none) and the state there."""

    commit: str | None
    state: State


class Passes:
    """The entries of a pass bear one time and are pushed together; a checkpoint ends what is pushed together, and
    a walk begins only after one.

    `begun` is None where that is not known: after damage within the pass.
    """

    def __init__(self) -> None:
        self._at: datetime | None = None
        self.begun: Begun | None = None

    def enter(self, last: str | None, state: State, at: datetime) -> None:
        """Before an entry of `at` is looked at; `last` and `state` are what it follows on."""
        if at != self._at:
            self.begun = Begun(last, state)
        self._at = at

    def end(self) -> None:
        """What is pushed together ends after the last entry."""
        self._at = None

    def lose(self, at: datetime | None) -> None:
        """What the pass of `at` began with is not known any more."""
        self._at, self.begun = at, None
