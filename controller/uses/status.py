"""What every environment runs, what happens there, and what is safe to ask for now."""

from __future__ import annotations

from datetime import datetime

from controller.core.astray import astray, target_of_rollback
from controller.core.run import Run, safe_actions
from controller.model.entry import format_time
from controller.uses.shapes import PreviewShape, StatusShape
from controller.uses.view import View
from controller.uses.why import blockers


def status(found: View, now: datetime, environment: str | None = None) -> list[StatusShape]:
    """The rows that `status -o json` prints, by order of promotion. Raises Invalid("environment-unknown")."""
    if environment is not None:
        found.environment(environment)
    return [_row(found, name, now) for name in found.environments if environment in (None, name)]


def _row(found: View, environment: str, now: datetime) -> StatusShape:
    place = found.environment(environment)
    run, last = found.runs.get(environment), place.last_run
    inputs = run.inputs if run is not None else None
    return {
        "environment": environment,
        "release": place.release,
        "manifestDigest": place.manifest_digest,
        "since": format_time(place.since) if place.since is not None else None,
        "run": run.id if run is not None else last.run if last is not None else None,
        "runRelease": run.opened.release if run is not None else last.release if last is not None else None,
        "phase": run.phase if run is not None else last.phase if last is not None else "idle",
        "stage": run.stage + 1 if run is not None and run.stage >= 0 else None,
        "stages": len(inputs.stages) if inputs is not None else None,
        "waitingFor": [_line(b.message, b.until, b.unblock) for b in blockers(found, environment, now)],
        "actions": actions(found, environment),
        "letStand": [
            {
                "commit": one.commit,
                "code": one.code,
                "by": [each.principal for each in one.acknowledgements],
                "reasons": [each.reason for each in one.acknowledgements],
            }
            for one in found.state.cursors.let_stand
        ],
    }


def _line(message: str, until: datetime | None, unblock: str) -> str:
    text = message
    if until is not None:
        text += f", until {until:%Y-%m-%d %H:%M:%S} UTC"
    return f"{text} → {unblock}" if unblock else text


def actions(found: View, environment: str) -> list[str]:
    """What is safe to ask for now; everything else is refused."""
    run = found.runs.get(environment)
    if run is not None:
        return list(safe_actions(run))
    there = target_of_rollback(found.environment(environment), _agents(found, environment))
    return ["rollback"] if there is not None else []


def _agents(found: View, environment: str) -> tuple[str, ...]:
    return tuple(agent.document.metadata.name for agent in found.intent.agents_of(environment))


def preview(found: View, environment: str) -> PreviewShape | None:
    """What a rollback asked for now would do; None when there is nothing to go back to.

    With an open run the touched targets go back to what ran before it; otherwise the environment goes back to
    its preceding completed release, or, where targets are astray, these to the one that completed last. Targets
    that run it already stay as they are.
    """
    place, run = found.environment(environment), found.runs.get(environment)
    names = _agents(found, environment)
    if run is not None:
        back = run.opened.previous
        touched: set[str] = set(run.touched)
    else:
        back = target_of_rollback(place, names)
        touched = set(astray(place, names) or names)
    if back is None:
        return None
    everywhere = sorted({*names, *place.targets})
    there = {name for name, target in place.targets.items() if target.manifest_digest == back.manifest_digest}
    reverts = [name for name in everywhere if name in touched and (name not in there or _ordered(run, name))]
    return {
        "environment": environment,
        "run": run.id if run is not None else None,
        "from": {
            "release": run.opened.release if run is not None else place.release,
            "manifestDigest": run.inputs.manifest_digest if run and run.inputs else place.manifest_digest,
        },
        "to": {"release": back.release, "manifestDigest": back.manifest_digest},
        "reverts": reverts,
        "unchanged": [name for name in everywhere if name not in reverts],
    }


def _ordered(run: Run | None, target: str) -> bool:
    """Whether an order to deploy may still be on its way to a target."""
    if run is None or run.ordered is None or run.reported:
        return False
    return any(line.target == target for line in run.ordered.orders)
