"""Every origin that is not written in place: pushed to by the git program, and read from a mirror.

A mirror of a local origin borrows its objects (gitrepository-layout(5), objects/info/alternates): nothing is
fetched, and only what is to be pushed is stored in it.

`git push --atomic --force-with-lease=REF:OID` is the compare-and-swap; libgit2's push is not one.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pygit2

from controller.adapters.git import locate
from controller.adapters.git.direct import store_objects
from controller.adapters.git.locate import Place
from controller.adapters.git.pack import Sink
from controller.adapters.git.program import Outcome, git
from controller.adapters.git.refs import RefFiles, ref_moved
from controller.adapters.git.store import ObjectStore
from controller.crashpoints import reached
from controller.errors import Conflict, LockgateError, Refused, Unavailable
from controller.model.history import Tips

_LOCK_LOST: Final = re.compile(r"^remote: error: cannot lock ref .* is at [0-9a-f]+ but expected", re.MULTILINE)
"""The origin's own words when a rival moved the ref between its reading and its locking of it."""
_MOVED: Final = re.compile(
    r"stale info|non-fast-forward|fetch first|cannot lock ref|failed to update ref|reference already exists"
    r"|incorrect old value|failed to lock"
)
_FSCK: Final = re.compile(r"object ([0-9a-f]{40}): (\w+): ([^|]*)")
_UNAUTHORIZED: Final = re.compile(
    r"Authentication failed|could not read (?:Username|Password)|terminal prompts disabled"
    r"|requested URL returned error: 40[13]|Permission denied \(|HTTP 40[13]"
)
_UNTRUSTED: Final = re.compile(
    r"certificate verification failed|SSL certificate problem|certificate subject name|no alternative certificate"
)
_NO_ROOM: Final = re.compile(r"No space left on device|Disk quota exceeded|Read-only file system")
_HOST_KEY: Final = re.compile(r"^Host key verification failed", re.MULTILINE)
_HOST_KEY_LINE: Final = re.compile(r"^Offending|host key is known|^Host key")
_COMMIT_FSCK: Final = re.compile(
    r"nulInCommit|multipleAuthors|[Cc]ommit|Author|Committer|badDate|badParent|Timezone"
)


