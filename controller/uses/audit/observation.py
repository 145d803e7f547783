"""When commits of main were first seen: by the evidence that accepts or refuses them, never by their own word."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from datetime import datetime

from controller.errors import LockgateError
from controller.ports import Repo
from controller.uses.audit.walked import Facts


class Observation:
    """Answers `Terms.observed` from walked evidence. A commit that only a refusal names was seen by then; one
    that no entry names yet, or one accepted before the walk began, was seen nobody knows when. `begin` is the
    accepted commit at which it began; by default the oldest that a walked entry was made from."""

    def __init__(self, repo: Repo, facts: Facts, main: Mapping[str, int], begin: str | None = None) -> None:
        self._repo = repo
        self._main = main
        self._refused = facts.refused
        # Facts of several segments are joined in no order: the least is where the walk began.
        first = min((main[tip] for tip, _ in facts.observed if tip in main), default=0)
        self._begin = first if begin is None else main[begin]
        self._entries = sorted((main[tip], oid) for tip, oid in facts.accepted if tip in main)
        self._positions = [place for place, _ in self._entries]

    def __call__(self, commit: str) -> datetime | None:
        place = self._main.get(commit)
        if place is None or place <= self._begin:
            return None
        at = bisect_left(self._positions, place)
        if at < len(self._entries):
            return self._time(self._entries[at][1])
        return self._time(self._refused[commit][1]) if commit in self._refused else None

    def _time(self, entry: str) -> datetime | None:
        try:
            return self._repo.commit(entry).committer.at
        except LockgateError:
            return None  # the walk has said what is wrong with it
