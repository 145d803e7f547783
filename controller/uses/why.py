"""Why an environment is blocked or waiting: one list of blockers, from recorded facts alone.

`why` shows them with what would change them, `status` their messages. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from controller.core.acknowledge import never
from controller.core.approvals import ANY, Tally, stricter, tally_of_run
from controller.core.astray import listed
from controller.core.demand import lacking
from controller.core.parse import parse
from controller.core.run import Run
from controller.errors import Refused
from controller.ledger.links import can_link
from controller.model.entry import Gates, MainRefused, Verdict, format_time
from controller.model.environment import Environment
from controller.model.keys import key_id
from controller.model.places import path_of
from controller.model.strategy import Strategy
from controller.uses.acknowledged import waiting
from controller.uses.layout import demand_at
from controller.uses.outside import unpublished, unresolved, unresolved_text
from controller.uses.shapes import BlockerShape, WhyShape
from controller.uses.view import View

_OWN = frozenset({"order-unapproved", "order-outside-window", "log-inconsistent", "split-view"})
"""What agents say themselves of the orders that they are shown."""
HEALTHY = ("running", "starting")


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing that holds an environment up. `gate` names what says so: a gate, or main, documents, lock,
    approval, targets, stage, run, controller."""

    gate: str
    code: str
    message: str
    until: datetime | None = None
    unblock: str = ""

    def shape(self) -> BlockerShape:
        """As `why -o json` prints it."""
        return {
            "gate": self.gate,
            "code": self.code,
            "message": self.message,
            "until": format_time(self.until) if self.until is not None else None,
            "unblock": self.unblock,
        }


def why(found: View, environment: str, now: datetime) -> WhyShape:
    """The shape that `why -o json` prints. Raises Invalid("environment-unknown")."""
    place = found.environment(environment)
    run = found.runs.get(environment)
    last = place.last_run
    return {
        "environment": environment,
        "run": run.id if run is not None else last.run if last is not None else None,
        "phase": run.phase if run is not None else last.phase if last is not None else "idle",
        "blockedBy": [blocker.shape() for blocker in blockers(found, environment, now)],
        "notes": [text] if (text := unpublished(found)) is not None else [],
    }


def blockers(found: View, environment: str, now: datetime) -> list[Blocker]:
    """Everything that holds an environment up now, the nearest cause first."""
    run = found.runs.get(environment)
    own = list(_open_run(found, run, now)) if run is not None else list(_between_runs(found, environment))
    return [*_controller(found), *_main(found, environment, now), *_documents(found, environment), *own]


# --- the project -----------------------------------------------------------------------------------------


def _controller(found: View) -> Iterator[Blocker]:
    health = found.health
    if health is not None and health.state not in HEALTHY:
        text = f"the controller is {health.state}: {health.message or health.code}"
        cure = "start it" if health.state == "stopped" else "mend what it names; it tries again"
        yield Blocker("controller", health.code or health.state, text, None, cure)
    if found.foreign is not None:
        text = f"{len(found.foreign.commits)} on the evidence branch not the controller's, and not believed: "
        text += "; ".join(found.foreign.reasons)
        cure = "the controller removes them in its next pass; find out who may push to the branch"
        yield Blocker("evidence", "foreign-evidence", text, None, cure)


def _main(found: View, environment: str, now: datetime) -> Iterator[Blocker]:
    """Main stands still at refused commits, or has not been read yet."""
    cursors = found.state.cursors
    slot = path_of("Promotion", environment)
    held = _held_slot(found, slot)
    for refused in cursors.refused:
        text = standing_text(found, refused, now)
        if slot in refused.paths:
            text += f"; it changes {slot}"
        if held:
            text += f"; {held}"
        yield Blocker("main", refused.code, text, None, cure_text(found, refused))
    tip, judged = found.tips.main, cursors.main
    if tip is not None and judged is not None and tip != judged and not cursors.refused:
        text = f"main is at {tip[:8]}, and the controller has judged it up to {judged[:8]}"
        yield Blocker("controller", "main-not-judged", text, None, "see that the controller runs")
    if found.tips.requests != cursors.requests and found.tips.evidence is not None:
        text = f"requests up to {(found.tips.requests or '-')[:8]} are not judged yet"
        yield Blocker("controller", "requests-not-judged", text, None, "see that the controller runs")


