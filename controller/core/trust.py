"""Who may do what: a Trust document as questions and answers, and how one version follows another.

Everything here is a pure function of documents and signatures. Signature arithmetic comes in as a callable,
so that the controller, an agent and `verify` ask the same questions of the same code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.core.globs import match
from controller.core.keys import key_id, normal_key
from controller.core.parse import parse
from controller.errors import Invalid, Refused
from controller.model.places import TRUST_PATH
from controller.model.trust import PathRule, Trust

__all__ = ["TRUST_NAMESPACE", "TrustState", "VerifySsh", "check_successor", "key_id", "read_trust"]

TRUST_NAMESPACE = "lockgate-trust"
CONTROLLER = "controller"
OWNERS = "owners"

VerifySsh = Callable[[str, bytes, str], str]
"""(armored, data, namespace) -> the OpenSSH key whose SSHSIG this is; raises when it is not good."""


@dataclass(frozen=True, slots=True)
class Member:
    """A principal: keys in their one spelling, and from when to when each may sign (None: no bound)."""

    name: str
    spans: Mapping[str, tuple[datetime | None, datetime | None]]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.spans)

    def valid(self, at: datetime) -> bool:
        """Whether any of the keys may sign at `at`."""
        return any(self.key_valid(key, at) for key in self.spans)

    def key_valid(self, key: str, at: datetime) -> bool:
        """Whether a key of this member may sign at `at`: from validAfter on, up to and without validBefore."""
        after, before = self.spans[normal_key(key)]
        return (after is None or at >= after) and (before is None or at < before)

    def timed(self, key: str) -> bool:
        """Whether a key of this member may sign for a time only."""
        return self.spans[normal_key(key)] != (None, None)


@dataclass(frozen=True, slots=True)
class TrustState:
    """One version of Trust, ready to be asked. `sha256` is the hex digest of the document's bytes."""

    version: int
    sha256: str
    document: Trust
    members: Mapping[str, Member]
    roles: Mapping[str, frozenset[str]]
    _owners_of: Mapping[str, str]
    _emails: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, document: Trust, data: bytes = b"") -> TrustState:
        """The state of a parsed document. Raises Refused("key-reused") when a key has two owners,
        Invalid("key-malformed"), Invalid("trust-malformed")."""
        _check_patterns(document)
        members: dict[str, Member] = {}
        owners: dict[str, str] = {}
        emails: dict[str, set[str]] = {}
        for name, principal in document.spec.principals.items():
            spans: dict[str, tuple[datetime | None, datetime | None]] = {}
            for timed in principal.timed_keys:
                key = normal_key(timed.public_key)
                if key in owners:
                    raise _reused(key, owners[key], name)
                owners[key] = name
                spans[key] = timed.valid_after, timed.valid_before
            for email in principal.emails:
                emails.setdefault(email.strip().casefold(), set()).add(name)
            members[name] = Member(name, spans)
        return cls(
            version=document.spec.version,
            sha256=hashlib.sha256(data).hexdigest(),
            document=document,
            members=members,
            roles={name: frozenset(role.members) & members.keys() for name, role in document.spec.roles.items()},
            _owners_of=owners,
            _emails={email: frozenset(names) for email, names in emails.items()},
        )

    @classmethod
    def parse(cls, data: bytes) -> TrustState:
        """The state of a document's bytes. Raises Invalid("trust-malformed"), Refused("key-reused")."""
        return cls.of(read_trust(data), data)

    def owner_of(self, key: str) -> str | None:
        """The principal a key belongs to, whether or not it may sign now."""
        try:
            return self._owners_of.get(normal_key(key))
        except Invalid:
            return None

    def principal_of(self, key: str, at: datetime) -> str | None:
        """The principal whose key this is and who may sign at `at`; None for strangers and expired keys."""
        name = self.owner_of(key)
        return name if name is not None and self.members[name].key_valid(key, at) else None

    @property
    def timed(self) -> bool:
        """Whether any key may sign for a time only."""
        return any(member.timed(key) for member in self.members.values() for key in member.keys)

    def people_of(self, email: str) -> frozenset[str]:
        """The principals that an author header's address names (case is ignored); nothing is proven by it."""
        return self._emails.get(email.strip().casefold(), frozenset())

    def holds(self, principal: str, role: str) -> bool:
        return principal in self.roles.get(role, frozenset())

    def roles_of(self, principal: str) -> frozenset[str]:
        return frozenset(role for role, members in self.roles.items() if principal in members)

    def rule_for(self, path: str) -> PathRule | None:
        """The first path rule that matches; None means that nobody may write there.

        Git reads `.gitattributes` and `.gitmodules` in every directory, so the rules of the root's files hold
        for all of them: a rule for `releases/**` gives no right to `releases/.gitattributes`.
        """
        name = path.rpartition("/")[2].lower()
        asked = name if name in (".gitattributes", ".gitmodules") else path
        return next((rule for rule in self.document.spec.paths if match(rule.match, asked)), None)

    def may_write(self, principal: str, path: str) -> bool:
        rule = self.rule_for(path)
        return rule is not None and any(self.holds(principal, role) for role in rule.write)

    def approvals_for(self, path: str) -> Mapping[str, int]:
        """How many approvals of which roles a change of this path needs."""
        rule = self.rule_for(path)
        return rule.approvals if rule is not None else {}

    def may_restore(self, principal: str, path: str) -> bool:
        """Whether this principal may put a path back to its accepted state.

        Those who approve it; where nobody does, those who write it and those who approve anything; owners.
        """
        rule = self.rule_for(path)
        if rule is not None and rule.approvals:
            return any(self.holds(principal, role) for role in rule.approvals)
        if self.may_write(principal, path) or self.holds(principal, OWNERS):
            return True
        approving = {role for other in self.document.spec.paths for role in other.approvals}
        return any(self.holds(principal, role) for role in approving)

    def allows(self, action: str, environment: str, principal: str) -> str | None:
        """The role by which a principal may ask for an action in an environment, or None."""
        for rule in self.document.spec.actions:
            if environment not in rule.environments and "*" not in rule.environments:
                continue
            for role, actions in rule.allow.items():
                if action in actions and self.holds(principal, role):
                    return role
        return None

    def keys_of_role(self, role: str, at: datetime | None = None) -> list[str]:
        """The keys of a role's members, sorted; with `at`, of those who may sign then."""
        names = self.roles.get(role, frozenset())
        members = [self.members[name] for name in names]
        return sorted(key for member in members for key in member.keys if at is None or member.key_valid(key, at))

    def threshold(self, role: str) -> int:
        """How many members of a role must sign together. Raises Refused("trust-quorum") without the role."""
        known = self.document.spec.roles.get(role)
        if known is None:
            raise Refused(
                "trust-quorum",
                f"trust version {self.version} has no role {role}",
                expected=f"a role {role} with members and threshold",
                cure="add the role",
            )
        return known.threshold

    def check_agent_keys(self, agents: Mapping[str, str]) -> None:
        """No agent's key belongs to a principal or to another agent. Raises Refused("key-reused")."""
        seen = dict(self._owners_of)
        for name, key in agents.items():
            normal = normal_key(key)
            if normal in seen:
                raise _reused(normal, seen[normal], f"agent {name}")
            seen[normal] = f"agent {name}"


