"""Orders and what comes back: stages, verdicts, verification, rollback, pause."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from controller.core.absence import Absence, put_off
from controller.core.analysis import StageVerdict, State, Window, evaluate, sampling_interval
from controller.core.artifacts import artifacts_of
from controller.core.declared import agent_key
from controller.core.desk import Desk
from controller.core.orderparts import FIRST_ROLES
from controller.core.rollout import DEFAULT_DEADLINE, stage_deadline
from controller.core.run import Run
from controller.core.world import RunDocuments
from controller.ledger.canonical import digest
from controller.ledger.links import holds
from controller.ledger.speaker import key_at
from controller.model.entry import (
    Control,
    Criterion,
    Deployed,
    Evaluated,
    Ordered,
    OrderLine,
    RolledBack,
    TargetResult,
    Verified,
    When,
)
from controller.model.link import deploy_link
from controller.model.order import PLAN, AgentStatement, Report, Sample, order_id
from controller.model.strategy import Metric, Stage
from controller.model.words import counted

# --- ordering --------------------------------------------------------------------------------------------


def order_stage(desk: Desk, run: Run, stage: int) -> None:
    """Order the targets of a stage. With migrations, its first target alone: the rest follow its success."""
    assert run.inputs is not None
    targets = run.inputs.stages[stage].targets
    documents = desk.documents[run.id]
    lock = documents.lock
    roles = {c.role for c in lock.spec.components.values()} if lock else set()
    lead = stage == 0 and run.opened.mode == "promotion" and bool(roles & FIRST_ROLES)
    _order(desk, run, stage, "deploy", targets[:1] if lead else targets)


def order_rest(desk: Desk, run: Run) -> bool:
    """Order what is left of the stage once its lead has succeeded; say whether anything was."""
    if run.inputs is None or run.evaluated is not None:
        return False
    done = {r.target for r in run.results}
    rest = tuple(t for t in run.inputs.stages[run.stage].targets if t not in done)
    if not rest or any(r.result != "succeeded" for r in run.results):
        return False
    _order(desk, run, run.stage, "deploy", rest)
    return True


def order_check(desk: Desk, run: Run) -> None:
    """Order every target to compare what runs with the lock."""
    assert run.inputs is not None
    _order(desk, run, len(run.inputs.stages), "check", run.inputs.targets)


def order_rollback(desk: Desk, run: Run) -> bool:
    """Order the touched targets back to what ran before; never a rollback of a rollback."""
    if run.opened.mode == "rollback" or run.opened.previous is None:
        reason = "a rollback is never rolled back" if run.opened.mode == "rollback" else "nothing ran here before"
        detail = RolledBack(to=None, results=(), ok=not run.touched and run.opened.mode == "promotion")
        desk.record(run, "rolled-back", detail, "FAILED", reason, targets=())
        return True
    if not run.touched:
        detail = RolledBack(to=run.opened.previous, results=(), ok=True)
        desk.record(run, "rolled-back", detail, "ROLLED_BACK", "no target was touched", targets=())
        return True
    stage = len(run.inputs.stages) + 1 if run.inputs else 1
    _order(desk, run, stage, "rollback", run.touched)
    return True


def _order(
    desk: Desk, run: Run, stage: int, action: Literal["deploy", "rollback", "check"], targets: tuple[str, ...]
) -> None:
    documents = desk.documents[run.id]
    if action == "rollback":
        place = desk.world.state.environments[run.environment]
        assert run.opened.previous is not None
        manifest, components = run.opened.previous.manifest_digest, dict(place.digests)
        release = run.opened.previous.release
    else:
        assert documents.lock is not None
        manifest = documents.lock.spec.manifest_digest
        components = {name: c.digest for name, c in documents.lock.spec.components.items()}
        release = run.opened.release
    deadline = DEFAULT_DEADLINE
    if run.opened.mode == "promotion":
        last = len(documents.strategy.spec.stages) - 1
        deadline = stage_deadline(documents.strategy, min(stage, last))
    artifacts = artifacts_of(run, action)
    detail = Ordered(
        stage=stage,
        attempt=run.attempt,
        action=action,
        manifest_digest=manifest,
        components=components,
        artifacts=artifacts,
        orders=tuple(OrderLine(id=order_id(run.id, stage, run.attempt, t, action), target=t) for t in targets),
        deadline=desk.now + deadline,
    )
    label = f"stage {stage + 1}: " if action == "deploy" else ""
    text = f"{label}{action} of {release} ordered on {counted(len(targets), 'target')}"
    desk.record(run, "ordered", detail, "ORDERED", text, targets=targets, how={"artifacts": artifacts})


# --- collecting ------------------------------------------------------------------------------------------


def _collect(desk: Desk, run: Run) -> tuple[tuple[TargetResult, ...], bytes] | None:
    """The results of the last batch of orders and the agents' statements verbatim, one a line; None while
    some target may still report."""
    assert run.ordered is not None
    # Only what a target says of its own order counts: no agent can answer, or silence, another one.
    reports: dict[tuple[str, str], AgentStatement] = {}
    for said in desk.world.inbox:
        if isinstance(said.body, Report):
            reports.setdefault((said.body.order, said.agent), said)
    deadline = put_off(run.order_deadline or run.ordered.deadline, run.batch_begun, desk.world.absences)
    late = desk.now >= deadline
    results, used = [], []
    for line in run.ordered.orders:
        statement = reports.get((line.id, line.target))
        if statement is not None:
            results.append(result_of(statement, run.ordered, _key_of(desk, statement)))
            used.append(statement.envelope)
        elif late:
            text = f"no report before {deadline:%H:%M:%S}"
            results.append(_unreported(line, text))
        else:
            desk.look_at(deadline)
            return None
    return tuple(results), b"".join(envelope + b"\n" for envelope in used)


def result_of(statement: AgentStatement, ordered: Ordered, key: str | None) -> TargetResult:
    """The result to record for a report; `key` is what the agent signs its links with. Verification calls
    this with the recorded reports."""
    body = statement.body
    assert isinstance(body, Report)
    succeeded = body.status == "succeeded"
    other = _other_digests(body, ordered) if succeeded else ""
    code = "digest-mismatch" if other else body.code
    if succeeded and not other and body.plan != ordered.artifacts.get(PLAN):
        code, other = "plan-mismatch", f"followed the plan {body.plan or 'none'}, which is not the one ordered"
    return TargetResult(
        order=body.order,
        target=statement.agent,
        result="failed" if other else body.status,
        code=code,
        message=other or body.message,
        report=statement.digest,
        manifest_digest=body.manifest_digest,
        healthy=body.healthy,
        link=body.link if succeeded and not other and _links(body, key) else None,
    )


def _links(body: Report, key: str | None) -> bool:
    """Whether the report carries the agent's own signature over the link of its deployment."""
    return body.action == "deploy" and holds(deploy_link(body.run, body.manifest_digest), body.link, key)


