"""Approvals by request: who counts, for what, and how long."""

from __future__ import annotations

from datetime import timedelta

from tests.scenarios.stage import ONE, TWO, Stage, scene
from tests.support.world_documents import canary


@scene
def abort_outranks_approve(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    t.ask("approve", "carol", run=t.runs["prod"].id, binds=t.subject)
    t.ask("abort", "olga")
    t.settle()


@scene
def approvals_by_request(s: Stage) -> None:
    t = s.open(agents=2, approvals={"count": 3, "roles": {"reviewers": 2, "developers": 1}})
    t.promote("shop-1", author="alice", merger="bob")
    t.settle()
    t.ask("approve", "alice", binds=t.subject)
    t.ask("approve", "bob", binds=t.subject)
    t.ask("approve", "carol", binds="sha256:" + "0" * 64)
    t.ask("approve", "olga", binds=t.subject)
    t.settle()
    t.ask("approve", "carol", binds=t.subject)
    t.settle()
    t.ask("approve", "dave", binds=t.subject)
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-1"


@scene
def a_rejection_ends_the_run(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    t.ask("approve", "carol", binds=t.subject)
    t.ask("reject", "bob")
    t.settle()


@scene
def approvals_run_out_in_the_middle(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100), approvals={**ONE, "expiresAfter": "20s"})
    t.promote("shop-1")
    t.run(timedelta(minutes=2))
    t.ask("resume", "olga")
    t.settle()
    t.ask("approve", "carol", binds=t.subject)
    t.ask("resume", "olga")
    t.run(timedelta(minutes=2))


@scene
def stricter_approvals_reach_an_open_run(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100), approvals=ONE)
    t.promote("shop-1")
    t.run(timedelta(seconds=20))
    t.land(t.asking_for(TWO))
    t.run(timedelta(minutes=2))
    t.ask("resume", "olga")
    t.settle()
    t.ask("approve", "carol", binds=t.subject)
    t.ask("resume", "olga")
    t.run(timedelta(minutes=2))


@scene
def laxer_approvals_do_not_reach_an_open_run(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    t.land(t.asking_for({}))
    t.run(timedelta(minutes=2))
    assert t.runs["prod"].phase == "awaiting_approval"
    t.ask("approve", "carol", binds=t.subject)
    t.run(timedelta(minutes=2))


@scene
def an_approver_who_loses_the_role_no_longer_counts(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    t.trusts(lambda text: text.replace(b"- bob\n", b"", 1))
    t.ask("approve", "carol", binds=t.subject)
    t.run(timedelta(minutes=2))
    assert t.runs["prod"].phase == "awaiting_approval"


@scene
def approvals_of_a_superseded_promotion_are_void(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    before = t.subject
    t.promote("shop-2")
    t.settle()
    t.ask("approve", "carol", binds=before)
    t.settle()
    t.ask("approve", "carol", binds=t.subject)
    t.run(timedelta(minutes=2))
