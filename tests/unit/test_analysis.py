"""Stage verdicts: unknown is neither pass nor fail, silence is not health, and limits are exact."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from controller.core.analysis import StageVerdict, Window, evaluate, holds, parse_condition
from controller.errors import Invalid
from controller.model.entry import TargetResult
from controller.model.order import Sample
from controller.model.strategy import Metric, Stage

T0 = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
S = timedelta(seconds=1)


def metric(**more: Any) -> Metric:
    return Metric.model_validate(
        {"metric": "error_rate", "successWhen": "value < 0.05", "interval": "10s", "minSamples": 3, **more}
    )


def stage(hold: str = "0s", **more: Any) -> Stage:
    return Stage.model_validate({"percent": 50, "minHealthyTime": hold, "analysis": ["errors"], **more})


def sample(target: str, second: int, errors: int = 0, requests: int = 100, healthy: bool | None = True) -> Sample:
    return Sample(
        agent=target,
        environment="prod",
        sequence=second + 1,
        at=T0 + second * S,
        healthy=healthy,
        requests=requests,
        errors=errors,
    )


def result(target: str, outcome: str = "succeeded", healthy: bool | None = True) -> TargetResult:
    return TargetResult(
        order=f"r/0/1/{target}/deploy",
        target=target,
        result=outcome,  # type: ignore[arg-type]
        code="ok",
        message="",
        report=None,
        manifest_digest=None,
        healthy=healthy,
    )


def judge(
    now: int,
    samples: list[Sample],
    *,
    of: Stage | None = None,
    errors: Metric | None = None,
    results: tuple[TargetResult, ...] | None = None,
    targets: tuple[str, ...] = ("a",),
    deadline: int = 300,
    rules: tuple[str, ...] = (),
) -> StageVerdict:
    by_target: dict[str, list[Sample]] = {}
    for one in samples:
        by_target.setdefault(one.agent, []).append(one)
    window = Window(targets, T0, T0 + now * S, 10 * S, by_target)
    told = results if results is not None else tuple(result(t) for t in targets)
    of = of or stage()
    return evaluate(of, {"errors": errors or metric()}, rules, told, window, T0 + deadline * S)


def steady(until: int, **more: Any) -> list[Sample]:
    return [sample("a", second, **more) for second in range(5, until, 10)]


@pytest.mark.parametrize(
    ("limit", "bad", "verdict"), [(0, 0, None), (0, 1, "failed"), (3, 3, None), (3, 4, "failed")]
)
def test_the_failure_limit_is_exact(limit: int, bad: int, verdict: str | None) -> None:
    samples = [sample("a", 5 + 10 * i, errors=50 if i < bad else 0) for i in range(5)]
    errors = metric(failureLimit=limit, minSamples=9)
    assert judge(50, samples, errors=errors).verdict == verdict


def test_enough_samples_pass_and_too_few_are_unknown() -> None:
    assert judge(20, steady(20)).verdict is None
    assert judge(30, steady(30)).verdict == "passed"
    late = judge(30, steady(30, requests=0), deadline=30)
    assert (late.verdict, late.on_unknown) == ("unknown", "wait")
    assert late.criteria[1].value is None


@pytest.mark.parametrize("wish", ["wait", "fail", "pass"])
def test_missing_data_is_the_owners_choice(wish: str) -> None:
    assert judge(30, steady(30, requests=0), errors=metric(onNoData=wish), deadline=30).on_unknown == wish


def test_no_report_and_no_sample_are_unhealthy() -> None:
    assert judge(300, []).verdict == "failed"
    assert judge(10, [], results=(result("a", "unreported"),)).verdict == "failed"
    assert judge(10, [], results=(result("a", "failed"),)).verdict == "failed"
    unsampled = stage(analysis=[])
    assert judge(10, [], of=unsampled).verdict == "passed"
    assert judge(10, [], of=unsampled, results=(result("a", healthy=False),)).verdict is None
    half = stage(require={"healthy": "50%"})
    two = (result("a"), result("b", "failed"))
    assert judge(30, steady(30), of=half, results=two, targets=("a", "b")).verdict == "passed"


def test_health_holds_without_a_break() -> None:
    hold = stage("30s")
    assert judge(34, steady(34), of=hold).verdict is None
    assert judge(36, steady(36), of=hold).verdict == "passed"
    broken = [*steady(20), sample("a", 25, healthy=False), sample("a", 35), sample("a", 45)]
    assert judge(50, broken, of=hold).verdict is None
    unknown = [*steady(20), sample("a", 25, healthy=None), sample("a", 35), sample("a", 45)]
    assert judge(50, unknown, of=hold).verdict is None
    silent = [*steady(30), sample("a", 80)]
    assert judge(81, silent, of=hold).verdict is None
    assert judge(200, steady(100), of=hold).verdict is None, "the last sample is stale"


def test_a_stage_without_targets_of_its_own_still_measures() -> None:
    hold = stage("30s")
    assert judge(10, [], of=hold, results=()).verdict is None
    assert judge(36, steady(36), of=hold, results=()).verdict == "passed"
    assert judge(10, [], of=stage(analysis=[]), results=(), targets=()).verdict == "passed"


def test_a_rollback_rule_triggers_at_once_and_unknown_does_not() -> None:
    loose = metric(failureLimit=99, minSamples=9)
    assert judge(10, steady(10, errors=50), errors=loose, rules=("errors.value > 0.2",)).verdict == "failed"
    assert judge(10, steady(10, requests=0), errors=loose, rules=("errors.value > 0.2",)).verdict is None


def test_no_number_that_is_none_gets_in() -> None:
    for bad in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValidationError):
            Sample(agent="a", environment="prod", sequence=1, at=T0, latency_p95=bad)
    for text in ("value < nan", "value <", "", "value < 1 && ", "x"):
        with pytest.raises(Invalid, match="condition-syntax"):
            parse_condition(text)
    assert holds("value < 0.1 && value >= 0 || value == 7", 7)