def _key_of(desk: Desk, statement: AgentStatement) -> str | None:
    """The key that an agent signs links with: its own, or the one certified for the time of its report."""
    loaded = desk.world.intent.agents.get(statement.agent)
    if loaded is None:
        return None
    body = statement.body
    return key_at(agent_key(loaded.document), statement.agent, body.said_at, body.certificate)


def _other_digests(body: Report, ordered: Ordered) -> str:
    """What a target says it runs instead of what was ordered; empty when nothing."""
    if body.manifest_digest != ordered.manifest_digest:
        return f"reports {body.manifest_digest[:19]}, ordered was {ordered.manifest_digest[:19]}"
    for name, state in sorted(body.components.items()):
        wanted = ordered.components.get(name)
        if state.digest != wanted:
            return f"reports {name} as {state.digest[:19]}, ordered was {wanted[:19] if wanted else 'none of it'}"
    return ""


def _unreported(line: OrderLine, text: str) -> TargetResult:
    return TargetResult(
        order=line.id,
        target=line.target,
        result="unreported",
        code="no-report",
        message=text,
        report=None,
        manifest_digest=None,
        healthy=None,
    )


def _report_file(run: Run, label: str, data: bytes) -> dict[str, bytes]:
    return {f"reports/{run.entries + 1:03}-{label}.jsonl": data} if data else {}


