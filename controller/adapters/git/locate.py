"""Where an origin is and how it must be used; and whether its history is whole."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from controller.adapters.git.refs import unwritable
from controller.errors import Refused, UsageError

_SCP: Final = re.compile(r"[^/:]+:(?!//)")
_PARTIAL: Final = re.compile(r"^\s*(partialclone|promisor|partialclonefilter)\s*=", re.MULTILINE)
_HOOKS: Final = (
    "pre-receive",
    "update",
    "post-receive",
    "post-update",
    "reference-transaction",
    "proc-receive",
    "push-to-checkout",
)


@dataclass(frozen=True, slots=True)
class Place:
    """An origin: the address for git, and its git directory when it is local.

    `files`: its refs are plain files. `hooks`: a hook wants to see every push.
    """

    url: str
    gitdir: Path | None = None
    files: bool = False
    hooks: bool = False

    @property
    def direct(self) -> bool:
        """Whether it may be written in place."""
        return self.gitdir is not None and self.files and not self.hooks


def locate(origin: str) -> Place:
    """Find out what `origin` is. Raises UsageError("origin-invalid" | "origin-password")."""
    scheme = urlsplit(origin).scheme.lower() if "://" in origin else ""
    if scheme in ("ssh", "git+ssh", "http", "https"):
        _check_no_password(origin)
        return Place(origin)
    if scheme not in ("", "file"):
        raise _bad_origin(origin, f"the scheme {scheme}")
    if not scheme and _SCP.match(origin) and not Path(origin).exists():
        return Place(origin)
    if origin.startswith("-") or not origin:
        raise _bad_origin(origin, "no address")
    path = Path(unquote(urlsplit(origin).path) if scheme else origin).expanduser().resolve()
    gitdir = git_directory(path)
    config = _config(gitdir)
    if re.search(r"^\s*objectformat\s*=\s*sha256", config, re.MULTILINE):
        raise _bad_origin(origin, "a SHA-256 repository, which libgit2 cannot read")
    files = re.search(r"^\s*refstorage\s*=\s*(?!files)", config, re.MULTILINE) is None
    return Place(str(gitdir), gitdir, files, has_hooks(gitdir))


def _check_no_password(origin: str) -> None:
    """An address is shown in messages, logs and lists of processes: no place for a secret."""
    user, _, rest = urlsplit(origin).netloc.rpartition("@")
    if ":" in user:
        raise UsageError(
            "origin-password",
            "the origin's address holds a password",
            where=f"{urlsplit(origin).scheme}://{user.partition(':')[0]}@{rest}",
            expected="an address without one; git's credential helpers know the password",
            got="a password, not shown",
            cure="take it out, and give it to git: git config --global credential.helper …",
        )


def _bad_origin(origin: str, got: str) -> UsageError:
    return UsageError(
        "origin-invalid",
        "the origin is no git repository that can be used",
        where=origin,
        expected="a path, file://, ssh://, user@host:path or http(s):// address of a git repository",
        got=got,
        cure="check the address",
    )


def git_directory(path: Path) -> Path:
    """The git directory of a bare repository, a work tree or a linked work tree."""
    for candidate in (path, path / ".git"):
        if candidate.is_file():
            text = candidate.read_text(encoding="utf-8", errors="replace")
            if text.startswith("gitdir: "):
                linked = (candidate.parent / text[8:].strip()).resolve()
                common = linked / "commondir"
                if common.is_file():
                    linked = (linked / common.read_text(encoding="utf-8").strip()).resolve()
                return linked
        if (candidate / "HEAD").is_file() and (candidate / "objects").is_dir():
            return candidate
    raise _bad_origin(str(path), "no git repository there")


def _config(gitdir: Path) -> str:
    try:
        return (gitdir / "config").read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return ""


def has_hooks(gitdir: Path) -> bool:
    """Whether a hook would run on a push; hooks in another folder are not looked for, but taken for granted."""
    if re.search(r"^\s*hookspath\s*=", _config(gitdir), re.MULTILINE):
        return True
    return any(os.access(gitdir / "hooks" / hook, os.X_OK) for hook in _HOOKS)


def check_complete(gitdir: Path) -> None:
    """Refuse a shallow, partial, grafted or replaced history [history-incomplete]."""
    config = _config(gitdir)
    found = ""
    if (gitdir / "shallow").exists():
        found = "a shallow clone"
    elif (gitdir / "info" / "grafts").exists():
        found = "grafts"
    elif _PARTIAL.search(config) or any((gitdir / "objects" / "pack").glob("*.promisor")):
        found = "a partial clone"
    elif _has_replacements(gitdir):
        found = "refs/replace"
    if found:
        raise Refused(
            "history-incomplete",
            "the repository does not hold its whole history as it was written",
            where=str(gitdir),
            expected="a full clone without grafts or replacements",
            got=found,
            cure="use a full clone: git clone --no-local --bare ORIGIN",
        )


def _has_replacements(gitdir: Path) -> bool:
    folder = gitdir / "refs" / "replace"
    if folder.is_dir() and any(path.is_file() for path in folder.rglob("*")):
        return True
    packed = gitdir / "packed-refs"
    return packed.is_file() and b" refs/replace/" in packed.read_bytes()


def owner_token(state_dir: Path) -> str:
    """A random name kept in the state directory: recognises the locks of its former controller anywhere.

    Raises Unavailable("disk-unavailable").
    """
    path = state_dir / "owner"
    # Empty when the disk was full as it was written.
    with contextlib.suppress(OSError):
        if kept := path.read_text(encoding="ascii").strip():
            return kept
    token = uuid.uuid4().hex
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(token + "\n", encoding="ascii")
    except OSError as error:
        raise unwritable(path, error) from error
    return token
