"""Putting a receive hook into a bare repository (githooks(5))."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from controller.adapters.git import locate
from controller.adapters.git.program import git
from controller.errors import Refused, UsageError

FOLDER = "lockgate"
"""Below the git directory: the pinned root and what the hook remembers."""
ROOT = "trust-root.json"
_MARK = "# Written by `lockgate guard --install`; installing again replaces it."
_SECONDS = 60.0


def install(gitdir: Path, root: str, program: Sequence[str]) -> Path:
    """Write `hooks/pre-receive`, which calls `program`, and the trust root's text beside it; the hook's path.

    Raises Refused("hook-exists" | "hook-elsewhere"), Refused("guard-failed") when it does not answer.
    """
    path = gitdir / "hooks" / "pre-receive"
    _check_runs(gitdir, path.parent)
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise Refused(
            "hook-exists",
            "another pre-receive hook is there already",
            where=str(path),
            expected="none, or one that `lockgate guard --install` wrote",
            got="another",
            cure="move it away, or call `lockgate guard` from it with the same standard input",
        )
    (gitdir / FOLDER).mkdir(exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    replace_file(gitdir / FOLDER / ROOT, root.encode(), 0o644)
    replace_file(path, _script(program).encode(), 0o755)
    _check_answers(gitdir, path)
    return path


def checks_objects(gitdir: Path) -> bool:
    """Whether the origin makes git check the objects that it receives."""
    command = ["config", "--type=bool", "--get", "receive.fsckObjects"]
    return git(gitdir, command, timeout=_SECONDS, where=str(gitdir)).out.strip() == "true"


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".lockgate-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _script(program: Sequence[str]) -> str:
    command = " ".join(map(shlex.quote, program))
    return f"""#!/bin/sh
{_MARK}
# Exit code 0 lets the push land, every other one refuses it, whatever went wrong. Who pushes may have a say in the
# environment, but not in what the command is asked to do.
for name in $(env | sed -n 's/^\\(LOCKGATE_[A-Za-z0-9_]*\\)=.*/\\1/p'); do unset "$name"; done
here=${{GIT_DIR:-.}}
{command} --repo "$here" guard --trust-root "$here/{FOLDER}/{ROOT}"
status=$?
case $status in
0 | 1) exit $status ;;
esac
echo "lockgate: guard-failed: the push could not be judged, so it is refused; ask who runs this origin" >&2
exit 1
"""


def bare(origin: str) -> Path:
    """The git directory of a bare repository on this machine. Raises UsageError("guard-repository")."""
    gitdir = locate.locate(origin).gitdir
    bare = False
    if gitdir is not None:
        said = git(gitdir, ["rev-parse", "--is-bare-repository"], timeout=_SECONDS, where=str(gitdir))
        bare = said.out.strip() == "true"
    if gitdir is None or not bare:
        raise UsageError(
            "guard-repository",
            "the hook belongs into the origin itself",
            where=origin,
            expected="the folder of a bare repository on this machine",
            got="an address of another machine" if gitdir is None else "a repository with a work tree",
            cure="call it where the origin is, with its folder",
        )
    return gitdir


def _check_runs(gitdir: Path, folder: Path) -> None:
    said = git(gitdir, ["rev-parse", "--git-path", "hooks"], timeout=_SECONDS, where=str(gitdir))
    used = (gitdir / said.out.strip()).resolve()
    if used != folder.resolve():
        raise Refused(
            "hook-elsewhere",
            "git would not run a hook there",
            where=str(folder),
            expected="the folder that git runs this repository's hooks from",
            got=f"core.hooksPath says {used}",
            cure="unset core.hooksPath for this repository",
        )


def _check_answers(gitdir: Path, path: Path) -> None:
    """Run the hook on an empty push: a hook that cannot run would refuse every one."""
    environ = {"PATH": os.environ.get("PATH", os.defpath), "GIT_DIR": "."}
    try:
        done = subprocess.run(
            [path], cwd=gitdir, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
        )
        code, said = done.returncode, done.stderr.decode("utf-8", "replace").strip()
    except (OSError, subprocess.SubprocessError) as error:
        code, said = -1, str(error)
    if code:
        raise Refused(
            "guard-failed",
            "the hook is in place and cannot run: every push will be refused",
            where=str(path),
            expected="a hook that lets an empty push pass",
            got=said[-300:] or f"exit code {code}",
            cure="mend what it says, and install again",
        )
