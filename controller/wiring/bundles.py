"""Git bundles where uses meet adapters: writing them from a repository, opening foreign ones in private."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from controller.adapters.git.bundle import is_bundle, unbundle, write_bundle
from controller.adapters.git.objects import object_id, parse_commit
from controller.adapters.git.repo import GitRepo
from controller.errors import Invalid, Refused, Unavailable
from controller.model.history import Commit, Tips
from controller.model.trustroot import RootRefs, TrustRoot

__all__ = ["bundle_tips", "is_bundle", "open_bundle", "private_folder", "read_commit", "saving", "write_history"]


def bundle_tips(tips: Tips, refs: RootRefs) -> dict[str, str]:
    """The branches that a bundle of the whole project holds, in its order."""
    found = {refs.main: tips.main, refs.requests: tips.requests, refs.evidence: tips.evidence}
    branches = {name: oid for name, oid in found.items() if oid is not None}
    # What a plain `git clone` of the bundle checks out.
    return ({"HEAD": tips.main} if tips.main is not None else {}) | branches


def write_history(repo: GitRepo, tips: Mapping[str, str], path: Path) -> None:
    """Write the Git bundle of these branches to a new file."""
    with path.open("xb") as out:
        write_bundle(repo.store, list(tips.items()), out)


def read_commit(oid: str, data: bytes) -> Commit:
    """A commit from its raw bytes, its signature checked. Raises Refused("object-corrupt")."""
    if object_id(b"commit", data) != oid:
        raise Refused("object-corrupt", "a commit is not what its name says", where=f"chain/{oid[:40]}")
    return parse_commit(oid, data)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary directory that nobody else reads, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="lockgate-bundle-") as name:
        yield Path(name)


@contextlib.contextmanager
def open_bundle(path: Path, root: TrustRoot, folder: Path) -> Iterator[GitRepo]:
    """The repository in a Git bundle, made below `folder`.

    Raises Invalid("bundle-malformed" | "bundle-incomplete" | "bundle-unreadable").
    """
    try:
        names = {ref: ref for ref in (root.refs.main, root.refs.requests, root.refs.evidence)}
        unbundle(path, folder / "history.git", names)
    except OSError as error:
        raise _unreadable(path, error) from error
    refs = root.refs
    repo = GitRepo.read_only(
        folder / "history.git", main=refs.main, requests=refs.requests, evidence=refs.evidence
    )
    try:
        yield repo
    finally:
        repo.close()


def _unreadable(path: Path, error: OSError) -> Invalid:
    return Invalid(
        "bundle-unreadable",
        "the bundle cannot be read",
        where=str(path),
        expected="a Git bundle",
        got=error.strerror or "an error",
        cure="check the path and its permissions",
    )


@contextlib.contextmanager
def saving(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name, whole, at the end. Raises Unavailable("file-unwritable")."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError as error:
        raise Unavailable(
            "file-unwritable",
            "the file cannot be written",
            where=str(path),
            expected="a writable place with room",
            got=error.strerror or "an error",
            cure="name another with --out",
        ) from error
    finally:
        part.unlink(missing_ok=True)
