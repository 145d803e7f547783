"""Refused commits that owners let stand: what the record of it must rest on, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from controller.core.acknowledge import acknowledgement_of, counted, enough, never, standing
from controller.core.requests import RequestVerdict
from controller.core.trust import TrustState
from controller.errors import Refused
from controller.ledger.cursors import Cursors
from controller.model.entry import Acknowledgement, MainAcknowledged
from controller.ports import Repo

UNBACKED = "acknowledgement-unbacked"
ACKNOWLEDGED = "acknowledged"
"""The code under which verification lists a refused commit that owners let stand."""


def seen_here(repo: Repo, verdict: RequestVerdict, evidence: str | None) -> RequestVerdict:
    """The verdict on an acknowledgement, refused where its author saw evidence that `evidence`, the commit it is
    judged on, does not hold. Every other verdict is given back as it is."""
    request = verdict.request
    if not verdict.accepted or request is None or request.verb != "acknowledge":
        return verdict
    seen = request.evidence
    try:
        holds = seen is not None and evidence is not None and repo.is_ancestor(seen, evidence)
    except Refused:
        holds = False
    if holds:
        return verdict
    text = f"the request was made on evidence {(seen or 'none')[:12]}, which this branch does not hold"
    return replace(verdict, accepted=False, code="evidence-unknown", message=text)


def misread(commit: str, recorded: Acknowledgement | None, verdict: RequestVerdict) -> bool:
    """Whether evidence records another acknowledgement than the request (at `commit`) gives."""
    return recorded != acknowledgement_of(commit, verdict)


def unbacked(detail: MainAcknowledged, before: Cursors, trusts: Iterable[TrustState], at: datetime) -> str:
    """What is wrong with a record that owners let a commit stand, by the state `before` it; "" when nothing is.

    Main stood still at that commit for that code, the acknowledgements were recorded as requests that were
    accepted, and enough owners of the trust in force had given them.
    """
    refused = standing(before.refused, detail.commit, detail.code)
    if refused is None:
        return f"main did not stand still at {detail.commit[:12]} with {detail.code}"
    forbidden = never(refused.paths)
    if forbidden is not None:
        return f"{detail.commit[:12]} can only be taken back: {forbidden}"
    if any(one not in before.acknowledging for one in detail.acknowledgements):
        return "it rests on acknowledgements that no accepted request gave"
    for trust in trusts:
        if enough(counted(detail.acknowledgements, detail.commit, detail.code, trust, at), trust):
            return ""
    return "fewer owners than their threshold acknowledged it in time"


def told(detail: MainAcknowledged) -> str:
    """Who let a commit stand, and why, in one line."""
    said = "; ".join(f"{one.principal}: {one.reason}" for one in detail.acknowledgements)
    return f"{detail.commit[:8]} ({detail.code}) is let stand by its owners ({said or 'by a restart of evidence'})"


def waiting(cursors: Cursors, commit: str, code: str, trust: TrustState, at: datetime) -> str:
    """How far a commit that main stands still at is acknowledged, in words; "" when nobody began."""
    if any((one.commit, one.code) == (commit, code) for one in cursors.acknowledged):
        return "its owners let it stand"
    given = counted(cursors.acknowledging, commit, code, trust, at)
    if not given:
        return ""
    names = ", ".join(one.principal for one in given)
    return f"acknowledged by {names}, {len(given)} of {trust.threshold('owners')} owners needed"


def refused_commit(cursors: Cursors, commit: str) -> tuple[str, str]:
    """The id and code of the refused commit that main stands still at, by the start of its id.

    Raises Refused("nothing-refused" | "never-acknowledged").
    """
    refused = cursors.refused
    named = [one for one in refused if one.commit.startswith(commit.lower())]
    if len(named) != 1:
        raise Refused(
            "nothing-refused",
            "main does not stand still at such a commit",
            where=commit,
            expected=", ".join(one.commit[:12] for one in refused) or "a commit that main stands still at",
            got=commit,
            cure="see `lockgate status`",
        )
    (one,) = named
    forbidden = never(one.paths)
    if forbidden is not None:
        raise Refused(
            "never-acknowledged",
            f"the commit can only be taken back: {forbidden}",
            where=f"commit {one.commit[:12]}",
            expected="a change that owners may let stand",
            got=one.code,
            cure="lockgate restore-main --key KEY",
        )
    return one.commit, one.code
