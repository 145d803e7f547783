"""A local origin without hooks, opened directly: reading files, swapping refs under git's own lock."""

from __future__ import annotations

from pathlib import Path

from controller.adapters.git import locate
from controller.adapters.git.pack import Sink
from controller.adapters.git.refs import RefFiles, unwritable
from controller.adapters.git.store import ObjectStore
from controller.errors import Unavailable, UsageError
from controller.model.history import Tips


class DirectOrigin:
    """Reads and writes the origin's own git directory."""

    def __init__(self, gitdir: Path, store: ObjectStore, refs: RefFiles, *, reader: bool = False) -> None:
        self.gitdir = gitdir
        self.store = store
        self._refs = refs
        self._reader = reader

    def observe(self, main: str, requests: str, evidence: str) -> Tips:
        """The tips now; no object is read."""
        read = self._refs.read
        if not (self.gitdir / "HEAD").exists():
            raise gone(self.gitdir)
        return Tips(main=read(main), requests=read(requests), evidence=read(evidence))

    def has_hooks(self) -> bool:
        """Whether somebody put a hook there since this origin was opened for writing."""
        return not self._reader and locate.has_hooks(self.gitdir)

    def known(self, ref: str) -> str | None:
        """The tip of one ref now."""
        return self._refs.read(ref)

    def publish(self, ref: str, expected: str | None, new: str, made: Sink) -> None:
        """Store `made` and move `ref`, both durably."""
        if self._reader:
            raise UsageError(
                "repository-read-only",
                "this repository was opened for reading",
                where=str(self.gitdir),
                expected="a repository opened with a state directory",
                got="an append",
                cure="open it for writing",
            )
        store_objects(self.store, made)
        self._refs.swap(ref, expected, new)


def gone(gitdir: Path) -> Unavailable:
    """The origin is not there (an unmounted disk, a moved folder)."""
    return Unavailable(
        "origin-unavailable",
        "the origin is not there",
        where=str(gitdir),
        expected="a git repository",
        got="none",
        cure="check the path and its mount",
        retry_after=5.0,
    )


def store_objects(store: ObjectStore, made: Sink) -> Path | None:
    """Write objects durably and return their pack, None when there are none; a full or failing disk is
    Unavailable("disk-unavailable")."""
    if not made:
        return None
    try:
        return store.write(made)
    except OSError as error:
        raise unwritable(store.gitdir / "objects", error) from error
