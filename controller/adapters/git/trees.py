"""The tree that is being written, in memory: only what a commit touches is encoded again.

Nodes are loaded from the object store the first time a path goes through them and kept for the next commit,
so that an append reads nothing; `Root.trim` bounds what is kept.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import chain
from typing import Final

from controller.adapters.git.objects import EMPTY_TREE, TREE, Tree
from controller.adapters.git.pack import Sink
from controller.errors import Invalid

Load = Callable[[str], Tree]
_FILE: Final = b"100644 "
_MANY: Final = 64
"""So many entries are sooner changed in place than joined again."""
_NO_NAMES: Final = frozenset({"", ".", ".."})


class _Node:
    """One directory: encoded entries under git's sort key, folders that were opened, and those that changed."""

    __slots__ = ("body", "children", "dirty", "entries", "keys", "written")

    def __init__(self, tree: Tree) -> None:
        self.entries: dict[bytes, bytes] = {}
        for mode, raw, oid in tree.values():
            key = raw + b"/" if mode == TREE else raw
            self.entries[key] = b"%s %s\0%s" % (mode, raw, oid)
        self.keys = list(self.entries)
        self.body: bytearray | None = None
        """The encoded tree of a large folder, while nothing but ids changed in it."""
        self.children: dict[bytes, _Node] = {}
        self.dirty: set[bytes] = set()
        self.written = ""

    def set(self, key: bytes, entry: bytes) -> None:
        before = self.entries.get(key)
        if before is None:
            bisect.insort(self.keys, key)
        if self.body is not None:
            self._patch(self.body, before, entry)
        self.entries[key] = entry

    def _patch(self, body: bytearray, before: bytes | None, entry: bytes) -> None:
        """Put an entry in its place in the encoded tree, where that place is plain to see."""
        at = body.find(before) if before is not None and len(before) == len(entry) else -1
        if at < 0 or body.find(before or b"", at + 1) >= 0:
            self.body = None
        else:
            body[at : at + len(entry)] = entry

    def drop(self, key: bytes) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        del self.keys[bisect.bisect_left(self.keys, key)]
        self.body = None
        return True

    def encoded(self) -> bytes | bytearray:
        if self.body is not None:
            return self.body
        body = b"".join(map(self.entries.__getitem__, self.keys))
        if len(self.keys) > _MANY:
            self.body = bytearray(body)
        return body


