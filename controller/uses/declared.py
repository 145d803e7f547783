"""Collecting what proves the project's agents, for those who hold only a trust root."""

from __future__ import annotations

from controller.core.chain import tree_entries
from controller.core.declared import FOLDER, Declared, may_vouch
from controller.core.trust import TrustState
from controller.errors import Unavailable
from controller.ports import Repo

MOST_STEPS = 10_000


def declaration(repo: Repo, accepted: str, trust: TrustState) -> Declared:
    """The newest accepted commit of main that a person signed who can vouch for agents, with its agents.

    The controller's own commits (locks, reverts) change no agent and are passed over. Raises
    Unavailable("agents-undeclared").
    """
    at = accepted
    for _ in range(MOST_STEPS):
        commit = repo.commit(at)
        files = [(path, file) for path, file in repo.files(at, FOLDER) if path.endswith(".yaml")]
        if files and all(may_vouch(commit, trust, path) for path, _ in files):
            top = repo.raw(commit.tree)[1]
            folder = (tree_entries(top) or {})[FOLDER.encode()][1]
            documents = {path.removeprefix(f"{FOLDER}/"): repo.read(file.blob) for path, file in files}
            return Declared(
                commit=repo.raw(at)[1],
                trees=[top, repo.raw(folder)[1]],
                documents={name: data for name, data in documents.items() if "/" not in name},
            )
        if not commit.parents:
            break
        at = commit.parents[0]
    raise Unavailable("agents-undeclared", "no commit of main vouches for its agents", retry_after=30)
