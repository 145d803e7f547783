"""What a clean verification leaves, so that the next one walks only what came after.

Nothing here is more than the last answer in short: the tips it was about, and what judging later commits needs
to know of earlier ones. It counts only for the rules and the trust root that it was made by.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controller.core.accept import MainState
from controller.errors import Invalid
from controller.ledger.backing import revert_of
from controller.ledger.canonical import canonical, digest
from controller.ledger.entry import read
from controller.model.entry import EvidenceRepaired, RequestJudged
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.audit.findings import REMOVED, RefusedCommit, TimeMark, VerifyReport
from controller.uses.audit.walked import Edge, Facts
from controller.uses.audit.whole_history import History

FORMAT = 2
_OID = Annotated[str, Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")]
_COUNT = Annotated[int, Field(ge=0)]


class Past(BaseModel):
    """A verified past. It ends at `main`, a commit of main that evidence accepted with nothing refused standing
    on it, at `requests`, the last request with a verdict, and at `evidence`, the end of a batch."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", defer_build=True)

    main: _OID
    requests: _OID | None
    evidence: _OID
    objects: str
    """The repository's mark of what was whole (`Repo.intact`)."""
    commits: _COUNT
    entries: _COUNT
    runs: _COUNT
    refused: tuple[RefusedCommit, ...]
    """What was refused without effect; of main only what stands before `main`."""
    trust: tuple[_OID, ...]
    """The commits up to `main` that change the trust document."""
    accepted: tuple[tuple[_OID, _OID], ...]
    """(tip, entry) of main accepted after `main`, among refused commits."""
    pending: dict[str, tuple[str, _OID]]
    """Commits of main after `main` that entries refuse: the code and the entry."""
    reverts: tuple[tuple[str, str, str | None], ...]
    """(run, slot, blob) that the environments' last runs put back."""
    asked: tuple[str, ...]
    """The ids of the requests that had a verdict."""
    time: TimeMark | None
    """How far the log is time-stamped."""


def past_of(history: History, report: VerifyReport, trust: Iterable[str], objects: str | None) -> Past | None:
    """What a verification of everything leaves; None when it was not clean or the objects are not known to be
    whole. `trust` are the commits of main that change the trust document."""
    facts, judged, tips, past = history.facts, history.judged, history.tips, history.past
    if not report.verified or judged is None or tips.main is None or tips.evidence is None or objects is None:
        return None
    positions = history.ground.main
    ends = _resting(judged) | {history.begin}
    main = next((tip for tip, _ in reversed(facts.accepted) if tip in ends), history.begin)
    place = positions[main]

    def later(commit: str) -> bool:
        return positions.get(commit, -1) > place

    last = {state.last_run.run for state in history.edge.state.environments.values() if state.last_run}
    before = past.asked if past is not None else ()
    ids = (detail.request for detail, _, _, _ in facts.requests)
    return Past(
        main=main,
        requests=_last_judged(history),
        evidence=tips.evidence,
        objects=objects,
        commits=report.commits,
        entries=report.entries,
        runs=report.runs,
        refused=tuple(one for one in report.refused if one.ref != history.root.refs.main or not later(one.commit)),
        trust=tuple(oid for oid in trust if not later(oid)),
        accepted=tuple((tip, oid) for tip, oid in facts.accepted if later(tip)),
        pending={oid: said for oid, said in facts.refused.items() if later(oid)},
        reverts=tuple((*slot, blob) for slot, blob in facts.reverts.items() if slot[0] in last),
        asked=(*before, *(one for one in ids if one is not None)),
        time=history.time,
    )


def past_at(repo: Repo, ref: str, main: Container[str], commit: str, edge: Edge) -> Past | None:
    """The past that ends at a commit of the evidence branch `ref` that somebody verified before, from what its
    tree says; None where it accepts no commit of `main`. Raises as reading does."""
    cursors = edge.state.cursors
    if cursors.main is None or cursors.main not in main:
        return None
    removed: list[str] = []
    asked: list[str] = []
    for path, file in repo.files(commit, "events"):
        if path.endswith(("-evidence-repaired.dsse.json", "-request.dsse.json")):
            detail = read(repo.read(file.blob), path, None).detail
            if isinstance(detail, EvidenceRepaired):
                removed += detail.removed
            elif isinstance(detail, RequestJudged) and detail.request is not None:
                asked.append(detail.request)
    return Past(
        main=cursors.main,
        requests=cursors.requests,
        evidence=commit,
        objects="",
        commits=0,
        entries=cursors.index,
        runs=0,
        refused=tuple(RefusedCommit(oid, ref, *REMOVED) for oid in removed),
        trust=(),
        accepted=(),
        pending={one.commit: (one.code, commit) for one in cursors.refused},
        reverts=tuple(filter(None, map(revert_of, edge.state.environments.values()))),
        asked=tuple(asked),
        time=None,
    )


def facts_of(past: Past, edge: Edge) -> Facts:
    """What is still needed of a past's entries, where the walk goes on from its `edge`."""
    return Facts(
        accepted=list(past.accepted),
        refused=dict(past.pending),
        reverts={(run, slot): blob for run, slot, blob in past.reverts},
        acknowledged={one.commit: one for one in edge.state.cursors.acknowledged},
    )


def _resting(judged: MainState) -> set[str]:
    """The commits at which nothing refused stood on accepted main: what followed did not meet any."""
    ends = {step.commit for step, after in pairwise(judged.newly) if not after.standing}
    return ends | {judged.accepted}


def _last_judged(history: History) -> str | None:
    past = history.past.requests if history.past is not None else None
    tip = history.tips.requests
    if tip is None or not history.facts.requests:
        return past
    chain = history.repo.chain_after(tip, past) if past is not None else history.repo.chain(tip)
    places = {oid: place for place, oid in enumerate(chain or ())}
    return max((detail.commit for detail, _, _, _ in history.facts.requests), key=lambda oid: places.get(oid, -1))


def root_digest(root: TrustRoot) -> str:
    """What a past says it was verified from. The checkpoint is left out: it is compared each time."""
    return digest(canonical(root.model_dump(mode="json", by_alias=True, exclude={"checkpoint"})))


def past_bytes(past: Past, root: TrustRoot, rules: str) -> bytes:
    """The file: RFC 8785 JSON with the SHA-256 of all the rest."""
    body: dict[str, Any] = {
        "format": FORMAT,
        "rules": rules,
        "root": root_digest(root),
        "past": past.model_dump(mode="json"),
    }
    return canonical(body | {"sha256": digest(canonical(body))}) + b"\n"


def read_past(data: bytes, root: TrustRoot, rules: str) -> Past:
    """The past in a file's bytes. Raises Invalid("cache-unusable") saying why it does not count."""
    try:
        body = json.loads(data)
        said = body.pop("sha256")
        if digest(canonical(body)) != said:
            raise _unusable("its bytes are not what its own checksum says")
        if body["format"] != FORMAT or body["rules"] != rules:
            raise _unusable("it was written by another version of the rules")
        if body["root"] != root_digest(root):
            raise _unusable("it was verified from another trust root")
        return Past.model_validate_json(canonical(body["past"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        raise _unusable("it is not in its form") from error


def _unusable(why: str) -> Invalid:
    return Invalid("cache-unusable", why)
