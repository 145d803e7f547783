"""One commit of the requests branch, read and judged: by the controller, by whoever guards a push, by `verify`."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime

from controller.core.requests import RequestVerdict, judge_request
from controller.core.trust import TrustState
from controller.model.history import Change, Commit
from controller.ports import Repo
from controller.uses.acknowledged import seen_here


@dataclass(frozen=True, slots=True)
class Asked:
    """A commit, what it changes, and the bytes of the file that it adds: None unless that is its one change."""

    commit: Commit
    changes: list[Change]
    data: bytes | None


def read_asked(repo: Repo, oid: str) -> Asked:
    """A commit of the requests branch. Raises Refused("object-corrupt")."""
    commit = repo.commit(oid)
    changes = repo.changes(commit.parents[0] if commit.parents else None, oid)
    added = changes[0].new if len(changes) == 1 else None
    # Only a regular file is read: a submodule's id names no blob, and no commit may break who reads the branch.
    data = repo.read(added.blob) if added is not None and added.mode == 0o100644 else None
    return Asked(commit, changes, data)


def judge_asked(
    repo: Repo, asked: Asked, trust: TrustState, project: str, at: datetime, seen: Set[str], evidence: str | None
) -> RequestVerdict:
    """Trust's verdict at `at`. `seen` are the ids of requests judged before, `evidence` the commit of the evidence
    branch on which it is judged."""
    verdict = judge_request(asked.commit, asked.changes, asked.data, trust, project, at, seen)
    return seen_here(repo, verdict, evidence)
