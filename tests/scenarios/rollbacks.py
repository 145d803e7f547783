"""Ways back: failures, reverts, requested rollbacks, and what of them fails."""

from __future__ import annotations

from datetime import timedelta

from controller.core.run import safe_actions
from controller.model.entry import Sealed
from tests.scenarios.stage import ONE, Stage, scene
from tests.support.world_documents import canary, document, stage


@scene
def failed_canary_rolls_back_what_it_touched(s: Stage) -> None:
    t = s.open(strategy=canary(10, 50, 100), approvals=ONE)
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.errors = 50
    t.promote("shop-2")
    t.run()
    touched = {order.split("/")[3] for a in t.agents.values() for order in a.executed if "prod-2-" in order}
    assert len(touched) == 1
    assert b"shop-1" in t.files["promotions/prod.yaml"]


@scene
def first_release_fails_and_there_is_nothing_to_go_back_to(s: Stage) -> None:
    t = s.open(agents=2)
    t.agents["prod-1"].orders = lambda order, times: "pull-failed"
    t.promote("shop-1")
    t.run()
    safe = safe_actions(t.runs["prod"])
    assert "abort" in safe and not {"resume", "rollback"} & set(safe)
    t.ask("rollback", "olga")
    t.ask("resume", "olga")
    t.settle()
    t.ask("abort", "olga")
    t.settle()


@scene
def a_target_does_not_report(s: Stage) -> None:
    t = s.open(agents=4, strategy={"stages": [stage(50), stage(100)]})
    t.complete("shop-1")
    for number in (1, 2, 3, 4):
        t.agents[f"prod-{number}"].orders = lambda order, times: "ok" if order.action == "rollback" else None
    t.promote("shop-2")
    t.run()


@scene
def running_a_release_again_is_no_rollback(s: Stage) -> None:
    """What a rollback goes back to is another release, however often this one ran."""
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.complete("shop-2")
    for reason in ("again", "and again"):
        t.land(t.slot("prod", "shop-2", reason))
        t.run()
    assert sum("prod: stage 2: passed" in line for line in t.lines) == 4
    assert [one.release for one in t.ledger.state.environments["prod"].history] == ["shop-1", "shop-2"]
    t.ask("rollback", "olga")
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-1"


@scene
def a_downgrade_is_refused(s: Stage) -> None:
    t = s.open(agents=2)
    for release in ("shop-1", "shop-2", "shop-3"):
        t.complete(release)
    t.promote("shop-1")
    t.run()


@scene
def a_plain_revert_is_a_rollback(s: Stage) -> None:
    t = s.open(
        agents=4, strategy=canary(50, 100), gates=["soak"], policies={"soak": {"gate": "soak", "for": "1h"}}
    )
    # Nothing promotes to prod here, so soak says never-ran: only a rollback gets past it.
    t.files["environments/prod.yaml"] = document("Environment", "prod", strategy="roll", gates="none")
    t.complete("shop-1")
    t.complete("shop-2")
    t.files["environments/prod.yaml"] = document("Environment", "prod", strategy="roll", gates=["soak"])
    t.promote("shop-1")
    t.run()


@scene
def the_merge_of_a_run_under_way_is_reverted(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    t.land(t.slot("prod", "shop-1"))
    t.run()
    assert t.ledger.state.environments["prod"].history[-1].release == "shop-1"


@scene
def rollback_of_an_idle_environment_is_asked_for(s: Stage) -> None:
    t = s.open(agents=3, approvals=ONE)
    t.complete("shop-1")
    t.ask("rollback", "olga")
    t.settle()
    t.complete("shop-2")
    t.ask("rollback", "olga", reason="customers complain")
    t.run()
    assert b"shop-1" in t.files["promotions/prod.yaml"]


@scene
def rollback_after_an_abort_takes_back_only_what_went_astray(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(25, 100))
    t.complete("shop-1")
    t.complete("shop-2")
    t.promote("shop-3")
    t.settle()
    t.ask("abort", "olga")
    t.settle()
    t.ask("rollback", "olga")
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-2"


@scene
def a_late_rollback_request_does_not_go_back_twice(s: Stage) -> None:
    t = s.open(agents=2)
    for release in ("shop-1", "shop-2"):
        t.complete(release)
    t.agents["prod-1"].orders = lambda order, times: "boom" if order.action == "deploy" else "ok"
    t.promote("shop-3")
    t.settle()
    run = t.ledger.state.environments["prod"].last_run
    assert run is not None and run.phase == "rolled_back"
    t.ask("rollback", "olga", run=run.run)
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-2"


@scene
def the_rollback_fails_on_a_target(s: Stage) -> None:
    t = s.open(agents=2)
    t.complete("shop-1")
    t.agents["prod-1"].orders = lambda order, times: "ok" if order.action == "deploy" else "disk-full"
    t.promote("shop-2")
    t.run()


@scene
def a_rollback_is_never_rolled_back(s: Stage) -> None:
    t = s.open(agents=2)
    t.complete("shop-1")
    t.complete("shop-2")
    for name in ("prod-1", "prod-2"):
        t.agents[name].orders = lambda order, times: None
    t.land(t.slot("prod", "shop-1"))
    t.settle()
    t.ask("rollback", "olga")
    t.settle()
    for name in ("prod-1", "prod-2"):
        t.agents[name].orders = lambda order, times: "boom"
    t.run()


@scene
def a_target_is_silent_to_the_rollback_too(s: Stage) -> None:
    t = s.open(agents=4, strategy={"stages": [stage(75), stage(100)]})
    t.complete("shop-1")
    t.agents["prod-1"].orders = lambda order, times: "boom" if order.action == "deploy" else "ok"
    t.agents["prod-3"].orders = lambda order, times: None
    t.promote("shop-2")
    t.run()
    sealed = next(e for e in reversed(t.entries) if e.kind == "sealed").detail
    assert isinstance(sealed, Sealed)
    assert (sealed.phase, sealed.code, sealed.failed) == ("rollback_failed", "rollback-unconfirmed", ())
    assert sealed.silent == ("prod-3",) and sorted(sealed.back) == ["prod-1", "prod-4"]
    there = t.ledger.state.environments["prod"].targets
    assert there["prod-3"].manifest_digest is None
    assert there["prod-1"].manifest_digest == t.ledger.state.environments["prod"].manifest_digest
    # Once it answers again, a rollback is about it alone: the others are known to be back.
    t.agents["prod-3"].orders = lambda order, times: "ok"
    t.ask("rollback", "olga")
    t.run()
    there = t.ledger.state.environments["prod"].targets
    assert {one.manifest_digest for one in there.values()} == {t.ledger.state.environments["prod"].manifest_digest}


@scene
def on_failure_pause(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100), onFailure="pause")
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.errors = 100
    t.promote("shop-2")
    t.run(timedelta(minutes=5))
    safe = safe_actions(t.runs["prod"])
    assert "rollback" in safe and "resume" not in safe
    t.ask("resume", "olga")
    t.settle()
    t.ask("rollback", "olga")
    t.run()
