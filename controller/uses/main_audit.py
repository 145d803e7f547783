"""Main, judged again from genesis by the controller's own code, and compared with what evidence says of it."""

from __future__ import annotations

from collections.abc import Mapping

from controller.core.accept import MainState, Terms, genesis_state, judge_main
from controller.core.trust import CONTROLLER, TrustState
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger.canonical import digest
from controller.uses.acknowledged import ACKNOWLEDGED, told
from controller.uses.evidence_walk import Facts
from controller.uses.findings import Finding, RefusedCommit, rule_of
from controller.uses.object_audit import unreadable
from controller.uses.observation import Observation
from controller.uses.whole_history import Answer, History


class FactsBacking:
    """What the walked evidence says about the controller's own commits on main."""

    def __init__(self, facts: Facts) -> None:
        self._locks = {(path, sha256) for path, sha256, _ in facts.locks}
        self._reverts = facts.reverts

    def lock(self, path: str, sha256: str) -> bool:
        """Whether an entry records a lock of this path with these bytes (hex SHA-256)."""
        return (path, f"sha256:{sha256}") in self._locks

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Whether the sealed run orders this slot back to this blob (None: removed)."""
        return (run, path) in self._reverts and self._reverts[run, path] == blob


def audit_main(history: History) -> Answer:
    """Judge main from genesis; a refusal that evidence records is listed, every other one is a finding."""
    repo, facts, tip = history.repo, history.facts, history.tips.main
    findings: list[Finding] = []
    refused: list[RefusedCommit] = []
    if tip is None:
        return [Finding("main-rewound", "", "", rule_of("main-rewound"), "main is gone")], []
    try:
        state = genesis_state(repo, history.root)
        seen = Observation(repo, facts, history.ground.main)
        let_stand = {one.commit: one.code for one in facts.acknowledged.values()}
        root = history.root
        terms = Terms(root.project, root.refs.main, history.verify_ssh, acknowledged=let_stand, observed=seen)
        judged = judge_main(repo, state, tip, FactsBacking(facts), terms)
    except LockgateError as error:
        return [Finding(error.code, tip, "", rule_of(error.code), f"{error.what} ({error.got})")], []
    for step in judged.steps:
        if step.refused is None:
            continue
        stood = facts.acknowledged.get(step.commit)
        if stood is not None and stood.code == step.refused:
            refused.append(RefusedCommit(step.commit, history.root.refs.main, ACKNOWLEDGED, told(stood)))
        elif step.commit in facts.refused:
            refused.append(RefusedCommit(step.commit, history.root.refs.main, step.refused, step.message))
        else:
            path = step.changes[0].path if len(step.changes) == 1 else ""
            findings.append(Finding(step.refused, step.commit, path, rule_of(step.refused), step.message))
    findings += compare(history, history.root.genesis, state.trust, judged)
    findings += unreadable(repo, (history.root.genesis, *(step.commit for step in judged.steps)))
    return findings, refused


def compare(history: History, start: str, trust: TrustState, judged: MainState) -> list[Finding]:
    """What evidence says of main against main as it was judged from `start`, an accepted commit, whose `trust`
    was in force then. `history.ground.main` holds first-parent commits from there on at least."""
    accepted = {start} | {step.commit for step in judged.newly}
    findings = _observations(history, accepted)
    findings += _versions(history, trust, judged)
    findings += _locks(history, judged.accepted)
    return findings


def _observations(history: History, accepted: set[str]) -> list[Finding]:
    """What evidence acted on is accepted main, and acceptance only moves on."""
    facts, positions = history.facts, history.ground.main
    findings = []
    last = -1
    for tip, oid in facts.accepted:
        if tip not in accepted:
            text = f"evidence accepts {tip[:12]}, which the rules refuse or main does not hold"
            findings.append(Finding("main-not-accepted", oid, "", rule_of("main-not-accepted"), text))
        elif positions[tip] < last:
            text = f"evidence accepts {tip[:12]}, older than what was accepted before"
            findings.append(Finding("main-rewound", oid, "", rule_of("main-rewound"), text))
        last = max(last, positions.get(tip, -1))
    for (main, _), oid in facts.observed.items():
        if main not in accepted:
            text = f"an entry was made from {main[:12]}, which is not accepted main"
            findings.append(Finding("main-not-accepted", oid, "", rule_of("main-not-accepted"), text))
    return findings


def _versions(history: History, first: TrustState, judged: MainState) -> list[Finding]:
    """Entries name the trust version of the main they were made from, and its keys signed them."""
    facts = history.facts
    trusts: dict[int, TrustState] = {first.version: first}
    changes: list[tuple[int, int]] = [(0, first.version)]
    for step in judged.newly:
        if step.refused is None and step.new_trust is not None:
            trusts[step.new_trust.version] = step.new_trust
            changes.append((history.ground.main[step.commit], step.new_trust.version))
    findings = []
    for (main, version), oid in facts.observed.items():
        position = history.ground.main.get(main, -1)
        expected = max((v for place, v in changes if place <= position), default=first.version)
        if version != expected:
            text = f"trust version {version} is not that of main {main[:12]}, which is {expected}"
            findings.append(Finding("observed-unknown", oid, "", rule_of("observed-unknown"), text))
    for (key, version), (oid, path) in facts.keys.items():
        if not _is_controllers(trusts, key, version):
            text = f"signed by a key that is not the controller's in accepted trust version {version}"
            findings.append(Finding("foreign-evidence", oid, path, rule_of("foreign-evidence"), text))
    return findings


def _is_controllers(trusts: Mapping[int, TrustState], key: str, version: int) -> bool:
    trust = trusts.get(version)
    owner = trust.owner_of(key) if trust is not None else None
    return trust is not None and owner is not None and trust.holds(owner, CONTROLLER)


def _locks(history: History, accepted: str) -> list[Finding]:
    """A lock file on accepted main equals the lock that evidence recorded."""
    findings = []
    for path, (sha256, oid) in {path: (sha256, oid) for path, sha256, oid in history.facts.locks}.items():
        try:
            file = history.repo.file(accepted, path)
            if file is not None and digest(history.repo.read(file.blob)) != sha256:
                text = "the lock on main is not the one that was recorded"
                findings.append(Finding("lock-mismatch", oid, path, rule_of("lock-mismatch"), text))
        except (Refused, Invalid) as error:
            findings.append(Finding(error.code, accepted, path, rule_of(error.code), error.what))
    return findings
