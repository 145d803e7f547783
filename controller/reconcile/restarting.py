"""Going on with evidence that was lost, when owners signed how (trust rule 14); otherwise it stays stalled."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from controller.core.trust import TrustState, VerifySsh
from controller.errors import LockgateError, Refused, Stalled
from controller.ledger import append, log
from controller.ledger.append import Ledger
from controller.model.history import Tips
from controller.model.trustroot import TrustRoot
from controller.ports import Repo, Signer
from controller.uses.own import Trusts, line
from controller.uses.restarting import begin, drafts, situation
from controller.uses.trust_chain import signed_versions

LOST = frozenset({"evidence-missing", "evidence-rewound"})
"""What a restart is for."""


class Restarts:
    """Looks for the owners' restart when evidence is lost, and records what they signed."""

    def __init__(self, repo: Repo, root: TrustRoot, signer: Signer, verify_ssh: VerifySsh) -> None:
        self._repo, self._root, self._signer, self._verify_ssh = repo, root, signer, verify_ssh

    def go_on(
        self,
        tips: Tips,
        remembered: str | None,
        stalled: Stalled,
        now: datetime,
        check: Callable[[TrustState], None],
    ) -> Ledger:
        """The restarted branch. `check` says whether this controller's key may write under a trust version.

        Raises `stalled` again when main holds no restart, and Stalled with the reason when the one it holds does
        not fit what is seen here or lacks signatures; Conflict when somebody else wrote to the branch.
        """
        if tips.main is None:
            raise stalled
        repo, root = self._repo, self._root
        try:
            ledger = self._survivor(tips, now, stalled)
            seen = situation(root, ledger, remembered)
            begun = begin(repo, root, ledger, seen, tips.main, self._verify_ssh, now)
        except LockgateError as error:
            if error is stalled or not error.code.startswith("restart-") or error.code == "restart-missing":
                raise stalled from None
            raise _said(error) from stalled
        check(begun.main.trust)
        entries = drafts(repo, root, ledger, begun, now)
        prepared = append.prepare(ledger, entries, self._signer, log.origin_of(root.project, root.genesis))
        return append.write(repo, prepared, tips.evidence, self._signer, root.refs.evidence)

    def _survivor(self, tips: Tips, now: datetime, stalled: Stalled) -> Ledger:
        """What is left of the branch: nothing, or a tip that is the controller's own."""
        if tips.evidence is None:
            return Ledger()
        found = line(self._repo, self._trusts(tips.main), tips.evidence, now)
        if found.good != tips.evidence or found.foreign is not None:
            raise stalled
        ledger = append.load(self._repo, tips.evidence)
        cursors = ledger.state.cursors
        if (cursors.project, cursors.genesis) != (self._root.project, self._root.genesis):
            raise stalled
        return ledger

    def _trusts(self, main: str | None) -> Trusts:
        chain = self._repo.chain(main) if main is not None else []
        if self._root.genesis not in chain:
            raise Refused("main-rewound", "main does not descend from the pinned genesis commit")
        return signed_versions(self._repo, self._root, chain, self._verify_ssh)


def _said(error: LockgateError) -> Stalled:
    return Stalled(
        error.code, error.what, where=error.where, expected=error.expected, got=error.got, cure=error.cure
    )
