"""Git history as far as somebody sent it: objects that are known by their ids, and nothing else.

Whoever holds no clone can judge a commit by the same code as who does, once the objects on the paths in question
are there. Nothing is taken for absent because it was not sent: that is a refusal.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Sequence

from controller.core.chain import object_id, tree_entries
from controller.core.declared import ParseCommit
from controller.errors import Refused
from controller.model.history import Change, Commit, TreeFile
from controller.model.order import Approving

MOST_BYTES = 4 << 20
"""Of all objects that one order carries."""
_TREE = 0o40000


def unapproved(expected: str, got: str, where: str = "") -> Refused:
    """The refusal of an order behind which no approvals of people can be seen."""
    return Refused(
        "order-unapproved",
        "the order does not carry what shows that people approved it",
        where=where,
        expected=expected,
        got=got,
        cure="see what `lockgate why` says of the run; if it knows nothing of this order, the controller's key is "
        "in wrong hands",
    )


def outside_window(expected: str, got: str, where: str = "") -> Refused:
    """The refusal of an order for which it is not the time."""
    return Refused(
        "order-outside-window",
        "the order does not come at a time at which this environment may be changed",
        where=where,
        expected=expected,
        got=got,
        cure="see what `lockgate why` says of the run; if it knows nothing of this order, the controller's key is "
        "in wrong hands",
    )


class Carried:
    """A `merges.History` of carried objects. Only `paths` differ between trees: the others were not sent.

    Raises Refused("order-unapproved") wherever an object is missing or malformed.
    """

    def __init__(self, sent: Approving, read_commit: ParseCommit, paths: Collection[str] = ()) -> None:
        left = MOST_BYTES - sum(len(text) for text in (*sent.commits, *sent.trees, *sent.blobs)) * 3 // 4
        if left < 0:
            raise unapproved(f"at most {MOST_BYTES} bytes of objects", f"{MOST_BYTES - left} bytes")
        self._commits = _by_id("commit", sent.commits)
        self._trees = _by_id("tree", sent.trees)
        self._blobs = _by_id("blob", sent.blobs)
        self._parsed: dict[str, Commit] = {}
        self._entries: dict[str, dict[bytes, tuple[int, str]]] = {}
        self._read = read_commit
        self._paths = tuple(sorted(paths))

    def at(self, *paths: str) -> Carried:
        """The same objects, looked at for other paths."""
        other = object.__new__(Carried)
        other.__dict__.update(self.__dict__)
        other._paths = tuple(sorted(paths))
        return other

    def commit(self, oid: str) -> Commit:
        """A commit, its signature checked."""
        if oid not in self._parsed:
            if oid not in self._commits:
                raise unapproved("every object that leads to the approvals", "no such commit", oid)
            self._parsed[oid] = self._read(oid, self._commits[oid])
        return self._parsed[oid]

    def read(self, blob: str) -> bytes:
        """A blob's bytes."""
        if blob not in self._blobs:
            raise unapproved("every object that leads to the approvals", "no such blob", blob)
        return self._blobs[blob]

    def file(self, commit: str, path: str) -> TreeFile | None:
        """A file of a commit's tree; None where the trees show that there is none."""
        oid, parts = self.commit(commit).tree, path.encode().split(b"/")
        for place, part in enumerate(parts):
            found = self._tree(oid).get(part)
            if found is None:
                return None
            mode, oid = found
            if place == len(parts) - 1:
                return TreeFile(oid, mode) if mode != _TREE else None
            if mode != _TREE:
                return None
        return None

    def changes(self, old: str | None, new: str) -> list[Change]:
        """The paths asked for that differ between two commits' trees."""
        found = []
        for path in self._paths:
            before = self.file(old, path) if old is not None else None
            after = self.file(new, path)
            if before != after:
                found.append(Change(path, before, after))
        return found

    def brought(self, first: str, second: str) -> list[Commit]:
        """Commits reachable from `second` and not shown to be reachable from `first`, parents before children."""
        known = self._reach(first)
        found: dict[str, Commit] = {}
        queue = [second]
        while queue:
            oid = queue.pop()
            if oid in known or oid in found:
                continue
            commit = self.commit(oid)
            found[oid] = commit
            queue.extend(commit.parents)
        return _parents_first(found, second)

    def merge_bases(self, one: str, two: str) -> list[str]:
        """The common ancestors that the carried commits show, without those behind another of them."""
        common = self._reach(one) & self._reach(two)
        behind = {old for oid in common if oid in self._commits for old in self._reach(oid) - {oid}}
        return sorted(common - behind)

    @property
    def blobs(self) -> Collection[bytes]:
        """Every blob that was sent."""
        return self._blobs.values()

    def first_parents(self, tip: str, until: str | None) -> list[Commit]:
        """First-parent commits after `until` up to `tip`, oldest first."""
        found: list[Commit] = []
        at: str | None = tip
        while at is not None and at != until:
            found.append(self.commit(at))
            at = found[-1].parents[0] if found[-1].parents else None
        return found[::-1]

    def _reach(self, tip: str) -> set[str]:
        """Ancestors as far as commits were sent, with the parents of the last ones; `tip` included."""
        seen: set[str] = set()
        queue = [tip]
        while queue:
            oid = queue.pop()
            if oid not in seen:
                seen.add(oid)
                queue.extend(self.commit(oid).parents if oid in self._commits else ())
        return seen

    def _tree(self, oid: str) -> dict[bytes, tuple[int, str]]:
        if oid not in self._entries:
            if oid not in self._trees:
                raise unapproved("every object that leads to the approvals", "no such tree", oid)
            try:
                entries = tree_entries(self._trees[oid]) or {}
                self._entries[oid] = {name: (int(mode, 8), entry) for name, (mode, entry) in entries.items()}
            except ValueError as error:
                raise unapproved("a well-formed tree", "a malformed one", oid) from error
        return self._entries[oid]


def _by_id(kind: str, objects: Sequence[str]) -> dict[str, bytes]:
    try:
        data = [base64.b64decode(text, validate=True) for text in objects]
    except ValueError as error:
        raise unapproved(f"a {kind} in base64", "something else") from error
    return {object_id(kind, one): one for one in data}


def _parents_first(found: dict[str, Commit], tip: str) -> list[Commit]:
    """In an order in which no commit stands before its parents."""
    ordered: dict[str, Commit] = {}
    stack: list[tuple[str, Iterable[str]]] = [(tip, iter(found[tip].parents))] if tip in found else []
    while stack:
        oid, parents = stack[-1]
        following = next((p for p in parents if p in found and p not in ordered), None)
        if following is None:
            ordered[oid] = found[oid]
            stack.pop()
        else:
            stack.append((following, iter(found[following].parents)))
    return list(ordered.values())
