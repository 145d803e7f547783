"""The process that evaluates rules: whatever a rule does to it, there is an answer, it is no yes, and the next
question is answered."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.gates.cel import LENGTH, SECONDS, CelWorker
from controller.core.gates import interpret

ENDLESS = "inputs.l.all(a, inputs.l.all(b, inputs.l.all(c, inputs.l.all(d, a + b + c + d >= 0))))"
HUGE = "size(inputs.l.map(a, inputs.s + 'b')) > 0"
MANY: dict[str, Any] = {"l": list(range(1000)), "s": "a" * 1_000_000}


@pytest.fixture
def worker() -> Iterator[CelWorker]:
    made = CelWorker()
    yield made
    made.close()


def ask(worker: CelWorker, rule: str, **inputs: Any) -> dict[str, Any]:
    return worker.ask({"config": {"rule": rule}, "inputs": inputs})


def children() -> set[int]:
    """This process's children."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def test_a_rule_is_answered(worker: CelWorker) -> None:
    assert ask(worker, "inputs.x == 1", x=1)["value"] is True
    assert ask(worker, "inputs.x == 1", x=2)["value"] is False


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("1 + 1", "cel-error"),
        ("inputs.nothing == 1", "cel-error"),
        ("nonsense(", "cel-error"),
        ("t" * (LENGTH + 1), "cost-exceeded"),
        (HUGE, "cost-exceeded"),
    ],
    ids=["not a boolean", "an unknown name", "no rule", "too long", "too large"],
)
def test_what_is_no_answer_is_an_error_and_never_a_pass(worker: CelWorker, rule: str, code: str) -> None:
    given = ask(worker, rule, **(MANY if rule == HUGE else {}))
    assert given["error"] == code and given["message"]
    assert interpret({}, given).verdict == "FAIL"
    assert ask(worker, "true")["value"] is True


def test_a_rule_that_takes_for_ever_is_ended(worker: CelWorker) -> None:
    before = children()
    given = ask(worker, ENDLESS, **MANY)
    assert given == {"error": "cost-exceeded", "message": f"no answer within {SECONDS:g} seconds"}
    assert children() == before, "what evaluated it still runs"
    assert ask(worker, "true")["value"] is True


def test_a_worker_that_dies_is_replaced(worker: CelWorker) -> None:
    before = children()
    assert ask(worker, "true")["value"] is True
    (process,) = children() - before
    os.kill(process, signal.SIGSTOP)
    os.kill(process, signal.SIGKILL)
    given = ask(worker, "true")
    # Its end is seen before the question is asked, or while its answer is waited for.
    assert given.get("value") is True or given["error"] == "cost-exceeded"
    assert ask(worker, "true")["value"] is True
    worker.close()
    assert children() == before
