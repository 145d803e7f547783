"""Restarting evidence under the owners' signatures, when it is gone or no longer what it was (trust rule 14).

Nobody but people can tell what was lost. What they sign names exactly one situation, so that it can be used in no
other one, and what the controller did on main that evidence no longer tells, so that main can be judged again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from controller.core.steps import Backing
from controller.core.trust import OWNERS, TrustState, VerifySsh, quorum_signers
from controller.errors import Invalid, Refused
from controller.ledger.canonical import canonical
from controller.model.history import Change
from controller.model.restart import RESTART_FOLDER, Restart, VouchedLock, VouchedRevert

_DOCUMENT = re.compile(RESTART_FOLDER + r"/([1-9][0-9]{0,6})\.json")
_SIGNATURE = re.compile(RESTART_FOLDER + r"/([1-9][0-9]{0,6})/([a-z0-9][a-z0-9.-]*)\.sig")
_REGULAR = 0o100644
TERM = timedelta(days=7)
"""How long a restart can be used. One that was used cannot be told from a new one by a controller that lost its
memory as well as the evidence again, so it ends."""
_SKEW = timedelta(minutes=5)


def restart_bytes(restart: Restart) -> bytes:
    """The one spelling of a restart, which owners sign (RFC 8785)."""
    return canonical(restart.wire())


def read_restart(data: bytes, where: str) -> Restart:
    """A restart from its bytes. Raises Invalid("restart-malformed")."""
    try:
        restart = Restart.model_validate(json.loads(data))
    except (ValidationError, ValueError, RecursionError) as error:
        raise _malformed(where, str(error).partition("\n")[0][:120]) from error
    if restart_bytes(restart) != data:
        raise _malformed(where, "another spelling of the same")
    number = document_number(where)
    if number is not None and number != restart.number:
        raise _malformed(where, f"number {restart.number}")
    return restart


def _malformed(where: str, got: str) -> Invalid:
    return Invalid(
        "restart-malformed",
        "the file is no restart of evidence",
        where=where,
        expected="what `lockgate trust restart` writes",
        got=got,
        cure="make it anew with `lockgate trust restart`",
    )


def document_number(path: str) -> int | None:
    """The number of the restart that a path of main holds; None when it holds none."""
    found = _DOCUMENT.fullmatch(path)
    return int(found[1]) if found else None


def signature_of(path: str) -> tuple[int, str] | None:
    """The restart and the principal that a signature's path names."""
    found = _SIGNATURE.fullmatch(path)
    return (int(found[1]), found[2]) if found else None


def check_quorum(
    restart: Restart,
    signatures: Mapping[str, str],
    trust: TrustState,
    verify_ssh: VerifySsh,
    at: datetime | None = None,
) -> frozenset[str]:
    """The owners who signed a restart, when they are as many as must sign a trust version.

    Raises Refused("restart-unsigned").
    """
    signed = quorum_signers(trust, restart_bytes(restart), signatures, verify_ssh, at)
    needed = trust.threshold(OWNERS)
    if restart.trust_version != trust.version or len(signed) < needed:
        raise Refused(
            "restart-unsigned",
            "a restart of evidence lacks the owners' signatures",
            where=f"{RESTART_FOLDER}/{restart.number}.json",
            expected=f"{needed} owners of trust version {trust.version}",
            got=f"{', '.join(sorted(signed)) or 'none'} (it names version {restart.trust_version})",
            cure="`lockgate trust restart --countersign` by further owners",
        )
    return signed


def owners_of_changes(
    changes: Sequence[Change],
    read: Callable[[str], bytes],
    trust: TrustState,
    verify_ssh: VerifySsh,
    at: datetime | None = None,
) -> dict[str, frozenset[str]]:
    """By path, the owners whose signature over a restart comes with it: they approve it and nothing else."""
    found: dict[str, frozenset[str]] = {}
    for change in changes:
        number = document_number(change.path)
        if number is None or change.new is None or change.new.mode != _REGULAR or change.old is not None:
            continue
        document = read(change.new.blob)
        signatures: dict[str, str] = {}
        paths = [change.path]
        for other in changes:
            names = signature_of(other.path)
            if names is not None and names[0] == number and other.new is not None and other.old is None:
                signatures[names[1]] = read(other.new.blob).decode("ascii", "replace")
                paths.append(other.path)
        signed = quorum_signers(trust, document, signatures, verify_ssh, at)
        found |= dict.fromkeys(paths, signed)
    return found


@dataclass(frozen=True, slots=True)
class Vouched:
    """What evidence says of the controller's commits on main, and beside it what owners vouch for."""

    evidence: Backing
    locks: frozenset[tuple[str, str]]
    reverts: frozenset[tuple[str, str, str | None]]

    @classmethod
    def of(cls, evidence: Backing, locks: Iterable[VouchedLock], reverts: Iterable[VouchedRevert]) -> Vouched:
        """Evidence with what a restart vouches for."""
        return cls(
            evidence,
            frozenset((lock.path, lock.sha256.removeprefix("sha256:")) for lock in locks),
            frozenset((one.run, one.path, one.blob) for one in reverts),
        )

    def lock(self, path: str, sha256: str) -> bool:
        """Whether an entry records a lock of this path with these bytes, or owners vouch for it."""
        return (path, sha256) in self.locks or self.evidence.lock(path, sha256)

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Whether an entry orders this slot back to this blob, or owners vouch for it."""
        return (run, path, blob) in self.reverts or self.evidence.revert(run, path, blob)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a controller without its evidence sees: the branch's tip (None: there is none) with its log, the newest
    restart that this evidence tells of, and the tip that it remembers, if it remembers any."""

    project: str
    genesis: str
    evidence: str | None
    size: int
    root: str
    restarts: int
    remembered: str | None


def untimely(restart: Restart, at: datetime) -> str:
    """Why a restart cannot be used at a time; "" when it can."""
    if at > restart.at + TERM:
        return f"it was made at {restart.at:%Y-%m-%d %H:%M}Z and counts for {TERM.days} days; make a new one"
    return f"it is dated ahead, {restart.at:%Y-%m-%d %H:%M}Z" if at < restart.at - _SKEW else ""


def unlike(restart: Restart, seen: Situation) -> str:
    """Why a restart is not about this situation; "" when it is."""
    if (restart.project, restart.genesis) != (seen.project, seen.genesis):
        return "it is of another project"
    if restart.number <= seen.restarts:
        return f"restart {seen.restarts} was done already"
    if restart.evidence != seen.evidence:
        named, tip = (restart.evidence or "no branch")[:12], (seen.evidence or "no branch")[:12]
        return f"it goes on from {named}, and the origin has {tip}"
    if (restart.size, restart.root) != (seen.size, seen.root):
        return f"it names a log of {restart.size} entries, and the branch has one of {seen.size}"
    if seen.remembered is not None and not (restart.lost and seen.remembered.startswith(restart.lost)):
        return f"it names {(restart.lost or 'nothing')[:12]} as lost, and the controller misses {seen.remembered}"
    return ""
