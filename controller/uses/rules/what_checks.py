"""What an entry says it is about, while verifying: it follows from its detail, its run and the state before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controller.core.run import Run
from controller.ledger.fold import State
from controller.model.entry import (
    Accepted,
    Deployed,
    Entry,
    Evaluated,
    Inputs,
    LockMade,
    MainRefused,
    Opened,
    Ordered,
    RequestJudged,
    RolledBack,
    What,
)
from controller.uses.rules.subject import Problem

CODE = "what-mismatch"


def what_problems(entry: Entry, run: Run | None, before: State | None, accepted: str | None) -> Iterator[Problem]:
    """What does not follow. `run` is the entry's run before it and `before` the state that its pass began with,
    each None where it is not known; `accepted` is the tip of main that was accepted before it."""
    what, detail = entry.predicate.what, entry.detail
    wrong: list[str] = []
    if isinstance(detail, Opened):
        wrong += _unlike(entry, detail.release, _agents(detail))
        if before is not None:
            place = before.environments.get(entry.predicate.environment or "")
            last = place.history[-1] if place is not None and place.history else None
            if detail.previous != last:
                wrong.append("what ran before")
    elif run is not None:
        wrong += _unlike(entry, run.opened.release, _targets(entry, run))
        if (run.inputs is not None or isinstance(detail, Inputs)) and not what.digests:
            wrong.append("digests")
    elif isinstance(detail, Accepted):
        if (detail.previous, detail.tip) != (accepted, entry.predicate.observed.main):
            wrong.append("the tips")
        if what != What():
            wrong.append("subject")
    elif isinstance(detail, MainRefused) and what != What():
        wrong.append("subject")
    elif isinstance(detail, RequestJudged):
        if what != What(environment=what.environment) or entry.predicate.observed.main != accepted:
            wrong.append("subject")
    elif isinstance(detail, LockMade):
        said = What(release=detail.release, manifest_digest=detail.manifest_digest, digests=detail.components)
        if what != said:
            wrong.append("subject")
    if entry.predicate.run is None and entry.predicate.environment != what.environment:
        wrong.append("environment")
    if wrong:
        yield CODE, entry.path, f"it is not about what it says: {', '.join(wrong)}"


def _unlike(entry: Entry, release: str, targets: Sequence[str]) -> Iterator[str]:
    what = entry.predicate.what
    if what.environment != entry.predicate.environment:
        yield "environment"
    if what.release != release:
        yield "release"
    begins = isinstance(entry.detail, (Opened, Inputs))
    if list(what.targets) != list(targets) and not (begins and sorted(what.targets) == sorted(targets)):
        yield "targets"


def _targets(entry: Entry, run: Run) -> Sequence[str]:
    """The targets that an entry of a run is about."""
    detail = entry.detail
    if isinstance(detail, Ordered):
        return [line.target for line in detail.orders]
    if isinstance(detail, (Deployed, RolledBack)):
        return [result.target for result in detail.results]
    if isinstance(detail, Evaluated):
        return run.deployed
    if isinstance(detail, Inputs):
        return detail.targets if set(entry.predicate.what.targets) == set(detail.targets) else _agents(run.opened)
    return run.inputs.targets if run.inputs is not None else _agents(run.opened)


def _agents(opened: Opened) -> Sequence[str]:
    """The agents that a run pinned."""
    paths = [pin.path for pin in opened.pins]
    return [path[len("agents/") : -len(".yaml")] for path in paths if path.startswith("agents/")]
