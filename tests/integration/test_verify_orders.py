"""Verification of what was ordered: a controller that orders without gates or approvals is found out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.core.rollout import DEFAULT_DEADLINE
from controller.model import entry as e
from tests.support.evidence import sha
from tests.support.home import Home

DEV = b"""apiVersion: lockgate.dev/v1
kind: Environment
metadata: {name: dev}
spec: {strategy: once, gates: none, approvals: {count: 1, roles: {reviewers: 1}, expiresAfter: 1h}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.release("shop-1")
    home.release("shop-2")
    home.batch(home.story.run("dev", "shop-1"))
    return home


def codes(home: Home) -> set[str]:
    return {finding.code for finding in home.verify().findings}


def test_an_order_needs_gates_that_passed(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    home.batch([*drafts[:2], *drafts[3:]])
    assert codes(home) == {"order-without-gates", "transition-illegal"}


def test_an_order_does_not_follow_gates_that_failed(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    freeze = {"freezes": [{"name": "winter", "reason": "holidays", "active": True, "until": None}]}
    detail, files = home.story.decided("shop-1", drafts[1].detail.targets, freeze=freeze)
    assert detail.aggregate == "WAIT"
    home.batch([*drafts[:2], drafts[2].model_copy(update={"detail": detail, "files": files}), *drafts[3:]])
    assert codes(home) == {"order-without-gates", "transition-illegal", "inputs-mismatch"}


def test_an_order_needs_the_gates_of_its_own_stage(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1", sealed=False)[:4]
    home.batch(
        [*drafts[:3], drafts[3].model_copy(update={"detail": drafts[3].detail.model_copy(update={"stage": 1})})]
    )
    assert codes(home) == {"order-without-gates", "transition-illegal"}


def approved(home: Home, who: str, subject: str = "") -> list[e.Draft]:
    """An open run under an environment that asks for a reviewer, up to its first orders."""
    home.documents({"environments/dev.yaml": DEV})
    drafts = home.approve(home.story.run("dev", "shop-1", sealed=False)[:4], who)
    if subject:
        drafts[4] = drafts[4].model_copy(
            update={"detail": drafts[4].detail.model_copy(update={"subject": sha(subject), "link": None})}
        )
    return drafts


@pytest.mark.parametrize(
    ("who", "subject", "found"),
    [
        ("rita", "", set()),
        ("ollie", "", {"order-without-approval", "action-out-of-scope"}),
        ("rita", "other", {"order-without-approval", "approval-unbacked"}),
        ("", "", {"order-without-approval", "request-undone"}),
    ],
)
def test_an_order_needs_the_approvals_that_were_asked_for(
    home: Home, who: str, subject: str, found: set[str]
) -> None:
    drafts = approved(home, who or "rita", subject)
    home.batch(drafts if who else [*drafts[:4], drafts[5]])
    assert codes(home) == found


def test_an_approval_that_ran_out_before_the_order_is_none(home: Home) -> None:
    drafts = approved(home, "rita")
    late = {"deadline": drafts[5].detail.deadline + timedelta(hours=2)}
    change = {"at": drafts[5].at + timedelta(hours=2), "detail": drafts[5].detail.model_copy(update=late)}
    drafts[5] = drafts[5].model_copy(update=change)
    home.batch(drafts)
    assert codes(home) == {"order-without-approval"}


@pytest.mark.parametrize("honest", [True, False])
def test_a_seal_names_the_targets_as_a_rollback_left_them(home: Home, honest: bool) -> None:
    drafts = home.story.run("dev", "shop-2", end="rolled_back", sealed=False)
    run, env, what = drafts[3].run, drafts[3].environment, drafts[3].what
    results = drafts[-1].detail.results
    silent = {
        "result": "unreported",
        "code": "no-report",
        "report": None,
        "manifest_digest": None,
        "healthy": None,
    }
    left = drafts[-1].detail.model_copy(
        update={"results": (results[0], results[1].model_copy(update=silent)), "ok": False}
    )
    lines = next(iter(drafts[-1].files.values())).splitlines(keepends=True)
    change = {"detail": left, "files": dict.fromkeys(drafts[-1].files, lines[0])}
    first, second = (one.target for one in results)
    seal = e.Sealed(
        phase="rollback_failed",
        reason="one is silent",
        code="rollback-unconfirmed",
        back=(first,) if honest else (first, second),
        silent=(second,) if honest else (),
    )
    sealed = home.story.draft("sealed", seal, run, env, what)
    late = [
        draft.model_copy(update={"at": draft.at + DEFAULT_DEADLINE})
        for draft in (drafts[-1].model_copy(update=change), sealed)
    ]
    home.batch([*drafts[:-1], *late])
    assert codes(home) == (set() if honest else {"seal-mismatch"})


@pytest.mark.parametrize(("asked", "found"), [(2, {"order-without-approval"}), (0, set())])
def test_an_order_needs_what_main_asks_for_by_then_if_that_is_more(
    home: Home, asked: int, found: set[str]
) -> None:
    drafts = approved(home, "rita")
    home.batch(drafts[:5])
    data = DEV.replace(b"count: 1", f"count: {asked}".encode())
    tip = home.documents({"environments/dev.yaml": data})
    observed = drafts[5].observed.model_copy(update={"main": tip})
    last = home.ledger.state.cursors.at
    assert last is not None
    later = []
    for one in drafts[5:]:
        detail, at = one.detail, max(one.at, last)
        if isinstance(detail, e.Ordered):
            detail = detail.model_copy(update={"deadline": detail.deadline + (at - one.at)})
        later.append(one.model_copy(update={"observed": observed, "at": at, "detail": detail}))
    home.batch(later)
    assert codes(home) == found
