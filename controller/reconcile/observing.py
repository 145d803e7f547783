"""Observe and judge: which main and which requests a pass may act on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from controller.core.accept import MainState, Step, Terms, judge_main, resume_state
from controller.core.requests import RequestVerdict
from controller.core.trust import TrustState
from controller.errors import Refused, Stalled, printable
from controller.ledger.append import Ledger
from controller.ledger.backing import EvidenceBacking
from controller.model.entry import Accepted, MainRefused
from controller.model.history import Commit
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.asked import judge_asked, read_asked
from controller.uses.slots import slots_of


class Memory(Protocol):
    """What the controller remembers outside Git: only that evidence once existed, and how far it had come."""

    def evidence_seen(self) -> str | None: ...
    def remember_evidence(self, tip: str) -> None: ...


class FileMemory:
    """The memory in the state directory; losing it loses the protection against a deleted branch only."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "evidence-tip"

    def evidence_seen(self) -> str | None:
        """The newest evidence tip this controller has seen, if any."""
        try:
            return self._path.read_text().strip() or None
        except OSError:
            return None

    def remember_evidence(self, tip: str) -> None:
        """Keep the tip. A full disk only makes this memory older."""
        try:
            self._path.write_text(tip + "\n")
        except OSError:
            return


@dataclass(frozen=True, slots=True)
class MainView:
    """Main as judged in this pass, and what of it is not recorded yet: commits that were refused and taken back
    within this pass (`cured`), how far main was accepted, and what holds it back now (`refused`)."""

    state: MainState
    cured: tuple[MainRefused, ...]
    accepted: Accepted | None
    refused: tuple[MainRefused, ...]

    @property
    def stands_still(self) -> bool:
        return bool(self.state.refused)


def view_main(
    repo: Repo,
    root: TrustRoot,
    ledger: Ledger,
    state: MainState | None,
    tip: str,
    terms: Terms,
) -> MainView:
    """Judge main up to `tip`. Raises Stalled("main-rewound" | "main-not-first-parent") when its history broke."""
    cursors = ledger.state.cursors
    recorded = cursors.main or root.genesis
    if state is None or state.accepted != recorded:
        state = resume_state(repo, recorded, cursors.trust_version or None)
    let_stand = {one.commit: one.code for one in cursors.acknowledged}
    if let_stand:
        terms = replace(terms, acknowledged=let_stand)
    try:
        state = judge_main(repo, state, tip, EvidenceBacking(repo, ledger), terms)
    except Refused as error:
        raise Stalled(
            error.code,
            "main was rewritten: what was accepted is no longer in its first-parent history",
            where=f"main at {tip[:12]}",
            expected=f"a first-parent descendant of {recorded[:12]}",
            got=error.got or tip[:12],
            cure="push the former main back; nothing is done until then",
        ) from error
    standing = {refused.commit for refused in cursors.refused}
    # Moving on clears what stood refused: what still holds main back then is said again.
    moved = state.accepted != recorded
    refused = tuple(_refused(step) for step in state.refused if moved or step.commit not in standing)
    accepted = None
    if state.accepted != recorded:
        accepted = Accepted(
            previous=recorded,
            tip=state.accepted,
            commits=len(state.newly),
            cured=tuple(commit for step in state.newly for commit in step.cured),
            acknowledged=tuple(step.commit for step in state.newly if step.commit in let_stand),
            slots=slots_of(repo, recorded, state.accepted, state.newly),
        )
    cured = tuple(_refused(s) for s in state.newly if s.refused is not None and s.commit not in standing)
    return MainView(state, cured, accepted, refused)


def _refused(step: Step) -> MainRefused:
    return MainRefused(
        commit=step.commit,
        code=step.refused or "",
        message=step.message,
        paths=tuple(printable(change.path) for change in step.changes),
        signer=step.signer,
    )


def new_requests(
    repo: Repo, ledger: Ledger, tip: str | None, trust: TrustState, project: str, now: datetime, seen: set[str]
) -> list[tuple[Commit, RequestVerdict]]:
    """The commits of the requests branch that have no verdict yet, oldest first, judged by trust.

    Raises Stalled("requests-rewound") when the branch lost commits that were judged, or is gone with them.
    """
    judged = ledger.state.cursors.requests
    if tip == judged:
        return []
    try:
        commits = repo.first_parents(tip, judged) if tip is not None else None
    except Refused:
        commits = None
    if commits is None:
        raise Stalled(
            "requests-rewound",
            "the requests branch lost requests that were judged",
            where="lockgate/requests",
            expected=f"a descendant of {judged[:12]}" if judged else "",
            got=tip[:12] if tip is not None else "no branch",
            cure="push the former branch back from a clone",
        )
    found = []
    for commit in commits:
        verdict = judge_asked(repo, read_asked(repo, commit.id), trust, project, now, seen, ledger.commit)
        if verdict.request is not None:
            seen.add(verdict.request.id)
        found.append((commit, verdict))
    return found
