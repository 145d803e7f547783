"""Restarts of evidence in a verified history: each signed by its owners, about what is there, and never silent."""

from __future__ import annotations

import base64
from datetime import datetime

from controller.core.restart import check_quorum, restart_bytes, untimely
from controller.errors import LockgateError, Refused
from controller.ledger.append import load_log
from controller.ledger.canonical import digest
from controller.model.entry import EvidenceRestarted
from controller.model.restart import Restart, restart_path
from controller.uses.audit.findings import Finding, RefusedCommit, rule_of
from controller.uses.audit.whole_history import Answer, History
from controller.uses.restarting import RESTARTED, vouched_lock

UNSIGNED, MISMATCH = "restart-unsigned", "restart-mismatch"


def audit_restarts(history: History) -> Answer:
    """Each restart is listed; one that owners did not sign, or that is about another history, is a finding."""
    findings: list[Finding] = []
    listed: list[RefusedCommit] = []
    last = 0
    for detail, at, version, oid in history.facts.restarts:
        restart = detail.restart
        owners, wrong = _signed(history, detail, at)
        if wrong:
            findings.append(Finding(UNSIGNED, oid, "", rule_of(UNSIGNED), wrong))
        wrong = _unlike(history, detail, version, oid) or untimely(restart, at)
        if restart.number <= last:
            wrong = wrong or f"restart {restart.number} follows restart {last}"
        if wrong:
            findings.append(Finding(MISMATCH, oid, "", rule_of(MISMATCH), wrong))
        last = max(last, restart.number)
        listed.append(RefusedCommit(oid, history.root.refs.evidence, RESTARTED, told(restart, owners)))
    return findings, listed


def told(restart: Restart, owners: frozenset[str]) -> str:
    """A restart in one line: who signed it, from where it goes on, what is lost, and why."""
    from_ = f"{restart.evidence[:12]} ({restart.size} entries)" if restart.evidence else "nothing"
    lost = f", without {restart.lost[:12]}" if restart.lost else ""
    vouched = f"; {len(restart.locks)} locks and {len(restart.reverts)} reverts on main are vouched for"
    names = ", ".join(sorted(owners)) or "nobody"
    return f"evidence was lost and goes on from {from_}{lost}, signed by {names}: {restart.reason}{vouched}"


def _signed(history: History, detail: EvidenceRestarted, at: datetime) -> tuple[frozenset[str], str]:
    """The owners who signed, and why they are not enough."""
    restart = detail.restart
    if digest(restart_bytes(restart)) != detail.digest:
        return frozenset(), "the digest is not that of the restart"
    wrong = f"no trust version {restart.trust_version} is known"
    for trust in history.ground.trusts.get(restart.trust_version, ()):
        try:
            return check_quorum(restart, detail.signatures, trust, history.verify_ssh, at), ""
        except Refused as error:
            wrong = f"{error.what}; expected {error.expected}, got {error.got}"
    return frozenset(), wrong


def _unlike(history: History, detail: EvidenceRestarted, version: int, oid: str) -> str:
    """Why the restart is not about the branch and main that it stands on; "" when it is."""
    repo, root, restart = history.repo, history.root, detail.restart
    if (restart.project, restart.genesis) != (root.project, root.genesis):
        return "it is of another project"
    if restart.trust_version != version:
        return f"it names trust version {restart.trust_version}, and {version} was in force"
    try:
        parent = repo.commit(oid).parents[0] if repo.commit(oid).parents else None
        if restart.evidence is None:
            begun = parent is not None and not repo.commit(parent).parents
            if not begun or (restart.size, restart.root) != (0, ""):
                return "it begins the branch anew, and stands on more than its first entry"
        else:
            edge = load_log(repo, restart.evidence)
            said = (edge.size, base64.b64encode(edge.root).decode())
            if parent != restart.evidence or said != (restart.size, restart.root):
                return f"it goes on from {restart.evidence[:12]}, and does not stand there"
        if history.judged is None:
            return ""  # the audit of main says why
        file = repo.file(history.judged.accepted, restart_path(restart.number))
        if file is None or repo.read(file.blob) != restart_bytes(restart):
            return f"accepted main does not hold it as {restart_path(restart.number)}"
        for lock in restart.locks:
            if lock != vouched_lock(repo, restart.main, lock.path, lock.sha256.removeprefix("sha256:")):
                return f"it vouches for {lock.path}, and says of it what it does not"
    except LockgateError as error:
        return f"it cannot be compared with the branch: {error.what}"
    return ""
