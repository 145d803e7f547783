"""Which commits of the evidence branch are the controller's own (trust rule 14).

One rule: the controller asks it while it runs, `verify` afterwards, and whoever only reads asks it before it
believes a tree. Each commit is judged by the trust version in force before it, or by a later one that its own
entry was made under, so that a new controller key takes over at the entry that accepts it and an old one ends
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from controller.core.trust import CONTROLLER, TrustState
from controller.errors import LockgateError, Refused, Stalled
from controller.ledger import fold, log
from controller.ledger.cursors import Cursors, read_cursors
from controller.ledger.entry import Place, entry_path, read
from controller.ledger.rules import ROLLBACK, claimed
from controller.model.entry import EvidenceRepaired
from controller.model.history import Commit
from controller.model.words import counted
from controller.ports import Repo

FOREIGN = "foreign-evidence"
REPAIRED = "evidence-repaired"
_FILE = 0o100644
_REASONS = 16
"""How many different reasons a repair gives."""

Trusts = Mapping[int, Sequence[TrustState]]
"""Every version that its owners' quorum signed, by number."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a commit is judged by: the commit it must follow, and of the last good one the trust version that
    its entry was made under, its time and its rules."""

    commit: str | None = None
    version: int = 0
    at: datetime | None = None
    rules: int = 0


@dataclass(frozen=True, slots=True)
class Foreign:
    """Commits that are not the controller's on top of the last good one, oldest first, and why they are not."""

    commits: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def tip(self) -> str:
        return self.commits[-1]


@dataclass(frozen=True, slots=True)
class Line:
    """The evidence branch as far as it may be believed: `good` is the newest commit of the controller (None:
    there is none), `foreign` what stands on top of it."""

    good: str | None
    foreign: Foreign | None = None


def fault(
    commit: Commit, before: Before, trusts: Trusts, claimed: Callable[[str], int | None]
) -> tuple[str, str] | None:
    """Why a commit is not the controller's, as code and message; None when it is.

    `claimed(id)` is the trust version its tree says its entry was made under. A key must be in force at the later
    of the commit's own date and the last entry's: an old key cannot date its way back before its end.
    """
    if commit.malformed is not None:
        return commit.malformed, "the commit object breaks a rule of its own"
    if commit.parents != ((before.commit,) if before.commit is not None else ()):
        return FOREIGN, f"the branch is not linear here: {len(commit.parents)} parents"
    if commit.signature == "bad":
        return "signature-invalid", "the commit's signature does not hold"
    key = commit.key
    if key is None:
        return FOREIGN, "the commit is not signed"
    at = max(commit.committer.at, before.at) if before.at is not None else commit.committer.at
    in_force = before.version
    if in_force not in trusts:
        in_force = max((version for version in trusts if version <= before.version), default=0)
    if controls(trusts.get(in_force, ()), key, at):
        return None
    later = claimed(commit.id)
    if later is not None and later > before.version and controls(trusts.get(later, ()), key, at):
        return None
    return FOREIGN, _whose(key, trusts)


def _whose(key: str, trusts: Trusts) -> str:
    states = [state for version in sorted(trusts, reverse=True) for state in trusts[version]]
    if any(key in state.keys_of_role(CONTROLLER) for state in states):
        return "the commit is signed by a controller key that was not in force"
    owner = next((owner for state in states if (owner := state.owner_of(key)) is not None), None)
    return f"the commit is not signed by the controller but by {owner}" if owner else _UNKNOWN


_UNKNOWN = "the commit is not signed by the controller"


def controls(states: Iterable[TrustState], key: str, at: datetime) -> bool:
    """Whether one of these trust versions gives `key` the role controller at `at`."""
    names = ((state, state.principal_of(key, at)) for state in states)
    return any(name is not None and state.holds(name, CONTROLLER) for state, name in names)


def line_after(repo: Repo, trusts: Trusts, good: str, tip: str) -> Line | None:
    """The branch after a commit that is known to be good; None when its first-parent line lost that commit.

    The cost is that of the commits after it. Raises Stalled("foreign-evidence" | "trust-rollback" |
    "rules-rollback") when a controller's key wrote what no controller writes, and Stalled("rules-unknown").
    """
    commits = _back_to(repo, tip, good)
    return _judge(repo, trusts, good, commits) if commits is not None else None


def line(repo: Repo, trusts: Trusts, tip: str, now: datetime) -> Line:
    """The branch, for those who remember nothing of it.

    Walks back to the newest commit by a key that is the controller's in the newest trust version now: that key
    would not have signed on top of anything foreign. Commits by other keys are judged forward from there; when
    there is no such commit, from the branch's first one. Raises as `line_after`.
    """
    newest = trusts[max(trusts)]
    strong = {key for state in newest for key in state.keys_of_role(CONTROLLER, now)}
    later: list[str] = []
    at: str | None = tip
    while at is not None:
        commit = repo.commit(at)
        sound = commit.malformed is None and commit.signature == "good" and len(commit.parents) <= 1
        if sound and commit.key in strong and controls(newest, commit.key or "", commit.committer.at):
            break
        later.append(at)
        at = commit.parents[0] if commit.parents else None
    return _judge(repo, trusts, at, later[::-1])


