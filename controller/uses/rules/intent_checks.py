"""What people asked for, while verifying: whoever holds the controller's key alone cannot claim it.

A promotion is one that landed on main, an approval is a merge's or a request's, and what a person is said to have
ordered stands in an accepted request, whose verdict is the entry right before its effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from controller.core.requests import read_request
from controller.core.run import Run
from controller.core.trust import TrustState
from controller.errors import LockgateError
from controller.model.entry import Approval, Control, Entry, Opened, Rejection, RequestJudged, SlotChange
from controller.model.keys import key_id
from controller.model.request import Request
from controller.ports import Repo
from controller.uses.rules.subject import Problem

PROMOTION, APPROVAL, CONTROL = "promotion-unbacked", "approval-unbacked", "control-unbacked"
REQUEST = "request-mismatch"
_VERBS = {"paused": "pause", "resumed": "resume", "aborted": "abort", "rollback": "rollback"}
_OWN = ("paused", "rollback")
"""What the controller does on its own."""


class Asked:
    """The accepted request that the last entry was about; its effect is the next one. `pending` are the slot
    changes that no run opened for when the entry was made."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._last: tuple[RequestJudged, str | None, str | None] | None = None
        self.pending: tuple[SlotChange, ...] = ()

    def check(self, entry: Entry, run: Run | None) -> Iterator[Problem]:
        """What people are said to have asked and did not. `run` is the entry's run before it, where it can be
        followed."""
        detail = entry.detail
        if isinstance(detail, Opened):
            yield from self._opened(entry, detail)
        elif isinstance(detail, Approval):
            yield from self._approval(entry, detail, run)
        elif isinstance(detail, Control):
            yield from self._control(entry, detail)
        elif isinstance(detail, Rejection):
            why = self._unlike(entry, "reject", id=detail.request, reason=detail.reason)
            why = why or self._other_person(detail.principal)
            if why:
                yield CONTROL, entry.path, f"the rejection is nobody's: {why}"

    def judged(self, entry: Entry, trusts: Sequence[TrustState]) -> Iterator[Problem]:
        """What the verdict on a request says and the request does not; `trusts` are those it was judged by."""
        detail, who = entry.detail, entry.predicate.who
        if not isinstance(detail, RequestJudged):
            return
        if detail.request is None:
            if detail.accepted:
                yield REQUEST, entry.path, "it is accepted and names no request"
            return
        request = self._request(detail.commit)
        if request is None:
            return  # a request that cannot be read is never accepted, and one that is lost is found elsewhere
        said = (detail.request, detail.verb, detail.environment, detail.run, detail.reason)
        if said != (request.id, request.verb, request.environment, request.run, request.reason):
            yield REQUEST, entry.path, "the verdict is on something else than the request says"
        if detail.accepted and detail.code != "request-accepted":
            yield REQUEST, entry.path, f"it is accepted as {detail.code}"
        key = self._repo.commit(detail.commit).key
        if detail.accepted and (
            key is None
            or [(one.principal, one.key_id) for one in who]
            not in [[(trust.owner_of(key), key_id(key))] for trust in trusts]
        ):
            yield REQUEST, entry.path, "it names another person than the one who signed the request"

    def add(self, entry: Entry) -> None:
        """Remember an entry, after it was checked."""
        detail = entry.detail
        if not isinstance(detail, RequestJudged) or not detail.accepted:
            self._last = None
            return
        who = entry.predicate.who
        self._last = detail, *((who[0].principal, who[0].key_id) if len(who) == 1 else (None, None))

    # --- one kind each -----------------------------------------------------------------------------------

    def _opened(self, entry: Entry, detail: Opened) -> Iterator[Problem]:
        if detail.cause == "request":
            why = self._unlike(entry, "rollback", reason=detail.reason, ticket=detail.ticket)
            why = why or self._other_person(detail.requester) or self._other_commit(detail.commit)
            if why:
                yield PROMOTION, entry.path, f"nobody asked for this rollback: {why}"
            return
        change = next(
            (
                one
                for one in self.pending
                if (one.environment, one.commit) == (entry.predicate.environment, detail.commit)
            ),
            None,
        )
        if change is None:
            yield PROMOTION, entry.path, f"no promotion of {detail.commit[:12]} was pending"
            return
        said: dict[str, Any] = {
            "slot": change.pin,
            "release": change.release,
            "reason": change.reason,
            "ticket": change.ticket,
            "requester": change.requester.principal if change.requester else None,
            "authors": change.authors,
            "approvers": change.approvers,
            "seen_lock": change.seen_lock,
            "not_before": change.not_before,
            "preconditions": change.preconditions,
        }
        if change.expires is not None:
            said["expires"] = change.expires
        other = [name for name, value in said.items() if getattr(detail, name) != value]
        if other:
            text = f"its {', '.join(other)} are not those of the promotion {detail.commit[:12]}"
            yield PROMOTION, entry.path, text

    def _approval(self, entry: Entry, detail: Approval, run: Run | None) -> Iterator[Problem]:
        if run is not None and (run.inputs is None or run.inputs.approval_subject != detail.subject):
            yield APPROVAL, entry.path, "it approves another subject than its run's"
        if detail.via == "request":
            why = self._unlike(entry, "approve", binds=detail.subject)
            why = why or self._other_person(detail.principal, detail.key_id) or self._other_commit(detail.commit)
        else:
            why = self._no_merge(detail, run)
        if why:
            yield APPROVAL, entry.path, f"{detail.principal} did not approve this: {why}"

    def _no_merge(self, detail: Approval, run: Run | None) -> str:
        if run is None:
            return ""
        opened = run.opened
        if detail.commit != opened.commit or (detail.principal, detail.key_id) not in {
            (actor.principal, actor.key_id) for actor in opened.approvers
        }:
            return f"the merge {detail.commit[:12]} of the promotion is not theirs"
        if detail.counted and (run.inputs is None or opened.seen_lock != run.inputs.lock.blob):
            return "the lock did not exist when they merged"
        return ""

    def _control(self, entry: Entry, detail: Control) -> Iterator[Problem]:
        if detail.request is None:
            if detail.verb not in _OWN or detail.by != "controller":
                yield CONTROL, entry.path, f"a run is {detail.verb} by {detail.by} without a request"
            return
        why = self._unlike(entry, _VERBS.get(detail.verb, detail.verb), id=detail.request, reason=detail.reason)
        why = why or self._other_person(detail.by)
        if not why and detail.code != "requested":
            why = f"it is said to be for {detail.code}"
        if why:
            yield CONTROL, entry.path, f"{detail.by} did not ask for this: {why}"

    # --- the request -------------------------------------------------------------------------------------

    def _unlike(self, entry: Entry, verb: str, **members: str | None) -> str:
        """Why the request that was accepted right before is not the one that this entry follows from."""
        if self._last is None:
            return "no request was accepted right before"
        judged = self._last[0]
        if (judged.verb, judged.environment) != (verb, entry.predicate.environment):
            return f"what was accepted right before is to {judged.verb} {judged.environment}"
        opens = isinstance(entry.detail, Opened)
        if judged.run is not None and not opens and judged.run != entry.predicate.run:
            return f"what was accepted right before is about {judged.run}"
        request = self._request(judged.commit)
        if request is None:
            return "its request cannot be read"
        other = [name for name, value in members.items() if getattr(request, name) != value]
        return f"the request says another {', '.join(other)}" if other else ""

    def _request(self, oid: str) -> Request | None:
        try:
            commit = self._repo.commit(oid)
            changes = self._repo.changes(commit.parents[0] if commit.parents else None, oid)
            (new,) = [change.new for change in changes if change.new is not None]
            return read_request(self._repo.read(new.blob))
        except (LockgateError, ValueError):
            return None

    def _other_person(self, principal: str | None, keyid: str | None = None) -> str:
        assert self._last is not None
        _, who, signed = self._last
        if who != principal or (keyid is not None and signed != keyid):
            return f"the request is {who}'s"
        return ""

    def _other_commit(self, commit: str) -> str:
        assert self._last is not None
        return "" if self._last[0].commit == commit else f"the request stands in {self._last[0].commit[:12]}"
