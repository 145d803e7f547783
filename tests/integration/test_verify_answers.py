"""What the holder of the controller's key answers people: requests and changes of main turned down without a
reason in the rules, requests that are granted and not carried out, and a run that is told twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from controller.model import entry as e
from tests.support.home import MAIN, Home
from tests.support.tamper import rewrite


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path, agents=("a",))
    home.release("shop-1")
    home.release("shop-2")
    return home


def codes(home: Home) -> set[str]:
    return {finding.code for finding in home.verify().findings}


def begun(home: Home, entries: int = 4) -> list[e.Draft]:
    """A run in dev whose first entries are recorded."""
    drafts = home.story.run("dev", "shop-1")
    home.batch(drafts[:entries])
    return drafts


def answered(home: Home, after: e.Draft, verb: str, by: str, code: str, **more: str) -> e.Draft:
    """A refusal, with this code, of somebody's request for dev."""
    home.story.at = after.at
    commit, request = home.ask(verb, "dev", None, by, **more)
    return home.story.judged(commit, request, home.actor(by), accepted=False, code=code)


UNFOUNDED = ["action-out-of-scope", "request-expired", "signer-unknown", "run-not-open", "action-not-safe"]


@pytest.mark.parametrize("code", [*UNFOUNDED, "verb-unsupported", "made-up"])
def test_an_abort_that_is_turned_down_without_a_reason(home: Home, code: str) -> None:
    drafts = begun(home)
    home.batch([answered(home, drafts[3], "abort", "dave", code)])
    (finding,) = home.verify().findings
    assert (finding.code, finding.rule) == ("refusal-unfounded", "requests 13")
    assert code in finding.message
    assert finding.commit == home.ledger.commit


HONEST: dict[str, Callable[[Home], e.Draft]] = {
    "not entitled": lambda home: answered(home, begun(home)[3], "abort", "ollie", "action-out-of-scope"),
    "nothing open": lambda home: answered(home, home.story.draft("x", e.What()), "abort", "dave", "run-not-open"),
    "not in this phase": lambda home: answered(home, begun(home)[3], "resume", "dave", "action-not-safe"),
    "nothing ran before": lambda home: answered(home, begun(home)[3], "rollback", "dave", "no-rollback-target"),
    "an approval too early": lambda home: answered(
        home, begun(home, 1)[0], "approve", "rita", "approval-without-lock", binds=f"sha256:{'0' * 64}"
    ),
}


@pytest.mark.parametrize("how", HONEST)
def test_a_refusal_with_its_reason_holds(home: Home, how: str) -> None:
    home.batch([HONEST[how](home)])
    report = home.verify()
    assert report.findings == ()
    assert len(report.refused) == 1


def test_a_duplicate_of_what_was_asked_before_where_the_walk_begins(home: Home) -> None:
    after = begun(home)[3]
    home.batch([answered(home, after, "abort", "ollie", "action-out-of-scope", id="request-00000001")])
    since = home.ledger.commit
    home.batch([answered(home, after, "pause", "dave", "request-duplicate", id="request-00000001")])
    assert home.verify().findings == home.verify(since=since).findings == ()
    home.batch([answered(home, after, "pause", "dave", "request-duplicate", id="request-00000009")])
    assert [one.code for one in home.verify(since=since).findings] == ["refusal-unfounded"]


