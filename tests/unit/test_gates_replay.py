"""Gates and rules as functions of their committed inputs: no order of a map, no number's type counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.adapters.gates.cel import CelWorker
from controller.adapters.gates.cel_worker import answer, may_walk_maps
from controller.core.gates import BUILT_IN, Gate, answer_from, decide_gates, gate_names
from controller.core.run import UNANSWERED
from controller.ledger.canonical import canonical, digest

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
KEYS = {name: name for name in "abcdefgh"}
WAITS = timedelta(minutes=10)


def asked(**inputs: object) -> Gate:
    return Gate("rule", "cel", "block", {"rule": "true"}, inputs, "sha256:" + "0" * 64)


def test_a_rule_that_depends_on_the_order_of_keys_is_an_error_and_not_a_coin_toss() -> None:
    given = answer({"rule": "inputs.m.map(k, k)[0] == 'a'", "variables": {}}, {"m": KEYS})
    assert given["error"] == "rule-unstable"
    assert answer({"rule": "'a' in inputs.m.map(k, k)", "variables": {}}, {"m": KEYS})["value"] is True


@pytest.mark.parametrize(
    ("rule", "may"),
    [
        ("inputs.list.all(c, c.m.size() > 0)", False),
        ("inputs.list.filter(c, true).size() > 0", False),
        ("inputs.deep.list . map(c, c.n) == []", False),
        ("!(inputs.list.map(c, c.n).size() > 1) || inputs.deep.list.filter(c, true) == []", False),
        ("inputs.m.map(k, k)[0] == 'a'", True),
        ("inputs.list[0].m.map(k, k)[0] == 'a'", True),
        ("inputs.list.map(c, c.m.map(k, k)[0])[0] == 'a'", True),
        ("inputs.list.filter(c, true).map(c, c)[0].m.map(k, k)[0] == 'a'", True),
        ("[inputs.m].map(x, x)[0].map(k, k)[0] == 'a'", True),
        ("[{'list': inputs.m}].exists(inputs, inputs.list.map(k, k)[0] == 'a')", True),
        ("inputs.m // inputs.list\n.map(k, k)[0] == 'a'", True),
        ("{'inputs': {'list': inputs.m}}.inputs.list.map(k, k)[0] == 'a'", True),
        ("(true ? inputs.m : inputs.list).map(k, k)[0] == 'a'", True),
        ("inputs.absent.map(k, k) == []", True),
    ],
)
def test_only_what_may_walk_a_map_is_asked_many_times(rule: str, may: bool) -> None:
    inputs = {"m": KEYS, "list": [{"m": KEYS, "n": 1}], "deep": {"list": [{"n": 2}]}}
    assert may_walk_maps({"rule": rule, "variables": {}}, inputs) is may
    given = answer({"rule": rule, "variables": {}}, inputs)
    if may:
        assert given.get("error") in ("rule-unstable", "cel-error")
    else:
        assert "value" in given
    rebound = {"rule": "inputs.list.map(k, k)[0] == 'a'", "variables": {"inputs": "{'list': inputs.m}"}}
    assert may_walk_maps(rebound, inputs)
    assert answer(rebound, inputs)["error"] == "rule-unstable"


def test_values_in_messages_look_alike_in_every_process() -> None:
    config = {"rule": "false", "variables": {"all": "inputs.m", "names": "inputs.m.map(k, k)"}}
    workers = [CelWorker(), CelWorker()]
    try:
        said = [worker.ask({"config": config, "inputs": {"m": KEYS}}) for worker in workers]
    finally:
        for worker in workers:
            worker.close()
    assert said[0] == said[1]
    assert said[0]["variables"]["names"] == "[a, b, c, d, e, f, g, h]"


def test_a_gate_sees_what_is_committed_and_not_what_python_had() -> None:
    gate = asked(share=1.0, names=("a", "b"))
    (question,) = decide_gates([gate], 0, {}, NOW, {}).questions
    assert question.payload["inputs"] == {"share": 1, "names": ["a", "b"]}
    assert type(question.payload["inputs"]["share"]) is int
    verdict = decide_gates([gate], 0, {}, NOW, {}).detail.verdicts[0]
    assert verdict.inputs == digest(canonical({"share": 1, "names": ["a", "b"]}))


def test_silence_follows_from_when_it_began() -> None:
    gate = asked()
    waits = answer_from(gate, NOW + WAITS, NOW + WAITS - timedelta(microseconds=1), None)
    assert (waits.verdict, waits.code, waits.until) == ("WAIT", UNANSWERED, NOW + WAITS)
    ended = answer_from(gate, NOW + WAITS, NOW + WAITS, {"error": "unavailable", "message": "no"})
    assert (ended.verdict, ended.code) == ("FAIL", "gate-timeout")


@pytest.mark.parametrize("rollback", [False, True])
def test_the_gates_of_a_run_follow_from_its_documents(rollback: bool) -> None:
    names = gate_names({"freeze": "freeze", "old": "soak", "mine": "cel"}, rollback)
    built_in = [name for name, policy in names if policy is None]
    assert built_in == [name for name in BUILT_IN if name != "promotes-from" or not rollback]
    rest = [("policies/freeze", "freeze"), ("old", "old"), ("mine", "mine")]
    assert names[len(built_in) :] == (rest if not rollback else [rest[0], rest[2]])
