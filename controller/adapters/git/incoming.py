"""A repository as a receive hook sees it: its refs as they stand, and beside its objects those of the push.

git keeps what a push brings in a quarantine directory until the hooks said yes (git-receive-pack(1), "Quarantine
Environment"): GIT_QUARANTINE_PATH names it, GIT_OBJECT_DIRECTORY is the same, and the repository's own objects
are among GIT_ALTERNATE_OBJECT_DIRECTORIES. libgit2 knows nothing of that, so the directory is added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pygit2

from controller.adapters.git import locate
from controller.adapters.git.direct import DirectOrigin
from controller.adapters.git.refs import RefFiles
from controller.adapters.git.repo import GitRepo, Origin
from controller.adapters.git.store import ObjectStore
from controller.errors import Unavailable, UsageError
from controller.model.trustroot import RootRefs


class _QuarantinedStore(ObjectStore):
    """The objects of a git directory and those of further object directories."""

    def __init__(self, gitdir: Path, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        super().__init__(gitdir)

    def refresh(self) -> None:
        """See ObjectStore."""
        super().refresh()
        try:
            for folder in self._folders:
                self._repo.odb.add_disk_alternate(str(folder))
        except pygit2.GitError as error:
            raise Unavailable(
                "quarantine-unreadable",
                "what the push brings cannot be read",
                where=", ".join(map(str, self._folders)),
                expected="the object directory that git keeps it in",
                got=str(error)[:200],
                cure="push again; look at the origin's disk",
            ) from error


class IncomingRepo(GitRepo):
    """A local origin opened for reading in place, with the objects of a push that has not landed."""

    def __init__(self, gitdir: Path, refs: RootRefs, environ: Mapping[str, str]) -> None:
        self._folders = quarantine(gitdir, environ)
        super().__init__(
            str(gitdir), None, main=refs.main, requests=refs.requests, evidence=refs.evidence, reader=True
        )

    def _open(self, place: locate.Place, state_dir: Path | None, timeout: float, reader: bool) -> Origin:
        if place.gitdir is None or not place.files:
            raise UsageError(
                "guard-repository",
                "the hook runs in the origin itself",
                where=place.url,
                expected="a local repository whose refs are files",
                got="another one",
                cure="install the hook in the origin's own folder",
            )
        locate.check_complete(place.gitdir)
        store = _QuarantinedStore(place.gitdir, self._folders)
        return DirectOrigin(place.gitdir, store, RefFiles(place.gitdir), reader=True)

    def intact(self, since: str = "") -> str | None:
        """No: what is only just coming in has no checksums of its own yet."""
        return None


def quarantine(gitdir: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The object directories beside the repository's own that the environment of a hook names."""
    own = (gitdir / "objects").resolve()
    named = [environ.get("GIT_QUARANTINE_PATH", ""), environ.get("GIT_OBJECT_DIRECTORY", "")]
    found: dict[Path, None] = {}
    for name in filter(None, named):
        # A relative name counts from where git started the hook, which is the git directory.
        path = (gitdir / name).resolve()
        if path != own:
            found[path] = None
    return tuple(found)