def collect_deployed(desk: Desk, run: Run) -> bool:
    """Record what became of a stage's orders, once every target has reported or the deadline has passed."""
    collected = _collect(desk, run)
    if collected is None:
        return False
    results, lines = collected
    detail = Deployed(stage=run.stage, attempt=run.attempt, results=results)
    good = sum(1 for r in results if r.result == "succeeded")
    text = f"stage {run.stage + 1}: {good} of {len(results)} targets deployed"
    desk.record(
        run,
        "deployed",
        detail,
        "DEPLOYED" if good == len(results) else "FAILED",
        text,
        targets=tuple(r.target for r in results),
        when=When(requested=run.ordered_at, completed=desk.now),
        files=_report_file(run, f"stage-{run.stage + 1}", lines),
    )
    return True


def collect_verified(desk: Desk, run: Run) -> bool:
    """Record the verification: every target's running digests and sticker equal the lock."""
    collected = _collect(desk, run)
    if collected is None:
        return False
    results, lines = collected
    bad = [r for r in results if r.result != "succeeded" or r.healthy is False]
    text = (
        "; ".join(f"{r.target} {r.code}: {r.message}" for r in bad[:5])
        or f"{counted(len(results), 'target')} verified"
    )
    detail = Verified(results=results, ok=not bad, message=text)
    result = "FAILED" if bad else "PASSED"
    desk.record(run, "verified", detail, result, text, files=_report_file(run, "verify", lines))
    return True


def collect_rolled_back(desk: Desk, run: Run) -> bool:
    """Record the rollback's result on every touched target."""
    collected = _collect(desk, run)
    if collected is None:
        return False
    results, lines = collected
    good = sum(1 for r in results if r.result == "succeeded")
    detail = RolledBack(to=run.opened.previous, results=results, ok=good == len(results))
    back = run.opened.previous.release if run.opened.previous else "nothing"
    text = f"{good} of {len(results)} touched targets back on {back}"
    desk.record(
        run,
        "rolled-back",
        detail,
        "ROLLED_BACK" if detail.ok else "FAILED",
        text,
        targets=tuple(r.target for r in results),
        files=_report_file(run, "rollback", lines),
    )
    return True


# --- judging ---------------------------------------------------------------------------------------------


def stage_of(run: Run, documents: RunDocuments) -> Stage | None:
    """The strategy's stage that a run is in; None for a rollback run, which has one plain stage."""
    stages = documents.strategy.spec.stages
    return stages[run.stage] if run.opened.mode == "promotion" and run.stage < len(stages) else None


def metrics_of(run: Run, documents: RunDocuments) -> dict[str, Metric]:
    return dict(documents.strategy.spec.analysis) if run.opened.mode == "promotion" else {}


def stage_samples(run: Run, inbox: Sequence[AgentStatement], now: datetime) -> dict[str, list[AgentStatement]]:
    """The samples of a run's current stage since it began, by target, in order of their sequence.

    Only targets that got this release count: carried ones still run another. A sample dated ahead counts once
    its time has come, so that no clock makes health look older than it is.
    """
    found: dict[str, list[AgentStatement]] = {}
    for statement in inbox:
        body = statement.body
        if not isinstance(body, Sample) or (body.run, body.stage) != (run.id, run.stage):
            continue
        since = run.evaluating_since
        if since is not None and since <= body.at <= now and statement.agent in run.deployed:
            found.setdefault(statement.agent, []).append(statement)
    for statements in found.values():
        statements.sort(key=lambda s: s.body.sequence)
    return found


