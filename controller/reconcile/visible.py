"""Showing the log: what agents and a time-stamp authority are given of it, and what of theirs came back."""

from __future__ import annotations

from functools import partial

from controller.core.transparency import sealed_unanchored
from controller.core.world import LogFacts
from controller.ledger.append import Ledger
from controller.model.intent import Intent
from controller.ports import Repo
from controller.reconcile.logbook import LogBook


class Visible:
    """Keeps the log book at the recorded ledger, and a checkpoint chosen until its time-stamp is recorded."""

    def __init__(self, repo: Repo, log: LogBook) -> None:
        self._repo = repo
        self._log = log
        self._candidate: tuple[int, bytes] | None = None

    def show(self, ledger: Ledger) -> None:
        """The ledger as it is recorded now."""
        if ledger.commit is not None:
            self._log.update(ledger.log, partial(_file, self._repo, ledger.commit))

    def facts(self, ledger: Ledger, intent: Intent) -> LogFacts:
        """What others know of the log. The checkpoint to be time-stamped stays the same while the authority is
        asked, however the log grows meanwhile."""
        marks, stamping = ledger.state.cursors.log, intent.project and intent.project.document.spec.time_stamping
        if stamping is None or marks.sealed is None or not sealed_unanchored(ledger.state.cursors):
            self._candidate = None
        elif self._candidate is None or self._candidate[0] > ledger.log.size:
            self._candidate = (ledger.log.size, self._log.note(ledger.log.size))
        return LogFacts(self._log.cosignatures(), self._candidate)


def _file(repo: Repo, commit: str, path: str) -> bytes | None:
    file = repo.file(commit, path)
    return repo.read(file.blob) if file is not None else None
