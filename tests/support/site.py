"""One project in a bare origin, copied for each test: controllers run in this process, people push with git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller.adapters.git import sshsig
from controller.adapters.git.keys import generate_key
from controller.adapters.git.repo import GitRepo
from controller.demo.stage import Stage
from controller.errors import LockgateError
from controller.model.trustroot import TrustRoot
from controller.uses.audit.findings import VerifyReport
from controller.uses.audit.verify import verify
from controller.wiring.controller import Controller, ControllerSettings
from controller.wiring.people import commit_on, merge_branch

EVIDENCE = "refs/heads/lockgate/evidence"
WHO = ("mallory", "mallory@example.com")


class Site:
    """A stage whose controllers are made and driven by the test, pass by pass."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)

    @classmethod
    def copy(cls, stage: Stage, folder: Path) -> Site:
        """Everything of another stage but its controllers' memory."""
        made = cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(stage.origin, made.stage.origin)
        shutil.copytree(stage.keys, made.stage.keys)
        shutil.copyfile(stage.trust_root, made.stage.trust_root)
        made.stage.images = stage.images
        return made

    # -- controllers -------------------------------------------------------------------------------------

    def controller(self, state: str = "state", key: str = "controller", **settings: Any) -> Controller:
        """A controller with a state directory of this name, which remembers when it stood before."""
        return Controller(
            ControllerSettings(
                repo=str(self.stage.origin),
                trust_root=self.stage.trust_root,
                signing_key=self.stage.keys / key,
                state_dir=self.stage.folder / state,
                images=self.stage.images,
                poll=timedelta(seconds=1),
                **settings,
            )
        )

    def settle(self, state: str = "state", key: str = "controller") -> str:
        """Start a controller, let it do all that can be done now, and end it; the code of what stopped it."""
        made = self.controller(state, key)
        try:
            return quiet(made)
        finally:
            made.close()

    # -- what can be seen --------------------------------------------------------------------------------

    def git(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Stock git in the origin."""
        done = subprocess.run(
            ["git", "-C", str(self.stage.origin), *arguments],
            input=stdin,
            capture_output=True,
            check=True,
            env={**os.environ, **(env or {})},
        )
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def tip(self, ref: str = EVIDENCE) -> str:
        return self.git("rev-parse", ref)

    def changed(self, old: str, new: str) -> set[str]:
        """The paths that differ between two commits' trees."""
        return set(self.git("diff-tree", "-r", "--name-only", "--no-renames", old, new).split())

    def line(self, since: str) -> list[str]:
        """First-parent commits of evidence after `since`, oldest first."""
        return self.git("rev-list", "--first-parent", "--reverse", f"{since}..{EVIDENCE}").split()

    def verify(self) -> VerifyReport:
        """What `lockgate verify` says from the pinned root."""
        repo = GitRepo.read_only(str(self.stage.origin))
        try:
            return verify(repo, TrustRoot.load(self.stage.trust_root), verify_ssh=sshsig.verify)
        finally:
            repo.close()

    # -- what an attacker pushes -------------------------------------------------------------------------

    def push(self, tree: str, *parents: str, message: str = "prod: all is well", at: str = "") -> str:
        """An unsigned commit of a tree on top of the tip, its first parent, as the new tip of evidence; its id.

        Fails when the tip moved meanwhile, as a push would.
        """
        when = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else {}
        names = {"GIT_AUTHOR_NAME": WHO[0], "GIT_AUTHOR_EMAIL": WHO[1]}
        names |= {"GIT_COMMITTER_NAME": WHO[0], "GIT_COMMITTER_EMAIL": WHO[1], **when}
        flags = [flag for parent in parents for flag in ("-p", parent)]
        oid = self.git("commit-tree", tree, *flags, "-m", message, env=names)
        self.git("update-ref", EVIDENCE, oid, *parents[:1])
        return oid

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=data)

    def tree(self, base: str, changes: Mapping[str, tuple[str, str] | None]) -> str:
        """The tree of `base` with paths set to (mode, object id) or removed (None)."""
        env = {"GIT_INDEX_FILE": str(self.stage.folder / "index")}
        self.git("read-tree", base, env=env)
        lines = []
        for path, entry in changes.items():
            if entry is not None:
                lines.append(f"{entry[0]} {entry[1]}\t{path}")
            else:
                inside = self.git("ls-tree", "-r", "--name-only", base, "--", path).splitlines()
                lines += [f"0 {'0' * 40}\t{name}" for name in inside]
        self.git("update-index", "--index-info", stdin="\n".join(lines).encode(), env=env)
        return self.git("write-tree", env=env)


def quiet(controller: Controller) -> str:
    """Passes until nothing is left to do now; the code of what stopped it, "" when nothing did."""
    error: LockgateError | None = controller.loop.run_until_quiet()
    return error.code if error is not None else ""


def change_trust(
    stage: Stage, edit: Callable[[str], str], signers: tuple[str, ...] = ("olivia", "oscar"), by: str = "olivia"
) -> str:
    """Land the next version of the trust document, signed by these owners and merged by oscar; the merge's id."""
    repo = stage.repo()
    try:
        file = repo.file(repo.observe().main or "", "trust/trust.yaml")
        assert file is not None
        text = repo.read(file.blob).decode()
        version = int(text.partition("version: ")[2].partition("\n")[0]) + 1
        data = edit(text.replace(f"version: {version - 1}\n", f"version: {version}\n")).encode()
        files: dict[str, bytes | None] = {"trust/trust.yaml": data}
        for name in signers:
            armored = stage.person(name).signer.sign_ssh(data, "lockgate-trust")  # type: ignore[union-attr]
            files[f"trust/{version}/{name}.sig"] = armored.encode()
        branch = f"trust-{version}-{by}"
        commit_on(repo, branch, stage.person(by), files, f"Trust version {version}")
        return merge_branch(repo, branch, stage.person("oscar"), into="main", message=f"Merge {branch}")
    finally:
        repo.close()


def with_controller(stage: Stage, name: str, until: str = "") -> Callable[[str], str]:
    """An edit that gives a new key, `keys/<name>`, the role controller; the first one's may sign until `until`."""
    key = generate_key(stage.keys / name, name).public_key

    def edit(text: str) -> str:
        lines = f"    {name}:\n      keys: ['{key}']\n      emails: [{name}@example.com]\n"
        text = text.replace("  roles:\n", f"{lines}  roles:\n", 1)
        if until:
            mail = "      emails: [controller@example.com]\n"
            text = text.replace(mail, f"{mail}      validBefore: {until}\n", 1)
        return text.replace("controller: [controller]", f"controller: [controller, {name}]")

    return edit


def without_first_controller(text: str) -> str:
    """An edit that takes the first controller's key away."""
    start = text.index("    controller:\n      keys:")
    end = min(at for at in (text.find("\n    controller-2:", start), text.find("\n  roles:", start)) if at > 0)
    return (text[:start] + text[end + 1 :]).replace("controller: [controller, ", "controller: [")
