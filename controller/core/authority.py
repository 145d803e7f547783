"""Whether people stand behind an order, for an agent that believes nothing its controller says.

`design/trust.md` rule 18. What is required comes from two places that a controller's key cannot write: the path
rule of the promotion slot in the Trust that the agent walked to, and the environment's document in a commit that a
person signed. What was given comes from the objects that the order carries. The rules are those by which the
controller judges main and requests itself: `judge_step`, `judge_request`, `tally`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from controller.core.approvals import Given, approval_subject, tally
from controller.core.attribution import approves_here, signed_at
from controller.core.calendar import open_between
from controller.core.carried import Carried, outside_window, unapproved
from controller.core.declared import ParseCommit, may_vouch
from controller.core.judge import Ground, judge_step
from controller.core.orderparts import FIRST_ROLES, checks_of, run_of
from controller.core.parse import parse
from controller.core.requests import judge_request, read_request, request_path
from controller.core.rollout import DEFAULT_DEADLINE, stage_deadline
from controller.core.steps import Step, Terms
from controller.core.trust import TrustState, VerifySsh, key_id
from controller.errors import Invalid
from controller.ledger.canonical import canonical, digest
from controller.model.documents import (
    Component,
    Document,
    Environment,
    Promotion,
    ReleaseLock,
    Strategy,
    manifest_digest,
)
from controller.model.environment import Approvals
from controller.model.history import Commit
from controller.model.order import MAX_CLOCK_SKEW, Approving, Order
from controller.model.request import Request

D = TypeVar("D", bound=Document)
_SKEW = timedelta(seconds=MAX_CLOCK_SKEW)
_REGULAR = 0o100644


@dataclass(frozen=True, slots=True)
class Rules:
    """The environment's document that an order was judged by, and when the commit that vouches for it was made."""

    blob: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What an agent judges from, none of it the controller's word.

    `least` is its own least number of approvals. `ran(content)` is whether it has taken that content here before;
    `first_seen` when it first met a commit, now for a new one. `rules` are the newest it has judged by, `promoted`
    when the newest promotion that it followed was signed.
    """

    project: str
    ref: str
    trust: TrustState
    verify_ssh: VerifySsh
    read_commit: ParseCommit
    now: datetime
    ran: Callable[[str], bool]
    first_seen: Callable[[str], datetime]
    least: int = 0
    rules: Rules | None = None
    promoted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Authority:
    """What an order rests on, to be remembered by whoever takes it: `content` only where it was judged."""

    content: str | None = None
    rules: Rules | None = None
    promoted: datetime | None = None
    approvals: tuple[str, ...] = ()


class Unbacked:
    """Evidence is the controller's word: a commit by its key approves nothing here."""

    def lock(self, path: str, sha256: str) -> bool:
        return False

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        return False


def content_of(order: Order) -> str:
    """The digest of what an order leaves running: components without those that only lead the first stage."""
    parts = {name: part.plain() for name, part in order.components.items() if part.role not in FIRST_ROLES}
    return digest(canonical({"release": order.release, "parts": parts, "variables": dict(order.variables)}))


def authority_of(order: Order, sent: Approving | None, own: Standpoint) -> Authority:
    """Why this order may be carried out. Raises Refused("order-unapproved" | "order-outside-window").

    A check compares and answers; only one that runs commands is judged. A rollback may always lead back to what
    this agent took before.
    """
    if order.action == "check" and not any(check.exec is not None for check in order.checks):
        return Authority()
    if order.action == "rollback" and own.ran(content_of(order)):
        return Authority()
    return _Judged(order, sent or Approving(), own).authority()


def vouches(
    commit: Commit, trust: TrustState, path: str, slot: str, project: str, ref: str, now: datetime
) -> bool:
    """Whether a person's signature stands for a document at `path` that runs of `slot` read.

    It is one that may decide about the document; where nobody need approve that, about the slot (trust rule 8).
    The key must be good now: a key whose time is over could say that it signed before.
    """
    if commit.signature != "good" or not may_vouch(commit, trust, path):
        return False
    if commit.key is None or trust.principal_of(commit.key, now) is None:
        return False
    approved = bool(trust.approvals_for(path))
    if not approved and trust.approvals_for(slot):
        approved = True
        if not may_vouch(commit, trust, slot):
            return False
    return not approved or approves_here(trust, commit, project, ref)


