"""Making repositories with a work tree, for `init`."""

from __future__ import annotations

from pathlib import Path

import pygit2

from controller.adapters.git.keys import generate_key
from controller.adapters.git.repo import GitRepo
from controller.ports import Repo, Signer

Person = tuple[str, str]
"""Name and e-mail address."""


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
