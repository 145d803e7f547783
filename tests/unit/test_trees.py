"""Trees made in memory: after any changes their ids are those that Git gives to the same files."""

from __future__ import annotations

import random
from pathlib import Path

import pygit2
import pytest

from controller.adapters.git.objects import EMPTY_TREE, Tree
from controller.adapters.git.trees import Root


def nothing(oid: str) -> Tree:
    raise AssertionError(f"{oid} is asked for although all was made here")


def git_tree(folder: Path, files: dict[str, bytes]) -> str:
    """The id that libgit2 gives to a tree of these files."""
    repo = pygit2.init_repository(str(folder), bare=True)
    index = pygit2.Index()
    for path, data in files.items():
        index.add(pygit2.IndexEntry(path, repo.create_blob(data), pygit2.enums.FileMode.BLOB))
    return str(index.write_tree(repo))


@pytest.mark.parametrize("seed", range(4))
def test_small_and_large_folders_change_as_git_changes_them(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    paths = [f"day/run-{n}/{step:03}.json" for n in range(150) for step in range(2)]
    paths += [f"flat/{n}" for n in range(90)] + ["flat/1a", "flat/1.a", "flat/1-a/x", "top"]
    root, files = Root(EMPTY_TREE, nothing), dict[str, bytes]()
    for turn in range(60):
        changes: dict[str, bytes | None] = {}
        for path in chance.sample(paths, 12 if turn % 10 else 200):
            changes[path] = None if chance.random() < 0.15 else chance.randbytes(3)
        made = root.apply(changes, None)
        files = {path: data for path, data in (files | changes).items() if data is not None}
        if turn % 6 == 0 or turn == 59:
            assert made == git_tree(tmp_path / "git", files)
