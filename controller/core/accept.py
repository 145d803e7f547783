"""Which main is acted on: every first-parent commit judged by the path rules in force before it.

Main stands still at the first refused commit. A later commit that is acceptable itself, signed by somebody who
may restore each path the refused ones touched and is no author of them, and after which all those paths equal
the accepted tip again, sets it going. `design/trust.md` rules 6, 7, 9 and 10.
"""

from __future__ import annotations

import dataclasses

from controller.core.acknowledge import let_stand
from controller.core.judge import Ground, judge_step
from controller.core.merges import History
from controller.core.steps import UNBACKED, Backing, MainState, Standing, Step, Terms
from controller.core.trust import TrustState
from controller.errors import Refused
from controller.model.history import TreeFile
from controller.model.places import PROJECT_PATH, TRUST_PATH
from controller.model.trustroot import TrustRoot

__all__ = [
    "MainState",
    "Step",
    "Terms",
    "genesis_state",
    "judge_main",
    "resume_state",
]


def genesis_state(history: History, root: TrustRoot) -> MainState:
    """Main as it stands at the pinned genesis commit.

    Raises Refused("genesis-mismatch"), also where no such commit is.
    """
    try:
        commit = history.commit(root.genesis)
    except Refused as error:
        if error.code != "object-corrupt":
            raise
        raise other_project(root, "no such commit") from error
    paths = [change.path for change in history.changes(None, root.genesis)]
    strange = [path for path in paths if path != PROJECT_PATH and not path.startswith("trust/")]
    if commit.parents or strange or TRUST_PATH not in paths:
        raise Refused(
            "genesis-mismatch",
            "the pinned genesis commit is no genesis",
            where=f"commit {root.genesis[:12]}",
            expected="no parents, and a tree of trust/ and lockgate.yaml alone",
            got=f"{len(commit.parents)} parents, {', '.join(strange[:3]) or 'no trust/trust.yaml'}",
            cure="use the trust-root.json that `lockgate init` wrote for this repository",
        )
    return MainState(accepted=root.genesis, trust=_trust_at(history, root.genesis))


def other_project(root: TrustRoot, got: str) -> Refused:
    """The refusal of a repository that is not the trust root's."""
    return Refused(
        "genesis-mismatch",
        "the repository is not the one that the trust root names",
        where=f"genesis {root.genesis[:12]}",
        expected=f"the project {root.project} from that commit on",
        got=got,
        cure="use the trust-root.json of this repository, or the repository of this trust root",
    )


def resume_state(history: History, accepted: str, trust_version: int | None = None) -> MainState:
    """Main at a tip that the evidence records as accepted.

    Raises Refused("trust-rollback") when the tree's trust document is not of the recorded version.
    """
    trust = _trust_at(history, accepted)
    if trust_version is not None and trust.version != trust_version:
        raise Refused(
            "trust-rollback",
            "the accepted tip holds another trust version than the evidence records",
            where=f"commit {accepted[:12]} {TRUST_PATH}",
            expected=f"version {trust_version}",
            got=f"version {trust.version}",
            cure="run `lockgate verify`",
        )
    return MainState(accepted=accepted, trust=trust)


def _trust_at(history: History, commit: str) -> TrustState:
    entry = history.file(commit, TRUST_PATH)
    if entry is None or entry.mode != 0o100644:
        raise Refused(
            "genesis-mismatch",
            "the commit holds no trust document",
            where=f"commit {commit[:12]} {TRUST_PATH}",
            expected="a regular file",
            got="nothing" if entry is None else f"mode {entry.mode:o}",
            cure="use the repository that the trust root names",
        )
    return TrustState.parse(history.read(entry.blob))


