"""What the state machine's table alone does not say: the reason that each step of a run must have on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controller.core.run import Recorded, Run
from controller.model.entry import Deployed, Evaluated, Ordered, RolledBack, Sealed, Verified


def unfounded(run: Run, entry: Recorded) -> str | None:
    """Why a run may not take this entry as its next although the table (`core.transitions`) lets it, or None: what
    is ordered follows from the plan and from verdicts that passed, what came back answers what was ordered, and
    each end has the reason that it names."""
    rule = _RULES.get(type(entry.detail))
    return rule(run, entry) if rule is not None else None


def _ordered(run: Run, entry: Recorded) -> str | None:
    detail: Ordered = entry.detail
    stages = run.inputs.stages if run.inputs is not None else ()
    targets = {line.target for line in detail.orders}
    if detail.attempt != run.attempt:
        return "the orders are of another attempt than the run"
    if len(targets) != len(detail.orders):
        return "a target is ordered twice at once"
    if detail.action == "rollback":
        if detail.stage != (len(stages) + 1 if run.inputs is not None else 1):
            return "a rollback is ordered under another stage than its own"
        return None if targets == set(run.touched) else "a rollback is ordered on other targets than were touched"
    passed = run.evaluated is not None and run.evaluated.verdict == "passed"
    if detail.action == "check":
        if not passed or run.stage + 1 != len(stages) or detail.stage != len(stages):
            return "the verification is ordered before the last stage passed"
        whole = {target for stage in stages for target in stage.targets}
        return None if targets == whole else "the verification is ordered on other targets than were planned"
    if not 0 <= detail.stage < len(stages):
        return f"the plan has no stage {detail.stage + 1}"
    if not targets <= set(stages[detail.stage].targets):
        return f"stage {detail.stage + 1} is ordered on targets that are not in it"
    if detail.stage == run.stage:
        good = run.evaluated is None and all(result.result == "succeeded" for result in run.results)
        return None if good else f"more of stage {detail.stage + 1} is ordered after it failed"
    if detail.stage != run.stage + 1 or (run.stage >= 0 and not passed):
        return f"stage {detail.stage + 1} is ordered before the one before it passed"
    return None


def _answers(run: Run, entry: Recorded) -> str | None:
    """Results are those of the last orders, one each; a rollback of nothing has none."""
    detail: Deployed | Verified | RolledBack = entry.detail
    ordered = run.ordered if run.ordered is not None and not run.reported else None
    expected = [(line.id, line.target) for line in ordered.orders] if ordered is not None else []
    if [(result.order, result.target) for result in detail.results] != expected:
        return "the results are not those of the orders before them"
    if isinstance(detail, Deployed) and (detail.stage, detail.attempt) != (run.stage, run.attempt):
        return "the results are of another stage or attempt than was ordered"
    silent = any(result.result == "unreported" for result in detail.results)
    if silent and run.order_deadline is not None and entry.at < run.order_deadline:
        return "a target is given up before its deadline"
    good = all(result.result == "succeeded" for result in detail.results)
    if isinstance(detail, Verified):
        good = good and all(result.healthy is not False for result in detail.results)
        return None if detail.ok == good else "the verification's outcome is not what its results say"
    if isinstance(detail, RolledBack) and detail.results:
        if detail.to != run.opened.previous:
            return "the rollback goes elsewhere than to what ran before"
        return None if detail.ok == good else "the rollback's outcome is not what its results say"
    if isinstance(detail, RolledBack):
        possible = run.opened.mode == "promotion" and not run.touched
        return None if detail.ok == possible else "a rollback of nothing came out otherwise"
    return None


def _evaluated(run: Run, entry: Recorded) -> str | None:
    detail: Evaluated = entry.detail
    if (detail.stage, detail.attempt) != (run.stage, run.attempt) or run.inputs is None:
        return "another stage is judged than was ordered"
    if not run.reported or run.evaluated is not None:
        return "a stage is judged before its results are there, or twice"
    if not 0 <= run.stage < len(run.inputs.stages):
        return f"the plan has no stage {run.stage + 1}"
    missing = set(run.inputs.stages[run.stage].targets) - set(run.deployed)
    if detail.verdict == "passed" and missing:
        return f"the stage passed although {', '.join(sorted(missing))} was never ordered"
    return None


def _sealed(run: Run, entry: Recorded) -> str | None:
    detail: Sealed = entry.detail
    gates, control, expires = run.gates, run.control, run.opened.expires
    backed = {
        "completed": run.verified is not None and run.verified.ok,
        "rolled_back": run.rolled_back is not None and run.rolled_back.ok,
        "rollback_failed": run.rolled_back is not None and not run.rolled_back.ok,
        "rejected": run.rejection is not None,
        "aborted": control is not None and control.verb == "aborted",
        "expired": expires is not None and entry.at >= expires and run.stage < 0,
        "denied": run.opened.refused is not None or (gates is not None and gates.aggregate == "FAIL"),
    }
    return None if backed.get(detail.phase, True) else f"nothing on record lets the run end {detail.phase}"


_RULES: dict[type[Any], Callable[[Run, Recorded], str | None]] = {
    Ordered: _ordered,
    Deployed: _answers,
    Verified: _answers,
    RolledBack: _answers,
    Evaluated: _evaluated,
    Sealed: _sealed,
}