def standing_text(found: View, refused: MainRefused, now: datetime) -> str:
    """What holds main back, in one line, and which owners would let it stand."""
    who = f" by {refused.signer}" if refused.signer else ""
    text = f"main stands still at {refused.commit[:8]}{who}: {refused.code}: {refused.message}"
    begun = waiting(found.state.cursors, refused.commit, refused.code, found.trust, now)
    return f"{text}; {begun}" if begun else text


def cure_text(found: View, refused: MainRefused) -> str:
    """Who can set main going again, and how."""
    able = curers(found, refused)
    who = _any_of(able) if able else "somebody who may restore these paths"
    text = f"{who}: lockgate restore-main --key KEY (a signed revert to {(found.accepted or '')[:8]})"
    if never(refused.paths) is None:
        text += f"; or owners let it stand: lockgate acknowledge {refused.commit[:12]} --reason R --key KEY"
    return text


def curers(found: View, refused: MainRefused) -> list[str]:
    """Principals whose revert of a refused commit would be accepted: they may restore every path it touched
    and signed none of it."""
    trust, repo = found.trust, found.repo
    keys: set[str | None] = set()
    with suppress(Refused):  # it may be gone: taken away by force, and never fetched here
        commit = repo.commit(refused.commit)
        keys = {commit.key}
        if len(commit.parents) == 2:
            keys |= {brought.key for brought in repo.brought(*commit.parents)}
    signers = {trust.owner_of(key) for key in keys if key}
    return [
        name
        for name in sorted(trust.members)
        if name not in signers
        and not trust.holds(name, "controller")
        and all(trust.may_restore(name, path) for path in refused.paths)
    ]


def _held_slot(found: View, slot: str) -> str:
    """What the slot at main's tip asks for and nobody acts on, while main stands still."""
    if found.tips.main is None or found.accepted is None or found.tips.main == found.accepted:
        return ""
    there, here = found.repo.file(found.tips.main, slot), found.repo.file(found.accepted, slot)
    if there is None or (here is not None and here.blob == there.blob):
        return ""
    document = parse(slot, found.repo.read(there.blob)).document
    release = getattr(getattr(document, "spec", None), "release", None)
    return f"the promotion of {release} there is not acted on" if release else "the slot there is not acted on"


def _documents(found: View, environment: str) -> Iterator[Blocker]:
    """Errors in the files that a run of this environment would read."""
    paths = _read_paths(found, environment)
    for diagnostic in found.intent.diagnostics:
        if diagnostic.severity == "error" and diagnostic.path in paths:
            text = f"{diagnostic.path}:{diagnostic.line}: {diagnostic.message}"
            yield Blocker("documents", diagnostic.code, text, None, diagnostic.cure)


def _read_paths(found: View, environment: str) -> set[str]:
    intent = found.intent
    paths = {path_of("Environment", environment), path_of("Promotion", environment)}
    place = intent.environments.get(environment)
    if place is not None:
        paths.add(path_of("Strategy", place.document.spec.strategy))
        paths |= {path_of("Policy", name) for name in place.document.spec.gate_names}
    releases = {change.release for change in found.state.cursors.pending if change.environment == environment}
    slot = intent.promotions.get(environment)
    if slot is not None:
        releases.add(slot.document.spec.release)
    for release in releases:
        paths |= {path_of("Release", release), path_of("ReleaseLock", release)}
        loaded = intent.releases.get(release)
        if loaded is not None:
            paths |= {path_of("Component", name) for name in loaded.document.spec.components}
    return paths


# --- between runs ----------------------------------------------------------------------------------------


