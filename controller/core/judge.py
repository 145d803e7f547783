"""Judging one first-parent commit of main by the path rules in force before it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from controller.core.attribution import approves_here, named_authors, signed_at, signer_of, trailers
from controller.core.merges import History, decided_by_merge
from controller.core.parse import parse
from controller.core.pathrules import CURE, LOCK, check_path, check_write, counts, refuse, rewritten
from controller.core.quorum import missing_roles
from controller.core.restart import owners_of_changes
from controller.core.steps import Backing, SlotLock, Standing, Step, Terms
from controller.core.trust import CONTROLLER, TrustState, check_successor, quorum_signers
from controller.errors import LockgateError, Refused
from controller.model.history import Change, Commit, TreeFile
from controller.model.places import TRUST_PATH
from controller.model.promotion import Promotion

SLOT = re.compile(r"promotions/[^/]+\.yaml")
_SIGNATURE = re.compile(r"trust/([1-9][0-9]*)/([a-z0-9][a-z0-9.-]*)\.sig")
_REGULAR = 0o100644


@dataclass(frozen=True, slots=True)
class Ground:
    """What one commit is judged on: history, evidence, the trust before it, and what is standing."""

    history: History
    backing: Backing
    terms: Terms
    trust: TrustState
    standing: Standing | None
    step: str = ""
    """The first-parent commit that is judged, or brings what is judged."""

    def signer(self, commit: Commit, parents: Sequence[Commit]) -> str:
        """Who signed a commit, by a key that might both when it can have been made and when it was first seen.

        What the controller writes is not asked when it was seen: it counts only as far as evidence backs it.
        Raises as `signer_of`.
        """
        made = signed_at(commit, parents)
        name = signer_of(self.trust, commit, made)
        timed = commit.key is not None and self.trust.members[name].timed(commit.key)
        if timed and not self.trust.holds(name, CONTROLLER) and (seen := self.seen()) is not None:
            signer_of(self.trust, commit, max(made, seen))
        return name

    def seen(self) -> datetime | None:
        """When the step was first seen, if that is known."""
        return self.terms.observed(self.step) if self.terms.observed is not None else None

    def restores(self, change: Change, signer: str) -> bool:
        """Whether the change puts a path back to its accepted state, by somebody who may."""
        return (
            self.standing is not None
            and self.standing.restores(change.path, change.new)
            and signer not in self.standing.authors
            and self.trust.may_restore(signer, change.path)
        )


@dataclass(frozen=True, slots=True)
class _Finding:
    """What could be said before a refusal: it goes into the step either way."""

    signer: str
    kind: Literal["lone", "merge", "controller"]
    authors: frozenset[str]
    signers: frozenset[str]
    approvals: tuple[str, ...] = ()
    locked: tuple[SlotLock, ...] = ()
    new_trust: TrustState | None = None


def judge_step(ground: Ground, commit: Commit) -> Step:
    """The verdict on one commit. A refusal is part of the answer, never an exception.

    Every defect that an adapter raises as Refused while the commit is read becomes the step's code.
    """
    signer: str | None = None
    authors = named_authors(ground.trust, commit)
    kind: Literal["lone", "merge", "controller"] = "merge" if len(commit.parents) > 1 else "lone"
    changes: tuple[Change, ...] = ()
    opaque = True
    try:
        changes = tuple(ground.history.changes(commit.parents[0], commit.id))
        opaque = False
        parents = [ground.history.commit(parent) for parent in commit.parents]
        signer = ground.signer(commit, parents)
        authors = authors | {signer}
        if ground.trust.holds(signer, CONTROLLER):
            kind = "controller"
        finding = _judge(ground, commit, signer, kind, changes)
    except LockgateError as error:
        if not isinstance(error, Refused) and error.exit_code != 1:
            raise
        signers = frozenset({signer} if signer else ())
        if kind == "merge":
            named, signed = _brought_people(ground, commit)
            authors, signers = authors | named, signers | signed
        return Step(
            commit=commit.id,
            at=commit.committer.at,
            signer=signer,
            kind=kind,
            authors=authors,
            signers=signers,
            approvals=(),
            changes=changes,
            standing=ground.standing is not None,
            trust_version=ground.trust.version,
            refused=error.code,
            message=error.what,
            where=error.where or f"commit {commit.id[:12]}",
            expected=error.expected,
            got=error.got,
            cure=error.cure or CURE,
            opaque=opaque,
        )
    return Step(
        commit=commit.id,
        at=commit.committer.at,
        signer=signer,
        kind=kind,
        authors=finding.authors,
        signers=finding.signers,
        approvals=finding.approvals if ground.standing is None else (),
        changes=changes,
        locked=finding.locked if ground.standing is None else (),
        standing=ground.standing is not None,
        trust_version=ground.trust.version,
        new_trust=finding.new_trust,
    )


def _judge(
    ground: Ground,
    commit: Commit,
    signer: str,
    kind: Literal["lone", "merge", "controller"],
    changes: tuple[Change, ...],
) -> _Finding:
    if kind == "controller":
        return _judge_controller(ground, commit, signer, changes)
    if kind == "merge":
        return _judge_merge(ground, commit, signer, changes)
    authors = named_authors(ground.trust, commit) | {signer}
    quorum, new_trust = _judge_trust(ground, commit, changes)
    restarts = _restarts(ground, changes)
    for change in changes:
        if ground.restores(change, signer):
            continue
        check_path(commit, change)
        check_write(ground.trust, commit, signer, change.path)
        signed = _signed_for(change.path, quorum) | restarts.get(change.path, frozenset())
        missing = _missing(ground, change.path, signed)
        if missing:
            raise refuse(
                "approval-missing",
                f"{change.path} needs approval by merge and came as a lone commit of {signer}",
                commit,
                change.path,
                counts(missing),
                "no approval",
                "bring it on a branch and have it merged by an approver with a signed merge",
            )
    return _Finding(signer, "lone", authors, frozenset({signer}), new_trust=new_trust)


def _judge_merge(ground: Ground, commit: Commit, signer: str, changes: tuple[Change, ...]) -> _Finding:
    by_path = {change.path: change for change in changes}
    decided = decided_by_merge(ground.history, commit, by_path) & by_path.keys()
    authors: set[str] = set()
    signers: set[str] = set()
    for brought in ground.history.brought(*commit.parents):
        author = _judge_brought(ground, brought, signer)
        signers.add(author)
        authors |= named_authors(ground.trust, brought) | {author}
    quorum, new_trust = _judge_trust(ground, commit, changes)
    restarts = _restarts(ground, changes)
    for path in sorted(decided):
        if not ground.restores(by_path[path], signer):
            check_write(ground.trust, commit, signer, path)
    trailer = approves_here(ground.trust, commit, ground.terms.project, ground.terms.ref)
    for change in changes:
        if ground.restores(change, signer):
            continue
        check_path(commit, change)
        own = signer in authors or change.path in decided
        people = _signed_for(change.path, quorum) | restarts.get(change.path, frozenset())
        people |= {signer} if trailer and not own else set()
        missing = _missing(ground, change.path, people)
        if missing:
            raise _unapproved(ground, commit, signer, change.path, missing, own=own, trailer=trailer)
    approves = trailer and signer not in authors and not decided
    return _Finding(
        signer,
        "merge",
        frozenset(authors | ({signer} if decided else set())),
        frozenset(signers | {signer}),
        approvals=(signer,) if approves else (),
        locked=_locked_before(ground, commit, changes),
        new_trust=new_trust,
    )


def _judge_brought(ground: Ground, brought: Commit, merger: str) -> str:
    """One commit that a merge brings: signed, with the write right on each path it touched itself.

    What an inner merge takes over unchanged from one of its sides is not its signer's work; what it decides is.
    """
    history = ground.history
    parents = [history.commit(parent) for parent in brought.parents]
    author = ground.signer(brought, parents)
    changes = {c.path: c for c in history.changes(brought.parents[0] if parents else None, brought.id)}
    touched: Iterable[str] = changes
    if len(parents) > 1:
        touched = decided_by_merge(history, brought, changes)
    for path in sorted(touched):
        change = changes.get(path)
        if change is not None and (ground.restores(change, merger) or ground.restores(change, author)):
            continue
        if change is not None:
            check_path(brought, change)
        check_write(ground.trust, brought, author, path)
    return author


def _brought_people(ground: Ground, merge: Commit) -> tuple[frozenset[str], frozenset[str]]:
    """Authors and signers behind a refused merge, as far as they can be read."""
    named: set[str] = set()
    signers: set[str] = set()
    try:
        for brought in ground.history.brought(*merge.parents[:2]):
            named |= named_authors(ground.trust, brought)
            owner = ground.trust.owner_of(brought.key) if brought.key and brought.signature == "good" else None
            signers |= {owner} if owner else set()
    except Refused:
        pass
    return frozenset(named | signers), frozenset(signers)


def _unapproved(
    ground: Ground,
    commit: Commit,
    signer: str,
    path: str,
    missing: Mapping[str, int],
    *,
    own: bool,
    trailer: bool,
) -> Refused:
    if not trailer:
        line = f"Lockgate-Approve: {ground.terms.project} {ground.terms.ref}"
        return refuse(
            "approval-missing",
            f"the merge of {path} does not say that it approves here",
            commit,
            path,
            f"the trailer {line}",
            "none in the signed message",
            "merge again with that trailer",
        )
    if own:
        return refuse(
            "self-approval",
            f"{signer} merged a change of {path} that is {signer}'s own",
            commit,
            path,
            f"{counts(missing)} who are not authors",
            signer,
            CURE,
        )
    if not any(ground.trust.holds(signer, role) for role in ground.trust.approvals_for(path)):
        return refuse(
            "approver-not-in-role",
            f"{signer} may not approve {path}",
            commit,
            path,
            counts(ground.trust.approvals_for(path)),
            f"{signer} ({', '.join(sorted(ground.trust.roles_of(signer))) or 'no role'})",
            CURE,
        )
    return refuse(
        "approval-missing", f"{path} needs further approvals", commit, path, counts(missing), signer, CURE
    )


def _judge_trust(
    ground: Ground, commit: Commit, changes: tuple[Change, ...]
) -> tuple[frozenset[str], TrustState | None]:
    """A changed trust document must be the owners' next version, with its signatures in the same change.

    Returns the owners in force who signed it, which count as approvals of the document and its signatures and
    of nothing else, and the state from the next step on.
    """
    change = next((change for change in changes if change.path == TRUST_PATH), None)
    if change is None:
        return frozenset(), None
    if change.new is None or change.new.mode != _REGULAR:
        raise refuse("trust-quorum", "the trust document is removed", commit, TRUST_PATH, "a file", "none", CURE)
    document = ground.history.read(change.new.blob)
    if hashlib.sha256(document).hexdigest() == ground.trust.sha256:
        return frozenset(), None
    if ground.standing is not None and TRUST_PATH in ground.standing.tainted:
        raise refuse(
            "trust-not-restored",
            "a refused commit changed the trust document, and it is not the accepted one again yet",
            commit,
            TRUST_PATH,
            "the accepted document",
            "another change",
            "restore it first, then bring the next version",
        )
    signatures: dict[str, str] = {}
    for other in changes:
        found = _SIGNATURE.fullmatch(other.path)
        if found and int(found[1]) == ground.trust.version + 1 and other.new is not None:
            signatures[found[2]] = ground.history.read(other.new.blob).decode("ascii", "replace")
    verify_ssh, seen = ground.terms.verify_ssh, ground.seen()
    following = check_successor(ground.trust, document, signatures, verify_ssh, seen)
    signed = quorum_signers(ground.trust, document, signatures, verify_ssh, seen)
    return signed, following


def _signed_for(path: str, quorum: frozenset[str]) -> frozenset[str]:
    return quorum if path == TRUST_PATH or _SIGNATURE.fullmatch(path) else frozenset()


def _restarts(ground: Ground, changes: tuple[Change, ...]) -> dict[str, frozenset[str]]:
    """The owners in force who signed a restart of evidence that the change brings, by its paths."""
    return owners_of_changes(changes, ground.history.read, ground.trust, ground.terms.verify_ssh, ground.seen())


def _missing(ground: Ground, path: str, people: Iterable[str]) -> dict[str, int]:
    required = ground.trust.approvals_for(path)
    if not required:
        return {}
    return missing_roles(required, {person: ground.trust.roles_of(person) for person in people})


def _judge_controller(ground: Ground, commit: Commit, signer: str, changes: tuple[Change, ...]) -> _Finding:
    """The controller writes locks once and takes slots back; both only as its evidence says."""
    if len(commit.parents) != 1:
        raise refuse("path-denied", "the controller merged", commit, "", "a lone commit", "a merge", CURE)
    for change in changes:
        if LOCK.fullmatch(change.path):
            _check_lock(ground, commit, change)
        elif SLOT.fullmatch(change.path):
            _check_revert(ground, commit, change)
        else:
            raise refuse(
                "path-denied",
                f"the controller may not write {change.path}",
                commit,
                change.path,
                "locks and reverts of promotions",
                signer,
                CURE,
            )
    return _Finding(signer, "controller", frozenset({signer}), frozenset({signer}))


def _check_lock(ground: Ground, commit: Commit, change: Change) -> None:
    if change.old is not None or change.new is None:
        raise rewritten(commit, change)
    release = change.path.removesuffix(".lock.yaml") + ".yaml"
    source = ground.history.file(commit.parents[0], release)
    over_release = not change.path.startswith("releases/") or (
        source is not None and not _tainted(ground, release, source)
    )
    content = hashlib.sha256(ground.history.read(change.new.blob)).hexdigest()
    backed = change.new.mode == _REGULAR and ground.backing.lock(change.path, content)
    if not over_release or not backed:
        raise refuse(
            "lock-unbacked",
            f"no evidence of this lock, or no accepted release under it: {change.path}",
            commit,
            change.path,
            "a lock entry over an accepted release file",
            f"sha256:{content[:12]}" if over_release else "no accepted release file",
            CURE,
        )


def _tainted(ground: Ground, path: str, now: TreeFile) -> bool:
    standing = ground.standing
    return standing is not None and path in standing.tainted and not standing.restores(path, now)


def _check_revert(ground: Ground, commit: Commit, change: Change) -> None:
    runs = trailers(commit.message).get("lockgate-run", [])
    blob = change.new.blob if change.new is not None else None
    regular = change.new is None or change.new.mode == _REGULAR
    if len(runs) != 1 or not regular or not ground.backing.revert(runs[0], change.path, blob):
        raise refuse(
            "revert-unbacked",
            f"the controller changed {change.path} without a rollback on record",
            commit,
            change.path,
            "a rollback entry of the run named by Lockgate-Run, for exactly this content",
            ", ".join(runs) or "no Lockgate-Run",
            CURE,
        )


def _locked_before(ground: Ground, commit: Commit, changes: tuple[Change, ...]) -> tuple[SlotLock, ...]:
    """The slots whose release was locked before the merge: nobody approves digests that do not exist yet."""
    found: list[SlotLock] = []
    for change in changes:
        if change.new is None or not SLOT.fullmatch(change.path):
            continue
        slot = parse(change.path, ground.history.read(change.new.blob), change.new.mode).document
        if not isinstance(slot, Promotion):
            continue
        release = slot.spec.release
        lock = ground.history.file(commit.parents[0], f"releases/{release}.lock.yaml")
        if lock is not None:
            found.append(SlotLock(change.path, release, lock.blob))
    return tuple(found)
