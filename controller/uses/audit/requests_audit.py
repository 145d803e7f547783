"""The requests branch: every commit has exactly one verdict on record, and none was granted that may not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from controller.core.trust import TrustState
from controller.errors import Invalid, Refused
from controller.model.entry import RequestJudged
from controller.uses.acknowledged import UNBACKED, misread
from controller.uses.asked import judge_asked, read_asked
from controller.uses.audit.findings import Finding, RefusedCommit, rule_of
from controller.uses.audit.whole_history import Answer, History
from controller.uses.rules.answer_checks import DUPLICATE, UNFOUNDED

_SECTION = "requests 13"


def audit_requests(history: History) -> Answer:
    """Compare the requests branch with the verdicts in evidence; commits after the last verdict are pending."""
    tip, past = history.tips.requests, history.past
    before = past.requests if past is not None else None
    try:
        chain: list[str] | None = []
        if tip is not None:
            chain = history.repo.chain(tip) if before is None else history.repo.chain_after(tip, before)
    except Refused as error:
        return [Finding(error.code, tip or "", "", rule_of(error.code), error.what)], []
    if chain is None or (tip is None and before is not None):
        text = f"the branch does not hold {before}, which was verified before"
        return [Finding("requests-rewound", tip or "", "", rule_of("requests-rewound"), text)], []
    return compare(history, [oid for oid in chain if oid not in history.ground.main], before)


def compare(history: History, requests: Sequence[str], before: str | None = None) -> Answer:
    """The verdicts that were walked against these consecutive commits, oldest first, which follow on `before`,
    the last one that was judged earlier."""
    facts, ref = history.facts, history.root.refs.requests
    findings: list[Finding] = []
    refused: list[RefusedCommit] = []
    places = {oid: place for place, oid in enumerate(requests)}
    judged: set[str] = set()
    last = -1
    seen = set(history.past.asked) if history.past is not None else set()
    for detail, at, version, oid in facts.requests:
        if detail.commit not in places:
            text = f"the judged request {detail.commit[:12]} is not on the requests branch"
            findings.append(Finding("requests-rewound", oid, "", rule_of("requests-rewound"), text))
            continue
        if detail.commit in judged:
            text = f"the request {detail.commit[:12]} has a second verdict"
            findings.append(Finding("request-judged-twice", oid, "", rule_of("request-judged-twice"), text))
        judged.add(detail.commit)
        last = max(last, places[detail.commit])
        try:
            problem = _granted_wrongly(history, detail, at, version, oid, seen)
        except (Refused, Invalid) as error:
            problem = error.code, error.what
        if problem is not None:
            findings.append(Finding(problem[0], oid, "", rule_of(problem[0], _SECTION), problem[1]))
        if not detail.accepted:
            refused.append(RefusedCommit(detail.commit, ref, detail.code, detail.message))
        if detail.request is not None:
            seen.add(detail.request)
    covered = _covered(history, places)
    for oid, place in places.items():
        if covered < place <= last and oid not in judged:
            text = "the request has no verdict, and later ones have"
            findings.append(Finding("request-unjudged", oid, "", rule_of("request-unjudged"), text))
    for seen_tip, oid in facts.requests_seen.items():
        if seen_tip not in places and seen_tip != before:
            text = f"an entry was made from requests {seen_tip[:12]}, which the branch does not hold"
            findings.append(Finding("requests-rewound", oid, "", rule_of("requests-rewound"), text))
    return findings, refused


def _covered(history: History, places: Mapping[str, int]) -> int:
    """The place of the last request whose verdict owners say was given, in evidence that is lost."""
    ends = (detail.restart.requests for detail, _, _, _ in history.facts.restarts)
    return max((places.get(end, -1) for end in ends if end is not None), default=-1)


def _granted_wrongly(
    history: History, detail: RequestJudged, at: datetime, version: int, oid: str, seen: set[str]
) -> tuple[str, str] | None:
    """Why an accepted request may not have been accepted by the verdict at `oid`, or None. Refusals are judged
    with their run (`answer_checks`), except that a request can only be a duplicate of one judged before."""
    repo = history.repo
    asked = read_asked(repo, detail.commit)
    if not detail.accepted:
        if detail.code == DUPLICATE and detail.request not in seen:
            return UNFOUNDED, f"request {detail.commit[:12]} is refused as a duplicate of none"
        return None
    trusts: tuple[TrustState, ...] = history.ground.trusts.get(version, ())
    verdicts = [judge_asked(repo, asked, trust, history.root.project, at, seen, oid) for trust in trusts]
    granted = next((verdict for verdict in verdicts if verdict.accepted), None)
    if granted is not None:
        what = f"request {detail.commit[:12]} acknowledges something else than is recorded of it"
        return (UNBACKED, what) if misread(detail.commit, detail.acknowledges, granted) else None
    if not verdicts:
        return "observed-unknown", f"no trust version {version} is known"
    return verdicts[0].code, f"request {detail.commit[:12]} was accepted: {verdicts[0].message}"
