"""Golden scenarios of `decide`: each tells a story line by line; the .txt beside this file is what must come out.

`LOCKGATE_REWRITE=1` writes the files anew; review the difference. Every scenario is played twice: once by a
process that lives on, once by one that is restarted before every pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.core.gates import Question
from controller.model.entry import Sealed
from tests.support.worlds import Theatre, canary, check_invariants, document, stage

HERE = Path(__file__).parent
ONE = {"count": 1, "roles": {"reviewers": 1}}
TWO = {"count": 2, "roles": {"reviewers": 2}}
CEL = {"rule": {"gate": "cel", "rule": "true", "deadline": "10m"}}
Scene = Callable[[], Theatre]
SCENES: dict[str, Callable[[Stage], None]] = {}


class Stage:
    """Makes the theatre of a scenario; `crash` restarts the controller before every pass."""

    def __init__(self, crash: bool) -> None:
        self.crash = crash
        self.theatre: Theatre | None = None

    def open(self, **more: object) -> Theatre:
        self.theatre = Theatre(**more)  # type: ignore[arg-type]
        self.theatre.crash = self.crash
        return self.theatre


def scene(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
    SCENES[play.__name__] = play
    return play


def freeze(**more: object) -> bytes:
    body = {"environments": ["prod"], "from": "2026-01-05T00:00:00Z", "until": "2026-01-05T12:00:00Z"}
    return document("Freeze", "stop", reason="year end", **{**body, **more})


@scene
def plain_promotion(s: Stage) -> None:
    t = s.open(agents=2, approvals=ONE)
    t.complete("shop-1")


@scene
def canary_over_ten_targets(s: Stage) -> None:
    t = s.open(strategy=canary(10, 50, 100), approvals=ONE)
    t.complete("shop-1")


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
def release_and_promotion_in_one_merge(s: Stage) -> None:
    t = s.open(agents=2, approvals=ONE)
    t.land({**t.release("shop-1"), **t.slot("prod", "shop-1")})
    t.settle()
    t.ask("approve", "bob", binds=t.subject)
    t.run()


@scene
def a_rejection_ends_the_run(s: Stage) -> None:
    t = s.open(agents=2, approvals=TWO)
    t.promote("shop-1")
    t.settle()
    t.ask("approve", "carol", binds=t.subject)
    t.ask("reject", "bob")
    t.settle()


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
def the_strategy_pauses_until_somebody_resumes(s: Stage) -> None:
    t = s.open(agents=2, strategy={"stages": [stage(50, pause={}), stage(100)]})
    t.promote("shop-1")
    t.run(timedelta(minutes=5))
    t.ask("resume", "olga")
    t.run()


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
    t.ask("resume", "olga")
    t.settle()
    t.ask("rollback", "olga")
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


@pytest.mark.parametrize("crash", [False, True], ids=["lives", "restarts"])
@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str, crash: bool) -> None:
    played = Stage(crash)
    SCENES[name](played)
    theatre = played.theatre
    assert theatre is not None
    check_invariants(theatre)
    told = "\n".join(theatre.lines) + "\n"
    golden = HERE / f"{name}.txt"
    if os.environ.get("LOCKGATE_REWRITE") and not crash:
        golden.write_text(told)
    assert told == golden.read_text()


def test_every_golden_file_has_its_scene() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(SCENES)
