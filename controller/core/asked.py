"""Requests: each gets exactly one verdict, and an accepted one is carried out at once.

Trust has already said who may ask for what (`controller.core.requests`); here is decided whether it can be done
now. Within one pass abort and reject outrank approve and resume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from controller.core import replays
from controller.core.acknowledge import (
    EVERYWHERE,
    acknowledgement_of,
    counted,
    enough,
    given_by,
    never,
    standing,
)
from controller.core.advance import adds_link, asked_of, record_approval, seal, tally_of
from controller.core.desk import Desk
from controller.core.gates import decide_gates
from controller.core.inputs import gates_of
from controller.core.opening import documents_of, open_rollback, rollback_target
from controller.core.requests import RequestVerdict, bound_commit
from controller.core.run import Run, failed_for_good
from controller.core.transitions import ACTIONS, LINKING
from controller.model.entry import Actor, Control, MainAcknowledged, Rejection, RequestJudged, What, When
from controller.model.history import Commit
from controller.model.keys import key_id
from controller.model.request import Request

STRONGER = frozenset({"abort", "reject"})
WEAKER = frozenset({"approve", "resume"})


def judge_requests(desk: Desk) -> None:
    """Record the verdict on every new request, in the order they were committed, and do what was accepted."""
    asked = desk.world.requests
    stopped = {
        v.request.environment
        for commit, v in asked
        if v.accepted
        and v.request is not None
        and v.request.verb in STRONGER
        and _refusal(desk, desk.runs.get(v.request.environment), v.request, set(), _actor(commit, v)) is None
    }
    for commit, verdict in asked:
        actor = _actor(commit, verdict)
        request = verdict.request
        if verdict.accepted and request is not None:
            run = desk.runs.get(request.environment)
            refusal = _refusal(desk, run, request, stopped, actor)
            if refusal is not None:
                verdict = replace(verdict, accepted=False, code=refusal[0], message=refusal[1])
        _record(desk, commit, verdict, actor)
        if verdict.accepted and request is not None:
            DO[request.verb](desk, commit, request, actor)


def _actor(commit: Commit, verdict: RequestVerdict) -> Actor:
    return Actor(principal=verdict.principal or "unknown", key_id=key_id(commit.key) if commit.key else None)


def _record(desk: Desk, commit: Commit, verdict: RequestVerdict, actor: Actor) -> None:
    request = verdict.request
    detail = RequestJudged(
        commit=commit.id,
        request=request.id if request else None,
        verb=request.verb if request else None,
        environment=request.environment if request else None,
        run=request.run if request else None,
        accepted=verdict.accepted,
        code=verdict.code,
        message=verdict.message,
        reason=request.reason if request else None,
        acknowledges=acknowledgement_of(commit.id, verdict),
    )
    everywhere = request is None or request.environment == EVERYWHERE
    what = What(environment=None if everywhere or request is None else request.environment)
    word = "accepted" if verdict.accepted else f"refused, {verdict.code}"
    asked = f"{request.verb} {request.environment}" if request else f"request {commit.id[:8]}"
    desk.event(
        "request",
        detail,
        "ACCEPTED" if verdict.accepted else "REFUSED",
        f"{asked} by {actor.principal}: {word}",
        who=(actor,),
        what=what,
        why={"reason": request.reason if request else None, "code": verdict.code},
        when=When(requested=request.at if request else None, decided=desk.now),
    )


def _refusal(
    desk: Desk, run: Run | None, request: Request, stopped: set[str], actor: Actor
) -> tuple[str, str] | None:
    """Why an entitled request cannot be done now: (code, message); None when it can."""
    if request.verb not in DO:
        return "verb-unsupported", f"this controller does not do {request.verb} yet"
    if request.verb == "acknowledge":
        return _acknowledge_refusal(desk, request, actor)
    if request.verb == "replay":
        return replays.refusal(desk.world.state, request)
    if request.verb in WEAKER and request.environment in stopped:
        return "outranked", f"an abort or reject of the same run in the same pass outranks {request.verb}"
    if run is None:
        return _no_run(desk, request)
    if request.run is not None and request.run != run.id:
        return "run-not-open", f"{request.run} is not the open run of {request.environment}; {run.id} is"
    links = request.verb == "approve" and run.phase in LINKING and adds_link(run, actor.principal, request.link)
    if request.verb not in ACTIONS[run.phase] and not links:
        safe = ", ".join(ACTIONS[run.phase]) or "nothing"
        return "action-not-safe", f"a run that is {run.phase} cannot {request.verb}; safe now: {safe}"
    if request.verb == "approve":
        return _approve_refusal(desk, run, request, actor)
    if request.verb == "resume":
        return _resume_refusal(desk, run)
    if request.verb == "rollback" and run.opened.mode == "rollback":
        return "rollback-of-rollback", "a rollback is never rolled back; pause or abort it"
    if request.verb == "rollback" and run.opened.previous is None:
        return "no-rollback-target", "nothing ran here before, so there is nothing to go back to"
    return None


def _no_run(desk: Desk, request: Request) -> tuple[str, str] | None:
    place = desk.world.state.environments.get(request.environment)
    if request.verb != "rollback":
        return "run-not-open", f"{request.environment} has no open run"
    if request.environment in desk.settled:
        return "run-not-open", "the run ended in this very pass; ask again"
    if request.run is not None and (place is None or request.run != place.run):
        return "run-not-open", f"{request.run} is not open, and not what {request.environment} runs"
    target = rollback_target(desk, request.environment)
    if target is None:
        return "no-rollback-target", f"{request.environment} has no completed release before the one it runs"
    back = target.release
    if documents_of(desk.world.intent, request.environment, back) is None:
        return "no-rollback-target", f"the files of {back} are no longer on main or do not validate"
    blocked = desk.world.intent.releases[back].document.spec.state
    if blocked in ("blocked", "archived"):
        return "no-rollback-target", f"{back} is {blocked}"
    return None


def _acknowledge_refusal(desk: Desk, request: Request, actor: Actor) -> tuple[str, str] | None:
    """Why a refused commit of main is not to be let stand on this owner's word: (code, message)."""
    world, cursors = desk.world, desk.world.state.cursors
    stood = cursors.refused if world.accepted is None else ()
    commit = bound_commit(request.binds)
    refused = standing([*stood, *world.refused], commit, request.code)
    if refused is None:
        about = f"{(commit or 'no commit')[:12]} with {request.code or 'no code'}"
        return "nothing-refused", f"main does not stand still at {about}"
    forbidden = never(refused.paths)
    if forbidden is not None:
        return "never-acknowledged", f"{refused.commit[:12]} can only be taken back: {forbidden}"
    if any(one.commit == refused.commit for one in cursors.acknowledged):
        return "already-acknowledged", f"{refused.commit[:12]} is let stand already"
    given = counted(desk.acknowledging, refused.commit, refused.code, world.trust, desk.now)
    if any(one.principal == actor.principal for one in given):
        return "already-acknowledged", f"{actor.principal} has acknowledged {refused.commit[:12]} already"
    return None


