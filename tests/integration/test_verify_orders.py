"""Verification of what was ordered: a controller that orders without gates or approvals is found out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from controller.core.gates import decision_digest
from controller.ledger.canonical import canonical, digest
from controller.model import entry as e
from controller.model.keys import key_id
from controller.model.order import order_id
from tests.support.evidence import sha
from tests.support.home import MAIN, Home

DEV = b"""apiVersion: lockgate.dev/v1
kind: Environment
metadata: {name: dev}
spec: {order: 10, strategy: dev, gates: none, approvals: {count: 1, roles: {reviewers: 1}, expiresAfter: 1h}}
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
    assert codes(home) == {"order-without-gates"}


def test_an_order_does_not_follow_gates_that_failed(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    freeze = {"name": "winter", "reason": "holidays", "active": True, "until": None}
    seen = {"freeze": {"freezes": [freeze]}}
    verdict = (
        drafts[2]
        .detail.verdicts[0]
        .model_copy(
            update={
                "verdict": "WAIT",
                "code": "frozen",
                "message": "winter: holidays",
                "unblock": "",
                "inputs": digest(canonical(seen["freeze"])),
            }
        )
    )
    detail = e.Gates(stage=0, aggregate="WAIT", verdicts=(verdict,), decision=decision_digest((verdict,)))
    files = {"inputs/gates-01.json": canonical(seen)}
    home.batch([*drafts[:2], drafts[2].model_copy(update={"detail": detail, "files": files}), *drafts[3:]])
    assert "order-without-gates" in codes(home)


def test_an_order_needs_the_gates_of_its_own_stage(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1", sealed=False)[:4]
    home.batch(
        [*drafts[:3], drafts[3].model_copy(update={"detail": drafts[3].detail.model_copy(update={"stage": 1})})]
    )
    assert codes(home) == {"order-without-gates"}


def approved(home: Home, who: str, subject: str) -> list[e.Draft]:
    """An open run under an environment that asks for a reviewer, up to its first orders."""
    tip = home.commit(MAIN, {"environments/dev.yaml": DEV}, "dave", "An environment")
    file = home.repo.file(tip, "environments/dev.yaml")
    assert file is not None
    home.batch([home.story.accepted(tip)])
    pin = e.Pin(path="environments/dev.yaml", blob=file.blob, sha256=digest(DEV))
    drafts = home.story.run("dev", "shop-1", sealed=False)[:4]
    opened = drafts[0].detail.model_copy(update={"pins": (*drafts[0].detail.pins, pin)})
    drafts[0] = drafts[0].model_copy(update={"detail": opened})
    approval = e.Approval(
        principal=who,
        key_id=key_id(home.people[who].public_key),
        via="merge",
        commit=tip,
        subject=subject,
        at=drafts[2].at,
        expires=None,
        counted=True,
        code="approved",
        message=f"approved by {who}",
    )
    gates = drafts[2]
    given = home.story.draft("approval", approval, gates.run, gates.environment, gates.what)
    return [*drafts[:3], given.model_copy(update={"at": gates.at}), drafts[3]]


@pytest.mark.parametrize(
    ("who", "subject", "fault"),
    [("rita", "subject", ""), ("ollie", "subject", "role"), ("rita", "other", "subject"), ("", "", "none")],
)
def test_an_order_needs_the_approvals_that_were_asked_for(home: Home, who: str, subject: str, fault: str) -> None:
    drafts = approved(home, who or "rita", sha(subject))
    home.batch(drafts if who else [*drafts[:3], drafts[4]])
    assert ("order-without-approval" in codes(home)) == bool(fault)


def test_an_approval_that_ran_out_before_the_order_is_none(home: Home) -> None:
    drafts = approved(home, "rita", sha("subject"))
    drafts[4] = drafts[4].model_copy(update={"at": drafts[4].at + timedelta(hours=2)})
    home.batch(drafts)
    assert "order-without-approval" in codes(home)


@pytest.mark.parametrize("honest", [True, False])
def test_a_seal_names_the_targets_as_a_rollback_left_them(home: Home, honest: bool) -> None:
    drafts = home.story.run("dev", "shop-2", end="rolled_back", sealed=False)
    run, env, what = drafts[3].run, drafts[3].environment, drafts[3].what
    back = drafts[-1]
    control = e.Control(verb="rollback", request=None, by="controller", reason="bad", code="stage-failed")
    ordered = drafts[3].detail.model_copy(
        update={
            "stage": 2,
            "action": "rollback",
            "orders": tuple(
                e.OrderLine(id=order_id(run or "", 2, 1, target, "rollback"), target=target)
                for target in ("a", "b")
            ),
        }
    )
    results = back.detail.results
    silent = results[1].model_copy(update={"result": "unreported", "code": "no-report", "manifest_digest": None})
    left = back.detail.model_copy(update={"results": (results[0], silent), "ok": False})
    seal = e.Sealed(
        phase="rollback_failed",
        reason="b is silent",
        code="rollback-unconfirmed",
        back=("a",) if honest else ("a", "b"),
        silent=("b",) if honest else (),
    )
    steps = [("control", control), ("ordered", ordered), ("rolled-back", left), ("sealed", seal)]
    later = [home.story.draft(kind, detail, run, env, what) for kind, detail in steps]
    home.batch([*drafts[:-1], *later])
    assert ("seal-mismatch" in codes(home)) != honest
