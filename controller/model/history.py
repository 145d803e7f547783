"""What Git history says, as values: commits with their verified signer, and path changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Person:
    """An author or committer header. Nothing in it is proven; only the signature is."""

    name: str
    email: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit with its signature already checked cryptographically.

    `key` is the OpenSSH public key ("ssh-ed25519 AAAA…", no comment) whose signature over the commit's
    bytes is good; who that key belongs to is for trust to say. `malformed` names the defect when the raw
    object breaks a rule of its own (more than one signature header, a NUL byte).
    """

    id: str
    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str
    signature: Literal["none", "good", "bad"]
    key: str | None = None
    malformed: str | None = None


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file of a tree: its blob id and Git mode (0o100644, 0o100755, 0o120000 link, 0o160000 submodule)."""

    blob: str
    mode: int


@dataclass(frozen=True, slots=True)
class Change:
    """One path that differs between two trees; `None` is absence."""

    path: str
    old: TreeFile | None
    new: TreeFile | None


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit to be written: paths to set (bytes) or remove (None) over its parent's tree."""

    changes: Mapping[str, bytes | None]
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Tips:
    """Commit ids of the three branches at one observation; `None` where the branch does not exist."""

    main: str | None
    requests: str | None
    evidence: str | None