def _approve_refusal(desk: Desk, run: Run, request: Request, actor: Actor) -> tuple[str, str] | None:
    if run.inputs is None:
        return "approval-without-lock", "the release is not locked yet: there are no digests to approve"
    if request.binds != run.inputs.approval_subject:
        return "approval-void", "the approval is bound to another subject than this run's"
    if asked_of(desk, run).separation_of_duties and actor.principal in {*run.opened.authors, run.opened.requester}:
        return "self-approval", f"{actor.principal} asked for this promotion and cannot approve it"
    if adds_link(run, actor.principal, request.link):
        return None
    if any(given.principal == actor.principal for given in tally_of(desk, run).counted):
        return "already-approved", f"{actor.principal} has approved this run already"
    return None


def _resume_refusal(desk: Desk, run: Run) -> tuple[str, str] | None:
    """Resuming decides gates again: what became stricter during the pause holds (trust rule 11)."""
    failed = failed_for_good(run)
    if failed is not None:
        return "criteria-not-met", f"{failed}; roll back or abort"
    if run.inputs is None or run.gates is None or run.remembered in ("scheduled", "gating"):
        return None  # the gates are still to be decided: resuming leads only there
    decided = decide_gates(
        gates_of(desk.world, run, desk.documents[run.id]),
        run.gates.stage,
        {},
        desk.now,
        desk.world.answers,
    )
    for question in decided.questions:
        desk.ask(question)
    denying = [v for v in decided.detail.verdicts if v.verdict in ("FAIL", "WAIT")]
    if denying:
        text = "; ".join(f"{v.gate}: {v.message}" for v in denying)
        return "stage-regate-denied", f"the gates do not allow it now: {text}"
    if run.remembered != "awaiting_approval" and not tally_of(desk, run).satisfied:
        return "stage-regate-denied", "the approvals no longer hold: approve again first"
    return None


