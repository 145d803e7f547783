"""A run, one step at a time, until it must wait: each phase has one function that says what comes next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from controller.core import rolling
from controller.core.approvals import Tally, stricter, tally_of_run
from controller.core.astray import listed
from controller.core.demand import lacking
from controller.core.desk import Desk
from controller.core.gates import Decided, decide_gates
from controller.core.inputs import gates_of, materialise
from controller.core.run import Run, whereabouts
from controller.model.entry import Actor, Approval, Sealed, When
from controller.model.environment import Approvals
from controller.model.link import LinkSignature
from controller.model.words import counted


def advance(desk: Desk, environment: str) -> None:
    """Take an environment's open run as far as this pass's knowledge allows."""
    while (run := desk.runs.get(environment)) is not None:
        if not _expired(desk, run) and not STEPS[run.phase](desk, run):
            return


def _expired(desk: Desk, run: Run) -> bool:
    """Seal a run whose promotion expired before anything was ordered."""
    if run.opened.expires is None or run.stage >= 0 or run.phase == "rolling_back":
        return False
    if desk.now < run.opened.expires:
        desk.look_at(run.opened.expires)
        return False
    seal(desk, run, "expired", "promotion-expired", f"{run.opened.release} expired before it was deployed")
    return True


def seal(desk: Desk, run: Run, phase: str, code: str, reason: str) -> None:
    """End a run; every end is sealed."""
    at_end = whereabouts(run)
    detail = Sealed(
        phase=phase,
        reason=reason,
        code=code,
        absent=_absent(run, phase),
        back=at_end.back,
        failed=at_end.failed,
        silent=at_end.silent,
    )
    desk.record(run, "sealed", detail, phase.upper(), reason, when=When(decided=desk.now, completed=desk.now))


def _absent(run: Run, phase: str) -> tuple[str, ...]:
    """What a completed run would have recorded and this one has not."""
    if phase == "completed":
        return ()
    have = {
        "inputs": run.inputs,
        "gates": run.gates,
        "ordered": run.ordered,
        "evaluated": run.evaluated,
        "verified": run.verified,
    }
    return tuple(name for name, value in have.items() if value is None)


# --- before anything is ordered --------------------------------------------------------------------------


def _scheduled(desk: Desk, run: Run) -> bool:
    if run.opened.refused is not None:
        text = f"{run.opened.release} is older than what runs here; go back with a rollback request"
        seal(desk, run, "denied", run.opened.refused, text)
        return True
    documents = desk.documents[run.id]
    if documents.lock is None:
        return False
    detail, files = materialise(desk.world, run, documents)
    how = {"artifacts": detail.artifacts, "templates": detail.templates}
    text = f"inputs of {run.opened.release} recorded, {counted(len(detail.targets), 'target')}"
    desk.record(run, "inputs", detail, "RECORDED", text, how=how, files=files)
    return True


def _gating(desk: Desk, run: Run) -> bool:
    if run.rejection is not None:
        text = f"{run.opened.release} rejected by {run.rejection.principal}"
        seal(desk, run, "rejected", "rejected", text)
        return True
    decided = regate(desk, run, 0)
    if decided.detail.aggregate == "FAIL":
        bad = next(v for v in decided.detail.verdicts if v.verdict == "FAIL")
        seal(desk, desk.runs[run.environment], "denied", bad.code, f"denied by {bad.gate}: {bad.message}")
        return True
    return decided.detail.aggregate != "WAIT"


def regate(desk: Desk, run: Run, stage: int, max_age: timedelta | None = None) -> Decided:
    """Decide every gate for a stage and record the answer, unless it is the one already recorded.

    A passing answer is recorded again, as what the orders after it rest on, unless it is younger than `max_age`.
    """
    documents = desk.documents[run.id]
    decided = decide_gates(
        gates_of(desk.world, run, documents),
        stage,
        run.unanswered if run.gates is not None and run.gates.stage == stage else {},
        desk.now,
        desk.world.answers,
        desk.world.absences,
    )
    for question in decided.questions:
        desk.ask(question)
    desk.look_at(decided.next_look)
    detail = decided.detail
    last = run.gates
    same = (
        last is not None
        and last.stage == stage
        and [(v.gate, v.verdict, v.code) for v in last.verdicts]
        == [(v.gate, v.verdict, v.code) for v in detail.verdicts]
    )
    young = max_age is not None and run.gates_at is not None and desk.now - run.gates_at <= max_age
    if same and (young or detail.aggregate in ("WAIT", "FAIL")):
        return decided
    warns = sum(1 for v in detail.verdicts if v.verdict == "WARN")
    text = f"gates {detail.aggregate} for {run.opened.release}" + (
        f", {counted(warns, 'warning')}" if warns else ""
    )
    blocking = [v for v in detail.verdicts if v.verdict in ("FAIL", "WAIT")]
    why = {
        "decision": detail.decision,
        "reasons": [{"gate": v.gate, "code": v.code, "message": v.message} for v in blocking],
    }
    desk.record(
        run,
        "gates",
        detail,
        detail.aggregate,
        text,
        why=why,
        files={f"inputs/gates-{run.gates_count + 1:02}.json": decided.inputs},
    )
    return decided


def _awaiting_approval(desk: Desk, run: Run) -> bool:
    if run.rejection is not None:
        return _gating(desk, run)
    if _record_merge_approvals(desk, run):
        return True
    counted = tally_of(desk, run)
    if not counted.satisfied:
        desk.look_at(counted.next_expiry)
        return False
    if awaits_links(desk, run):
        desk.look_at(counted.next_expiry)
        return False
    if run.gates_at != desk.now:
        # The gates passed in an earlier pass; what became stricter while approvals were awaited holds.
        decided = regate(desk, run, 0, _gate_max_age(desk, run))
        run = desk.runs[run.environment]
        if decided.detail.aggregate in ("WAIT", "FAIL"):
            return True
    rolling.order_stage(desk, run, 0)
    return True


def _gate_max_age(desk: Desk, run: Run) -> timedelta | None:
    """How old a gates entry may be at the first stage: the environment's word, else the project's default."""
    project = desk.world.intent.project
    default = project.document.spec.defaults.gate_max_age if project is not None else None
    return desk.documents[run.id].environment.spec.gate_max_age or default


def _record_merge_approvals(desk: Desk, run: Run) -> bool:
    """Record each merge signer's approval once. It counts only if the lock was there to be seen."""
    known = {a.key_id for a in run.approvals if a.via == "merge"}
    documents = desk.documents[run.id]
    seen = documents.lock_pin is not None and run.opened.seen_lock == documents.lock_pin.blob
    fresh = [a for a in run.opened.approvers if a.key_id and a.key_id not in known]
    for actor in fresh:
        code, text = ("approved", f"approved by {actor.principal} by merge")
        if not seen:
            code = "approval-without-lock"
            text = f"the merge by {actor.principal} does not count: the lock did not exist yet"
        run = record_approval(desk, run, actor, "merge", run.opened.commit, seen, code, text)
    return bool(fresh)


