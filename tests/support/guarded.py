"""An origin with the guard's hook, and clones in which attacks are made and pushed by stock git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from controller.adapters.git.keys import FileSigner, generate_key
from controller.adapters.git.people import write_commit
from controller.core.requests import write_request
from controller.model.history import NewCommit
from controller.model.request import Request
from controller.wiring.people import Person, commit_on, now
from tests.support.real_run import lockgate
from tests.support.site import EVIDENCE, Site

MAIN = "refs/heads/main"
REQUESTS = "refs/heads/lockgate/requests"


def install(site: Site) -> subprocess.CompletedProcess[str]:
    """Put the hook into the origin."""
    done = lockgate("guard", "--install", site.stage.origin, "--trust-root", site.stage.trust_root)
    assert done.returncode == 0, done.stderr
    return done


def settle(site: Site, key: str = "controller") -> None:
    """A controller does all that can be done now, through the hook; nothing stops it."""
    made = site.controller(key=key)
    try:
        error = made.loop.run_until_quiet()
    finally:
        made.close()
    assert error is None, str(error)


class Clone(Site):
    """A copy of the origin without its hook, where anything can be made; `push` sends it to the origin."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.target = ""
        self.environ: Mapping[str, str] = {}

    @classmethod
    def of(cls, origin: Site, folder: Path) -> Clone:
        made = cls.copy(origin.stage, folder)
        assert isinstance(made, Clone)
        (made.stage.origin / "hooks" / "pre-receive").unlink()
        made.target = str(origin.stage.origin)
        return made

    def push_to(self, *what: str) -> subprocess.CompletedProcess[str]:
        """`git push` of these refspecs to the hooked origin."""
        return subprocess.run(
            ["git", "-C", str(self.stage.origin), "push", self.target, *what],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C", **self.environ},
            timeout=100,
        )

    def refs(self) -> str:
        """Every ref of the hooked origin."""
        done = subprocess.run(
            ["git", "ls-remote", self.target],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **self.environ},
        )
        return done.stdout

    def refused(self, code: str, *what: str) -> str:
        """Push and be refused with this code; nothing moved. What the hook said."""
        before = self.refs()
        done = self.push_to(*what)
        assert done.returncode != 0, "it landed"
        assert f"remote: lockgate: {code}: " in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert self.refs() == before
        return done.stderr

    def lands(self, *what: str) -> None:
        """Push, and it lands."""
        done = self.push_to(*what)
        assert done.returncode == 0, done.stderr

    # -- commits -----------------------------------------------------------------------------------------

    def commit(self, by: str, files: Mapping[str, bytes | None], *parents: str, **options: Any) -> str:
        """A commit by anybody whose key is there (`by` "": unsigned by alice); no branch moves."""
        repo = self.stage.repo()
        try:
            who = self.stage.person(by or "alice")
            options = {"message": "Change", "when": now(), "signer": who.signer if by else None, **options}
            known = [self.tip(parent) for parent in parents or (MAIN,)]
            return write_commit(repo, known, files, author=who.author, **options)
        finally:
            repo.close()

    def raw_commit(self, data: bytes) -> str:
        """A commit object of these bytes, whatever they say."""
        return self.git("hash-object", "-w", "-t", "commit", "--literally", "--stdin", stdin=data)

    def key(self, name: str) -> None:
        """A key of somebody whom trust does not know."""
        generate_key(self.stage.keys / name, name)

    def branch(self, name: str, by: str, files: Mapping[str, bytes | None]) -> str:
        """A commit on a branch from main."""
        repo = self.stage.repo()
        try:
            return commit_on(repo, name, self.stage.person(by), files, "Change")
        finally:
            repo.close()

    def merged(self, by: str, side: str, first: str = "", tree: str = "") -> str:
        """A signed merge of `side` into main, with the side's tree unless told another."""
        kept = self.git("rev-parse", f"{tree or side}^{{tree}}")
        return self.commit(by, {}, first or self.tip(MAIN), side, tree=kept, message="Merge")

    def evidence(self, files: Mapping[str, bytes | None], key: str = "controller", parent: str = "") -> str:
        """A commit on evidence by the holder of a key."""
        repo = self.stage.repo()
        try:
            new = NewCommit(files, "dev: all is well", now())
            ref = EVIDENCE
            if parent:
                ref = "refs/heads/other"
                self.git("update-ref", ref, parent)
            return repo.append(ref, self.tip(ref), [new], FileSigner(self.stage.keys / key))[-1]
        finally:
            repo.close()

    def asked(
        self, by: str, at: datetime | None = None, also: Mapping[str, bytes] | None = None, **said: Any
    ) -> str:
        """A commit that adds a request to pause dev; its id."""
        at = at or now()
        made = Request(
            id=f"{at:%Y%m%d-%H%M%S}-pause-0001",
            project="shop",
            verb="pause",
            environment="dev",
            reason="look at it",
            at=at,
            expires=at + timedelta(hours=1),
        ).model_copy(update=said)
        path, data = write_request(made)
        tip = self.git("for-each-ref", "--format=%(objectname)", REQUESTS)
        repo = self.stage.repo()
        try:
            who: Person = self.stage.person(by)
            return write_commit(
                repo,
                (tip,) if tip else (),
                {path: data, **(also or {})},
                message="pause dev",
                author=who.author,
                when=at,
                signer=who.signer,
            )
        finally:
            repo.close()


__all__ = ["EVIDENCE", "MAIN", "REQUESTS", "Clone", "install", "settle"]