def _back_to(repo: Repo, tip: str, good: str) -> list[str] | None:
    """The first-parent commits after `good`, oldest first; None when that line does not lead there."""
    found: list[str] = []
    at = tip
    while at != good:
        found.append(at)
        parents = repo.commit(at).parents
        if not parents:
            return None
        at = parents[0]
    return found[::-1]


def _judge(repo: Repo, trusts: Trusts, good: str | None, commits: Sequence[str]) -> Line:
    before = _standing(repo, good) if good is not None else Before()
    foreign: list[str] = []
    reasons: dict[str, None] = {}
    for oid in commits:
        found = fault(repo.commit(oid), before, trusts, partial(claimed_version, repo))
        if found is not None:
            foreign.append(oid)
            reasons[found[1]] = None
            before = replace(before, commit=oid)
            continue
        if foreign and not _repairs(repo, good, foreign, oid):
            with suppress(Refused):
                _standing(repo, oid)  # rules that are not known may repair otherwise, which is said instead
            raise _built_on_foreign(oid, good, foreign)
        after = _standing(repo, oid)
        if after.version < before.version:
            raise _back("trust-rollback", "trust version", oid, before.version, after.version)
        if after.rules < before.rules:
            raise _back(ROLLBACK, "version of the rules", oid, before.rules, after.rules)
        good, before = oid, after
        foreign, reasons = [], {}
    said = tuple(reasons)[:_REASONS]
    return Line(good, Foreign(tuple(foreign), said) if foreign else None)


def _standing(repo: Repo, commit: str) -> Before:
    cursors = cursors_at(repo, commit)
    return Before(commit, cursors.trust_version, cursors.at, cursors.rules)


def _repairs(repo: Repo, good: str | None, foreign: Sequence[str], commit: str) -> bool:
    """Whether a controller's commit puts the tree of `good` back and records exactly these commits."""
    if good is None:
        return False
    entries = []
    for change in repo.changes(good, commit):
        if change.path.endswith(f"-{REPAIRED}.dsse.json"):
            entries.append(change)
        elif change.path != fold.CURSORS and not change.path.startswith(log.ROOT):
            return False
    if len(entries) != 1 or entries[0].old is not None or entries[0].new is None:
        return False
    try:
        detail = read(repo.read(entries[0].new.blob), entries[0].path, None).detail
    except LockgateError:
        return False
    return isinstance(detail, EvidenceRepaired) and detail.names(foreign, good)


def cursors_at(repo: Repo, commit: str) -> Cursors:
    """Where the branch stands by a commit's tree. Raises Refused("state-mismatch") or Stalled("rules-unknown")."""
    file = repo.file(commit, fold.CURSORS)
    if file is not None and file.mode == _FILE:
        with suppress(Refused):
            return read_cursors(repo.read(file.blob), f"commit {commit[:12]} {fold.CURSORS}")
    raise Refused(
        "state-mismatch",
        "the derived state is missing or not in its form",
        where=f"commit {commit[:12]} {fold.CURSORS}",
        cure="run `lockgate verify`",
    )


def claimed_version(repo: Repo, commit: str) -> int | None:
    """The trust version that a commit's tree says its entry was made under; None when it says none.

    Rules that this program does not know are no reason to take their commits for somebody else's.
    """
    return _claimed(repo, commit, "trustVersion")


def claimed_rules(repo: Repo, commit: str) -> int | None:
    """The version of the rules that a commit's tree says its entry was made under; None when it says none."""
    return _claimed(repo, commit, "rules")


def _claimed(repo: Repo, commit: str, member: str) -> int | None:
    try:
        file = repo.file(commit, fold.CURSORS)
        value = claimed(repo.read(file.blob)).get(member) if file is not None else None
    except LockgateError:
        return None
    return value if isinstance(value, int) else None


def previous_own(repo: Repo, commit: str) -> str | None:
    """The controller's commit before one of its own: over the foreign ones that this one removed, if any."""
    known = repo.commit(commit)
    trailers = dict(line.split(": ", 1) for line in known.message.splitlines() if line.startswith("Lockgate-"))
    if trailers.get("Lockgate-Kind") == REPAIRED:
        path = entry_path(Place(int(trailers["Lockgate-Entry"])), REPAIRED, known.committer.at)
        file = repo.file(commit, path)
        if file is not None:
            restored: str = read(repo.read(file.blob), path, None).detail.restored
            return restored
    return known.parents[0] if known.parents else None


def _built_on_foreign(commit: str, good: str | None, foreign: Sequence[str]) -> Stalled:
    return Stalled(
        FOREIGN,
        "a commit with the controller's key stands on commits of somebody else and does not remove them",
        where=f"lockgate/evidence at {commit[:12]}",
        expected=f"a commit that restores {good[:12]}" if good else "a branch that begins with the controller's",
        got=f"{counted(len(foreign), 'commit')} of somebody else below it",
        cure=f"take that key out of trust; push {good[:12] if good else 'nothing'} back to the branch",
    )


def _back(code: str, of: str, commit: str, before: int, after: int) -> Stalled:
    return Stalled(
        code,
        f"an entry was made under an older {of} than the one before it",
        where=f"lockgate/evidence at {commit[:12]}",
        expected=f"version {before} or later",
        got=f"version {after}",
        cure="take the key that signed it out of trust; run `lockgate verify`",
    )
