"""The guard of an origin: opening it inside a hook, what it remembers there, and installing it."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.adapters.git import hook
from controller.adapters.git.incoming import IncomingRepo
from controller.adapters.git.locate import git_directory
from controller.adapters.git.sshsig import verify as verify_ssh
from controller.core.incoming import RefUpdate
from controller.errors import Refused
from controller.ledger.canonical import digest
from controller.model.trustroot import TrustRoot
from controller.uses.audit.coming import Means, TrustCommits
from controller.uses.audit.guard import guard, prime

PROGRAM = (sys.executable, "-E", "-P", "-m", "controller")
"""Never what happens to lie in the current folder, or what the environment of a push names."""
_MEMORY = "guard.json"


class FileMemory:
    """Where trust changed on main, in `lockgate/guard.json` of the git directory. It counts for one trust root
    and one line of main only, and names commits that are judged again: it can save time and nothing else."""

    def __init__(self, gitdir: Path, root: TrustRoot) -> None:
        self._path = gitdir / hook.FOLDER / _MEMORY
        self._root = digest(root.dumps().encode())

    def load(self) -> TrustCommits | None:
        """What was remembered for this root; None when nothing that can be read was."""
        try:
            said: Any = json.loads(self._path.read_bytes())
            if said["root"] != self._root:
                return None
            return TrustCommits(str(said["main"]), tuple(map(str, said["commits"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, found: TrustCommits) -> None:
        """Remember it. Where nothing can be written, every push walks further."""
        body = {"root": self._root, "main": found.tip, "commits": found.commits}
        try:
            self._path.parent.mkdir(exist_ok=True)
            hook.replace_file(self._path, json.dumps(body).encode(), 0o644)
        except OSError:
            return


def judge_push(origin: str, root: TrustRoot, updates: tuple[RefUpdate, ...]) -> tuple[Refused, ...]:
    """Why a push to the repository in which this hook runs may not land; see `uses.audit.guard.guard`."""
    gitdir = git_directory(Path(origin).resolve())
    repo = IncomingRepo(gitdir, root.refs, os.environ)
    try:
        return guard(repo, root, updates, _means(gitdir, root), datetime.now(UTC))
    finally:
        repo.close()


def install(origin: str, root: TrustRoot) -> tuple[Path, bool]:
    """Put the hook into a bare repository, and remember where its trust changed; the hook's path, and whether git
    there checks received objects too.

    Raises as `adapters.git.hook.install`, and Refused("genesis-mismatch") for another project's repository.
    """
    gitdir = hook.bare(origin)
    repo = IncomingRepo(gitdir, root.refs, {})
    try:
        prime(repo, root, _means(gitdir, root))
    finally:
        repo.close()
    path = hook.install(gitdir, root.dumps(), PROGRAM)
    return path, hook.checks_objects(gitdir)


def _means(gitdir: Path, root: TrustRoot) -> Means:
    from controller.adapters.gates.cel import CelWorker

    # Its process starts with the first question.
    return Means(verify_ssh, FileMemory(gitdir, root), CelWorker().ask)