class MirroredOrigin:
    """Reads a mirror in the state directory, brings it up to date on observe(), writes by push."""

    def __init__(self, place: Place, gitdir: Path, refs: tuple[str, ...], *, timeout: float, owner: str) -> None:
        self.gitdir = gitdir
        self._place = place
        self._wanted = refs
        self._timeout = timeout
        self._refs = RefFiles(gitdir, owner)
        if not self._whole():
            self._make()
        locate.check_complete(gitdir)
        if place.gitdir is not None and place.files:
            borrowed = gitdir / "objects" / "info" / "alternates"
            borrowed.write_text(f"{(place.gitdir / 'objects').resolve()}\n", encoding="utf-8")
        self.store = ObjectStore(gitdir)
        self._origin_refs = RefFiles(place.gitdir) if place.gitdir is not None and place.files else None

    def _whole(self) -> bool:
        """Whether the mirror that is there can be read: a cut of the power may leave files of it empty or away."""
        borrowed = self.gitdir / "objects" / "info" / "alternates"
        try:
            # libgit2 opens a repository whose HEAD is empty, and git does not.
            if not (self.gitdir / "HEAD").read_bytes():
                return False
            store = ObjectStore(self.gitdir)
            for ref in self._wanted if not borrowed.exists() else ():
                tip = self._refs.read(self._tracking(ref))
                if tip is not None:
                    store.raw(store.root(tip), b"tree")
            store.close()
        except (LockgateError, OSError):
            return False
        return True

    def _make(self) -> None:
        """An empty mirror, in place of whatever is there: all that it held is fetched again."""
        shutil.rmtree(self.gitdir, ignore_errors=True)
        self.gitdir.parent.mkdir(parents=True, exist_ok=True)
        outcome = git(None, ["init", "-q", "--bare", "--template=", str(self.gitdir)], timeout=self._timeout)
        if outcome.code:
            raise self._unanswered(outcome)

    def _tracking(self, ref: str) -> str:
        return "refs/remotes/origin/" + ref.removeprefix("refs/")

    def known(self, ref: str) -> str | None:
        """The tip as last seen; of a local origin, as it is now.

        A branch that is asked for the first time is fetched, and followed from then on.
        """
        if self._origin_refs is not None:
            return self._origin_refs.read(ref)
        if ref not in self._wanted:
            if not pygit2.reference_is_valid_name(ref):
                return None
            self._wanted += (ref,)
            self._fetch()
        return self._refs.read(self._tracking(ref))

    def observe(self, main: str, requests: str, evidence: str) -> Tips:
        """Fetch and return the tips. Raises Unavailable when the origin does not answer in time."""
        self._fetch()
        return Tips(main=self.known(main), requests=self.known(requests), evidence=self.known(evidence))

    def _fetch(self) -> None:
        if self._origin_refs is not None and self._place.gitdir is not None:
            if not (self._place.gitdir / "HEAD").is_file():
                raise self._unavailable("no repository at the origin's path")
            locate.check_complete(self._place.gitdir)
            return
        # The trailing * makes a pattern of each name: an absent branch is then no error, and --prune forgets it.
        specs = [f"+{ref}*:{self._tracking(ref)}*" for ref in self._wanted]
        options = [
            "--quiet",
            "--no-tags",
            "--prune",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--atomic",
        ]
        outcome = self._git(["fetch", *options, "--", self._place.url, *specs])
        if outcome.code:
            raise self._fetch_error(outcome)
        self.store.refresh()
        locate.check_complete(self.gitdir)

    def publish(self, ref: str, expected: str | None, new: str, made: Sink) -> None:
        """Store `made` in the mirror and push. Raises Conflict, Refused("push-rejected") or Unavailable."""
        stored = store_objects(self.store, made)
        self._push(ref, expected, new)
        if stored is not None and self._origin_refs is not None:
            # The origin has them now. What was not taken stays: another push may be on its way with it.
            for path in (stored.with_suffix(".idx"), stored):
                path.unlink(missing_ok=True)

    def _push(self, ref: str, expected: str | None, new: str) -> None:
        reached("push-before")
        lease = f"--force-with-lease={ref}:{expected or ''}"
        try:
            outcome = self._git(
                ["push", "--porcelain", "--atomic", "--no-verify", lease, "--", self._place.url, f"{new}:{ref}"]
            )
        except Unavailable as error:
            self._settle(ref, new, error)
            return
        if outcome.code:
            self._settle(ref, new, self._push_error(ref, expected, outcome))
            return
        if any(line.startswith("=") for line in outcome.out.splitlines()):
            # The origin was there already: a rival with the same key decided the same and was first.
            raise ref_moved(ref, expected, new)
        reached("push-after")
        if self._origin_refs is None:
            self._refs.force(self._tracking(ref), new)

    def _settle(self, ref: str, new: str, error: LockgateError) -> None:
        """A push whose answer got lost may have landed: the error stands unless the origin is at `new`."""
        if not isinstance(error, Unavailable):
            raise error
        try:
            self._fetch()
        except LockgateError:
            raise error from None
        if self.known(ref) != new:
            raise error

    def _push_error(self, ref: str, expected: str | None, outcome: Outcome) -> LockgateError:
        status = next((line for line in outcome.out.splitlines() if line.startswith("!")), "")
        if not status:
            return self._unanswered(outcome)
        if _MOVED.search(status) or _LOCK_LOST.search(outcome.err):
            moved: Conflict = ref_moved(ref, expected, "another commit")
            return moved
        if _NO_ROOM.search(outcome.err):
            return self._no_room(outcome)
        return self._rejected(ref, status, outcome)

    def _rejected(self, ref: str, status: str, outcome: Outcome) -> Refused:
        reason = status.rpartition("\t")[2]
        said = [
            line.removeprefix("remote:").strip() for line in outcome.err.splitlines() if line.startswith("remote:")
        ]
        return Refused(
            "push-rejected",
            "the origin refuses the push",
            where=f"{ref} at {self._place.url}",
            expected="an origin that lets the controller write this branch",
            got=" | ".join([reason, *filter(None, said)])[:600],
            cure="let the controller's account push this branch, or change the hook that said no",
        )

    def _no_room(self, outcome: Outcome) -> Unavailable:
        return Unavailable(
            "origin-unavailable",
            "the origin cannot store the push",
            where=self._place.url,
            expected="room on its disk, and the right to write there",
            got=outcome.words,
            cure="free space on the origin's disk; nothing was recorded",
            retry_after=5.0,
        )

    def _fetch_error(self, outcome: Outcome) -> LockgateError:
        found = _FSCK.search(outcome.err)
        if found is None:
            return self._unanswered(outcome)
        code = "commit-malformed" if _COMMIT_FSCK.search(found[2]) else "tree-malformed"
        return Refused(
            code,
            "the origin offers an object that git refuses",
            where=found[1],
            expected="objects that pass git fsck --strict",
            got=f"{found[2]}: {found[3].strip()}",
            cure="rewrite the commit that brought it; nothing was fetched",
        )

    def _git(self, arguments: list[str]) -> Outcome:
        return git(self.gitdir, arguments, timeout=self._timeout, where=self._place.url)

    def _unanswered(self, outcome: Outcome) -> Unavailable:
        got = outcome.words or f"git ended with {outcome.code}"
        if _HOST_KEY.search(outcome.err):
            return Unavailable(
                "origin-untrusted",
                "the origin cannot prove that it is who it should be",
                where=self._place.url,
                expected="the host key that known_hosts holds for it",
                got=" | ".join(line.strip() for line in outcome.err.splitlines() if _HOST_KEY_LINE.search(line)),
                cure="ask who runs the host; if they changed its key, put the new one into known_hosts",
                retry_after=5.0,
            )
        if _UNTRUSTED.search(outcome.err):
            return Unavailable(
                "origin-untrusted",
                "the origin cannot prove that it is who it should be",
                where=self._place.url,
                expected="a certificate for this host by a trusted authority, or a known host key",
                got=got,
                cure="name your authority in GIT_SSL_CAINFO, or git's http.sslCAInfo where that is not set",
                retry_after=5.0,
            )
        if _UNAUTHORIZED.search(outcome.err):
            return Unavailable(
                "origin-unauthorized",
                "the origin does not accept the credentials",
                where=self._place.url,
                expected="credentials that git finds without asking anybody",
                got=got,
                cure="give git a credential helper or a key that the origin accepts; try `git ls-remote` with it",
                retry_after=5.0,
            )
        return self._unavailable(got)

    def _unavailable(self, got: str) -> Unavailable:
        return Unavailable(
            "origin-unavailable",
            "the origin does not answer",
            where=self._place.url,
            expected="an answer to git",
            got=got,
            cure="check the address, the network and the credentials",
            retry_after=5.0,
        )
