"""A trust version on its way: what is proposed, who signed it, and who is still needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.core.trust import (
    OWNERS,
    TRUST_NAMESPACE,
    TrustState,
    VerifySsh,
    check_successor,
    quorum_signers,
)
from controller.errors import Invalid, LockgateError, Refused
from controller.model.places import TRUST_PATH
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.shapes import (
    KeyShape,
    PendingTrustShape,
    PrincipalShape,
    SigningShape,
    TrustShape,
)
from controller.uses.trust_chain import trust_history
from controller.uses.view import View, project_of

_SIGNATURE = re.compile(r"trust/[0-9]+/([a-z0-9][a-z0-9.-]*)\.sig")


@dataclass(frozen=True, slots=True)
class Quorum:
    """The owners of one version, those of them who signed, and how many it takes."""

    version: int
    owners: frozenset[str]
    signed: frozenset[str]
    needed: int

    @property
    def complete(self) -> bool:
        return len(self.signed) >= self.needed


@dataclass(frozen=True, slots=True)
class Pending:
    """A proposed next version: both quorums, that of the version in force first.

    `error` is why it cannot follow even when everybody signs, or None while only signatures are missing.
    """

    branch: str
    commit: str
    document: bytes
    following: TrustState
    signatures: Mapping[str, str]
    quorums: tuple[Quorum, Quorum]
    error: str | None

    @property
    def complete(self) -> bool:
        return self.error is None and all(quorum.complete for quorum in self.quorums)

    def missing(self) -> frozenset[str]:
        """The owners who have not signed and whose signature would count."""
        return frozenset(
            name for quorum in self.quorums if not quorum.complete for name in quorum.owners - quorum.signed
        )

    def next_step(self) -> str:
        """What is to be done now, in one line."""
        if self.error is not None:
            return self.error
        if self.complete:
            return f"have an owner merge it: lockgate merge {self.branch} --key KEY"
        needs = []
        for quorum in self.quorums:
            if not quorum.complete:
                names = ", ".join(sorted(quorum.owners - quorum.signed)) or "nobody"
                needs.append(
                    f"{quorum.needed - len(quorum.signed)} more of {names} (owners of version {quorum.version})"
                )
        return "needs " + " and ".join(needs) + f": lockgate trust sign --branch {self.branch} --key KEY"


def pending_at(
    repo: Repo, trust: TrustState, branch: str, commit: str, verify_ssh: VerifySsh, at: datetime
) -> Pending | None:
    """The version proposed by a commit's tree, signed by keys that may sign at `at`; None when it proposes nothing
    but the one in force.

    Raises Invalid("trust-malformed"), Refused("key-reused").
    """
    file = repo.file(commit, TRUST_PATH)
    document = repo.read(file.blob) if file is not None else b""
    following = TrustState.parse(document)
    if following.sha256 == trust.sha256:
        return None
    signatures = {}
    for path, entry in repo.files(commit, f"trust/{trust.version + 1}/"):
        found = _SIGNATURE.fullmatch(path)
        if found is not None:
            signatures[found[1]] = repo.read(entry.blob).decode("ascii", "replace")
    quorums = tuple(
        Quorum(
            state.version,
            state.roles.get(OWNERS, frozenset()),
            quorum_signers(state, document, signatures, verify_ssh, at),
            state.threshold(OWNERS),
        )
        for state in (trust, following)
    )
    error = None
    try:
        check_successor(trust, document, signatures, verify_ssh, at)
    except LockgateError as problem:
        error = str(problem) if problem.code != "trust-quorum" else None
    if error is None and following.version != trust.version + 1:
        error = str(not_next(trust, following))
    return Pending(branch, commit, document, following, signatures, (quorums[0], quorums[1]), error)


def not_next(trust: TrustState, following: TrustState) -> Refused:
    """The refusal of a version that does not grow by one."""
    return Refused(
        "trust-rollback",
        "a trust document must be the next version",
        where=TRUST_PATH,
        expected=f"version {trust.version + 1}",
        got=f"version {following.version}",
        cure="write the change as the next version of the one in force",
    )


def signature_for(pending: Pending, trust: TrustState, armored: str, verify_ssh: VerifySsh) -> str:
    """The owner whose good signature over the pending version this is; of the version in force or of the new one.

    Raises Refused("trust-rollback"), Refused("not-an-owner"), Refused("signature-invalid").
    """
    if pending.following.version != trust.version + 1:
        raise not_next(trust, pending.following)
    key = verify_ssh(armored, pending.document, TRUST_NAMESPACE)
    for state in (trust, pending.following):
        name = state.owner_of(key)
        if name is not None and state.holds(name, OWNERS):
            return name
    raise Refused(
        "not-an-owner",
        "only owners sign trust versions",
        where=TRUST_PATH,
        expected=", ".join(sorted(pending.quorums[0].owners | pending.quorums[1].owners)),
        got=trust.owner_of(key) or key[:44],
        cure="sign with the key of one of them",
    )


def version_at(found: View, root: TrustRoot | None, version: int, verify_ssh: VerifySsh) -> tuple[TrustState, str]:
    """A version on the chain to the one in force, and the commit it is read from.

    Raises Invalid("trust-missing").
    """
    if version == found.trust.version:
        return found.trust, found.accepted or ""
    cursors = found.state.cursors
    genesis = root.genesis if root is not None else cursors.genesis
    accepted = found.accepted
    if genesis and accepted is not None:
        root = TrustRoot(project=project_of(found), genesis=genesis)
        for _, state in trust_history(found.repo, root, accepted, verify_ssh):
            if state.version == version:
                return state, accepted
    raise Invalid(
        "trust-missing",
        "no trust version of this number came into force",
        expected=f"1 to {found.trust.version}",
        got=str(version),
        cure="leave --version out to see the one in force and what is pending",
    )


def shown(
    found: View, state: TrustState, commit: str, pending: Pending | None, keys: Mapping[str, tuple[str, str]]
) -> TrustShape:
    """The answer of `trust show`; `keys` maps a key to its id and fingerprint."""
    spec = state.document.spec
    return {
        "version": state.version,
        "sha256": f"sha256:{state.sha256}",
        "commit": commit,
        "inForce": found.trust.version,
        "principals": [_principal(state, name, keys) for name in sorted(state.members)],
        "roles": {name: sorted(members) for name, members in sorted(state.roles.items())},
        "thresholds": {name: role.threshold for name, role in sorted(spec.roles.items())},
        "paths": [
            {"match": rule.match, "write": list(rule.write), "approvals": dict(rule.approvals)}
            for rule in spec.paths
        ],
        "pending": pending_shape(pending) if pending is not None else None,
    }


def _principal(state: TrustState, name: str, keys: Mapping[str, tuple[str, str]]) -> PrincipalShape:
    listed: list[KeyShape] = [
        {
            "key": key,
            "keyId": keys[key][0],
            "fingerprint": keys[key][1],
            "validAfter": after.isoformat() if after is not None else None,
            "validBefore": before.isoformat() if before is not None else None,
        }
        for key, (after, before) in state.members[name].spans.items()
    ]
    emails = list(state.document.spec.principals[name].emails)
    return {"name": name, "roles": sorted(state.roles_of(name)), "keys": listed, "emails": emails}


def pending_shape(pending: Pending) -> PendingTrustShape:
    """A pending version as answers show it."""
    quorums: list[SigningShape] = [
        {
            "version": quorum.version,
            "signed": sorted(quorum.signed),
            "needed": quorum.needed,
            "of": sorted(quorum.owners),
            "complete": quorum.complete,
        }
        for quorum in pending.quorums
    ]
    return {
        "version": pending.following.version,
        "sha256": f"sha256:{pending.following.sha256}",
        "branch": pending.branch,
        "commit": pending.commit,
        "quorums": quorums,
        "complete": pending.complete,
        "error": pending.error,
    }