class Root:
    """A mutable tree that starts at `tree` and writes its objects into a sink (None: only their ids matter)."""

    def __init__(self, tree: str, load: Load) -> None:
        self._load = load
        self._node = _Node({} if tree == EMPTY_TREE else load(tree))
        self._nodes = 1
        self.tree = tree
        self._blobs: list[bytes] = []
        self._folders: dict[_Node, bytes] = {}

    def apply(self, changes: Mapping[str, bytes | None], sink: Sink | None) -> str:
        """Set (bytes) or remove (None) paths; put new blobs and trees into `sink`; return the tree's id.

        A file keeps its mode. Raises Invalid("path-invalid") for a path git could not hold.
        """
        for path, data in changes.items():
            if data is None:
                self._remove(path)
                continue
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).digest()
            if sink is not None:
                sink[oid.hex()] = (b"blob", data)
            else:
                self._blobs.append(oid)
            self._put(path, oid)
        self.tree = self._flush(self._node, sink).hex()
        return self.tree

    def add(self, blobs: Mapping[str, str]) -> bool:
        """Set paths to blobs by id, for the next `apply` to encode; False when one of the paths stood already."""
        return all(self._put(path, bytes.fromhex(oid)) for path, oid in blobs.items())

    def holds(self, path: str) -> bool:
        """Whether a file stands at `path`."""
        folders, leaf = _split(path)
        node: _Node | None = self._node
        for name in folders:
            node = self._open(node, name, create=False) if node is not None else None
        return node is not None and leaf in node.entries

    def _open(self, node: _Node, name: bytes, create: bool) -> _Node | None:
        child = node.children.get(name)
        if child is None:
            entry = node.entries.get(name + b"/")
            if entry is None and not create:
                return None
            child = _Node(self._load(entry[-20:].hex()) if entry is not None else {})
            node.children[name] = child
            node.drop(name)
            self._nodes += 1
        return child

    def _put(self, path: str, oid: bytes) -> bool:
        """Set one file; whether nothing stood there."""
        folders, leaf = _split(path)
        node = self._node
        for name in folders:
            child = node.children.get(name) or self._open(node, name, create=True)
            assert child is not None
            node.dirty.add(name)
            node = child
        folder = node.drop(leaf + b"/")
        if folder or leaf in node.children:
            node.children.pop(leaf, None)
            node.dirty.discard(leaf)
        old = node.entries.get(leaf)
        mode = old[:7] if old is not None and old.startswith(b"100755 ") else _FILE
        node.set(leaf, mode + leaf + b"\0" + oid)
        return old is None and not folder

    def _remove(self, path: str) -> None:
        folders, leaf = _split(path)
        node = self._node
        trail: list[tuple[_Node, bytes]] = []
        for name in folders:
            child = self._open(node, name, create=False)
            if child is None:
                return
            trail.append((node, name))
            node = child
        node.children.pop(leaf, None)
        node.dirty.discard(leaf)
        if node.drop(leaf) | node.drop(leaf + b"/"):
            for parent, name in trail:
                parent.dirty.add(name)

    def _flush(self, node: _Node, sink: Sink | None) -> bytes:
        """The raw id of a folder, everything below it encoded where it changed."""
        for name in sorted(node.dirty) if len(node.dirty) > 1 else node.dirty:
            child = node.children[name]
            below = self._flush(child, sink)
            if child.entries:
                node.set(name + b"/", b"40000 %b\0%b" % (name, below))
            else:
                del node.children[name]
                node.drop(name + b"/")
        node.dirty.clear()
        body = node.encoded()
        made = hashlib.sha1(b"tree %d\0" % len(body), usedforsecurity=False)
        made.update(body)
        raw = made.digest()
        if sink is not None:
            oid = raw.hex()
            if oid not in sink:
                sink[oid] = (b"tree", bytes(body))
                sink.bases[oid] = node.written
            node.written = oid
        else:
            self._folders[node] = raw
        return raw

    def made(self) -> Iterator[bytes]:
        """The raw ids of the blobs and trees that came up without a sink since the last call."""
        blobs, self._blobs = self._blobs, []
        folders, self._folders = self._folders, {}
        return chain(blobs, folders.values())

    def trim(self, limit: int) -> None:
        """Forget opened directories when there are more than `limit`; they are in the store."""
        if self._nodes > limit:
            self._node.children.clear()
            self._nodes = 1


class Replica:
    """Implements ports.Replica: what a tree would be after changes that nobody writes."""

    _KEPT = 2_000

    def __init__(self, tree: str, load: Load, stored: Callable[[bytes], bool]) -> None:
        self._root = Root(tree, load)
        self._stored = stored

    def apply(self, changes: Mapping[str, bytes | None], added: Mapping[str, str]) -> str | None:
        """Change paths and return the tree's id; see ports.Replica."""
        self._root.trim(self._KEPT)
        new = self._root.add(added)
        tree = self._root.apply(changes, None)
        return tree if new else None

    def holds(self, path: str) -> bool:
        """Whether a file stands at `path`."""
        return self._root.holds(path)

    def stored(self) -> bool:
        """Whether the repository has everything that was made since the last call."""
        return all(map(self._stored, self._root.made()))


def _split(path: str) -> tuple[list[bytes], bytes]:
    folder, slash, name = path.rpartition("/")
    _check(path, name)
    return _folders(folder) if slash else [], name.encode("utf-8", "surrogateescape")


@lru_cache(4_096)
def _folders(folder: str) -> list[bytes]:
    parts = folder.split("/")
    for part in parts:
        _check(folder, part)
    return [part.encode("utf-8", "surrogateescape") for part in parts]


def _check(path: str, part: str) -> None:
    if part in _NO_NAMES or part.lower() == ".git" or "\0" in part:
        raise Invalid(
            "path-invalid",
            "a path that git cannot hold",
            where=path,
            expected="names joined by single slashes, none of them '.', '..' or '.git'",
            got=repr(part),
            cure="use another path",
        )