def test_going_on_from_evidence_with_a_damaged_request_is_answered_all_the_same(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    rewrite(home, drafts, lambda new: {**new, "events/2026/01/05/000099-request.dsse.json": b"{}"})
    damaged = home.ledger.commit
    home.batch(home.story.run("dev", "shop-2"))
    assert not home.verify().verified
    report = home.verify(since=damaged)
    assert (report.findings, report.runs) == ((), 1)


LIES: dict[str, Callable[[Home], e.Draft]] = {
    "a target there is": lambda home: answered(home, second(home), "rollback", "dave", "no-rollback-target"),
    "an approval of the run's subject": lambda home: answered(
        home, (run := begun(home))[3], "approve", "rita", "approval-void", binds=run[1].detail.approval_subject
    ),
    "an approval of somebody who wrote nothing": lambda home: answered(
        home, (run := begun(home))[3], "approve", "rita", "self-approval", binds=run[1].detail.approval_subject
    ),
    "a first approval": lambda home: answered(
        home, (run := begun(home))[3], "approve", "rita", "already-approved", binds=run[1].detail.approval_subject
    ),
    "nobody outranks it": lambda home: answered(home, begun(home)[3], "pause", "dave", "outranked"),
    "no rollback": lambda home: answered(home, second(home), "rollback", "dave", "rollback-of-rollback"),
}


def second(home: Home) -> e.Draft:
    """The last recorded entry of a run in dev where another completed before."""
    home.batch(home.story.run("dev", "shop-2"))
    return begun(home)[3]


@pytest.mark.parametrize("how", LIES)
def test_a_refusal_that_the_run_contradicts(home: Home, how: str) -> None:
    home.batch([LIES[how](home)])
    assert codes(home) == {"refusal-unfounded"}


@pytest.mark.parametrize("last", [True, False], ids=["at the end of a push", "before other entries"])
@pytest.mark.parametrize(("verb", "by"), [("abort", "dave"), ("pause", "dave"), ("rollback", "dave")])
def test_a_request_that_is_granted_and_not_carried_out(home: Home, verb: str, by: str, last: bool) -> None:
    home.batch(home.story.run("dev", "shop-2"))
    drafts = begun(home)
    home.story.at = drafts[3].at
    commit, request = home.ask(verb, "dev", None, by)
    granted = home.story.judged(commit, request, home.actor(by))
    later = [draft.model_copy(update={"at": draft.at + timedelta(seconds=1)}) for draft in drafts[4:5]]
    observed = [d.observed.model_copy(update={"requests": commit}) for d in later]
    later = [d.model_copy(update={"observed": o}) for d, o in zip(later, observed, strict=True)]
    home.batch([granted] if last else [granted, *later])
    assert "request-undone" in codes(home)
    found = next(one for one in home.verify().findings if one.code == "request-undone")
    assert found.path.endswith("-request.dsse.json")
    assert f"{verb} dev" in found.message


@pytest.mark.parametrize("accepted", [False, True], ids=["and kept out", "and accepted later"])
def test_a_good_commit_of_main_that_is_turned_down(home: Home, accepted: bool) -> None:
    good = home.commit(MAIN, {"releases/fine.yaml": b"x"}, "dave", "Fine")
    home.batch([home.story.refused(good)])
    if accepted:
        home.batch([home.story.accepted(good)])
    report = home.verify()
    assert [(one.code, one.rule) for one in report.findings] == [("refusal-unfounded", "main 6")]
    assert good[:12] in report.findings[0].message


def test_verification_since_the_midst_of_a_push_begins_before_it(home: Home) -> None:
    home.batch(home.story.run("dev", "shop-1"))
    inside = home.git("rev-parse", f"{home.ledger.commit}~3").strip()
    good = codes(home)
    walked: list[int] = []
    report = home.verify(since=inside, progress=lambda done, total: walked.append(total))
    assert {finding.code for finding in report.findings} == good == set()
    assert walked == [len(home.passes[-1][1])]


def test_a_branch_begins_once(home: Home) -> None:
    """A genesis in the midst would put accepted main back to where it began."""
    home.batch(home.story.run("dev", "shop-1"))
    detail = e.Genesis(project="shop", genesis=home.root.genesis, refs={"main": MAIN})
    home.batch([home.story.draft("genesis", detail)])
    assert home.ledger.state.cursors.main == home.root.genesis
    assert "genesis-mismatch" in codes(home)


def test_entries_that_are_ahead_of_the_auditors_clock(home: Home) -> None:
    home.batch(home.story.run("dev", "shop-1"))
    last = home.story.at
    assert home.verify(now=last).findings == home.verify(now=last - timedelta(seconds=200)).findings == ()
    home.story.at += timedelta(days=1)
    first = home.batch([home.story.refused(home.commit(MAIN, {"x": b"x"}, "mallory"), "signer-unknown")]).commit
    home.batch([home.story.refused(home.commit(MAIN, {"y": b"y"}, "mallory"), "signer-unknown")])
    assert home.verify().verified, "nothing to compare with"
    kept: list[object] = []
    (finding,) = home.verify(now=last, keep=kept.append).findings
    assert (finding.code, finding.commit, finding.rule) == ("clock-skew", first, "evidence 15")
    assert "2 entries" in finding.message
    assert kept == []


def test_a_whole_run_is_told_again_under_another_number(home: Home) -> None:
    """With the controller's key, all of it signed and chained anew: the same promotion opened one run already."""
    first = home.story.run("dev", "shop-1")
    home.batch(first)
    assert codes(home) == set()
    home.batch(home.story.run("dev", "shop-1", commit=first[0].detail.commit))
    found = [one for one in home.verify().findings if one.code == "promotion-unbacked"]
    assert "was pending" in found[0].message
    assert "/dev-2-" in found[0].path