# --- doing -----------------------------------------------------------------------------------------------


def _approve(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
    run = desk.runs[request.environment]
    text = f"approved by {actor.principal}: {request.reason}"
    if adds_link(run, actor.principal, request.link):
        text = f"{actor.principal}, whose approval is on record, adds its link: {request.reason}"
    record_approval(desk, run, actor, "request", commit.id, True, "approved", text, request.link)


def _reject(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
    run = desk.runs[request.environment]
    detail = Rejection(principal=actor.principal, request=request.id, reason=request.reason)
    text = f"rejected by {actor.principal}: {request.reason}"
    desk.record(run, "rejection", detail, "REJECTED", text, who=(actor,), why={"reason": request.reason})


def _control(verb: str, result: str) -> Callable[[Desk, Commit, Request, Actor], None]:
    def do(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
        run = desk.runs[request.environment]
        detail = Control(
            verb=verb,
            request=request.id,
            by=actor.principal,
            reason=request.reason,
            code="requested",
        )
        text = f"{verb} by {actor.principal}: {request.reason}"
        why = {"reason": request.reason, "ticket": request.ticket}
        desk.record(run, "control", detail, result, text, who=(actor,), why=why)

    return do


def _abort(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
    _control("aborted", "ABORTED")(desk, commit, request, actor)
    run = desk.runs[request.environment]
    seal(desk, run, "aborted", "aborted", f"{run.opened.release} aborted by {actor.principal}: {request.reason}")


def _rollback(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
    if request.environment in desk.runs:
        _control("rollback", "ROLLING_BACK")(desk, commit, request, actor)
        return
    open_rollback(desk, request.environment, commit.id, actor.principal, request.reason, request.ticket)


def _acknowledge(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
    """One owner's word more; with enough of them main goes on over the commit from the next pass on."""
    binds, code = bound_commit(request.binds) or "", request.code or ""
    desk.acknowledging += (given_by(commit.id, request, actor.principal),)
    given = counted(desk.acknowledging, binds, code, desk.world.trust, desk.now)
    if not enough(given, desk.world.trust):
        return
    detail = MainAcknowledged(commit=binds, code=code, acknowledgements=given)
    names = ", ".join(sorted(one.principal for one in given))
    who = tuple(Actor(principal=one.principal) for one in given)
    text = f"main: {binds[:8]} ({code}) let stand by {names}"
    desk.event("main-acknowledged", detail, "ACKNOWLEDGED", text, who=who, why={"code": code})


def _replay(desk: Desk, commit: Commit, request: Request, actor: Actor) -> None:
    """Being accepted is all: what is on record as accepted is decided again (`controller.core.replays`)."""


DO: dict[str, Callable[[Desk, Commit, Request, Actor], None]] = {
    "approve": _approve,
    "reject": _reject,
    "pause": _control("paused", "PAUSED"),
    "resume": _control("resumed", "RESUMED"),
    "abort": _abort,
    "rollback": _rollback,
    "replay": _replay,
    "acknowledge": _acknowledge,
}
