"""Commits by people: signed by a developer or reviewer, on any branch, with one parent or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import pygit2

from controller.adapters.git.objects import EMPTY_TREE, TREE, encode_person
from controller.adapters.git.pack import Sink
from controller.adapters.git.repo import GitRepo, full_ref
from controller.adapters.git.store import ObjectStore
from controller.adapters.git.trees import Root
from controller.adapters.git.writer import add_commit
from controller.errors import Conflict
from controller.ports import Signer


def write_commit(
    repo: GitRepo,
    parents: Sequence[str],
    changes: Mapping[str, bytes | None],
    *,
    message: str,
    author: tuple[str, str],
    when: datetime,
    signer: Signer | None,
    tree: str | None = None,
) -> str:
    """Store one commit durably and return its id; no branch moves (see `swap`).

    `changes` are applied over `tree`, or over the first parent's tree, or over nothing. `author` is (name,
    email), and the committer too. Without a `signer` the commit is unsigned.
    """
    if tree is None:
        tree = repo.store.root(parents[0]) if parents else EMPTY_TREE
    made = Sink()
    written = Root(tree, repo.store.tree).apply(changes, made)
    if written == EMPTY_TREE:
        made[EMPTY_TREE] = (b"tree", b"")
    who = encode_person(*author, when)
    oid = add_commit(made, written, tuple(parents), who, who, message, signer)
    repo.store.write(made)
    return oid


def is_ref_name(ref: str) -> bool:
    """Whether git takes a full name: git-check-ref-format(1)."""
    return bool(pygit2.reference_is_valid_name(ref))


def swap(repo: GitRepo, ref: str, expected: str | None, new: str) -> None:
    """Move a branch ("main" or a full name) by compare-and-swap: in place, or by push.

    Raises Conflict("ref-moved"), Refused("push-rejected"), Unavailable.
    """
    repo.publish(ref, expected, new, Sink())


def merge_tree(repo: GitRepo, ours: str, theirs: str) -> str:
    """The tree of a clean merge of two commits, stored durably; renames are not guessed.

    Raises Conflict("merge-conflict") naming the paths.
    """
    handle = repo.store.repository
    index = handle.merge_commits(ours, theirs, flags=pygit2.enums.MergeFlag(0))
    if index.conflicts is not None:
        paths = sorted({side.path for sides in index.conflicts for side in sides if side is not None})
        raise Conflict(
            "merge-conflict",
            "the two branches change the same lines",
            where=", ".join(paths[:10]),
            expected="a merge without conflicts",
            got=f"{len(paths)} conflicting paths",
            cure="bring the branch up to date first, and have the result reviewed",
        )
    merged = str(index.write_tree(handle))
    # libgit2 wrote loose objects without fsync: what is new goes into a pack that is durable.
    made = Sink()
    _collect(repo.store, repo.store.root(ours), merged, made)
    repo.store.write(made)
    return merged


def _collect(store: ObjectStore, known: str, tree: str, made: Sink) -> None:
    if tree in (known, EMPTY_TREE):
        return
    made[tree] = (b"tree", store.raw(tree, b"tree"))
    before = store.tree(known)
    for name, (mode, _, oid) in store.tree(tree).items():
        was = before.get(name)
        if was is not None and was[2] == oid:
            continue
        if mode == TREE:
            former = was[2].hex() if was is not None and was[0] == TREE else EMPTY_TREE
            _collect(store, former, oid.hex(), made)
        elif mode != b"160000":
            made[oid.hex()] = (b"blob", store.raw(oid.hex(), b"blob"))


def merge(
    repo: GitRepo,
    ref: str,
    other: str,
    *,
    message: str,
    author: tuple[str, str],
    when: datetime,
    signer: Signer,
    expected: str | None = None,
) -> str:
    """A signed two-parent merge of commit `other` into branch `ref`, landed by compare-and-swap; its id."""
    first = expected or repo.known(ref)
    if first is None:
        raise Conflict(
            "ref-moved",
            "there is no branch to merge into",
            where=full_ref(ref),
            expected="a branch",
            got="none",
            cure="make the branch first",
        )
    tree = merge_tree(repo, first, other)
    oid = write_commit(
        repo, (first, other), {}, message=message, author=author, when=when, signer=signer, tree=tree
    )
    swap(repo, ref, first, oid)
    return oid
