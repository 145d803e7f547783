"""Showing the log: what agents, a time-stamp authority and a public log are given of it, and what came back."""

from __future__ import annotations

from functools import partial

from controller.core.transparency import PUBLISH, QUESTION, sealed_unanchored, sealed_unpublished
from controller.core.world import Chosen, LogFacts
from controller.ledger.append import Ledger
from controller.ledger.content import content_at
from controller.model.intent import Intent
from controller.ports import Repo
from controller.reconcile.logbook import LogBook


class Visible:
    """Keeps the log book at the recorded ledger, and a chosen checkpoint until what it is for is recorded."""

    def __init__(self, repo: Repo, log: LogBook) -> None:
        self._repo = repo
        self._log = log
        self._chosen: dict[str, Chosen] = {}

    def show(self, ledger: Ledger) -> None:
        """The ledger as it is recorded now."""
        if ledger.commit is not None:
            self._log.update(ledger.log, partial(content_at, self._repo, ledger.commit))

    def restart(self) -> None:
        """The log goes on from another place: nothing that was chosen of the former one is of it."""
        self._log.restart()
        self._chosen.clear()

    def facts(self, ledger: Ledger, intent: Intent) -> LogFacts:
        """What others know of the log. The checkpoint to be time-stamped or published stays the same while
        somebody is asked, however the log grows meanwhile."""
        project = intent.project.document.spec if intent.project is not None else None
        cursors = ledger.state.cursors
        stamping = project is not None and project.time_stamping is not None and sealed_unanchored(cursors)
        publishing = project is not None and project.publication is not None and sealed_unpublished(cursors)
        candidate, publish = self._choose(QUESTION, stamping, ledger), self._choose(PUBLISH, publishing, ledger)
        return LogFacts(self._log.cosignatures(), candidate, publish)

    def _choose(self, purpose: str, wanted: bool, ledger: Ledger) -> Chosen | None:
        size, chosen, sealed = ledger.log.size, self._chosen.get(purpose), ledger.state.cursors.log.sealed
        if not wanted or sealed is None:
            self._chosen.pop(purpose, None)
            return None
        if chosen is None or chosen.size > size:
            chosen = self._chosen[purpose] = Chosen(size, self._log.note(size), sealed.run)
        return chosen
