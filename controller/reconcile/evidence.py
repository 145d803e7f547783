"""Reading the evidence branch, pass after pass, only as far as it is the controller's own (trust rule 14).

State, open runs and cursors always come from the tree of the last good commit. Foreign commits on top of it are
what the next push removes; a branch that lost what was recorded is never repaired, because nobody but people can
tell what belongs there.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from controller.core.accept import genesis_state, other_project
from controller.core.steps import UNBACKED, Step
from controller.core.trust import TrustState, VerifySsh
from controller.errors import Refused, Stalled
from controller.ledger import append, log
from controller.ledger.append import Ledger
from controller.model.entry import MOST_REMOVED, Actor, Draft, EvidenceRepaired, Observed, What, When
from controller.model.history import Tips
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.reconcile.observing import Memory
from controller.uses.own import REPAIRED, Foreign, Line, Trusts, cursors_at, line, line_after
from controller.uses.pinned import pinned_fault
from controller.uses.trust_chain import signed_versions


class Evidence:
    """The branch as this process knows it. `foreign` stands on top of the ledger that `load` returned last."""

    def __init__(self, repo: Repo, root: TrustRoot, memory: Memory, verify_ssh: VerifySsh) -> None:
        self._repo, self._root, self._memory, self._verify_ssh = repo, root, memory, verify_ssh
        self._rooted = False
        """Whether this process has seen that the repository is the one the trust root names."""
        self._unremembered = False
        """Whether the branch was taken as it was found, for want of any memory of it."""
        self.foreign: Foreign | None = None

    def load(
        self, tips: Tips, ledger: Ledger, known: TrustState | None, locks_on_main: bool, now: datetime
    ) -> Ledger:
        """The ledger at the newest commit of the branch that is the controller's; the given one when that is it.

        `known` is the trust in force as far as this process knows. Raises Stalled("evidence-missing") for a
        branch that is gone, Stalled("evidence-rewound") for one that no longer holds what was recorded,
        Stalled("foreign-evidence") for one that holds nothing of the controller, Refused("genesis-mismatch") for
        another project's. An empty ledger means a new project: the branch is still to be begun.
        """
        self._check_genesis()
        self.foreign = None
        seen = ledger.commit or self._memory.evidence_seen()
        if tips.evidence is None:
            if seen is not None or locks_on_main:
                raise _missing(self._root, seen, "no such branch")
            return Ledger()
        if tips.evidence == ledger.commit:
            return ledger
        found = self._line(tips, seen, known, now)
        if found.good is None:
            nothing = _missing(self._root, seen, "a branch that holds nothing of the controller")
            raise nothing if locks_on_main else _squatted(self._root)
        if found.good != ledger.commit:
            self._check_found(found.good, seen)
            ledger = append.load(self._repo, found.good)
            if seen is not None:
                # What was taken as it was found is remembered once main agrees with it: `check_effects`.
                self._memory.remember_evidence(found.good)
        self.foreign = found.foreign
        return ledger

    def repair(self, observed: Observed, at: datetime) -> list[Draft]:
        """The entry that records what stands on top of the ledger and is removed; none when nothing does."""
        if self.foreign is None:
            return []
        commits = self.foreign.commits
        many = f"{len(commits)} commits" if len(commits) > 1 else "a commit"
        good = self._repo.commit(commits[0]).parents[0]
        detail = EvidenceRepaired(
            removed=commits[:MOST_REMOVED],
            restored=good,
            commits=len(commits) if len(commits) > MOST_REMOVED else None,
            reasons=self.foreign.reasons,
        )
        draft = Draft(
            kind=REPAIRED,
            run=None,
            environment=None,
            at=at,
            observed=observed,
            result="REPAIRED",
            summary=f"Evidence restored to {good[:12]}: {many} of somebody else removed",
            who=(Actor(principal="controller"),),
            what=What(),
            why={"code": "foreign-evidence"},
            when=When(decided=at),
            detail=detail,
        )
        return [draft]

    def tip(self, ledger: Ledger) -> str | None:
        """The commit that the branch must be at for the next push."""
        return self.foreign.tip if self.foreign is not None else ledger.commit

    def restarted(self, tip: str) -> None:
        """The branch goes on at `tip`, as owners signed: what was remembered of the former one is over."""
        self._memory.remember_evidence(tip)
        self._unremembered = False
        self.foreign = None

    def check_effects(self, ledger: Ledger, steps: Iterable[Step]) -> None:
        """That evidence knows what the controller did on main, since it records before it acts.

        Asked only of a branch that nobody remembered: otherwise such a commit is refused on main alone. Raises
        Stalled("evidence-rewound").
        """
        if not self._unremembered or ledger.commit is None:
            return
        lost = next((s for s in steps if s.kind == "controller" and s.refused in UNBACKED), None)
        if lost is not None:
            raise _rewound(
                self._root,
                f"the entry behind the controller's commit {lost.commit[:12]} on main",
                "evidence without it",
            )
        self._memory.remember_evidence(ledger.commit)
        self._unremembered = False

    # -- what may be believed ----------------------------------------------------------------------------

    def _check_genesis(self) -> None:
        if self._rooted:
            return
        genesis_state(self._repo, self._root)
        self._rooted = True

    def _line(self, tips: Tips, seen: str | None, known: TrustState | None, now: datetime) -> Line:
        assert tips.evidence is not None
        if seen is None:
            return line(self._repo, self._trusts(tips.main, None), tips.evidence, now)
        if not _holds(self._repo, seen, tips.evidence):
            raise _rewound(self._root, f"a descendant of {seen}", tips.evidence[:12])
        found = self._quick(seen, tips.evidence, known)
        if found is None:
            found = line_after(self._repo, self._trusts(tips.main, seen), seen, tips.evidence)
        if found is None:
            got = f"{tips.evidence[:12]}, which has it behind a second parent only"
            raise _rewound(self._root, f"first parents that lead to {seen[:12]}", got)
        return found

    def _quick(self, seen: str, tip: str, known: TrustState | None) -> Line | None:
        """The answer without reading main's history: when only keys wrote that are in force as far as is known."""
        if known is None:
            return None
        try:
            found = line_after(self._repo, {known.version: (known,)}, seen, tip)
        except Stalled:
            return None
        return found if found is not None and found.foreign is None else None

    def _trusts(self, main: str | None, seen: str | None) -> Trusts:
        """Every trust version on main; on the main that evidence accepted last, when main was rewritten."""
        for tip in (main, cursors_at(self._repo, seen).main if seen is not None else None):
            chain = self._repo.chain(tip) if tip is not None else []
            if self._root.genesis in chain:
                return signed_versions(self._repo, self._root, chain, self._verify_ssh)
        return signed_versions(self._repo, self._root, (), self._verify_ssh)

    def _check_found(self, good: str, seen: str | None) -> None:
        """That a commit found on the branch is of this project; without any memory, that it ends a push, and
        reaches the checkpoint that the trust root pins."""
        cursors = cursors_at(self._repo, good)
        if (cursors.project, cursors.genesis) != (self._root.project, self._root.genesis):
            raise other_project(self._root, f"evidence of {cursors.project} from {cursors.genesis[:12]}")
        if seen is not None:
            return
        self._unremembered = True
        file = self._repo.file(good, log.CHECKPOINT)
        size = log.read_checkpoint(self._repo.read(file.blob)).size if file is not None else 0
        if size < cursors.index:
            # Only a push's last commit carries its checkpoint, and a push lands whole.
            got = f"{good[:12]} with {cursors.index} entries and a checkpoint of {size}"
            raise _rewound(self._root, "the end of a push", got)
        wrong = pinned_fault(self._repo, self._root, good)
        if wrong:
            raise _rewound(self._root, "the checkpoint that the trust root pins", wrong)


def _holds(repo: Repo, old: str, new: str) -> bool:
    try:
        return repo.is_ancestor(old, new)
    except Refused:
        return False


def _missing(root: TrustRoot, seen: str | None, got: str) -> Stalled:
    return Stalled(
        "evidence-missing",
        "the evidence branch is gone",
        where=root.refs.evidence,
        expected=f"a branch that holds {seen}" if seen else "a branch: main holds locks",
        got=got,
        cure="push the branch back from a clone; what is lost needs the owners: `lockgate trust restart`",
    )


def _rewound(root: TrustRoot, expected: str, got: str) -> Stalled:
    return Stalled(
        "evidence-rewound",
        "the evidence branch no longer holds what was recorded",
        where=root.refs.evidence,
        expected=expected,
        got=got,
        cure="push the recorded branch back from a clone; what is lost needs the owners: `lockgate trust restart`",
    )


def _squatted(root: TrustRoot) -> Stalled:
    return Stalled(
        "foreign-evidence",
        "the evidence branch holds nothing of the controller",
        where=root.refs.evidence,
        expected="no such branch before the controller begins it",
        got="commits of somebody else alone",
        cure="delete the branch, and find out who may push to it",
    )
