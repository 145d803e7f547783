"""When commits of main were first seen, from facts of several segments in whatever order they were joined."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from controller.uses.audit.observation import Observation
from controller.uses.audit.walked import Facts

MAIN = {f"m{place}": place for place in range(8)}


class Times:
    """The evidence commits' times: entry eN is of the time N."""

    def commit(self, oid: str) -> Any:
        return SimpleNamespace(committer=SimpleNamespace(at=int(oid[1:])))


def facts(
    accepted: list[tuple[str, str]], observed: list[str], refused: dict[str, tuple[str, str]] | None = None
) -> Facts:
    found = Facts()
    found.accepted = accepted
    found.observed = {(main, 1): "e0" for main in observed}
    found.refused = refused or {}
    return found


def seen(found: Facts) -> list[Any]:
    observation = Observation(Times(), found, MAIN)  # type: ignore[arg-type]
    return [observation(commit) for commit in MAIN]


def test_the_first_entry_that_accepts_a_commit_saw_it() -> None:
    first = facts([("m2", "e10"), ("m4", "e20")], ["m0", "m2", "m4"])
    first.join(facts([("m6", "e30")], ["m6"], {"m7": ("unsigned", "e35")}))
    assert seen(first) == [None, 10, 10, 20, 20, 30, 30, 35]


def test_what_was_accepted_before_the_walk_was_seen_nobody_knows_when() -> None:
    assert seen(facts([("m6", "e30")], ["m6", "m4"])) == [None] * 5 + [30, 30, None]
