"""The shapes of `-o json`: what every reading command answers. `schemas/cli/` is generated from these.

A field is never renamed or taken away in a minor version; new ones may come. Times are RFC 3339 UTC, digests
`sha256:<hex>`, commits whole ids. A field that does not apply is null.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict


class DiagnosticShape(TypedDict):
    """One thing that is wrong with one file; line 0 is the file as a whole."""

    severity: Literal["error", "warning"]
    code: str
    path: str
    line: int
    message: str
    cure: str


class BlockerShape(TypedDict):
    """One thing that holds an environment up: what says so, until when, and what would change it."""

    gate: str
    code: str
    message: str
    until: str | None
    unblock: str


class WhyShape(TypedDict):
    """Why an environment is blocked or waiting; `blockedBy` is empty when nothing holds it up. `notes` tell what
    is still to come, and that nothing waits for it."""

    environment: str
    run: str | None
    phase: str
    blockedBy: list[BlockerShape]
    notes: list[str]


class LetStandShape(TypedDict):
    """A refused commit of main that owners let stand, who did and why; nobody where a restart of evidence did."""

    commit: str
    code: str
    by: list[str]
    reasons: list[str]


class StatusShape(TypedDict):
    """One environment. `release`, `manifestDigest` and `since` are what runs there; `run` is the open run, else
    the last one, and `phase` its phase ("idle" when there was none); `stage` counts from 1. `letStand` is about
    main, and so the same for all."""

    environment: str
    release: str | None
    manifestDigest: str | None
    since: str | None
    run: str | None
    runRelease: str | None
    phase: str
    stage: int | None
    stages: int | None
    waitingFor: list[str]
    actions: list[str]
    letStand: list[LetStandShape]


class SideShape(TypedDict):
    """A release as it runs or ran."""

    release: str | None
    manifestDigest: str | None


PreviewShape = TypedDict(
    "PreviewShape",
    {
        "environment": str,
        "run": str | None,
        "from": SideShape,
        "to": SideShape,
        "reverts": list[str],
        "unchanged": list[str],
    },
)
"""What a rollback would do; nothing was written."""


class AskedShape(TypedDict):
    """A request that was pushed; `verdict` is the controller's answer when it was waited for."""

    request: str
    commit: str
    verb: str
    environment: str
    run: str | None
    verdict: Literal["accepted", "refused"] | None
    code: str | None
    message: str | None


class PromotedShape(TypedDict):
    """A slot written on a branch."""

    environment: str
    release: str
    branch: str
    commit: str
    next: str


class LinkedShape(TypedDict):
    """The in-toto link of an approval by merge: the request that carries it, or why there is none."""

    environment: str
    run: str | None
    request: str | None
    code: str
    message: str


class LandedShape(TypedDict):
    """A commit on main, and how the path rules judge it (null when that cannot be told here)."""

    commit: str
    branch: str
    accepted: bool | None
    code: str | None
    message: str | None
    approves: list[str]
    links: list[LinkedShape]


class MovedShape(TypedDict):
    component: str
    repository: str
    tag: str
    locked: str
    now: str | None


class ResolvedComponentShape(TypedDict):
    tag: str | None
    digest: str
    semver: str | None
    channel: str | None


class ResolveShape(TypedDict):
    """A release resolved to digests; `moved` and `changed` speak of its lock, when checked."""

    release: str
    manifestDigest: str
    components: dict[str, ResolvedComponentShape]
    moved: list[MovedShape]
    changed: bool


class FindingShape(TypedDict):
    code: str
    commit: str
    path: str
    rule: str
    message: str


class RefusedShape(TypedDict):
    commit: str
    ref: str
    code: str
    message: str


