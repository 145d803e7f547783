"""What a merge did to each path, from trees alone: taken over, dropped, decided or smuggled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controller.errors import Refused
from controller.model.history import Change, Commit, TreeFile


class History(Protocol):
    """The part of `ports.Repo` that judging reads."""

    def commit(self, oid: str) -> Commit: ...
    def first_parents(self, tip: str, until: str | None) -> list[Commit]: ...
    def brought(self, first: str, second: str) -> list[Commit]: ...
    def merge_bases(self, one: str, two: str) -> list[str]: ...
    def changes(self, old: str | None, new: str) -> list[Change]: ...
    def file(self, commit: str, path: str) -> TreeFile | None: ...
    def read(self, blob: str) -> bytes: ...


def decided_by_merge(history: History, merge: Commit, changes: Mapping[str, Change]) -> frozenset[str]:
    """The paths whose content the merge's signer chose: both sides changed them, each in its own way.

    `changes` are the merge's differences to its first parent. Per path, without rename detection: where one
    side is unchanged since the single merge base, the result must be the other side. Raises
    Refused("merge-bases") for octopus merges and for several bases or none, Refused("merge-side-dropped")
    when one side's change is lost, Refused("evil-merge") when the result is neither side's.
    """
    if len(merge.parents) != 2:
        raise _refuse("merge-bases", merge, "", "two parents", f"{len(merge.parents)} parents")
    ours, theirs = merge.parents
    bases = history.merge_bases(ours, theirs)
    if len(bases) != 1:
        raise _refuse("merge-bases", merge, "", "one merge base", f"{len(bases)} merge bases")
    (base,) = bases
    brought = {change.path: change for change in history.changes(base, theirs)}
    decided: set[str] = set()
    for path in sorted(changes.keys() | brought.keys()):
        side = brought.get(path)
        mine = changes[path].old if path in changes else history.file(ours, path)
        result = changes[path].new if path in changes else mine
        before = side.old if side is not None else history.file(base, path)
        other = side.new if side is not None else before
        if result == other and (mine in (before, other)):
            continue
        if result == mine and other == before:
            continue
        if mine != before and other != before and mine != other:
            decided.add(path)
        elif result in (mine, other):
            raise _refuse("merge-side-dropped", merge, path, "the side that changed it", "the other side")
        else:
            raise _refuse("evil-merge", merge, path, "the content of one of its sides", "content of neither")
    return frozenset(decided)


def _refuse(code: str, merge: Commit, path: str, expected: str, got: str) -> Refused:
    what = {
        "merge-bases": "this merge cannot be attributed path by path",
        "merge-side-dropped": f"the merge loses what one side changed in {path}",
        "evil-merge": f"the merge puts content into {path} that no commit brought",
    }[code]
    return Refused(
        code,
        what,
        where=f"commit {merge.id[:12]}" + (f" {path}" if path else ""),
        expected=expected,
        got=got,
        cure="revert it and merge again from an up-to-date branch",
    )