def judge_stage(desk: Desk, run: Run) -> bool:
    """Record the stage's verdict when there is one."""
    documents = desk.documents[run.id]
    metrics = metrics_of(run, documents)
    statements = stage_samples(run, desk.world.inbox, desk.now)
    verdict = verdict_of(run, documents, statements, desk.now, desk.world.absences)
    if verdict.verdict is None:
        desk.look_at(verdict.next_look)
        return False
    chosen = chosen_verdict(verdict)
    assert chosen is not None
    lines = b"".join(s.envelope + b"\n" for target in sorted(statements) for s in statements[target])
    detail = Evaluated(
        stage=run.stage,
        attempt=run.attempt,
        verdict=chosen,
        criteria=verdict.criteria,
        since=run.evaluating_since or desk.now,
        statements=digest(lines),
    )
    text = f"stage {run.stage + 1}: {chosen}"
    if chosen == "unknown":
        text += " at the deadline"
    if chosen != "passed":
        text += f", {decisive(verdict.criteria)}"
    desk.record(
        run,
        "evaluated",
        detail,
        {"passed": "PASSED", "failed": "FAILED", "unknown": "WARNED"}[chosen],
        text,
        targets=run.deployed,
        why={"criteria": [f"{c.name}: {c.message}" for c in verdict.criteria], "metrics": sorted(metrics)},
        files=_report_file(run, f"stage-{run.stage + 1}-samples", lines),
    )
    return True


def chosen_verdict(verdict: StageVerdict) -> State | None:
    """The verdict to record: what the metrics say is to become of not knowing applied."""
    if verdict.verdict == "unknown" and verdict.on_unknown != "wait":
        return "failed" if verdict.on_unknown == "fail" else "passed"
    return verdict.verdict


def verdict_of(
    run: Run,
    documents: RunDocuments,
    statements: dict[str, list[AgentStatement]],
    now: datetime,
    absences: Sequence[Absence] = (),
) -> StageVerdict:
    """The verdict of a run's current stage from its statements.

    A replay calls this with the recorded ones and no absences: these only put off what is said without an answer.
    """
    stage, metrics = stage_of(run, documents), metrics_of(run, documents)
    window = Window(
        targets=run.deployed,
        since=run.evaluating_since or now,
        now=now,
        interval=sampling_interval(stage, metrics),
        samples={t: [s.body for s in found if isinstance(s.body, Sample)] for t, found in statements.items()},
    )
    rules = documents.strategy.spec.rollback_when if run.opened.mode == "promotion" else ()
    deadline = run.batch_begun + stage_deadline(documents.strategy, run.stage)
    return evaluate(stage, metrics, rules, run.results, window, put_off(deadline, run.batch_begun, absences))


def failure_text(run: Run) -> str:
    """Why the current stage is not good, in one line."""
    if run.evaluated is None:
        return "the stage was not evaluated"
    return decisive(run.evaluated.criteria)


def decisive(criteria: Sequence[Criterion]) -> str:
    """The criteria that decided against a stage: those that failed, else those that stayed unknown."""
    failed = [c for c in criteria if c.state == "failed"] or [c for c in criteria if c.state == "unknown"]
    return "; ".join(f"{c.name}: {c.message}" for c in failed) or "the stage did not pass"


def fail(desk: Desk, run: Run, code: str, reason: str) -> bool:
    """A stage or the verification failed: roll back, or pause when the environment (or ignorance) says so."""
    on_failure = desk.documents[run.id].environment.spec.on_failure
    unknown = run.evaluated is not None and run.evaluated.verdict == "unknown"
    if run.opened.mode == "promotion" and (unknown or on_failure == "pause"):
        pause(desk, run, code, reason)
        return True
    if run.opened.mode == "promotion" and run.opened.previous is None:
        pause(
            desk,
            run,
            "no-rollback-target",
            f"{reason}; nothing ran here before, so there is nothing to go back to",
        )
        return True
    detail = Control(verb="rollback", request=None, by="controller", reason=reason, code=code)
    desk.record(run, "control", detail, "ROLLING_BACK", f"rolling back: {reason}", why={"code": code})
    return True


def pause(desk: Desk, run: Run, code: str, reason: str) -> None:
    """The controller pauses a run; a person resumes, aborts or rolls back."""
    detail = Control(verb="paused", request=None, by="controller", reason=reason, code=code)
    desk.record(run, "control", detail, "PAUSED", f"paused: {reason}", why={"code": code})