def _between_runs(found: View, environment: str) -> Iterator[Blocker]:
    pending = [change for change in found.state.cursors.pending if change.environment == environment]
    if pending:
        from controller.core.opening import documents_of  # all of deciding hangs on it, and this is seldom asked

        change = pending[-1]
        text = (
            f"the promotion of {change.release} ({change.commit[:8]}) is accepted, and no run is open for it yet"
        )
        ready = documents_of(found.intent, environment, change.release) is not None
        cure = "see that the controller runs" if ready else "mend the documents; `lockgate validate` lists them"
        yield Blocker("run", "promotion-pending", text, None, cure)
        return
    run = found.last_run(environment)
    if run is None or run.sealed is None or run.phase in ("completed", "superseded"):
        return
    failed = _verdicts(run.gates, ("FAIL",)) if run.phase == "denied" else []
    yield from failed
    if not failed:
        reason = run.sealed.reason
        if run.control is not None and run.phase in ("rolled_back", "rollback_failed"):
            reason += f": {run.control.reason}"
        text = f"{run.id} ended {run.phase}: {reason}"
        yield Blocker("run", run.sealed.code, text, None, after_end(run))


def after_end(run: Run) -> str:
    """What to do after a run that did not complete."""
    again = f"lockgate promote {run.environment} RELEASE --reason …"
    if run.sealed is not None and run.sealed.code == "downgrade-needs-rollback":
        return f"an operator: lockgate rollback {run.environment} --reason …"
    if run.phase == "rollback_failed" and run.sealed is not None and (run.sealed.failed or run.sealed.silent):
        # Only these are out of step or unknown, so only these are ordered: the others are known to be back.
        left = listed((*run.sealed.failed, *run.sealed.silent))
        return f"mend {left}, then lockgate rollback {run.environment} --reason …, or promote a good release"
    return {
        "denied": f"cure what denied it, then {again}",
        "rejected": f"settle it with {run.rejection.principal if run.rejection else 'the reviewer'}, then {again}",
        "expired": again,
        "aborted": f"{again}; targets that were touched: lockgate targets {run.id}",
        "rolled_back": f"mend the release under a new name, or what its targets met, then {again}",
        "rollback_failed": f"see lockgate targets {run.id}; mend the targets or promote a good release",
    }.get(run.phase, again)


# --- an open run -----------------------------------------------------------------------------------------


def _open_run(found: View, run: Run, now: datetime) -> Iterator[Blocker]:
    match run.phase:
        case "scheduled":
            yield _lock(found, run)
        case "gating":
            yield from _gating(run)
        case "awaiting_approval":
            yield from _approval(found, run, now)
        case "deploying":
            yield from _orders(found, run, f"stage {run.stage + 1}: the report of")
        case "evaluating":
            yield from _evaluating(found, run)
        case "verifying":
            yield from _orders(found, run, "verification: the check of")
        case "paused":
            yield _paused(run)
            counted = approvals_of(found, run, now) if run.inputs is not None else None
            if counted is not None and not counted.satisfied:
                yield from _approval(found, run, now)
        case "rolling_back":
            yield from _orders(found, run, "rolling back: the report of")


def _lock(found: View, run: Run) -> Blocker:
    release = run.opened.release
    errors = [
        d for d in found.intent.diagnostics if d.path.startswith(f"releases/{release}.") and d.severity == "error"
    ]
    if errors:
        return Blocker(
            "lock", errors[0].code, f"{release} cannot be locked: {errors[0].message}", None, errors[0].cure
        )
    if release in found.intent.locks:
        return Blocker("lock", "inputs-pending", f"{release} is locked; the run's inputs are gathered next")
    for held in unresolved(found):
        if held.release == release:
            return Blocker("lock", held.code, unresolved_text(held), None, held.cure)
    text = f"{release} is not locked yet: its tags are being resolved to digests"
    cure = f"`lockgate resolve {release}` shows what the registries answer"
    if found.health is None or found.health.state not in HEALTHY:
        cure = f"give --controller or --state-dir: the controller knows why; {cure}"
    return Blocker("lock", "lock-pending", text, None, cure)