def record_approval(
    desk: Desk,
    run: Run,
    actor: Actor,
    via: str,
    commit: str,
    counted: bool,
    code: str,
    text: str,
    link: LinkSignature | None = None,
) -> Run:
    """Record one approval, bound to the run's subject, counted or not and why."""
    assert run.inputs is not None
    lasts = desk.documents[run.id].environment.spec.approvals.expires_after
    detail = Approval(
        principal=actor.principal,
        key_id=actor.key_id or "",
        via=via,
        commit=commit,
        subject=run.inputs.approval_subject,
        at=desk.now,
        expires=desk.now + lasts if lasts else None,
        counted=counted,
        code=code,
        message=text,
        link=link,
    )
    result = "APPROVED" if counted else "NOT_COUNTED"
    return desk.record(run, "approval", detail, result, text, who=(actor,), why={"subject": detail.subject})


def asked_of(desk: Desk, run: Run) -> Approvals:
    """What a run needs: what its environment asked for when it opened, or what it asks for by now."""
    live = desk.world.intent.environments.get(run.environment)
    pinned = desk.documents[run.id].environment.spec.approvals
    return stricter(pinned, live.document.spec.approvals if live is not None else None)


def tally_of(desk: Desk, run: Run) -> Tally:
    """The run's approvals counted as of now."""
    return tally_of_run(run, asked_of(desk, run), desk.world.trust, desk.now)


def awaits_links(desk: Desk, run: Run) -> bool:
    """Whether the layout demands links of approvers that are not there. A requested rollback has no approvers."""
    demand = desk.world.demands.get(run.environment) if run.opened.cause == "promotion" else None
    return lacking(demand, run.approvals) > 0


def adds_link(run: Run, principal: str, link: LinkSignature | None) -> bool:
    """Whether an approval by somebody whose approval is on record brings the link that this one lacks."""
    given = [one for one in run.approvals if one.counted and one.principal == principal]
    return link is not None and bool(given) and all(one.link is None for one in given)


