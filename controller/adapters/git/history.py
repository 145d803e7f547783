"""Questions about the commit graph. Walks follow parents only: dates are the committer's word."""

from __future__ import annotations

import heapq
from typing import Final

from controller.adapters.git.store import ObjectStore
from controller.errors import Refused
from controller.model.history import Commit

_NEAR: Final = 64
_ONE: Final = 1
_TWO: Final = 2
_BOTH: Final = 3
_STALE: Final = 4


class Graph:
    """The commits of one store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._reach: tuple[str, set[str]] = ("", set())

    def first_parents(self, tip: str, until: str | None) -> list[Commit]:
        """First-parent commits after `until` up to `tip`, oldest first; see ports.Repo."""
        found: list[Commit] = []
        at: str | None = tip
        while at is not None and at != until:
            commit = self._store.commit(at)
            found.append(commit)
            at = commit.parents[0] if commit.parents else None
        if until is not None and at is None:
            if self._exists(until) and self.is_ancestor(until, tip):
                raise _not_on_chain("main-not-first-parent", "on another line of a merge", tip, until)
            raise _not_on_chain("main-rewound", "gone from the branch's history", tip, until)
        found.reverse()
        return found

    def chain(self, tip: str) -> list[str]:
        """First-parent ids up to `tip`, oldest first; see ports.Repo."""
        return self._back(tip, None)[0]

    def chain_after(self, tip: str, until: str) -> list[str] | None:
        """First-parent ids after `until` up to `tip`, oldest first; see ports.Repo."""
        found, met = self._back(tip, until)
        return found if met else None

    def _back(self, tip: str, until: str | None) -> tuple[list[str], bool]:
        """First-parent ids up to `tip`, oldest first, down to the root or `until`; whether that was met."""
        found: list[str] = []
        at: str | None = tip
        while at is not None and at != until:
            found.append(at)
            parents = self._store.parents(at)
            at = parents[0] if parents else None
        return found[::-1], at == until

    def _exists(self, oid: str) -> bool:
        try:
            self._store.parents(oid)
        except Refused:
            return False
        return True

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `old` is `new` or one of its ancestors."""
        at = new
        for _ in range(_NEAR):
            if at == old:
                return True
            parents = self._store.parents(at)
            if not parents:
                return False
            if len(parents) > 1:
                break
            at = parents[0]
        if not self._exists(old):
            return False
        return old in self._ancestors(at)

    def _ancestors(self, tip: str) -> set[str]:
        """`tip` and everything it reaches. Extended, not walked again, when `tip` grew out of the last answer."""
        last, known = self._reach
        fresh: list[str] = []
        seen: set[str] = set()
        met = False
        stack = [tip]
        while stack:
            oid = stack.pop()
            if oid in known:
                met = met or oid == last
                continue
            if oid not in seen:
                seen.add(oid)
                fresh.append(oid)
                stack.extend(self._store.parents(oid))
        if known and not met:
            return self._walk(tip)
        known.update(fresh)
        self._reach = (tip, known)
        return known

    def _walk(self, tip: str) -> set[str]:
        known = {tip}
        stack = [tip]
        while stack:
            for parent in self._store.parents(stack.pop()):
                if parent not in known:
                    known.add(parent)
                    stack.append(parent)
        self._reach = (tip, known)
        return known

    def brought(self, first: str, second: str) -> list[Commit]:
        """Commits reachable from `second` and not from `first`, parents before children."""
        known = self._ancestors(first)
        order: list[str] = []
        done: set[str] = set()
        stack: list[tuple[str, bool]] = [(second, False)]
        while stack:
            oid, left = stack.pop()
            if left:
                order.append(oid)
            elif oid not in known and oid not in done:
                done.add(oid)
                stack.append((oid, True))
                stack.extend((parent, False) for parent in reversed(self._store.parents(oid)))
        return [self._store.commit(oid) for oid in order]

    def merge_bases(self, one: str, two: str) -> list[str]:
        """All best common ancestors, sorted by id (the algorithm of `git merge-base --all`)."""
        if one == two:
            return [one]
        candidates = self._common(one, two)
        best = [
            oid
            for oid in candidates
            if not any(other != oid and self._reaches(other, oid) for other in candidates)
        ]
        return sorted(best)

    def _reaches(self, new: str, old: str) -> bool:
        stack, seen = [new], {new}
        while stack:
            for parent in self._store.parents(stack.pop()):
                if parent == old:
                    return True
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return False

    def _common(self, one: str, two: str) -> list[str]:
        """Paint ancestors from both sides, newest first, until all that is left lies below a common one."""
        flags = {one: _ONE, two: _TWO}
        queue = [self._item(one), self._item(two)]
        heapq.heapify(queue)
        common: dict[str, None] = {}
        while any(flags[oid] & _STALE == 0 for _, oid in queue):
            oid = heapq.heappop(queue)[1]
            mark = flags[oid]
            if mark & _BOTH == _BOTH:
                if not mark & _STALE:
                    common[oid] = None
                mark |= _STALE
            for parent in self._store.parents(oid):
                if flags.get(parent, 0) & mark != mark:
                    flags[parent] = flags.get(parent, 0) | mark
                    heapq.heappush(queue, self._item(parent))
        return [oid for oid in common if not flags[oid] & _STALE]

    def _item(self, oid: str) -> tuple[int, str]:
        return -self._store.committed(oid), oid


def _not_on_chain(code: str, why: str, tip: str, until: str) -> Refused:
    return Refused(
        code,
        f"the last accepted commit is {why}",
        where=tip,
        expected=f"first parents that lead to {until}",
        got="a chain without it",
        cure="put the branch back to a tip whose first parents contain the accepted commit",
    )