def _gating(run: Run) -> Iterator[Blocker]:
    held = _verdicts(run.gates, ("FAIL", "WAIT"))
    yield from held
    if not held:
        yield Blocker("gates", "gates-pending", "the gates are being decided")


def _verdicts(gates: Gates | None, wanted: tuple[str, ...]) -> list[Blocker]:
    return [_verdict(v) for v in (gates.verdicts if gates else ()) if v.verdict in wanted and v.level == "block"]


def _verdict(verdict: Verdict) -> Blocker:
    return Blocker(verdict.gate, verdict.code, verdict.message, verdict.until, verdict.unblock)


def _approval(found: View, run: Run, now: datetime) -> Iterator[Blocker]:
    counted = approvals_of(found, run, now)
    if counted is not None and counted.satisfied and run.phase == "awaiting_approval":
        held = links_pending(found, run)
        if held is not None:
            yield held
            return
    if counted is None or counted.satisfied:
        yield Blocker("approval", "approval-complete", "approved; the first stage is ordered next")
        return
    for role, number in counted.missing.items():
        people = "approvals" if number > 1 else "approval"
        text = f"{number} more {people}" + ("" if role == ANY else f" of {role}") + " needed"
        subject = run.inputs.approval_subject if run.inputs else ""
        entitled = [p for p in counted.able[role] if found.trust.allows("approve", run.environment, p)]
        able = _any_of(entitled) or "nobody in trust is left who"
        cure = f"{able} may approve {subject[:19]}: lockgate approve {run.environment} --reason … --key KEY"
        yield Blocker("approval", "approval-missing", text, run.opened.expires, cure)
    for approval in run.approvals:
        if not approval.counted:
            yield Blocker("approval", approval.code, approval.message, None, "approve the digests by a request")
    for refused in counted.not_counted:
        yield Blocker("approval", refused.code, refused.message, None, "approve again")


def links_pending(found: View, run: Run) -> Blocker | None:
    """The approvers' links that main's layout demands and the run lacks: a merge signs none."""
    if run.opened.cause != "promotion" or found.accepted is None:
        return None
    demand = demand_at(found.repo, found.accepted, run.environment)
    missing = lacking(demand, run.approvals)
    if demand is None or not missing:
        return None
    if demand.problem:
        cure = "have owners sign another: lockgate trust layout"
        return Blocker("approval", "link-pending", demand.problem, None, cure)
    members = found.trust.members.items()
    keys = {key_id(key): name for name, one in members for key in one.keys if can_link(key)}
    given = {one.principal for one in run.approvals if one.counted and one.link is not None}
    able = sorted({keys[one] for one in demand.keys & keys.keys()} - given)
    merged = [one.principal for one in run.approvals if one.counted and one.link is None and one.principal in able]
    text = f"{missing} in-toto link{'s' if missing > 1 else ''} of approvers pending, which {demand.path} demands"
    text += f"; {', '.join(merged)} approved by merge, which signs none" if merged else ""
    who = _any_of(merged or able) or "nobody whom the layout names is left who"
    cure = f"{who} signs one: lockgate approve {run.environment} --reason … --key KEY"
    return Blocker("approval", "link-pending", text, run.opened.expires, cure)


def approvals_of(found: View, run: Run, now: datetime) -> Tally | None:
    """The run's approvals counted as of now; None when its environment document is not readable."""
    pin = next((p for p in run.opened.pins if p.path == path_of("Environment", run.environment)), None)
    document = found.document(pin) if pin is not None else None
    if not isinstance(document, Environment):
        return None
    live = found.intent.environments.get(run.environment)
    asked = stricter(document.spec.approvals, live.document.spec.approvals if live is not None else None)
    return tally_of_run(run, asked, found.trust, now)


