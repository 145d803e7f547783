"""The tree that is being written, in memory: only what a commit touches is encoded again.

Nodes are loaded from the object store the first time a path goes through them and kept for the next commit,
so that an append reads nothing; `Root.trim` bounds what is kept.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from controller.adapters.git.objects import EMPTY_TREE, TREE, Tree, object_id
from controller.adapters.git.pack import Sink
from controller.errors import Invalid

Load = Callable[[str], Tree]
_FILE: Final = b"100644 "


class _Node:
    """One directory: encoded entries under git's sort key, children that were opened, names that changed."""

    __slots__ = ("children", "dirty", "entries", "keys", "written")

    def __init__(self, tree: Tree) -> None:
        self.entries: dict[bytes, bytes] = {}
        for mode, raw, oid in tree.values():
            key = raw + b"/" if mode == TREE else raw
            self.entries[key] = b"%s %s\0%s" % (mode, raw, oid)
        self.keys = list(self.entries)
        self.children: dict[bytes, _Node] = {}
        self.dirty: set[bytes] = set()
        self.written = ""

    def set(self, key: bytes, entry: bytes) -> None:
        if key not in self.entries:
            bisect.insort(self.keys, key)
        self.entries[key] = entry

    def drop(self, key: bytes) -> bool:
        if self.entries.pop(key, None) is None:
            return False
        del self.keys[bisect.bisect_left(self.keys, key)]
        return True


class Root:
    """A mutable tree that starts at `tree` and writes its objects into a sink."""

    def __init__(self, tree: str, load: Load) -> None:
        self._load = load
        self._node = _Node({} if tree == EMPTY_TREE else load(tree))
        self._nodes = 1
        self.tree = tree

    def apply(self, changes: Mapping[str, bytes | None], sink: Sink) -> str:
        """Set (bytes) or remove (None) paths; put new blobs and trees into `sink`; return the tree's id.

        A file keeps its mode. Raises Invalid("path-invalid") for a path git could not hold.
        """
        for path, data in changes.items():
            parts = _split(path)
            if data is None:
                self._remove(parts)
            else:
                self._put(parts, data, sink)
        self.tree = self._flush(self._node, sink)
        return self.tree

    def _open(self, node: _Node, name: bytes, create: bool) -> _Node | None:
        child = node.children.get(name)
        if child is None:
            entry = node.entries.get(name + b"/")
            if entry is None and not create:
                return None
            child = _Node(self._load(entry[-20:].hex()) if entry is not None else {})
            node.children[name] = child
            self._nodes += 1
        return child

    def _put(self, parts: list[bytes], data: bytes, sink: Sink) -> None:
        node = self._node
        for name in parts[:-1]:
            child = self._open(node, name, create=True)
            assert child is not None
            node.drop(name)
            node.dirty.add(name)
            node = child
        leaf = parts[-1]
        node.children.pop(leaf, None)
        node.dirty.discard(leaf)
        node.drop(leaf + b"/")
        oid = object_id(b"blob", data)
        sink[oid] = (b"blob", data)
        old = node.entries.get(leaf)
        mode = old[:7] if old is not None and old.startswith(b"100755 ") else _FILE
        node.set(leaf, mode + leaf + b"\0" + bytes.fromhex(oid))

    def _remove(self, parts: list[bytes]) -> None:
        node = self._node
        trail: list[tuple[_Node, bytes]] = []
        for name in parts[:-1]:
            child = self._open(node, name, create=False)
            if child is None:
                return
            trail.append((node, name))
            node = child
        leaf = parts[-1]
        node.children.pop(leaf, None)
        node.dirty.discard(leaf)
        if node.drop(leaf) | node.drop(leaf + b"/"):
            for parent, name in trail:
                parent.dirty.add(name)

    def _flush(self, node: _Node, sink: Sink) -> str:
        for name in sorted(node.dirty):
            child = node.children[name]
            oid = self._flush(child, sink)
            if child.entries:
                node.set(name + b"/", b"40000 " + name + b"\0" + bytes.fromhex(oid))
            else:
                del node.children[name]
                node.drop(name + b"/")
        node.dirty.clear()
        body = b"".join(map(node.entries.__getitem__, node.keys))
        oid = hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
        if oid not in sink:
            sink[oid] = (b"tree", body)
            sink.bases[oid] = node.written
        node.written = oid
        return oid

    def trim(self, limit: int) -> None:
        """Forget opened directories when there are more than `limit`; they are in the store."""
        if self._nodes > limit:
            self._node.children.clear()
            self._nodes = 1


def _split(path: str) -> list[bytes]:
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or part.lower() == ".git" or "\0" in part:
            raise Invalid(
                "path-invalid",
                "a path that git cannot hold",
                where=path,
                expected="names joined by single slashes, none of them '.', '..' or '.git'",
                got=repr(part),
                cure="use another path",
            )
    return [part.encode("utf-8", "surrogateescape") for part in parts]