class _Judged:
    """One order and the objects it came with."""

    def __init__(self, order: Order, sent: Approving, own: Standpoint) -> None:
        self._order, self._sent, self._own = order, sent, own
        self._slot = f"promotions/{order.environment}.yaml"
        self._lock = f"releases/{order.release}.lock.yaml"
        self._objects = Carried(sent, own.read_commit, (self._slot,))

    def authority(self) -> Authority:
        order, own = self._order, self._own
        path = f"environments/{order.environment}.yaml"
        place, blob, at = self._vouched(path, Environment)
        rules: Rules | None = Rules(blob, at)
        if order.action == "rollback":
            rules = None
        elif own.rules is not None and own.rules.blob != blob:
            self._not_before(path, at, own.rules.at)
        if order.action == "deploy":
            self._in_window(place)
        asked = self._asked(place)
        required = bool(asked.count or asked.roles or own.trust.approvals_for(self._slot))
        if order.action == "check":
            return self._check(place, rules) if required else Authority(rules=rules)
        content = content_of(order)
        if not required:
            return Authority(content, rules)
        back = self._going_back()
        if back is not None and own.ran(content):
            return self._newest(Authority(content, rules, back))
        step, landed = self._promotion()
        lock = self._locked(step)
        self._content(lock[0], place)
        approvals = self._approved(asked, step, lock[1], blob)
        if order.action == "rollback":
            return Authority(content, approvals=approvals)
        return self._newest(Authority(content, rules, back or landed, approvals))

    def _asked(self, place: Environment) -> Approvals:
        """What the environment asks for, and this agent at least. What approvals were given for at their time may
        be gone back to at any time."""
        asked = place.spec.approvals
        changes: dict[str, Any] = {"count": max(asked.count, self._own.least)}
        if self._order.action == "rollback" or self._sent.rollback is not None:
            changes["expires_after"] = None
        return asked.model_copy(update=changes)

    def _in_window(self, place: Environment) -> None:
        """The environment may be changed now, or could when the stage can have begun: its first orders are given
        within the windows and have until its deadline, and those after its migrations once more as long. Nothing
        holds up going back."""
        windows, now = place.spec.windows, self._own.now
        try:
            if not windows or open_between(windows, now, now) or self._going_back() is not None:
                return
            strategy = self._vouched(f"strategies/{place.spec.strategy}.yaml", Strategy)[0]
            stages = range(len(strategy.spec.stages))
            longest = max((stage_deadline(strategy, stage) for stage in stages), default=DEFAULT_DEADLINE)
            if open_between(windows, now - 2 * longest - _SKEW, now + _SKEW):
                return
        except (KeyError, ValueError) as error:  # a time zone or a schedule that this host does not know
            raise outside_window("windows that can be read here", str(error)[:100], place.metadata.name) from error
        said = ", ".join(f"{one.kind} {one.schedule} {one.time_zone}" for one in windows)
        raise outside_window(
            f"a time within {said[:200]}", now.isoformat(timespec="seconds"), f"order {self._order.id}"
        )

    def _check(self, place: Environment, rules: Rules | None) -> Authority:
        strategy = self._vouched(f"strategies/{place.spec.strategy}.yaml", Strategy)[0]
        if checks_of(strategy) != self._order.checks:
            raise self._refuse("the checks of the signed strategy", "others")
        return Authority(rules=rules)

    def _newest(self, found: Authority) -> Authority:
        """No promotion, and no request to go back, is followed after a newer one."""
        if self._own.promoted is not None and found.promoted is not None:
            self._not_before("a promotion", found.promoted, self._own.promoted)
        return found

    # --- what people signed ------------------------------------------------------------------------------

    def _vouched(self, path: str, kind: type[D]) -> tuple[D, str, datetime]:
        """A document, its blob and the time of the commit by which a person vouches for it."""
        oid = self._sent.vouched.get(path)
        if oid is None:
            raise self._refuse(f"a commit by a person that shows {path}", "none")
        commit, trust = self._objects.commit(oid), self._own.trust
        own = self._own
        if not vouches(commit, trust, path, self._slot, own.project, own.ref, own.now):
            raise self._refuse(f"a signature by a person who may decide about {path}", _signer(commit, trust))
        document, blob = self._document(oid, path, kind)
        return document, blob, commit.committer.at

    def _document(self, commit: str, path: str, kind: type[D]) -> tuple[D, str]:
        file = self._objects.file(commit, path)
        if file is None or file.mode != _REGULAR:
            raise self._refuse(f"{path} in commit {commit[:12]}", "no such file")
        return self._parsed(path, self._objects.read(file.blob), kind), file.blob

    def _parsed(self, path: str, data: bytes, kind: type[D]) -> D:
        document = parse(path, data).document
        if not isinstance(document, kind):
            raise self._refuse(f"a valid {path}", "a file that does not validate")
        return document

    def _promotion(self) -> tuple[Step, datetime]:
        """The judged commit that put this release into the slot, and when it can have been signed."""
        oid, own = self._sent.promotion, self._own
        if oid is None:
            raise self._refuse("the commit of the promotion", "none")
        terms = Terms(own.project, own.ref, own.verify_ssh)
        commit = self._objects.commit(oid)
        if not commit.parents:
            raise self._refuse("a commit that changes the slot", "a first commit", oid)
        step = judge_step(Ground(self._objects, Unbacked(), terms, own.trust, None, oid), commit)
        if step.refused is not None:
            raise self._refuse(step.expected, f"{step.refused}: {step.message}; {step.got}", oid)
        change = next((change for change in step.changes if change.path == self._slot), None)
        if change is None or change.new is None or change.new.mode != _REGULAR:
            raise self._refuse(f"a commit that changes {self._slot}", "one that does not", oid)
        slot = self._parsed(self._slot, self._objects.read(change.new.blob), Promotion)
        if slot.spec.release != self._order.release:
            raise self._refuse(f"a promotion of {self._order.release}", slot.spec.release, oid)
        return step, signed_at(commit, [self._objects.commit(parent) for parent in commit.parents])

    def _locked(self, step: Step) -> tuple[ReleaseLock, bytes]:
        """The lock that the approvals are about: what the merge's first parent held, or what they are bound to."""
        seen = next((one.lock for one in step.locked if one.path == self._slot), None)
        binding = self._sent.binding
        for data in self._objects.blobs:
            bound = binding is not None and binding.lock == "sha256:" + hashlib.sha256(data).hexdigest()
            if seen is None and bound:
                return self._parsed(self._lock, data, ReleaseLock), data
        if seen is None:
            raise self._refuse(f"{self._lock}, in the tree that was approved or bound by requests", "none")
        data = self._objects.read(seen)
        return self._parsed(self._lock, data, ReleaseLock), data

    # --- what the order says -----------------------------------------------------------------------------

    def _content(self, locked: ReleaseLock, place: Environment) -> None:
        """The order's digests, and how they are to run, are those that were signed."""
        order, lock = self._order, locked.spec
        digests = {name: one.digest for name, one in lock.components.items()}
        if not (order.manifest_digest == lock.manifest_digest == manifest_digest(digests)):
            raise self._refuse(lock.manifest_digest, order.manifest_digest, self._lock)
        for name, part in sorted(order.components.items()):
            one = lock.components.get(name)
            if one is None or (part.repository, part.digest, part.role) != (one.repository, one.digest, one.role):
                raise self._refuse(
                    f"{one.repository}@{one.digest}" if one else "no such component", part.digest, name
                )
            if part.run != run_of(self._vouched(f"components/{name}.yaml", Component)[0]):
                raise self._refuse(f"{name} to run as its signed document says", "otherwise")
        left = sorted(name for name in lock.components.keys() - order.components.keys())
        if any(lock.components[name].role not in FIRST_ROLES for name in left):
            raise self._refuse("every component of the lock", f"none of {', '.join(left)}")
        if dict(order.variables) != dict(place.spec.variables):
            raise self._refuse("the variables of the signed environment", "others")

    def _not_before(self, what: str, at: datetime, known: datetime) -> None:
        if at + _SKEW < known:
            raise self._refuse(f"{what} of {known.isoformat()} or later", f"an older one, of {at.isoformat()}")

    # --- who approved ------------------------------------------------------------------------------------

    def _approved(self, asked: Approvals, step: Step, lock: bytes, rules: str) -> tuple[str, ...]:
        """The commits by which enough people approve, as the agent knows them now."""
        subject = self._subject(step, lock, rules)
        commits: dict[str, str] = {}
        given: list[Given] = []

        def give(name: str, commit: Commit, via: Literal["merge", "request"], bound: str) -> None:
            given.append(Given(name, key_id(commit.key or ""), via, bound, self._own.first_seen(commit.id)))
            commits.setdefault(name, commit.id)

        if any(one.path == self._slot for one in step.locked):
            for name in step.approvals:
                give(name, self._objects.commit(step.commit), "merge", subject)
        for oid in self._sent.requests:
            commit, request = self._request(oid)
            owner = self._own.trust.owner_of(commit.key or "")
            if owner is None or request.verb != "approve" or request.binds is None:
                raise self._refuse("a request that approves", request.verb, oid)
            give(owner, commit, "request", request.binds)
        others = step.authors - {step.signer}
        requester = {step.signer} if step.signer and not (step.kind == "merge" and others) else set()
        counted = tally(
            asked,
            given,
            subject=subject,
            authors=step.authors | requester,
            trust=self._own.trust,
            now=self._own.now,
        )
        if not counted.satisfied:
            needs = ", ".join(f"{number} of {role}" for role, number in sorted(counted.missing.items()))
            said = "; ".join(f"{one.code}: {one.message}" for one in counted.not_counted)
            raise self._refuse(f"approvals by {needs} more", said or "no further ones", step.commit)
        return tuple(sorted({commits[one.principal] for one in counted.counted}))

    def _subject(self, step: Step, lock: bytes, rules: str) -> str:
        """What approvals bind to, made again from what it says; a constant where only merges count."""
        said = self._sent.binding
        if said is None:
            return f"commit:{step.commit}"
        slot = next(change.new for change in step.changes if change.path == self._slot)
        wanted = (step.commit, slot.blob if slot else "", "sha256:" + hashlib.sha256(lock).hexdigest(), rules)
        if (said.promotion_commit, said.slot, said.lock, said.environment) != wanted:
            raise self._refuse("approvals bound to this promotion, slot, lock and environment", "to others")
        if self._order.target not in said.targets or said.trust_version > self._own.trust.version:
            raise self._refuse(f"approvals for {self._order.target}", ", ".join(said.targets[:8]))
        return approval_subject(
            project=self._own.project,
            promotion_commit=said.promotion_commit,
            slot_blob=said.slot,
            lock_sha256=said.lock,
            environment_blob=said.environment,
            strategy_blob=said.strategy,
            policy_blobs=said.policies,
            trust_version=said.trust_version,
            targets=said.targets,
        )

    def _request(self, oid: str) -> tuple[Commit, Request]:
        """An accepted request of this environment: what its own commit adds, not what stands in its tree."""
        commit, trust = self._objects.commit(oid), self._own.trust
        parent = commit.parents[0] if commit.parents else None
        for data in self._objects.blobs:
            try:
                path = request_path(read_request(data))
            except Invalid:
                continue
            changes = self._objects.at(path).changes(parent, oid)
            if not changes or changes[0].new is None or self._objects.read(changes[0].new.blob) != data:
                continue
            verdict = judge_request(commit, changes, data, trust, self._own.project, commit.committer.at)
            if not verdict.accepted or verdict.request is None:
                raise self._refuse("a request that Trust allows", f"{verdict.code}: {verdict.message}", oid)
            if verdict.request.environment != self._order.environment:
                raise self._refuse(f"a request for {self._order.environment}", verdict.request.environment, oid)
            return commit, verdict.request
        raise self._refuse("the file that the request's commit adds", "none", oid)

    def _going_back(self) -> datetime | None:
        """When somebody entitled asked for the rollback that this order is part of; None when it is none."""
        if self._sent.rollback is None:
            return None
        commit, request = self._request(self._sent.rollback)
        if request.verb != "rollback":
            raise self._refuse("a request to roll back", request.verb, commit.id)
        if self._own.trust.principal_of(commit.key or "", self._own.now) is None:
            raise self._refuse("a key that may sign now", "one whose time is over", commit.id)
        return commit.committer.at

    def _refuse(self, expected: str, got: str, where: str = "") -> Exception:
        place = f"order {self._order.id}" + (f", {where[:64]}" if where else "")
        return unapproved(expected, got, place)


def _signer(commit: Commit, trust: TrustState) -> str:
    return trust.owner_of(commit.key or "") or ("nobody that Trust knows" if commit.key else "no signature")