def _orders(found: View, run: Run, what: str) -> Iterator[Blocker]:
    if run.ordered is None or run.reported:
        yield Blocker("targets", "orders-pending", f"{run.phase}: the next orders are written")
        return
    seen = found.health.agents if found.health is not None else {}
    names = [line.target for line in run.ordered.orders]
    if found.health is not None and found.health.awaited.get(run.environment):
        waited = set(found.health.awaited[run.environment])
        names = [name for name in names if name in waited] or names
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    text = f"{what} {shown} is awaited"
    if seen:
        silent = [name for name in names if name not in seen]
        text += f"; never heard of since the controller started: {', '.join(silent)}" if silent else ""
        quiet = [f"{n} at {seen[n][11:19]} UTC" for n in names if n in seen]
        text += f"; last heard of {', '.join(quiet[:8])}" if quiet else ""
    refused = found.health.refused if found.health is not None else {}
    turned = [f"{name} ({refused[name]})" for name in names if name in refused and refused[name] not in _OWN]
    if turned:
        text += f"; calls in the name of {', '.join(turned)} are refused"
    refusing = [f"{name} ({refused[name]})" for name in names if refused.get(name) in _OWN]
    if refusing:
        text += f"; {', '.join(refusing)} refuses it: see its journal"
    deadline = run.order_deadline or run.ordered.deadline
    cure = f"see that the agents run; without a report by {_hhmm(deadline)} the target counts as failed"
    cure += ", later by as long as the controller was away"
    yield Blocker("targets", "report-pending", text, deadline, cure)
    orders = {line.id for line in run.ordered.orders}
    obstacles = found.health.obstacles if found.health is not None else {}
    held = [name for name in names if name in obstacles and obstacles[name].order in orders]
    for name in held[:8]:
        text = f"{name} cannot carry out the order yet; it says: {obstacles[name].message}"
        cure = "mend what it waits for: it tries again by itself, until shortly before the order's deadline"
        yield Blocker("targets", "order-held-up", text, deadline, cure)


def _evaluating(found: View, run: Run) -> Iterator[Blocker]:
    strategy = _strategy(found, run)
    plan = strategy.spec.stages if strategy is not None and run.opened.mode == "promotion" else ()
    stage = plan[run.stage] if 0 <= run.stage < len(plan) else None
    if run.evaluated is None:
        since = run.evaluating_since
        text = f"stage {run.stage + 1} is being judged"
        if stage is not None:
            wanted = ["health", *stage.analysis]
            text += f" by {', '.join(wanted)}"
        least = stage.min_healthy_time if stage is not None else None
        until = since + least if since is not None and least is not None else None
        cure = "nothing to do; `lockgate pause` or `lockgate rollback` interferes"
        yield Blocker("stage", "stage-evaluating", text, until, cure)
        return
    held = _verdicts(run.gates, ("FAIL", "WAIT")) if run.gates and run.gates.stage > run.stage else []
    yield from held
    rest = stage.pause if stage is not None else None
    if not held and rest is not None and rest.duration is not None and run.evaluated_at is not None:
        text = f"stage {run.stage + 1} was found good and rests"
        yield Blocker("stage", "stage-pause", text, run.evaluated_at + rest.duration, "nothing to do")


def _strategy(found: View, run: Run) -> Strategy | None:
    for pin in run.opened.pins:
        if pin.path.startswith("strategies/"):
            document = found.document(pin)
            return document if isinstance(document, Strategy) else None
    return None


def _paused(run: Run) -> Blocker:
    control = run.control
    if control is None:
        return Blocker("run", "paused", "the run is paused")
    text = f"paused by {control.by}: {control.reason}"
    cure = f"lockgate resume {run.environment} --reason …; or rollback, or abort"
    if control.code == "no-rollback-target":
        cure = f"lockgate abort {run.environment} --reason …; then promote a good release"
    return Blocker("run", control.code, text, None, cure)


def _any_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}" if names else ""


def _hhmm(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"
