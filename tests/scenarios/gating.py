"""Gates, windows, pauses and expiry: what is waited for, and what ends the waiting."""

from __future__ import annotations

from datetime import timedelta

from tests.scenarios.stage import CEL, TWO, Stage, freeze, scene
from tests.support.world_documents import canary, stage


@scene
def pause_and_resume(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    t.ask("pause", "olga")
    t.wait(timedelta(seconds=10))
    t.ask("resume", "alice")  # not hers to ask
    t.ask("pause", "olga")
    t.wait(timedelta(minutes=20))
    t.ask("resume", "olga")
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-2"


@scene
def a_pause_gives_the_orders_their_time_again(s: Stage) -> None:
    t = s.open(agents=2)
    t.complete("shop-1")
    for name in ("prod-1", "prod-2"):
        t.agents[name].orders = lambda order, times: None
    t.promote("shop-2")
    t.settle()
    t.ask("pause", "olga")
    t.wait(timedelta(hours=1))
    for name in ("prod-1", "prod-2"):
        t.agents[name].orders = lambda order, times: "ok"
    t.ask("resume", "olga")
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-2"


@scene
def resume_is_refused_during_a_freeze(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    t.ask("pause", "olga")
    t.settle()
    t.land({"freezes/stop.yaml": freeze()})
    t.settle()
    t.ask("resume", "olga")
    t.settle()
    t.land({"freezes/stop.yaml": None})
    t.ask("resume", "olga")
    t.run()


@scene
def the_promotion_expires(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.land(t.release("shop-1"))
    t.settle()
    t.land(t.slot("prod", "shop-1", expiresAfter="5m"))
    t.run()


@scene
def the_window_opens(s: Stage) -> None:
    t = s.open(
        agents=2,
        windows=[{"kind": "allow", "schedule": "5 9 * * *", "duration": "1h", "timeZone": "UTC"}],
    )
    t.complete("shop-1")


@scene
def gates_are_decided_again_when_the_approval_comes_late(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    t.land({"freezes/stop.yaml": freeze(until="2026-01-05T09:20:00Z")})
    t.wait(timedelta(minutes=10))
    t.ask("approve", "carol", binds=t.subject)
    t.settle()
    assert t.runs["prod"].ordered is None
    t.run()


@scene
def the_release_soaks_before(s: Stage) -> None:
    t = s.open(
        agents=2, gates=["soak"], policies={"soak": {"gate": "soak", "for": "10m"}}, promotesFrom=["staging"]
    )
    t.promote("shop-1")
    t.settle()  # not in staging yet
    t.complete("shop-1", "staging")
    t.wait(timedelta(minutes=1))
    t.land(t.slot("prod", "shop-1", reason="once more"))
    t.run()


@scene
def a_gate_denies(s: Stage) -> None:
    t = s.open(agents=2, gates=["rule"], policies=CEL)
    t.answer = lambda question: {"value": False}
    t.promote("shop-1")
    t.run()


@scene
def a_gate_is_too_costly(s: Stage) -> None:
    t = s.open(agents=2, gates=["rule"], policies=CEL)
    t.answer = lambda question: {"error": "cost-exceeded", "message": "no answer within 2 seconds"}
    t.promote("shop-1")
    t.run()


@scene
def a_gate_does_not_answer(s: Stage) -> None:
    t = s.open(agents=2, gates=["rule"], policies=CEL)
    t.answer = lambda question: None
    t.promote("shop-1")
    t.run()


@scene
def answers_are_forgotten_during_a_long_wait(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO, gates=["rule"], policies=CEL)
    t.promote("shop-1")
    t.settle()
    t.wait(timedelta(hours=2))
    t.answers.clear()
    late = t.now + timedelta(minutes=1)
    t.answer = lambda question: {"value": True} if t.now >= late else None
    t.ask("approve", "carol", binds=t.subject)
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-1"


@scene
def the_strategy_pauses_until_somebody_resumes(s: Stage) -> None:
    t = s.open(agents=2, strategy={"stages": [stage(50, pause={}), stage(100)]})
    t.promote("shop-1")
    t.run(timedelta(minutes=5))
    t.ask("resume", "olga")
    t.run()


@scene
def a_stage_is_denied_in_the_middle(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    t.wait(timedelta(seconds=10))
    t.land(t.release("shop-2", state="blocked", reason="CVE"))
    t.run(timedelta(minutes=5))
    t.ask("resume", "olga")
    t.settle()
    t.ask("rollback", "olga")
    t.run()
