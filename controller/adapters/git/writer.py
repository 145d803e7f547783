"""Building signed commits in memory on top of a tip."""

from __future__ import annotations

from collections.abc import Sequence

from controller.adapters.git import objects
from controller.adapters.git.objects import EMPTY_TREE
from controller.adapters.git.pack import Sink
from controller.adapters.git.store import ObjectStore
from controller.adapters.git.trees import Root
from controller.model.history import NewCommit
from controller.ports import Signer

_KEPT_DIRECTORIES = 2_000
_KEPT_ROOTS = 4


class Builder:
    """Turns NewCommits into objects; remembers the trees it made, so that the next batch reads nothing."""

    def __init__(self, store: ObjectStore, name: str, email: str) -> None:
        self._store = store
        self._name = name
        self._email = email
        self._roots: dict[str, Root] = {}

    def build(
        self, parent: str | None, commits: Sequence[NewCommit], signer: Signer, base: str | None = None
    ) -> tuple[list[str], Sink]:
        """(ids oldest first, every new object) of `commits` stacked on `parent`; the first one changes the tree
        of `base`, by default the parent's."""
        sink = Sink()
        oids: list[str] = []
        # Taken out while it changes: a failed build must not leave a half-changed tree behind. Known by commit,
        # because reading the commit back would make libgit2 look through every pack again.
        base = base or parent
        root = self._roots.pop(base, None) if base is not None else None
        if root is None:
            root = Root(self._store.root(base) if base is not None else EMPTY_TREE, self._store.tree)
        for commit in commits:
            tree = root.apply(commit.changes, sink)
            who = objects.encode_person(self._name, self._email, commit.at)
            parents = (parent,) if parent is not None else ()
            parent = add_commit(sink, tree, parents, who, who, commit.message, signer)
            oids.append(parent)
        root.trim(_KEPT_DIRECTORIES)
        if oids:
            self._roots[oids[-1]] = root
        while len(self._roots) > _KEPT_ROOTS:
            del self._roots[next(iter(self._roots))]
        return oids, sink

    def forget(self) -> None:
        """Drop remembered trees whose objects may not have been stored."""
        self._roots.clear()


def add_commit(
    sink: Sink,
    tree: str,
    parents: tuple[str, ...],
    author: bytes,
    committer: bytes,
    message: str,
    signer: Signer | None,
) -> str:
    """Put one commit, signed when there is a signer, into `sink` and return its id."""
    raw = objects.encode_commit(tree, parents, author, committer, message)
    if signer is not None:
        raw = objects.attach_signature(raw, signer.sign_ssh(raw, "git"))
    oid = objects.object_id(b"commit", raw)
    sink[oid] = (b"commit", raw)
    return oid
