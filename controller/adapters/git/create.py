"""Making repositories: with a work tree for `init`, bare for an origin, and landing files under review."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pygit2

from controller.adapters.git.keys import generate_key
from controller.adapters.git.people import swap, write_commit
from controller.adapters.git.repo import GitRepo
from controller.errors import Conflict
from controller.ports import Repo, Signer

Person = tuple[str, str]
"""Name and e-mail address."""


def create_bare(path: Path, main: str = "main") -> None:
    """A bare repository whose HEAD is the branch `main`; an existing one stays as it is."""
    pygit2.init_repository(str(path), bare=True, initial_head=main)


class GitWorkshop:
    """What `uses.init` needs: repositories with work trees, and keys. `person` signs as author."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._opened: list[GitRepo] = []

    def create(self, directory: Path) -> Repo:
        """A new repository with a work tree; HEAD is on main."""
        directory.mkdir(parents=True, exist_ok=True)
        pygit2.init_repository(str(directory), initial_head="main")
        repo = GitRepo(str(directory), None, name=self._person[0], email=self._person[1])
        self._opened.append(repo)
        return repo

    def check_out(self, directory: Path) -> None:
        """Write HEAD's files into the work tree and the index."""
        pygit2.Repository(str(directory)).checkout_head(strategy=pygit2.enums.CheckoutStrategy.FORCE)

    def key(self, path: Path, comment: str) -> Signer:
        """A new ed25519 key at `path`, in a directory that only its owner may enter."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return generate_key(path, comment)

    def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            self._opened.pop().close()


def land_reviewed(
    repo: GitRepo,
    ref: str,
    files: Mapping[str, bytes | None],
    *,
    message: str,
    author: Person,
    author_signer: Signer,
    reviewer: Person,
    reviewer_signer: Signer,
    when: datetime,
    branch: str | None = None,
) -> str:
    """A signed commit with `files` on the branch's tip and its signed merge, landed by compare-and-swap.

    Returns the merge's id; with `branch`, that ref is left at the side commit. Raises Conflict("ref-moved").
    """
    tip = repo.known(ref)
    if tip is None:
        raise Conflict("ref-moved", "there is no branch to land on", where=ref, expected="a branch", got="none")
    side = write_commit(repo, (tip,), files, message=message, author=author, when=when, signer=author_signer)
    if branch is not None:
        swap(repo, branch, repo.known(branch), side)
    title = f"Merge: {message.splitlines()[0]}"
    merge = write_commit(
        repo, (tip, side), files, message=title, author=reviewer, when=when, signer=reviewer_signer
    )
    swap(repo, ref, tip, merge)
    return merge
