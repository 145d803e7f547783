"""What requests came to, while verifying: a refusal has a reason in the rules, what was granted was done.

Whoever holds the controller's key grants nothing by refusing, but could so keep an abort or a pause from a run.
What trust alone decides is decided again; of what the run decides, that which its entries show. Left to the
controller's word are whether gates let a stage go on (`resume`), whether files for a rollback stood on main, and
what concerns no run: acknowledgements and replays, which have rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from controller.core.run import Run
from controller.core.transitions import ACTIONS
from controller.core.trust import TrustState
from controller.errors import LockgateError
from controller.ledger.fold import State
from controller.model.entry import Approval, Control, Entry, Opened, Rejection, RequestJudged
from controller.model.request import Request
from controller.ports import Repo
from controller.uses.asked import judge_asked, read_asked
from controller.uses.rules.subject import Problem

UNFOUNDED, UNDONE = "refusal-unfounded", "request-undone"
DUPLICATE = "request-duplicate"
"""Which requests were judged before is known to the audit of the requests branch, not to one entry."""

_WORD: Final = {"pause": "paused", "resume": "resumed", "abort": "aborted", "rollback": "rollback"}
_OF_RUNS: Final = frozenset({*_WORD, "approve", "reject"})
"""What asks something of a run, and has its effect in the entry after the verdict."""

Follow = Callable[[str, str], Run | None]
"""A run by its id and folder, as the entries so far left it; None where it cannot be followed."""


class Answers:
    """Verdicts in the order of the branch; the effect of one that grants is the next entry of the same push."""

    def __init__(self, repo: Repo, project: str) -> None:
        self._repo, self._project = repo, project
        self._owed: Entry | None = None
        self.state = State()
        """What stood before the entry that is looked at."""

    def check(self, entry: Entry, trusts: Sequence[TrustState], follow: Follow) -> Iterator[Problem]:
        """What is wrong with an entry, or with the verdict right before it."""
        owed, self._owed = self._owed, None
        if owed is not None and not _carries_out(entry, owed):
            yield _undone(owed)
        detail = entry.detail
        if not isinstance(detail, RequestJudged):
            return
        if detail.accepted:
            self._owed = entry if detail.verb in _OF_RUNS else None
            return
        why = self._contradiction(entry, detail, trusts, follow) if detail.code != DUPLICATE else ""
        if why:
            text = f"request {detail.commit[:12]} is refused as {detail.code}, but {why}"
            yield UNFOUNDED, entry.path, text

    def end(self) -> Iterator[Problem]:
        """After the last entry of a push: what was granted in it was done in it."""
        owed, self._owed = self._owed, None
        if owed is not None:
            yield _undone(owed)

    def _contradiction(
        self, entry: Entry, detail: RequestJudged, trusts: Sequence[TrustState], follow: Follow
    ) -> str:
        commit = entry.predicate.observed.requests
        try:
            asked = read_asked(self._repo, detail.commit)
            verdicts = [
                judge_asked(self._repo, asked, trust, self._project, entry.predicate.at, set(), commit)
                for trust in trusts
            ]
        except LockgateError:
            return ""  # a request that cannot be read is refused as that, and found elsewhere
        granted = next((one for one in verdicts if one.accepted), None)
        if granted is None or granted.request is None or granted.request.verb not in _OF_RUNS:
            return ""
        open_runs = self.state.open.get(granted.request.environment, ())
        if len(open_runs) > 1:
            return ""
        run = follow(open_runs[0].run, open_runs[0].path) if open_runs else None
        if open_runs and run is None:
            return ""
        why = _against(detail.code, granted.request, granted.principal or "", run)
        return granted.message if why is None else why


def _against(code: str, request: Request, principal: str, run: Run | None) -> str | None:
    """What the open run says against a refusal by trust's leave: "" when nothing does, None when no run gives such
    a reason at all."""
    verb = request.verb
    if code == "run-not-open":
        mine = run is not None and request.run in (None, run.id)
        return f"{run.id} was open" if mine and run is not None else ""
    if run is None:
        return "" if (code, verb) == ("no-rollback-target", "rollback") else None
    if code == "action-not-safe":
        return f"a run that is {run.phase} can {verb}" if verb in ACTIONS[run.phase] else ""
    if code in ("stage-regate-denied", "criteria-not-met"):
        return "" if verb == "resume" else None
    if code == "outranked":
        return "" if verb in ("approve", "resume") else None
    if verb == "rollback":
        reasons = {
            "rollback-of-rollback": run.opened.mode == "rollback",
            "no-rollback-target": not run.opened.previous,
        }
    elif verb == "approve":
        given = {one.principal for one in run.approvals} | {one.principal for one in run.opened.approvers}
        reasons = {
            "approval-without-lock": run.inputs is None,
            "approval-void": run.inputs is None or request.binds != run.inputs.approval_subject,
            "self-approval": principal in {*run.opened.authors, run.opened.requester},
            "already-approved": principal in given,
        }
    else:
        reasons = {}
    if code not in reasons:
        return None
    return "" if reasons[code] else f"that is not so of {run.id}"


def _carries_out(entry: Entry, owed: Entry) -> bool:
    """Whether an entry is the effect of the accepted request before it, as far as its kind says; what it must say
    besides is the rule about people's acts."""
    judged, detail = owed.detail, entry.detail
    if not isinstance(judged, RequestJudged) or entry.predicate.environment != judged.environment:
        return False
    if judged.verb == "approve":
        return isinstance(detail, Approval)
    if judged.verb == "reject":
        return isinstance(detail, Rejection)
    if judged.verb == "rollback" and isinstance(detail, Opened):
        return True
    return isinstance(detail, Control) and detail.verb == _WORD.get(judged.verb or "")


def _undone(owed: Entry) -> Problem:
    judged = owed.detail
    assert isinstance(judged, RequestJudged)
    who = ", ".join(one.principal for one in owed.predicate.who)
    text = f"{judged.verb} {judged.environment} was granted to {who}, and the next entry does not carry it out"
    return UNDONE, owed.path, text