# --- rolling out -----------------------------------------------------------------------------------------


def _deploying(desk: Desk, run: Run) -> bool:
    return rolling.collect_deployed(desk, run)


def _evaluating(desk: Desk, run: Run) -> bool:
    if rolling.order_rest(desk, run):
        return True
    if run.evaluated is None:
        return rolling.judge_stage(desk, run)
    if run.evaluated.verdict != "passed":
        return rolling.fail(desk, run, f"stage-{run.evaluated.verdict}", rolling.failure_text(run))
    if not _rested(desk, run):
        return False
    following = run.stage + 1
    if run.inputs is None or following >= len(run.inputs.stages):
        rolling.order_check(desk, run)
        return True
    return _next_stage(desk, run, following)


def _rested(desk: Desk, run: Run) -> bool:
    """Whether the stage's own pause is over: a time, or a person's resume."""
    stages = desk.documents[run.id].strategy.spec.stages
    pause = stages[run.stage].pause if run.stage < len(stages) and run.opened.mode == "promotion" else None
    since = run.evaluated_at
    if pause is None or since is None or (run.resumed_at is not None and run.resumed_at >= since):
        return True
    if pause.duration is None:
        rolling.pause(desk, run, "stage-pause", "the strategy pauses here until somebody resumes")
        return False
    if desk.now < since + pause.duration:
        desk.look_at(since + pause.duration)
        return False
    return True


def _next_stage(desk: Desk, run: Run, stage: int) -> bool:
    """Decide gates and approvals again before each stage; no again is a pause, never a way round."""
    decided = regate(desk, run, stage)
    run = desk.runs[run.environment]
    if decided.detail.aggregate == "WAIT":
        return False
    if decided.detail.aggregate == "FAIL":
        bad = next(v for v in decided.detail.verdicts if v.verdict == "FAIL")
        rolling.pause(desk, run, "stage-regate-denied", f"{bad.gate} denies stage {stage + 1}: {bad.message}")
        return True
    if not tally_of(desk, run).satisfied:
        rolling.pause(desk, run, "stage-regate-denied", f"approvals no longer hold for stage {stage + 1}")
        return True
    rolling.order_stage(desk, run, stage)
    return True


def _verifying(desk: Desk, run: Run) -> bool:
    if run.verified is None:
        return rolling.collect_verified(desk, run)
    if run.verified.ok:
        text = f"{run.opened.release} completed on {counted(len(run.touched), 'target')}"
        seal(desk, run, "completed", "completed", text)
        return True
    return rolling.fail(desk, run, "verification-failed", run.verified.message)


def _paused(desk: Desk, run: Run) -> bool:
    return False


def _rolling_back(desk: Desk, run: Run) -> bool:
    if run.rolled_back is not None:
        if run.rolled_back.ok:
            seal(desk, run, "rolled_back", "rolled-back", f"{run.opened.release} rolled back")
        else:
            seal(desk, run, "rollback_failed", *_rollback_failure(run))
        return True
    if run.ordered is None or run.ordered.action != "rollback":
        return rolling.order_rollback(desk, run)
    return rolling.collect_rolled_back(desk, run)


def _rollback_failure(run: Run) -> tuple[str, str]:
    """Code and reason of a rollback after which some target is not known to run the former release."""
    assert run.rolled_back is not None
    at_end, text = whereabouts(run), f"{run.opened.release}: rollback failed"
    if not run.rolled_back.results:
        return "rollback-failed", text
    former = run.rolled_back.to.release if run.rolled_back.to is not None else "nothing"
    text += f": {len(at_end.back)} of {len(run.rolled_back.results)} touched targets back on {former}"
    if at_end.failed:
        text += f"; not back: {listed(at_end.failed)}"
    if at_end.silent:
        text += f"; silent, what they run is not known: {listed(at_end.silent)}"
    return ("rollback-failed" if at_end.failed else "rollback-unconfirmed"), text


STEPS: dict[str, Callable[[Desk, Run], bool]] = {
    "scheduled": _scheduled,
    "gating": _gating,
    "awaiting_approval": _awaiting_approval,
    "deploying": _deploying,
    "evaluating": _evaluating,
    "verifying": _verifying,
    "paused": _paused,
    "rolling_back": _rolling_back,
}
"""By phase: take the run on and say whether anything changed; no change ends the pass for this run."""
