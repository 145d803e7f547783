"""A simulator of the reading half of ports.Repo: commits and trees in memory, signatures taken as verified."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from controller.errors import Refused
from controller.model.history import Change, Commit, Person, TreeFile

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
Tree = Mapping[str, TreeFile]


def ssh_key(name: str) -> str:
    """A well-formed ed25519 public key made from a name."""
    parts = (b"ssh-ed25519", hashlib.sha256(name.encode()).digest())
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def seal(name: str, data: bytes, namespace: str) -> str:
    """The simulated SSHSIG of `name`'s key over `data`; `unseal` is its verification."""
    return f"{ssh_key(name)}|{namespace}|{hashlib.sha256(data).hexdigest()}"


def unseal(armored: str, data: bytes, namespace: str) -> str:
    key, found, digest = armored.split("|")
    if found != namespace or digest != hashlib.sha256(data).hexdigest():
        raise Refused("signature-bad", "the signature is not good")
    return key


@dataclass
class SimHistory:
    """Commits by id. `calls` counts reads, so that a test can say what a judgement cost."""

    commits: dict[str, Commit] = field(default_factory=dict)
    trees: dict[str, dict[str, TreeFile]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    calls: int = 0

    def blob(self, data: bytes) -> str:
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.blobs[oid] = data
        return oid

    def write(
        self,
        parents: Iterable[str],
        set_: Mapping[str, bytes | None] | None = None,
        *,
        by: str | None,
        message: str = "Change",
        author: str | None = None,
        email: str | None = None,
        at: datetime | None = None,
        tree: Tree | None = None,
        mode: int = 0o100644,
        signature: str | None = None,
        malformed: str | None = None,
    ) -> str:
        """A commit over its first parent's tree (or `tree`) with `set_` applied; signed by `by`, if anybody."""
        parents = tuple(parents)
        files = dict(tree if tree is not None else (self.trees[parents[0]] if parents else {}))
        for path, data in (set_ or {}).items():
            if data is None:
                files.pop(path, None)
            else:
                files[path] = TreeFile(self.blob(data), mode)
        when = at or max([START, *(self.commits[p].committer.at for p in parents)]) + timedelta(seconds=1)
        who = author or by or "stranger"
        person = Person(who, email or f"{who}@example.com", when)
        seed = repr((parents, sorted(files.items()), message, by, when, len(self.commits)))
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid] = Commit(
            id=oid,
            tree=hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest(),
            parents=parents,
            author=person,
            committer=person,
            message=message,
            signature=signature or ("good" if by else "none"),  # type: ignore[arg-type]
            key=ssh_key(by) if by else None,
            malformed=malformed,
        )
        self.trees[oid] = files
        return oid

    def merge(self, ours: str, theirs: str, *, by: str | None, message: str = "Merge", **more: object) -> str:
        """A clean three-way merge (ours where both changed a path), with `set_` on top."""
        (base,) = self.merge_bases(ours, theirs)
        old, mine, other = self.trees[base], self.trees[ours], self.trees[theirs]
        tree = {}
        for path in old.keys() | mine.keys() | other.keys():
            entry = other.get(path) if mine.get(path) == old.get(path) else mine.get(path)
            if entry is not None:
                tree[path] = entry
        return self.write([ours, theirs], by=by, message=message, tree=tree, **more)  # type: ignore[arg-type]

    def edit(self, oid: str, change: Callable[[Commit], Commit]) -> None:
        self.commits[oid] = change(self.commits[oid])

    def redate(self, oid: str, at: datetime) -> None:
        self.edit(oid, lambda commit: replace(commit, committer=replace(commit.committer, at=at)))

    # --- the port -------------------------------------------------------------------------------------------
    def commit(self, oid: str) -> Commit:
        self.calls += 1
        return self.commits[oid]

    def first_parents(self, tip: str, until: str | None) -> list[Commit]:
        chain: list[Commit] = []
        at: str | None = tip
        while at is not None and at != until:
            self.calls += 1
            commit = self.commits[at]
            chain.append(commit)
            at = commit.parents[0] if commit.parents else None
        if until is not None and at is None:
            ancestor = until in self._reach(tip)
            raise Refused("main-not-first-parent" if ancestor else "main-rewound", "the accepted tip is gone")
        return chain[::-1]

    def brought(self, first: str, second: str) -> list[Commit]:
        known = self._reach(first)
        new = [oid for oid in self.commits if oid in self._reach(second) - known]
        self.calls += len(new)
        return [self.commits[oid] for oid in new]

    def merge_bases(self, one: str, two: str) -> list[str]:
        common = self._reach(one) & self._reach(two)
        return sorted(a for a in common if not any(b != a and a in self._reach(b) for b in common))

    def is_ancestor(self, old: str, new: str) -> bool:
        return old in self._reach(new)

    def changes(self, old: str | None, new: str) -> list[Change]:
        self.calls += 1
        if new in self.broken:
            raise Refused("tree-malformed", "the tree names a path twice")
        before = self.trees[old] if old is not None else {}
        after = self.trees[new]
        paths = sorted(before.keys() | after.keys())
        return [
            Change(path, before.get(path), after.get(path))
            for path in paths
            if before.get(path) != after.get(path)
        ]

    def file(self, commit: str, path: str) -> TreeFile | None:
        self.calls += 1
        return self.trees[commit].get(path)

    def files(self, commit: str, prefix: str = "") -> Iterable[tuple[str, TreeFile]]:
        for path in sorted(self.trees[commit]):
            if path.startswith(prefix):
                yield path, self.trees[commit][path]

    def read(self, blob: str) -> bytes:
        self.calls += 1
        return self.blobs[blob]

    def _reach(self, tip: str) -> set[str]:
        seen = {tip}
        stack = [tip]
        while stack:
            for parent in self.commits[stack.pop()].parents:
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return seen
