"""What a file of a commit says."""

from __future__ import annotations

from controller.ports import Repo


def content_at(repo: Repo, commit: str, path: str) -> bytes | None:
    """The bytes of one file of a commit's tree; None where it has none. Raises Refused("object-corrupt")."""
    file = repo.file(commit, path)
    return repo.read(file.blob) if file is not None else None