class VerifyShape(TypedDict):
    """`verified` means: no finding. `refused` counts commits that were refused, on record, without effect.

    `timeAnchor` says in words how far the log is time-stamped.
    """

    verified: bool
    commits: int
    entries: int
    runs: int
    refused: int
    refusedCommits: list[RefusedShape]
    findings: list[FindingShape]
    timeAnchor: str
    run: NotRequired[str]
    """The run of an audit pack (`--bundle`)."""
    sealed: NotRequired[bool]
    """Whether that run had ended when it was exported."""


class KeyShape(TypedDict):
    """A key, its id in envelopes, its fingerprint as ssh-keygen shows it, and when it may sign."""

    key: str
    keyId: str
    fingerprint: str
    validAfter: str | None
    validBefore: str | None


class PrincipalShape(TypedDict):
    name: str
    roles: list[str]
    keys: list[KeyShape]
    emails: list[str]


class PathRuleShape(TypedDict):
    match: str
    write: list[str]
    approvals: dict[str, int]


class SigningShape(TypedDict):
    """The owners of one version who signed the next, and how many of them it takes."""

    version: int
    signed: list[str]
    needed: int
    of: list[str]
    complete: bool


class PendingTrustShape(TypedDict):
    """A next version that is proposed and not in force; `error` says why it cannot come into force."""

    version: int
    sha256: str
    branch: str
    commit: str
    quorums: list[SigningShape]
    complete: bool
    error: str | None


class TrustShape(TypedDict):
    """A version of the trust document, which version is in force by the evidence, and what is pending."""

    version: int
    sha256: str
    commit: str
    inForce: int
    principals: list[PrincipalShape]
    roles: dict[str, list[str]]
    thresholds: dict[str, int]
    paths: list[PathRuleShape]
    pending: PendingTrustShape | None


class TrustSignedShape(TypedDict):
    """A signature added to a pending version."""

    principal: str
    path: str
    commit: str
    pending: PendingTrustShape
    next: str


class RotatedShape(TypedDict):
    """A key change, as a signed commit on a branch to be reviewed."""

    principal: str
    key: str
    file: str
    version: int | None
    oldKeysUntil: str | None
    branch: str
    commit: str
    next: str


class RestartShape(TypedDict):
    """A restart of evidence as it is proposed: from where it goes on, what of main its signers vouch for (locks by
    path, reverts, refused commits that stand), and who signed of how many."""

    number: int
    branch: str
    commit: str
    evidence: str | None
    size: int
    lost: str | None
    main: str
    locks: list[str]
    reverts: list[str]
    acknowledged: list[str]
    signed: list[str]
    needed: int
    next: str


class MadeShape(TypedDict):
    """A new project: where it is, and what must be kept outside of it."""

    directory: str
    project: str
    genesis: str
    trustRoot: str
    keys: dict[str, str]


class LayoutShape(TypedDict):
    """An in-toto layout that was signed; `branch` and `commit` are null when it was written to a file. `certified`
    are agents that no layout can name."""

    path: str
    environment: str | None
    certified: list[str]
    signedBy: list[str]
    needed: int
    branch: str | None
    commit: str | None


class SignerShape(TypedDict):
    """A line of an allowed-signers file (ssh-keygen(1))."""

    principal: str
    options: str
    key: str


class GuardShape(TypedDict):
    """The hook that was installed; `fsckObjects`: git there checks what it receives, too."""

    hook: str
    project: str
    fsckObjects: bool


class ReceiptShape(TypedDict):
    """An entry written to a folder with its receipt; `index` is its place in the log."""

    index: int
    envelope: str
    receipt: str


class ReceiptCheckShape(TypedDict):
    """What a receipt proves: the entry, and the size of the log it is in. `cosignatures` counts further signature
    lines of the checkpoint, which are not judged."""

    index: int
    kind: str
    run: str | None
    summary: str
    at: str
    size: int
    origin: str
    cosignatures: int


class StepShape(TypedDict):
    """One entry whole; `predicate` is as schemas/evidence describes it."""

    run: str
    envelope: str
    commit: str | None
    path: str
    predicate: dict[str, Any]
