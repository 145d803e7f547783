"""What judging main produces: one step a first-parent commit, and where main stands after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from controller.core.trust import TrustState, VerifySsh
from controller.model.history import Change, TreeFile

UNBACKED = frozenset({"lock-unbacked", "revert-unbacked"})
"""What a commit of the controller is refused with for want of evidence: more evidence may lift it."""


class Backing(Protocol):
    """What the evidence says about the controller's own commits on main."""

    def lock(self, path: str, sha256: str) -> bool:
        """Whether an entry records a lock of this path with these bytes (hex SHA-256)."""
        ...

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Whether a rollback entry of `run` orders this slot back to this blob (None: removed)."""
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What does not change from commit to commit: the project, main's ref, and signature arithmetic.

    `acknowledged` are refused commits, each with its code, that owners let stand by signed requests; main goes
    on over them where `acknowledge.never` allows it.
    `observed` tells when a first-parent commit was first seen: a key whose time was over by then signed nothing
    that counts, whatever its commits say of their own time. None where nobody knows.
    """

    project: str
    ref: str
    verify_ssh: VerifySsh
    acknowledged: Mapping[str, str] = field(default_factory=dict)
    observed: Callable[[str], datetime | None] | None = None


@dataclass(frozen=True, slots=True)
class SlotLock:
    """A slot that a step changed, and the lock that its first parent's tree already held for the release."""

    path: str
    release: str
    lock: str


@dataclass(frozen=True, slots=True)
class Step:
    """One first-parent commit of main, judged by the trust in force before it.

    `signers` signed it or what it brings; `authors` are those and everybody whom author headers name.
    `approvals` are the principals whose signature approves what the step brings: the merge's signer, unless an
    author. They bind to digests only for the slots in `locked`. A step that landed while main stood still
    (`standing`) approves nothing: what its signer looked at held refused content. `refused` is the code when
    the step was refused; `cured` names the refused commits that this step takes back.
    """

    commit: str
    at: datetime
    signer: str | None
    kind: Literal["lone", "merge", "controller"]
    authors: frozenset[str]
    signers: frozenset[str]
    approvals: tuple[str, ...]
    changes: tuple[Change, ...]
    locked: tuple[SlotLock, ...] = ()
    standing: bool = False
    trust_version: int = 0
    refused: str | None = None
    message: str = ""
    where: str = ""
    expected: str = ""
    got: str = ""
    cure: str = ""
    cured: tuple[str, ...] = ()
    opaque: bool = False
    """The changes could not be read; only a tree that equals the accepted one elsewhere cures it."""
    new_trust: TrustState | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """What refused commits touched while main stands still, as it is in the accepted tree, and who signed them.

    Only signers count as authors here: a header that names every reviewer must not make a commit incurable.
    """

    tainted: Mapping[str, TreeFile | None]
    authors: frozenset[str]

    def restores(self, path: str, new: TreeFile | None) -> bool:
        """Whether `new` is what was accepted at a path that they touched."""
        return path in self.tainted and self.tainted[path] == new


@dataclass(frozen=True, slots=True)
class MainState:
    """Where main stands. `accepted` is the only commit whose tree is acted on.

    `refused` are the refused steps that hold main back now, `pending` every step after `accepted`, `steps`
    those judged by the last call, `newly` those it accepted, oldest first (cured ones among them keep their
    code).
    """

    accepted: str
    trust: TrustState
    refused: tuple[Step, ...] = ()
    pending: tuple[Step, ...] = ()
    steps: tuple[Step, ...] = ()
    newly: tuple[Step, ...] = ()
