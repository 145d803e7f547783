"""Reading one object database: every object checked against its id, commits and trees parsed once."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pygit2

from controller.adapters.git import objects, pack
from controller.adapters.git.objects import EMPTY_TREE, MODES, TREE, Entries, Listing, Tree
from controller.errors import Refused, Unavailable
from controller.model.history import Change, Commit, TreeFile

# libgit2 would hash every object as well; `ObjectStore.raw` does it once, with our own code for the finding.
pygit2.option(pygit2.GIT_OPT_ENABLE_STRICT_HASH_VERIFICATION, False)
# What is needed again is kept here, parsed; libgit2 would keep up to 256 MB of raw objects besides, and whole
# packs mapped. So a long history takes no more memory than a short one.
pygit2.option(pygit2.GIT_OPT_ENABLE_CACHING, False)
pygit2.option(pygit2.GIT_OPT_SET_MWINDOW_SIZE, 4 << 20)
pygit2.option(pygit2.GIT_OPT_SET_MWINDOW_MAPPED_LIMIT, 32 << 20)
_COMMITTED = re.compile(rb"\ncommitter [^\n]*> (\d{1,12}) ")
_ROOTS = 8_192
"""Commits whose trees are remembered."""
_Side = tuple[bytes, bytes] | None
_KINDS = {
    pygit2.GIT_OBJECT_COMMIT: b"commit",
    pygit2.GIT_OBJECT_TREE: b"tree",
    pygit2.GIT_OBJECT_BLOB: b"blob",
}


def corrupt(oid: str, got: str) -> Refused:
    """The refusal for an object that is missing, unreadable or not what its id says."""
    return Refused(
        "object-corrupt",
        "an object of the history cannot be trusted",
        where=oid,
        expected="an object whose bytes hash to its id",
        got=got,
        cure="git fsck --full names the damage; fetch the object again from a good clone",
    )


class ObjectStore:
    """The objects below one git directory."""

    def __init__(self, gitdir: Path, *, commits: int = 5_000, entries: int = 32_000) -> None:
        self.gitdir = gitdir
        self.written = 0
        """Packs written since the last look. Each is open, also when a repack has taken it away."""
        self.refresh()
        self.commit = lru_cache(commits)(self._commit)
        self._roots: dict[str, str] = {}
        self._trees: OrderedDict[str, Tree] = OrderedDict()
        self._entries = 0
        self._listings: OrderedDict[str, Listing] = OrderedDict()
        self._listed = 0
        self._limit = entries
        self._lock = threading.Lock()

    @property
    def repository(self) -> pygit2.Repository:
        """The libgit2 handle, for merges and graph questions."""
        return self._repo

    def refresh(self) -> None:
        """Look at the packs again: objects were written or repacked by somebody else."""
        before = getattr(self, "_repo", None)
        try:
            self._repo = pygit2.Repository(str(self.gitdir))
        except (pygit2.GitError, KeyError, OSError) as error:
            raise Unavailable(
                "origin-unavailable",
                "the repository cannot be opened",
                where=str(self.gitdir),
                expected="a git repository that this user owns or trusts",
                got=str(error)[:300],
                cure="check the path and its owner (git config --global --add safe.directory PATH)",
                retry_after=5.0,
            ) from error
        self._odb = self._repo.odb
        self.written = 0
        if before is not None:
            before.free()  # its files are closed now, not when it is collected

    def close(self) -> None:
        """Release files and memory."""
        self.commit.cache_clear()
        with self._lock:
            self._roots.clear()
            self._trees.clear()
            self._entries = 0
            self._listings.clear()
            self._listed = 0
        self._repo.free()
        self._odb = pygit2.Odb()  # the former one holds its packs open for as long as it is referred to

    def raw(self, oid: str, kind: bytes) -> bytes:
        """The bytes of an object of `kind`, checked against its id. Raises Refused("object-corrupt")."""
        data = self._raw(oid, kind)
        if data is None:
            # A repack may have taken the pack away under us: one fresh look, then it is a finding.
            self.refresh()
            data = self._raw(oid, kind)
        if data is None:
            raise corrupt(oid, "no such object, or one that cannot be read")
        return data

    def _raw(self, oid: str, kind: bytes) -> bytes | None:
        try:
            found, data = self._odb.read(oid)
        except (KeyError, ValueError, OSError, pygit2.GitError):
            return None
        if _KINDS.get(found) != kind:
            raise corrupt(oid, f"an object that is no {kind.decode()}")
        body: bytes = data
        return body if objects.object_id(kind, body) == oid else None

    def holds(self, oid: bytes) -> bool:
        """Whether an object of this raw id is there; its bytes are not looked at."""
        return pygit2.Oid(raw=oid) in self._odb

    def write(self, made: pack.Sink) -> Path:
        """Store objects durably as one pack. Raises OSError."""
        self.written += 1
        return pack.write_pack(self.gitdir / "objects", made)

    def _commit(self, oid: str) -> Commit:
        data = self.raw(oid, b"commit")
        self._keep_root(oid, data)
        return objects.parse_commit(oid, data)

    def parents(self, oid: str) -> list[str]:
        """The parents of a commit, without judging it."""
        return objects.commit_links(self.raw(oid, b"commit"))[1]

    def committed(self, oid: str) -> int:
        """The committer's date in seconds, 0 when unreadable; a hint for the order of a walk, nothing more."""
        match = _COMMITTED.search(self.raw(oid, b"commit"))
        return int(match[1]) if match is not None else 0

    def tree(self, oid: str) -> Tree:
        """The entries of a tree; kept up to a number of entries, since folders differ in size by thousands."""
        with self._lock:
            known = self._trees.get(oid)
            if known is not None:
                self._trees.move_to_end(oid)
                return known
        if oid == EMPTY_TREE:
            return {}
        made = objects.parse_tree(oid, self.raw(oid, b"tree"))
        with self._lock:
            if oid not in self._trees:
                self._trees[oid] = made
                self._entries += len(made) + 1
            while self._entries > self._limit:
                self._entries -= len(self._trees.popitem(last=False)[1]) + 1
        return made

    def root(self, commit: str) -> str:
        """The tree id of a commit; known without another look of one that was parsed a while ago."""
        known = self._roots.get(commit)
        return known if known is not None else self._keep_root(commit, self.raw(commit, b"commit"))

    def _keep_root(self, commit: str, data: bytes) -> str:
        tree = objects.commit_links(data)[0]
        with self._lock:
            if len(self._roots) >= _ROOTS:
                self._roots.clear()
            self._roots[commit] = tree
        return tree

    def changes(self, old: str, new: str) -> list[Change]:
        """Paths that differ between two trees, sorted."""
        found: list[Change] = []
        if old != new:
            self._compare(old, new, "", found)
        found.sort(key=lambda change: change.path)
        return found

    def _compare(self, old: str, new: str, prefix: str, found: list[Change]) -> None:
        """The paths below two different trees; an absent tree is the empty one."""
        before, after = self._differing(old, new)
        now_of = {name: (mode, oid) for mode, name, oid in after}
        pairs: list[tuple[bytes, _Side, _Side]]
        pairs = [(name, (mode, oid), now_of.pop(name, None)) for mode, name, oid in before]
        pairs += [(name, None, now) for name, now in now_of.items()]
        for name, was, now in pairs:
            if was == now:
                continue
            path = prefix + name.decode("utf-8", "surrogateescape")
            was_tree = was is not None and was[0] == TREE
            now_tree = now is not None and now[0] == TREE
            if was_tree or now_tree:
                self._compare(
                    was[1].hex() if was is not None and was_tree else EMPTY_TREE,
                    now[1].hex() if now is not None and now_tree else EMPTY_TREE,
                    path + "/",
                    found,
                )
            gone = TreeFile(was[1].hex(), MODES[was[0]]) if was is not None and not was_tree else None
            came = TreeFile(now[1].hex(), MODES[now[0]]) if now is not None and not now_tree else None
            if gone is not None or came is not None:
                found.append(Change(path, gone, came))

    def _differing(self, old: str, new: str) -> tuple[Entries, Entries]:
        """Entries of two trees among which all are that differ."""
        before = self._listing(old)
        after = self._listings.get(new)
        if after is None:
            data = self.raw(new, b"tree") if new != EMPTY_TREE else b""
            made = objects.succeed(new, before, data)
            if made is not None:
                self._keep(new, made[0])
                return made[1], made[2]
            after = self._keep(new, objects.listing(new, data))
        return objects.differing(before, after)

    def _listing(self, oid: str) -> Listing:
        known = self._listings.get(oid)
        if known is not None:
            return known
        return self._keep(oid, objects.listing(oid, self.raw(oid, b"tree") if oid != EMPTY_TREE else b""))

    def _keep(self, oid: str, made: Listing) -> Listing:
        with self._lock:
            if oid not in self._listings:
                self._listings[oid] = made
                self._listed += len(made.starts)
            while self._listed > self._limit:
                self._listed -= len(self._listings.popitem(last=False)[1].starts)
        return made

    def _below(self, tree: str, folder: str) -> str | None:
        for name in folder.split("/"):
            entry = self.tree(tree).get(name)
            if entry is None or entry[0] != TREE:
                return None
            tree = entry[2].hex()
        return tree

    def file(self, tree: str, path: str) -> TreeFile | None:
        """The file at `path` of a tree, or None (a directory is no file)."""
        folder, _, name = path.rpartition("/")
        inner = self._below(tree, folder) if folder else tree
        entry = self.tree(inner).get(name) if inner is not None else None
        return _file(entry) if entry is not None and entry[0] != TREE else None

    def files(self, tree: str, prefix: str) -> Iterator[tuple[str, TreeFile]]:
        """Every file below `prefix` (a folder, with or without its slash, or a file), sorted by path."""
        folder = prefix.strip("/")
        inner = self._below(tree, folder) if folder else tree
        if inner is not None:
            yield from self._walk(inner, folder + "/" if folder else "")
        elif (file := self.file(tree, folder)) is not None:
            yield folder, file

    def _walk(self, tree: str, prefix: str) -> Iterator[tuple[str, TreeFile]]:
        # git's order is the order of whole paths: a directory sorts as if its name ended in a slash.
        for name, entry in self.tree(tree).items():
            if entry[0] == TREE:
                yield from self._walk(entry[2].hex(), f"{prefix}{name}/")
            else:
                yield prefix + name, _file(entry)


def _file(entry: tuple[bytes, bytes, bytes]) -> TreeFile:
    return TreeFile(entry[2].hex(), MODES[entry[0]])
