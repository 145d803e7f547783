"""Opening repositories for short commands, for reading and for people's commits. Imports little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.adapters.git.locate import git_directory
from controller.adapters.git.refs import RefFiles
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import fingerprint
from controller.adapters.git.sshsig import verify as verify_ssh
from controller.model.trustroot import RootRefs, TrustRoot

__all__ = [
    "GitRepo",
    "ask_cel",
    "fingerprint",
    "read_repo",
    "verify_ssh",
    "write_repo",
]


def read_repo(origin: str, root: TrustRoot | None = None) -> GitRepo:
    """A repository for reading; its branches as the trust root names them.

    In a clone that tracks the project's branches without having made them its own, the tracked ones are read:
    they are what was last fetched.
    """
    refs = root.refs if root is not None else RootRefs()
    main, requests, evidence = refs.main, refs.requests, refs.evidence
    if _only_tracks(origin, evidence):
        main, requests, evidence = (_tracked(ref) for ref in (main, requests, evidence))
    return GitRepo.read_only(origin, main=main, requests=requests, evidence=evidence)


def _tracked(ref: str) -> str:
    return ref.replace("refs/heads/", "refs/remotes/origin/", 1)


def _only_tracks(origin: str, ref: str) -> bool:
    path = Path(origin)
    if not (path / ".git").exists():
        return False
    refs = RefFiles(git_directory(path))
    return refs.read(ref) is None and refs.read(_tracked(ref)) is not None


def write_repo(origin: str, root: TrustRoot | None = None) -> GitRepo:
    """A repository that people's commits are written to; a remote one through a temporary mirror."""
    refs = root.refs if root is not None else RootRefs()
    return GitRepo(origin, None, main=refs.main, requests=refs.requests, evidence=refs.evidence)


def ask_cel() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Answers CEL questions in a worker of its own, which starts with the first one."""
    from controller.adapters.gates.cel import CelWorker

    return CelWorker().ask
