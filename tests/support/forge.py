"""Forging Git history: any object of a branch changed, and what follows rebuilt on top of it.

Nothing here refuses what Git or the ledger would refuse. Objects gather in memory and reach the repository as one
pack, which goes away again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pygit2

from controller.adapters.git.objects import attach_signature
from controller.adapters.git.pack import Sink, write_pack
from controller.adapters.git.trees import Root
from controller.ports import Signer

Entry = tuple[str, str]
"""(mode, object id)"""
_SIGNATURE = re.compile(rb"\n(gpgsig [^\n]*(?:\n [^\n]*)*)")
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclass(frozen=True)
class Made:
    """A commit in its parts; `extra` are headers after the committer, `by` who signs (None: nobody)."""

    tree: str
    parents: tuple[str, ...]
    author: bytes
    committer: bytes
    message: bytes
    by: Signer | None = None
    extra: bytes = b""


class Forge:
    """Reads a bare repository's objects and those made here."""

    def __init__(self, origin: Path) -> None:
        self.origin = origin
        self._repo = pygit2.Repository(str(origin))
        self._known: dict[str, bytes] = {}
        self.sink = Sink()

    def raw(self, oid: str) -> bytes:
        made = self.sink.get(oid)
        if made is not None:
            return made[1]
        if oid not in self._known:
            self._known[oid] = self._repo.odb.read(oid)[1] if oid != EMPTY else b""
        return self._known[oid]

    def put(self, kind: bytes, data: bytes) -> str:
        oid = hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data, usedforsecurity=False).hexdigest()
        self.sink[oid] = (kind, data)
        return oid

    @contextlib.contextmanager
    def stored(self) -> Iterator[None]:
        """What was made is in the repository within the block, and nowhere afterwards."""
        path = write_pack(self.origin / "objects", self.sink)
        try:
            yield
        finally:
            for name in (path.with_suffix(".idx"), path):
                name.unlink()
            self.sink = Sink()

    def point(self, ref: str, oid: str | None) -> None:
        """Let a branch name a commit, or be gone."""
        path = self.origin / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        if oid is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"{oid}\n")

    # --- trees -------------------------------------------------------------------------------------------

    def entries(self, tree: str) -> list[tuple[str, bytes, str]]:
        """(mode, name, id) of a tree."""
        data, found = self.raw(tree), []
        while data:
            head, _, rest = data.partition(b"\0")
            mode, _, name = head.partition(b" ")
            found.append((mode.decode(), name, rest[:20].hex()))
            data = rest[20:]
        return found

    def edit(self, tree: str, path: str, *new: Entry) -> str:
        """The tree with what `path` names replaced by these entries: none removes it, two make it malformed."""
        first, _, rest = path.partition("/")
        name = first.encode()
        old = self.entries(tree)
        if rest:
            below = next((oid for mode, n, oid in old if n == name and mode == "40000"), EMPTY)
            changed = self.edit(below, rest, *new)
            new = () if changed == EMPTY else (("40000", changed),)
        rows = [row for row in old if row[1] != name] + [(mode, name, oid) for mode, oid in new]
        rows.sort(key=lambda row: row[1] + b"/" if row[0] == "40000" else row[1])
        data = b"".join(b"%s %s\0%s" % (mode.encode(), n, bytes.fromhex(oid)) for mode, n, oid in rows)
        return self.put(b"tree", data) if data else EMPTY

    def find(self, tree: str, path: str) -> Entry | None:
        for part in path.encode().split(b"/"):
            row = next((row for row in self.entries(tree) if row[1] == part), None)
            if row is None:
                return None
            tree = row[2]
        return row[0], row[2]

    def paths(self, tree: str, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        for mode, name, oid in self.entries(tree):
            if mode == "40000":
                yield from self.paths(oid, f"{prefix}{name.decode()}/")
            else:
                yield prefix + name.decode(), (mode, oid)

    # --- commits -----------------------------------------------------------------------------------------

    def read(self, oid: str) -> Made:
        """A commit in its parts, its signature left out."""
        head, _, message = self.raw(oid).partition(b"\n\n")
        lines = _SIGNATURE.sub(b"", b"\n" + head)[1:].split(b"\n")
        named: dict[bytes, list[bytes]] = {}
        for line in lines:
            key, _, value = line.partition(b" ")
            named.setdefault(key, []).append(value)
        parents = tuple(value.decode() for value in named.get(b"parent", []))
        return Made(named[b"tree"][0].decode(), parents, named[b"author"][0], named[b"committer"][0], message)

    def write(self, made: Made) -> str:
        parents = b"".join(b"parent %s\n" % parent.encode() for parent in made.parents)
        head = b"tree %s\n%sauthor %s\ncommitter %s" % (made.tree.encode(), parents, made.author, made.committer)
        data = head + made.extra + b"\n\n" + made.message
        if made.by is not None:
            data = attach_signature(data, made.by.sign_ssh(data, "git"))
        return self.put(b"commit", data)

    def line(self, tip: str) -> list[str]:
        """First-parent commits, oldest first."""
        found: list[str] = []
        at: str | None = tip
        while at is not None:
            found.append(at)
            at = next(iter(self.read(at).parents), None)
        return found[::-1]

    def delta(self, oid: str) -> list[tuple[str, Entry | None]]:
        """What a commit changes against its first parent."""
        made = self.read(oid)
        before = dict(self.paths(self.read(made.parents[0]).tree)) if made.parents else {}
        after = dict(self.paths(made.tree))
        names = sorted(before.keys() | after.keys())
        return [(name, after.get(name)) for name in names if before.get(name) != after.get(name)]

    def patched(self, tree: str, delta: Sequence[tuple[str, Entry | None]]) -> str:
        for path, entry in delta:
            tree = self.edit(tree, path, *([entry] if entry is not None else []))
        return tree

    def root(self, tree: str) -> Root:
        """A tree to apply a ledger's changes to."""

        def load(oid: str) -> dict[str, tuple[bytes, bytes, bytes]]:
            return {n.decode(): (mode.encode(), n, bytes.fromhex(o)) for mode, n, o in self.entries(oid)}

        return Root(tree, load)

    def again(self, oid: str, onto: str | None, tree: str, by: Signer | None) -> str:
        """A commit made once more on another parent, with another tree."""
        old = self.read(oid)
        parents = (onto, *old.parents[1:]) if onto is not None else ()
        return self.write(replace(old, tree=tree, parents=parents, by=by))
