"""Opening repositories for short commands: for reading, for people's commits, and their keys. Imports little."""

from __future__ import annotations

from pathlib import Path

from controller.adapters.git.keys import FileSigner
from controller.adapters.git.repo import GitRepo
from controller.model.trustroot import RootRefs, TrustRoot
from controller.ports import Signer


def read_repo(origin: str, root: TrustRoot | None = None) -> GitRepo:
    """A repository for reading; its branches as the trust root names them."""
    refs = root.refs if root is not None else RootRefs()
    return GitRepo.read_only(origin, main=refs.main, requests=refs.requests, evidence=refs.evidence)


def write_repo(origin: str, root: TrustRoot | None = None) -> GitRepo:
    """A repository that people's commits are written to; a remote one through a temporary mirror."""
    refs = root.refs if root is not None else RootRefs()
    return GitRepo(origin, None, main=refs.main, requests=refs.requests, evidence=refs.evidence)


def load_key(path: Path) -> Signer:
    """A private key. Raises Refused("key-permissions"), Invalid("key-unreadable" | "key-unusable")."""
    return FileSigner(path)
