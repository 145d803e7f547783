"""The in-toto link of an approval by merge: it names what is approved, so it is signed once the run is open.

A merge has no subject to sign yet: the subject names the merge. So `lockgate merge` waits until the run's inputs
are on record and sends the link as a signed request, as `lockgate approve` does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from controller.errors import LockgateError

if TYPE_CHECKING:
    from controller.core.run import Run
    from controller.uses.view import View
    from controller.wiring.people import Person
    from controller.wiring.repos import GitRepo

PATIENCE = timedelta(seconds=30)
"""How long a merge waits for its run where the layout demands the approvers' links."""
SLOTS = "promotions/"


@dataclass(frozen=True, slots=True)
class Linked:
    """What became of the link for one environment: the request that carries it, or why there is none."""

    environment: str
    run: str | None = None
    request: str | None = None
    code: str = "link-signed"
    message: str = ""


def promoted(repo: GitRepo, merge: str) -> list[str]:
    """The environments whose slots a merge changes."""
    parents = repo.commit(merge).parents
    changes = repo.changes(parents[0] if parents else None, merge)
    return [
        change.path.removeprefix(SLOTS).removesuffix(".yaml")
        for change in changes
        if change.path.startswith(SLOTS) and change.new is not None
    ]


def demanded(repo: GitRepo, merge: str, environments: Iterable[str], person: Person) -> list[str]:
    """Those of the environments whose layout demands links of approvers, this one's among them."""
    from controller.model.keys import key_id
    from controller.uses.layout import demand_at

    mine = key_id(person.signer.public_key) if person.signer is not None else ""
    asked = {name: demand_at(repo, merge, name) for name in environments}
    return [name for name, demand in asked.items() if demand is not None and mine in demand.keys]


def add_links(
    repo: GitRepo, merge: str, environments: Iterable[str], person: Person, patience: timedelta
) -> list[Linked]:
    """Sign the links of a merge's approval as the runs that it opened come on record, until patience ends."""
    from controller.ledger.links import can_link
    from controller.uses.view import view

    waiting, made = list(environments), []
    if person.signer is None or not can_link(person.signer.public_key):
        text = "only an Ed25519 key signs links"
        return [Linked(name, code="link-unsigned", message=text) for name in waiting]
    end = time.monotonic() + patience.total_seconds()
    while waiting:
        found = view(repo)
        for name in list(waiting):
            done = _step(repo, found, merge, name, person)
            if done is not None:
                waiting.remove(name)
                made.append(done)
        left = end - time.monotonic()
        if left <= 0 or not waiting:
            break
        repo.wait(min(left, 1.0))
    text = "the run is not on record yet"
    return made + [Linked(name, code="link-unsigned", message=text) for name in waiting]


def _step(repo: GitRepo, found: View, merge: str, environment: str, person: Person) -> Linked | None:
    """What can be done now for one environment; None while its run is not there."""
    from controller.core.transitions import LINKING
    from controller.uses.view import project_of
    from controller.wiring.people import Ask, request

    run = found.runs.get(environment)
    if run is None or run.opened.commit != merge:
        last = found.last_run(environment)
        ended = last is not None and last.opened.commit == merge
        return _over(environment, last) if ended and last is not None else None
    if run.inputs is None:
        return None
    if run.phase not in LINKING:
        return _over(environment, run)
    reason = f"the in-toto link of my approval by the merge {merge[:8]}"
    ask = Ask(
        verb="approve", environment=environment, reason=reason, run=run.id, binds=run.inputs.approval_subject
    )
    try:
        made, _ = request(repo, person, project_of(found), ask)
    except LockgateError as error:
        return Linked(environment, run.id, code=error.code, message=error.what)
    return Linked(environment, run.id, made)


def _over(environment: str, run: Run) -> Linked:
    return Linked(environment, run.id, code="link-unsigned", message=f"{run.id} is {run.phase} already")


def words(linked: Iterable[Linked]) -> str:
    """What the person reads, a line each."""
    lines = []
    for one in linked:
        if one.request is not None:
            lines.append(f"your in-toto link for {one.run} is signed, request {one.request}")
        else:
            cure = f"lockgate approve {one.environment} --reason … --key KEY"
            lines.append(f"your in-toto link for {one.environment} is not signed: {one.message}; then: {cure}")
    return "".join(f"\n{line}" for line in lines)