def _reused(key: str, first: str, second: str) -> Refused:
    return Refused(
        "key-reused",
        f"one key belongs to {first} and to {second}",
        where=key[:60],
        expected="each key to have one owner",
        got=f"{first}, {second}",
        cure="make a key of its own for each",
    )


def _check_patterns(document: Trust) -> None:
    for rule in document.spec.paths:
        try:
            match(rule.match, "-")
        except ValueError as error:
            raise Invalid(
                "trust-malformed",
                f"a path rule's pattern does not read: {error}",
                where="trust/trust.yaml",
                got=rule.match[:80],
                cure="run `lockgate validate`",
            ) from error


def read_trust(data: bytes) -> Trust:
    """A Trust document from its bytes, read as `validate` reads it.

    Raises Invalid("trust-malformed"), Refused("key-reused").
    """
    parsed = parse(TRUST_PATH, data)
    if isinstance(parsed.document, Trust):
        return parsed.document
    reused = next((found for found in parsed.diagnostics if found.code == "key-reused"), None)
    if reused is not None:
        raise Refused(
            "key-reused",
            "one key belongs to two principals",
            where=f"{TRUST_PATH}:{reused.line}",
            expected="each key to have one owner",
            got=reused.message,
            cure="make a key of its own for each",
        )
    first = parsed.diagnostics[0] if parsed.diagnostics else None
    raise Invalid(
        "trust-malformed",
        f"{TRUST_PATH} does not read as a Trust document",
        where=f"{TRUST_PATH}:{first.line}" if first else TRUST_PATH,
        expected="a valid Trust document",
        got=first.message[:200] if first else "another kind",
        cure="run `lockgate validate`",
    )


def check_successor(
    previous: TrustState,
    document: bytes,
    signatures: Mapping[str, str],
    verify_ssh: VerifySsh,
    at: datetime | None = None,
) -> TrustState:
    """The state of `document`, when it may follow `previous`.

    `signatures` maps principal to an armored SSHSIG over `document` (namespace "lockgate-trust"). They must
    reach the owners' threshold of the previous version and of the new one, people counted once whatever
    number of keys they hold. The previous owners are asked before the bytes are parsed. With `at`, when the
    signatures were first seen, keys that may not sign then do not count. Raises
    Refused("trust-quorum"), Refused("trust-rollback"), Invalid("trust-malformed"), Refused("key-reused").
    """
    _check_quorum(previous, quorum_signers(previous, document, signatures, verify_ssh, at), "the version in force")
    following = TrustState.parse(document)
    if following.version != previous.version + 1:
        raise Refused(
            "trust-rollback",
            "a trust document must be the next version",
            where="trust/trust.yaml",
            expected=f"version {previous.version + 1}",
            got=f"version {following.version}",
            cure="write the change as the next version and have it signed",
        )
    _check_quorum(following, quorum_signers(following, document, signatures, verify_ssh, at), "the new version")
    return following


def quorum_signers(
    trust: TrustState,
    document: bytes,
    signatures: Mapping[str, str],
    verify_ssh: VerifySsh,
    at: datetime | None = None,
) -> frozenset[str]:
    """The owners of one version whose signature over `document` is good, each person once."""
    counted: set[str] = set()
    for principal, armored in signatures.items():
        if not trust.holds(principal, OWNERS):
            continue
        try:
            key = verify_ssh(armored, document, TRUST_NAMESPACE)
        except Exception:  # noqa: S112 - whatever a signature fails by, it does not count
            continue
        if trust.owner_of(key) == principal and (at is None or trust.members[principal].key_valid(key, at)):
            counted.add(principal)
    return frozenset(counted)


def _check_quorum(trust: TrustState, counted: frozenset[str], which: str) -> None:
    needed = trust.threshold(OWNERS)
    if len(counted) < needed:
        raise Refused(
            "trust-quorum",
            f"a trust change lacks the owners' signatures of {which}",
            where="trust/trust.yaml",
            expected=f"{needed} of {', '.join(sorted(trust.roles.get(OWNERS, ()))) or 'nobody'}",
            got=", ".join(sorted(counted)) or "none",
            cure="`lockgate trust sign` by further owners",
        )
