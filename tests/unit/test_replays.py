"""A replay that somebody asks for: judged at once, made beside the passes, recorded once, also over restarts."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.entry import Replayed, RequestJudged
from tests.support.world_documents import git
from tests.support.worlds import Theatre

DIGEST = "sha256:" + "1" * 64


def theatre(crash: bool = False, **more: Any) -> Theatre:
    made = Theatre(agents=1, **more)
    made.crash = crash
    made.complete("shop-1")
    return made


def run_of(t: Theatre) -> str:
    return t.ledger.state.environments["prod"].run or ""


def details(t: Theatre, kind: type) -> list[Any]:
    return [entry.detail for entry in t.entries if isinstance(entry.detail, kind)]


def decision(**more: Any) -> dict[str, Any]:
    return {"sequence": 3, "kind": "gates", "recorded": DIGEST, "replayed": DIGEST, "match": True, **more}


@pytest.mark.parametrize("crash", [False, True], ids=["lives", "restarts"])
def test_it_waits_for_its_answer_and_is_recorded_once(crash: bool) -> None:
    t = theatre(crash)
    t.answer = lambda question: None
    t.ask("replay", "olga", run=run_of(t), reason="the audit asks")
    t.settle()
    assert details(t, Replayed) == []
    (pending,) = t.ledger.state.cursors.replays
    assert (pending.run, pending.by, pending.reason) == (run_of(t), "olga", "the audit asks")
    t.ask("replay", "olga", run=run_of(t))
    t.settle()
    assert [one.code for one in details(t, RequestJudged)] == ["request-accepted", "replay-pending"]
    t.answer = lambda question: {"decisions": [decision()], "match": True} if question.type == "replay" else None
    t.settle()
    t.settle()
    (found,) = details(t, Replayed)
    assert (found.match, found.code, found.total, found.matching) == (True, "replayed", 1, 1)
    assert (found.run, found.by, found.request) == (run_of(t), "olga", pending.commit)
    assert t.ledger.state.cursors.replays == ()


@pytest.mark.parametrize(
    ("given", "code", "result"),
    [
        ({"decisions": [decision(replayed="sha256:" + "2" * 64, match=False)]}, "replayed", "MISMATCH"),
        ({"decisions": [decision(replayed=None, match=False)]}, "replay-undecided", "UNDECIDED"),
        ({"error": "object-corrupt", "message": "no"}, "object-corrupt", "UNDECIDED"),
    ],
)
def test_what_does_not_match_is_said(given: dict[str, Any], code: str, result: str) -> None:
    t = theatre()
    t.answer = lambda question: given if question.type == "replay" else None
    t.ask("replay", "olga", run=run_of(t))
    t.settle()
    (found,) = details(t, Replayed)
    assert (found.match, found.code) == (False, code)
    assert t.entries[-1].predicate.result == result


def test_an_origin_that_is_away_is_asked_again() -> None:
    t = theatre()
    given: dict[str, Any] = {"error": "unavailable", "message": "later"}
    t.answer = lambda question: given
    t.ask("replay", "olga", run=run_of(t))
    t.settle()
    assert details(t, Replayed) == []
    given = {"decisions": []}
    t.settle()
    assert [one.match for one in details(t, Replayed)] == [True]


@pytest.mark.parametrize(
    ("run", "by", "code"),
    [
        ("prod-1-" + git("x")[:8], "alice", "action-out-of-scope"),
        ("prod-2-00000000", "olga", "run-not-found"),
        ("staging-1-00000000", "olga", "run-not-found"),
        ("prod", "olga", "run-not-found"),
        (None, "olga", "run-not-found"),
    ],
)
def test_what_cannot_be_replayed_is_refused(run: str | None, by: str, code: str) -> None:
    t = theatre()
    t.ask("replay", by, run=run)
    t.settle()
    assert [one.code for one in details(t, RequestJudged)] == [code]
    assert t.ledger.state.cursors.replays == ()


def test_a_run_that_is_rolled_out_goes_on_meanwhile() -> None:
    t = theatre()
    t.answer = lambda question: None
    t.ask("replay", "olga", run=run_of(t))
    t.complete("shop-2")
    assert details(t, Replayed) == [] and len(t.ledger.state.cursors.replays) == 1
