"""Gates, their calendar and the plan: pure answers at exact instants."""

from datetime import UTC, datetime, timedelta
from typing import Any

from controller.core.absence import Absence
from controller.core.calendar import span_at
from controller.core.gates import Gate, decide_gates, decision_digest, question_for
from controller.core.rollout import order_targets, plan_stages
from controller.model.entry import Verdict

T0 = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
M = timedelta(minutes=1)


def gate(kind: str, inputs: dict[str, Any], level: str = "block", **config: Any) -> Gate:
    return Gate(kind, kind, level, config, inputs, None)  # type: ignore[arg-type]


def verdict(one: Gate, now: datetime = T0, asked: datetime | None = None, **answers: Any) -> tuple[str, str]:
    known = {question_for(one.type, one.config, one.inputs).key: answers} if answers else {}
    decided = decide_gates([one], 0, {one.name: asked} if asked else {}, now, known)
    return decided.detail.verdicts[0].verdict, decided.detail.verdicts[0].code


def window(kind: str, is_open: bool) -> dict[str, Any]:
    return {"kind": kind, "schedule": "-", "open": is_open, "changes": "2026-01-05T10:00:00.000000Z"}


def test_deny_wins_over_allow() -> None:
    both = {"windows": [window("allow", True), window("deny", True)]}
    assert verdict(gate("window", both)) == ("WAIT", "window-denied")
    assert verdict(gate("window", {"windows": [window("allow", False)]})) == ("WAIT", "window-closed")
    assert verdict(gate("window", {"windows": [window("deny", False)]})) == ("PASS", "window-open")


def test_soak_counts_from_the_completion() -> None:
    inputs = {"completed": {"staging": "2026-01-05T09:00:00.000000Z"}}
    soak = gate("soak", inputs, **{"for": 600.0})
    assert verdict(soak, T0 + 10 * M - timedelta(microseconds=1)) == ("WAIT", "soaking")
    assert verdict(soak, T0 + 10 * M) == ("PASS", "soaked")
    assert verdict(gate("soak", {"completed": {"staging": None}}, **{"for": 1.0})) == ("FAIL", "never-ran")


def test_an_unanswered_gate_waits_from_its_first_asking_and_then_fails() -> None:
    cel = gate("cel", {"x": 1}, rule="true")
    assert verdict(cel, T0 + 1000 * M) == ("WAIT", "gate-unanswered")
    assert verdict(cel, T0 + 10 * M - timedelta(seconds=1), asked=T0) == ("WAIT", "gate-unanswered")
    assert verdict(cel, T0 + 10 * M, asked=T0) == ("FAIL", "gate-timeout")
    assert verdict(cel, T0 + 10 * M, asked=T0, error="unavailable", message="gone") == ("FAIL", "gate-timeout")
    assert verdict(cel, error="cost-exceeded", message="slow") == ("FAIL", "cost-exceeded")
    for value in (None, 1, "true", False):
        assert verdict(cel, value=value) == ("FAIL", "rule-false")
    assert verdict(cel, value=True) == ("PASS", "rule-true")
    assert verdict(gate("cel", {}, "warn", rule="x"), value=False) == ("WARN", "rule-false")


def test_a_gates_deadline_stands_still_while_the_controller_is_away() -> None:
    cel = gate("cel", {"x": 1}, rule="true")
    away = (Absence(T0 + 2 * M, T0 + 15 * M),)

    def at(now: datetime) -> Verdict:
        return decide_gates([cel], 0, {"cel": T0}, now, {}, away).detail.verdicts[0]

    waits = at(T0 + 22 * M)
    assert (waits.verdict, waits.until) == ("WAIT", T0 + 23 * M)
    assert decide_gates([cel], 0, {"cel": T0}, T0 + 22 * M, {}, away).next_look == waits.until
    assert at(T0 + 23 * M).code == "gate-timeout"


def test_the_decision_digest_depends_on_neither_time_nor_order() -> None:
    gates = [gate("freeze", {"freezes": []}), gate("targets", {"targets": ["a"]})]
    one = decide_gates(gates, 0, {}, T0, {}).detail
    other = decide_gates(gates[::-1], 0, {}, T0 + 99 * M, {}).detail
    assert one.decision == other.decision == decision_digest(one.verdicts)
    assert one.decision != decide_gates([gates[0]], 0, {}, T0, {}).detail.decision


def test_spans_are_half_open_and_keep_their_length_over_a_clock_change() -> None:
    nine = timedelta(hours=8)
    assert span_at("0 9 * * *", nine, "UTC", T0).is_open
    assert not span_at("0 9 * * *", nine, "UTC", T0 + nine).is_open
    assert span_at("0 9 * * *", nine, "UTC", T0 - M).changes == T0
    # Berlin goes from UTC+1 to UTC+2 on 29 March 2026 at 01:00 UTC: midnight to four is three hours later.
    begin = datetime(2026, 3, 28, 23, 0, tzinfo=UTC)
    span = span_at("0 0 * * *", timedelta(hours=4), "Europe/Berlin", begin + timedelta(hours=3, minutes=59))
    assert (span.is_open, span.changes) == (True, begin + timedelta(hours=4))


def test_percentages_are_cumulative_rounded_up_and_at_least_one() -> None:
    names = order_targets("c" * 40, [f"t{n}" for n in range(10)])
    assert [len(s.targets) for s in plan_stages([10, 50, 100], names)] == [1, 4, 5]
    assert [len(s.targets) for s in plan_stages([1, 34, 100], names[:3])] == [1, 1, 1]
    assert [len(s.targets) for s in plan_stages([10, 50, 100], names[:1])] == [1, 0, 0]
    assert sum((s.targets for s in plan_stages([10, 50, 100], names)), ()) == names
    assert order_targets("d" * 40, names) != names == order_targets("c" * 40, reversed(names))
