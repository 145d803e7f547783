"""The Repo port over git: one observed origin, local or remote."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import pygit2

from controller.adapters.git import locate
from controller.adapters.git.direct import DirectOrigin
from controller.adapters.git.history import Graph
from controller.adapters.git.integrity import intact
from controller.adapters.git.maintain import Maintenance
from controller.adapters.git.mirror import MirroredOrigin
from controller.adapters.git.objects import EMPTY_TREE
from controller.adapters.git.pack import Sink
from controller.adapters.git.refs import RefFiles, ref_moved, unwritable
from controller.adapters.git.store import ObjectStore, corrupt
from controller.adapters.git.trees import Replica
from controller.adapters.git.watch import Waker, watcher
from controller.adapters.git.writer import Builder
from controller.model.history import Change, Commit, NewCommit, Tips, TreeFile
from controller.ports import Signer


class Origin(Protocol):
    """Where the refs are: read them, and move one by compare-and-swap."""

    gitdir: Path
    store: ObjectStore

    def known(self, ref: str) -> str | None: ...

    def observe(self, main: str, requests: str, evidence: str) -> Tips: ...

    def publish(self, ref: str, expected: str | None, new: str, made: Sink) -> None: ...


def full_ref(name: str) -> str:
    """ "main" → "refs/heads/main"; a full name stays."""
    return name if name.startswith("refs/") else f"refs/heads/{name}"


class GitRepo:
    """Implements ports.Repo over a git origin.

    `origin` is a path, file://, ssh://, scp-like or http(s):// address. A hookless local origin is opened in
    place; every other one is read through a mirror in `state_dir` (None: a temporary directory, gone at close())
    and written by `git push`. `timeout` bounds every git subprocess, in seconds.
    """

    def __init__(
        self,
        origin: str,
        state_dir: Path | None,
        *,
        main: str = "main",
        requests: str = "lockgate/requests",
        evidence: str = "lockgate/evidence",
        name: str = "Lockgate",
        email: str = "controller@lockgate.invalid",
        timeout: float = 60.0,
        reader: bool = False,
    ) -> None:
        self.main, self.requests, self.evidence = map(full_ref, (main, requests, evidence))
        self.origin = origin
        place = locate.locate(origin)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._reopen = partial(self._open, state_dir=state_dir, timeout=timeout, reader=reader)
        self._who = (name, email)
        self._adopt(self._reopen(place))
        self._waker: Waker = watcher(place.gitdir)

    def _adopt(self, origin: Origin) -> None:
        self._origin = origin
        self.store = origin.store
        self._graph = Graph(self.store)
        self._builder = Builder(self.store, *self._who)
        self._maintenance = Maintenance(self.store)

    def _respect_hooks(self) -> None:
        """An origin that got a hook since it was opened is from now on pushed to, so that the hook is asked."""
        if isinstance(self._origin, DirectOrigin) and self._origin.has_hooks():
            self._maintenance.close()
            self._adopt(self._reopen(locate.locate(self.origin)))
            self.observe()

    def _open(self, place: locate.Place, state_dir: Path | None, timeout: float, reader: bool) -> Origin:
        if place.gitdir is not None:
            locate.check_complete(place.gitdir)
            if place.direct or (reader and place.files):
                owner = locate.owner_token(state_dir) if state_dir is not None else "-"
                refs = RefFiles(place.gitdir, owner)
                return DirectOrigin(place.gitdir, ObjectStore(place.gitdir), refs, reader=reader)
        if state_dir is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="lockgate-mirror-")
            state_dir = Path(self._scratch.name)
        wanted = (self.main, self.requests, self.evidence)
        owner = locate.owner_token(state_dir)
        try:
            return MirroredOrigin(place, state_dir / "repo.git", wanted, timeout=timeout, owner=owner)
        except OSError as error:
            raise unwritable(state_dir, error) from error

    @classmethod
    def read_only(
        cls,
        origin: str | os.PathLike[str],
        *,
        main: str = "main",
        requests: str = "lockgate/requests",
        evidence: str = "lockgate/evidence",
    ) -> Self:
        """A reader without a state directory, for the CLI and verify; it cannot be appended to.

        A local origin is opened in place, hooks or not; a remote one is cloned into a temporary directory that
        close() removes.
        """
        return cls(os.fspath(origin), None, main=main, requests=requests, evidence=evidence, reader=True)

    @property
    def gitdir(self) -> Path:
        """The git directory whose objects are read."""
        return self._origin.gitdir

    def observe(self) -> Tips:
        """The tips of the three branches now; fetches first when the origin is mirrored."""
        return self._origin.observe(self.main, self.requests, self.evidence)

    def known(self, ref: str) -> str | None:
        """The tip of any branch: now for an origin opened in place, as last observed or first asked for a mirrored
        one."""
        return self._origin.known(full_ref(ref))

    def commit(self, oid: str) -> Commit:
        """A commit, its signature checked. Raises Refused("object-corrupt")."""
        return self.store.commit(oid)

    def first_parents(self, tip: str, until: str | None) -> list[Commit]:
        """First-parent commits after `until` up to `tip`, oldest first."""
        return self._graph.first_parents(tip, until)

    def chain(self, tip: str) -> list[str]:
        """The ids of the first-parent chain up to `tip`, oldest first, signatures not checked."""
        return self._graph.chain(tip)

    def chain_after(self, tip: str, until: str) -> list[str] | None:
        """The ids of the first-parent chain after `until` up to `tip`; None when it does not hold `until`."""
        return self._graph.chain_after(tip, until)

    def brought(self, first: str, second: str) -> list[Commit]:
        """Commits reachable from `second` and not from `first`, oldest first."""
        return self._graph.brought(first, second)

    def merge_bases(self, one: str, two: str) -> list[str]:
        """All best common ancestors."""
        return self._graph.merge_bases(one, two)

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` contains `old`."""
        return self._graph.is_ancestor(old, new)

    def changes(self, old: str | None, new: str) -> list[Change]:
        """Paths that differ between two commits' trees, sorted by path."""
        before = EMPTY_TREE if old is None else self.store.root(old)
        return self.store.changes(before, self.store.root(new))

    def file(self, commit: str, path: str) -> TreeFile | None:
        """The file at `path`, or None."""
        return self.store.file(self.store.root(commit), path)

    def files(self, commit: str, prefix: str = "") -> Iterator[tuple[str, TreeFile]]:
        """Every file below `prefix`, sorted by path."""
        return self.store.files(self.store.root(commit), prefix)

    def read(self, blob: str) -> bytes:
        """A blob's bytes, checked against its id."""
        return self.store.raw(blob, b"blob")

    def intact(self, since: str = "") -> str | None:
        """Whether the object database is what its own checksums say: a mark for the next look, or None."""
        return intact(self.gitdir / "objects", since)

    def replica(self, commit: str | None) -> Replica:
        """A commit's tree (None: the empty one), to be changed in memory."""
        tree = self.store.root(commit) if commit is not None else EMPTY_TREE
        return Replica(tree, self.store.tree, self.store.holds)

    def raw(self, oid: str) -> tuple[str, bytes]:
        """An object's kind and bytes, checked against its id. Raises Refused("object-corrupt")."""
        try:
            kind: str = self.store.repository[oid].type_str
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise corrupt(oid, "no such object, or one that cannot be read") from error
        return kind, self.store.raw(oid, kind.encode())

    def append(
        self,
        ref: str,
        expected: str | None,
        commits: Sequence[NewCommit],
        signer: Signer,
        base: str | None = None,
    ) -> list[str]:
        """Write signed commits on top of `expected` and swap `ref` once; see ports.Repo."""
        name = full_ref(ref)
        if not commits:
            return []
        self._respect_hooks()
        self._check_tip(name, expected)
        oids, made = self._builder.build(expected, commits, signer, base)
        self.publish(name, expected, oids[-1], made)
        return oids

    def publish(self, ref: str, expected: str | None, new: str, made: Sink) -> None:
        """Store objects and swap `ref`; nothing that was not stored is remembered."""
        try:
            self._origin.publish(full_ref(ref), expected, new, made)
        except BaseException:
            self._builder.forget()
            raise

    def _check_tip(self, ref: str, expected: str | None) -> None:
        """Fail before signing when the swap is lost already, as far as this machine knows."""
        current = self.known(ref)
        if current != expected:
            raise ref_moved(ref, expected, current)

    def maintain(self, *, wait: bool = False) -> bool:
        """Repack when many packs have gathered: in the background, or before returning with `wait`."""
        return self._maintenance.run(wait=wait)

    def wait(self, timeout: float) -> bool:
        """Block until the origin's refs may have changed (True) or `timeout` seconds passed (False)."""
        return self._waker.wait(timeout)

    def wake(self) -> None:
        """End a wait() early from another thread."""
        self._waker.wake()

    def close(self) -> None:
        """Stop watching and release files."""
        self._waker.close()
        self._maintenance.close()
        self.store.close()
        if self._scratch is not None:
            self._scratch.cleanup()
