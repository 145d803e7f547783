"""Judging the evidence that a push brings: the walk of `verify` over the new entries, on top of what stands."""

from __future__ import annotations

from collections.abc import Callable

from controller.core.accept import MainState
from controller.ledger.log import CHECKPOINT, origin_of
from controller.uses.audit import main_audit, requests_audit
from controller.uses.audit.coming import Coming
from controller.uses.audit.evidence_walk import Walk
from controller.uses.audit.findings import Finding, rule_of
from controller.uses.audit.transparency_audit import audit_transparency
from controller.uses.audit.walked import Edge, Facts, Ground, edge_at
from controller.uses.audit.whole_history import History
from controller.uses.own import cursors_at
from controller.uses.pinned import pinned_fault


def evidence_findings(coming: Coming, main: Callable[[], MainState]) -> list[Finding]:
    """What is wrong with the entries after the controller's last good commit, foreign ones among them.

    `main` judges main as it will stand, backed by the evidence that comes.
    """
    repo, root, good, tip = coming.repo, coming.root, coming.good, coming.tips.evidence
    assert tip is not None
    commits = [commit.id for commit in repo.first_parents(tip, good)]
    edge = edge_at(repo, good) if good is not None else Edge()
    ground = Ground(
        project=root.project,
        genesis=root.genesis,
        origin=origin_of(root.project, root.genesis),
        trusts=coming.trusts,
        main=_positions(coming),
        ask=coming.means.ask,
    )
    walk = Walk(repo, ground, edge, good)
    end = walk.run(commits)
    findings = list(walk.findings)
    fault = pinned_fault(repo, root, tip)
    if fault:
        code = "checkpoint-mismatch"
        findings.append(Finding(code, tip, CHECKPOINT, rule_of(code), fault))
    if findings:
        return findings
    history = History(repo, root, coming.tips, coming.means.verify_ssh, ground, walk.facts, end)
    return _others(coming, history, walk.facts, main)


def _positions(coming: Coming) -> dict[str, int]:
    """Main's first-parent commits from the accepted one on, in order."""
    start, tip = coming.start.accepted, coming.tips.main
    after = coming.repo.first_parents(tip, start) if tip is not None else []
    return {oid: place for place, oid in enumerate([start, *(commit.id for commit in after)])}


def _others(coming: Coming, history: History, facts: Facts, main: Callable[[], MainState]) -> list[Finding]:
    """What the new entries say of main, requests and the log."""
    repo, start, tips = coming.repo, coming.start, coming.tips
    assert tips.evidence is not None
    if tips.main is None:
        return [Finding("main-rewound", "", "", rule_of("main-rewound"), "main is gone")]
    findings = main_audit.compare(history, start.accepted, start.trust, main())
    before = cursors_at(repo, coming.good).requests if coming.good is not None else None
    asked = repo.first_parents(tips.requests, before) if tips.requests is not None else []
    found, _ = requests_audit.compare(history, [commit.id for commit in asked], before)
    findings += found
    # A repair makes positions on the branch and in the log differ, and a part of the branch cannot tell how.
    if facts.visible and len(repo.chain(tips.evidence)) == history.edge.state.cursors.index:
        found, _ = audit_transparency(history)
        findings += found
    return findings