def judge_main(history: History, state: MainState, tip: str, backing: Backing, terms: Terms) -> MainState:
    """Judge every first-parent commit after the accepted one up to `tip`.

    Commits judged by an earlier call and still there are not judged again. Raises
    Refused("main-rewound") and Refused("main-not-first-parent") as `history.first_parents` does; every other
    defect becomes a refused step. The cost is that of the new commits, whatever came before them.
    """
    if tip == state.accepted:
        return MainState(accepted=state.accepted, trust=state.trust)
    commits = history.first_parents(tip, state.accepted)
    known = _reusable(state, [commit.id for commit in commits], terms)
    walk = _Walk(history, state.accepted, state.trust, terms)
    judged: list[Step] = []
    for place, commit in enumerate(commits):
        if place < len(known):
            walk.take(known[place])
            continue
        ground = Ground(history, backing, terms, walk.trust, walk.standing(), commit.id)
        step = walk.take(judge_step(ground, commit))
        judged.append(step)
    return MainState(
        accepted=walk.accepted,
        trust=walk.accepted_trust,
        refused=tuple(step for step in walk.pending if walk.holds_back(step)),
        pending=tuple(walk.pending),
        steps=tuple(judged),
        newly=tuple(walk.newly),
    )


def _reusable(state: MainState, commits: list[str], terms: Terms) -> list[Step]:
    """The pending steps that are still the first ones of the new chain; none where time may change a verdict."""
    trusts = [state.trust, *(step.new_trust for step in state.pending if step.new_trust is not None)]
    if terms.acknowledged or (terms.observed is not None and any(trust.timed for trust in trusts)):
        return []
    found: list[Step] = []
    for step, commit in zip(state.pending, commits, strict=False):
        if step.commit != commit or step.refused in UNBACKED:
            break
        found.append(step)
    return found


class _Walk:
    """The running state of one judgement: what is accepted, pending, tainted and still dirty."""

    def __init__(self, history: History, accepted: str, trust: TrustState, terms: Terms) -> None:
        self._history = history
        self._terms = terms
        self.newly: list[Step] = []
        self._stand_at(accepted, trust)

    def _stand_at(self, accepted: str, trust: TrustState) -> None:
        self.accepted = accepted
        self.accepted_trust = self.trust = trust
        self.pending: list[Step] = []
        self._before: dict[str, TreeFile | None] = {}
        self._now: dict[str, TreeFile | None] = {}
        self._tainted: dict[str, TreeFile | None] = {}
        self._dirty: set[str] = set()
        self._authors: frozenset[str] = frozenset()

    def holds_back(self, step: Step) -> bool:
        return step.refused is not None and not let_stand(step, self._terms)

    def standing(self) -> Standing | None:
        """None while every pending commit is accepted."""
        return Standing(self._tainted, self._authors) if self.pending else None

    def take(self, step: Step) -> Step:
        """Add one judged step; returns it with what it cures."""
        self._follow(step)
        if step.new_trust is not None:
            self.trust = step.new_trust
        if not self.pending and not self.holds_back(step):
            self.newly.append(step)
            self._stand_at(step.commit, self.trust)
            return step
        if step.refused is None and self._cured_by(step):
            step = dataclasses.replace(
                step, cured=tuple(other.commit for other in self.pending if self.holds_back(other))
            )
            self.newly += [*self.pending, step]
            self._stand_at(step.commit, self.trust)
            return step
        self.pending.append(step)
        return step

    def _follow(self, step: Step) -> None:
        refused = self.holds_back(step)
        for change in step.changes:
            self._before.setdefault(change.path, change.old)
            self._now[change.path] = change.new
            if refused:
                self._tainted[change.path] = self._before[change.path]
            if change.path in self._tainted:
                if change.new == self._tainted[change.path]:
                    self._dirty.discard(change.path)
                else:
                    self._dirty.add(change.path)
        if refused:
            self._authors |= step.signers

    def _cured_by(self, step: Step) -> bool:
        if step.kind == "controller" or step.signer is None or step.signer in self._authors or self._dirty:
            return False
        if not all(self.trust.may_restore(step.signer, path) for path in self._tainted):
            return False
        if not any(other.opaque for other in self.pending):
            return True
        # A refused commit whose changes could not be read: nothing may differ that no acceptable step changed.
        allowed = {c.path for other in [*self.pending, step] if other.refused is None for c in other.changes}
        try:
            differing = {c.path for c in self._history.changes(self.accepted, step.commit)}
        except Refused:
            return False
        return differing <= allowed
