"""Rollouts: promotions, canaries, supersession, migrations, targets that fail or are silent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from controller.core.gates import Question
from tests.scenarios.stage import ONE, Stage, scene
from tests.support.world_documents import canary, stage


@scene
def plain_promotion(s: Stage) -> None:
    t = s.open(agents=2, approvals=ONE)
    t.complete("shop-1")


@scene
def canary_over_ten_targets(s: Stage) -> None:
    t = s.open(strategy=canary(10, 50, 100), approvals=ONE)
    t.complete("shop-1")


@scene
def an_agent_follows_another_plan(s: Stage) -> None:
    t = s.open(agents=4, strategy={"stages": [stage(25), stage(100)]})
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.plan = "sha256:" + "0" * 64
        agent.orders = lambda order, times: "ok" if order.action == "deploy" else None
    t.promote("shop-2")
    t.settle()
    for agent in t.agents.values():
        agent.plan, agent.orders = None, lambda order, times: "ok"
    t.run()


@scene
def superseded_in_the_middle_with_carried_targets(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    t.wait(timedelta(seconds=10))
    bad = {o.target for o in t.runs["prod"].ordered.orders}  # type: ignore[union-attr]
    for name in bad:  # what the carried targets say of the superseded release is no fault of the new one
        t.agents[name].healthy = False
    t.promote("shop-3")
    t.settle()
    assert set(t.runs["prod"].opened.carried) == bad
    for name in bad:
        t.agents[name].healthy = True
    t.run()
    assert t.ledger.state.environments["prod"].release == "shop-3"


@scene
def carried_targets_go_back_too(s: Stage) -> None:
    t = s.open(agents=10, strategy=canary(10, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    for agent in t.agents.values():
        agent.errors = 90
    t.promote("shop-3")
    t.run()
    digests = {x.manifest_digest for x in t.ledger.state.environments["prod"].targets.values()}
    assert digests == {t.ledger.state.environments["prod"].manifest_digest}


@scene
def several_promotions_in_one_fetch(s: Stage) -> None:
    t = s.open(agents=2)
    t.land({**t.release("shop-1"), **t.release("shop-2"), **t.release("shop-3")})
    t.settle()
    for release in ("shop-1", "shop-2", "shop-3"):
        t.land(t.slot("prod", release))
    t.run()


@scene
def release_and_promotion_in_one_merge(s: Stage) -> None:
    t = s.open(agents=2, approvals=ONE)
    t.land({**t.release("shop-1"), **t.slot("prod", "shop-1")})
    t.settle()
    t.ask("approve", "bob", binds=t.subject)
    t.run()


@scene
def a_tag_moves_after_its_lock(s: Stage) -> None:
    t = s.open(agents=2)
    t.tags, t.check_tags = {"api": "v1"}, timedelta(minutes=5)
    locked, asked = "sha256:" + "a" * 64, []
    found: list[str | None] = []

    def answer(question: Question) -> dict[str, Any]:
        asked.append(question.key)
        moved = [{"component": "api", "tag": "v1", "locked": locked, "found": one} for one in found]
        return {"moved": moved}

    t.answer = answer
    t.complete("shop-1")
    t.complete("shop-1", "staging")
    t.wait(timedelta(minutes=10))
    assert t.next_look is not None and t.next_look - t.now <= t.check_tags
    found[:] = ["sha256:" + "b" * 64]
    for _ in range(4):
        t.wait(t.check_tags)  # seen in four slots, recorded once
    found[:] = [None]
    t.wait(timedelta(minutes=10))
    found[:] = ["sha256:" + "b" * 64]
    t.wait(timedelta(minutes=10))
    t.answer = lambda question: {"error": "registry-unavailable", "message": "no answer"}
    t.wait(timedelta(minutes=10))
    assert len(asked) == len(set(asked)) <= 8, "asked once in a slot, for two environments"


@scene
def the_strategy_pauses_for_a_time(s: Stage) -> None:
    t = s.open(agents=2, strategy={"stages": [stage(50, pause={"for": "2m"}), stage(100)]})
    t.complete("shop-1")


@scene
def migrations_run_first_and_once(s: Stage) -> None:
    t = s.open(agents=4, strategy={"stages": [stage(75), stage(100)]}, roles={"worker": "migration"})
    told: list[str] = []

    def watch(order: object, times: int) -> str:
        told.append(f"{order.target}: {', '.join(order.components)}")  # type: ignore[attr-defined]
        return "ok"

    for agent in t.agents.values():
        agent.orders = watch
    t.complete("shop-1")
    assert sum("worker" in line for line in told) == 1
    assert told[0].endswith("api, worker")


@scene
def a_migration_fails(s: Stage) -> None:
    t = s.open(agents=4, roles={"worker": "migration"})
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.orders = lambda order, times: "migration-failed" if order.action == "deploy" else "ok"
    t.promote("shop-2")
    t.run()


@scene
def the_verification_fails(s: Stage) -> None:
    t = s.open(agents=2)
    t.complete("shop-1")
    t.agents["prod-1"].orders = lambda order, times: "digest-drift" if order.action == "check" else "ok"
    t.promote("shop-2")
    t.run()


@scene
def main_stands_still_while_a_run_goes_on(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.promote("shop-1")
    t.settle()
    t.refuse()
    t.run()


@scene
def no_metric_data_is_neither_pass_nor_fail(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.requests = 0
    t.promote("shop-2")
    t.run(timedelta(minutes=10))
    for agent in t.agents.values():
        agent.requests = 100
    t.ask("resume", "olga")
    t.run()


@scene
def agents_fall_silent(s: Stage) -> None:
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.mute = True
    t.promote("shop-2")
    t.run()


@scene
def an_outage_is_longer_than_the_deadlines(s: Stage) -> None:
    """What nobody could look at is not failed: neither health nor a report that could not come in."""
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    t.promote("shop-2")
    t.settle()
    t.absent(timedelta(minutes=20))
    while t.runs["prod"].stage == 0:
        t.wait(t.tick)
    t.absent(timedelta(minutes=20))
    t.run()
    for agent in t.agents.values():
        agent.orders = lambda order, times: None
    t.promote("shop-3")
    t.settle()
    t.absent(timedelta(minutes=20))
    for agent in t.agents.values():
        agent.orders = lambda order, times: "ok"
    t.run()


@scene
def a_release_is_sick_after_an_outage(s: Stage) -> None:
    """The rest of the stage's time runs on: a release that is sick then is taken back."""
    t = s.open(agents=4, strategy=canary(50, 100))
    t.complete("shop-1")
    for agent in t.agents.values():
        agent.healthy = False
    t.promote("shop-2")
    t.settle()
    t.wait(timedelta(minutes=2))
    t.absent(timedelta(minutes=20))
    t.run()


@scene
def an_agent_is_withdrawn_before_it_is_carried(s: Stage) -> None:
    t = s.open(agents=2)
    t.complete("shop-1")
    t.promote("shop-2")
    t.agents["prod-1"].orders = t.agents["prod-2"].orders = lambda order, times: None
    t.settle()
    t.agents["prod-1"].orders = lambda order, times: "boom" if order.action == "deploy" else "ok"
    t.land({"agents/prod-2.yaml": None, **t.release("shop-3")})
    t.settle()
    t.promote("shop-3")
    t.run()
