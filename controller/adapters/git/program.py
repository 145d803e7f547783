"""Running the git program: bounded in time, deaf to the caller's GIT_* variables, never asking for a password."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from controller.errors import Unavailable

_KEPT: Final = frozenset(
    {
        "GIT_SSH_COMMAND",
        "GIT_SSH",
        "GIT_SSH_VARIANT",
        "GIT_ASKPASS",
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
        "GIT_SSL_CERT",
        "GIT_SSL_KEY",
        "GIT_PROXY_COMMAND",
        "GIT_EXEC_PATH",
    }
)
_SETTINGS: Final = (
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.unpackLimit=1",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "core.fsync=committed,reference",
    "protocol.ext.allow=never",
    "advice.detachedHead=false",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a git subprocess said."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Its complaint on one line, bounded."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return " | ".join(lines)[-600:]


def environment() -> dict[str, str]:
    """The environment of a git subprocess: ours without GIT_*, but with what reaches and authenticates a host."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT}
    env |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1"}
    env["SSH_ASKPASS_REQUIRE"] = "never"
    env.pop("SSH_ASKPASS", None)  # git would ask a person by it, and wait
    if "GIT_SSH" not in env:
        command = env.get("GIT_SSH_COMMAND") or _configured_ssh(env.get("HOME", "")) or "ssh"
        env["GIT_SSH_COMMAND"] = command + " -o BatchMode=yes"
    return env


@lru_cache(maxsize=4)
def _configured_ssh(_home: str) -> str:
    """The user's core.sshCommand, which GIT_SSH_COMMAND would hide."""
    command = ["git", "config", "--global", "--get", "core.sshCommand"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def git(
    gitdir: Path | None, arguments: Sequence[str], *, timeout: float, where: str = "", nice: bool = False
) -> Outcome:
    """Run git in `gitdir`; kills it and its children after `timeout` seconds (Unavailable)."""
    command = ["nice", "-n", "10", "git"] if nice else ["git"]
    for setting in _SETTINGS:
        command += ["-c", setting]
    if gitdir is not None:
        command += ["--git-dir", str(gitdir)]
    try:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise _unavailable("git-missing", where, error.strerror or "", "install git") from error
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:
        # git's helpers (ssh, remote-https) hold the pipes: the whole session goes.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise _unavailable(
                "origin-unavailable",
                where,
                f"no answer from git {arguments[0]} within {timeout:g} s",
                "check the origin and the network between",
            ) from error
        raise
    return Outcome(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _unavailable(code: str, where: str, got: str, cure: str) -> Unavailable:
    return Unavailable(
        code,
        "the origin does not answer" if code == "origin-unavailable" else "the git program cannot be run",
        where=where,
        expected="an answer in time",
        got=got,
        cure=cure,
        retry_after=5.0,
    )
