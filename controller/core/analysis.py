"""A stage's verdict from what its agents reported and measured.

Pure over recorded statements, so that every verdict replays. Unknown is a value of its own: it neither passes
nor fails a criterion. Semantics follow the canary notes in the design: a target without a report is unhealthy,
a metric without data is unknown, health must hold for `minHealthyTime` without a break.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from controller.errors import Invalid
from controller.model.entry import Criterion, TargetResult
from controller.model.order import Sample
from controller.model.strategy import Metric, Stage
from controller.model.words import counted

DEFAULT_INTERVAL = timedelta(seconds=10)
STALE_AFTER = 3
"""A target whose last sample is older than this many intervals counts as unhealthy."""

State = Literal["passed", "failed", "unknown"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CLAUSE = re.compile(
    rf"\s*(?:(?P<name>[A-Za-z_]\w*)\.)?value\s*(?P<op><=|>=|==|!=|<|>)\s*(?P<number>{_NUMBER})\s*"
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a metric's value with a number; `metric` is empty inside the metric's own rule."""

    metric: str
    op: str
    number: float

    def holds(self, value: float) -> bool:
        match self.op:
            case "<":
                return value < self.number
            case "<=":
                return value <= self.number
            case ">":
                return value > self.number
            case ">=":
                return value >= self.number
            case "==":
                return value == self.number
            case _:
                return value != self.number


def parse_condition(text: str) -> tuple[tuple[Clause, ...], ...]:
    """`value < 0.01 && value >= 0 || …` as alternatives of clauses. Raises Invalid("condition-syntax")."""
    alternatives = []
    for alternative in text.split("||"):
        clauses = []
        for part in alternative.split("&&"):
            found = _CLAUSE.fullmatch(part)
            if found is None:
                raise Invalid(
                    "condition-syntax",
                    f"the condition {text!r} cannot be read",
                    expected="comparisons of value with a number, joined by && and ||",
                    got=part.strip() or "nothing",
                    cure="write it like: value < 0.01",
                )
            clauses.append(Clause(found["name"] or "", found["op"], float(found["number"])))
        alternatives.append(tuple(clauses))
    return tuple(alternatives)


def holds(text: str, value: float) -> bool:
    """Whether a metric's own condition is true of a value."""
    return any(all(clause.holds(value) for clause in clauses) for clauses in parse_condition(text))


@dataclass(frozen=True, slots=True)
class Window:
    """The samples a stage is judged by: those after `since`, by target, in order of their sequence."""

    targets: tuple[str, ...]
    since: datetime
    now: datetime
    interval: timedelta
    samples: Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class StageVerdict:
    """`verdict` is None while the stage is still open; `next_look` is when time alone may change that."""

    verdict: State | None
    criteria: tuple[Criterion, ...]
    next_look: datetime | None
    on_unknown: Literal["wait", "fail", "pass"] = "wait"


def sampling_interval(stage: Stage | None, metrics: Mapping[str, Metric]) -> timedelta:
    """How often agents sample while a stage is open: the shortest interval that any of its metrics asks for."""
    names = stage.analysis if stage else ()
    wanted = [metrics[n].interval or DEFAULT_INTERVAL for n in names if n in metrics]
    if stage is not None and stage.min_healthy_time:
        wanted.append(max(stage.min_healthy_time / 4, timedelta(milliseconds=100)))
    return min(wanted, default=DEFAULT_INTERVAL)


def evaluate(
    stage: Stage | None,
    metrics: Mapping[str, Metric],
    rollback_when: Sequence[str],
    results: Sequence[TargetResult],
    window: Window,
    deadline: datetime,
) -> StageVerdict:
    """The stage's verdict at `window.now`, or none yet.

    Failed as soon as any criterion has failed for good, passed when all have passed, and at the deadline
    failed (health) or unknown (a metric without enough data).
    """
    healthy = _health(stage, results, window)
    measured = {name: _measure(metrics[name], window) for name in sorted({*(stage.analysis if stage else ())})}
    criteria = [healthy] + [_judge(name, metrics[name], measured[name]) for name in measured]
    criteria += [_trigger(text, measured) for text in rollback_when if _mentions(text, measured)]
    states = {c.state for c in criteria}
    late = window.now >= deadline
    if any(c.state == "failed" and c is not healthy for c in criteria) or _hopeless(stage, results):
        return StageVerdict("failed", _with_health_failed(criteria, stage, results), None)
    if states == {"passed"}:
        return StageVerdict("passed", tuple(criteria), None)
    if late and healthy.state != "passed":
        text = f"{healthy.message} at the deadline"
        return StageVerdict(
            "failed", (healthy.model_copy(update={"state": "failed", "message": text}), *criteria[1:]), None
        )
    if late:
        return StageVerdict("unknown", tuple(criteria), None, _on_no_data(criteria, metrics))
    return StageVerdict(None, tuple(criteria), min(deadline, window.now + window.interval))


def _ratio(stage: Stage | None) -> float:
    return stage.require.healthy if stage is not None and stage.require is not None else 1.0


def _hopeless(stage: Stage | None, results: Sequence[TargetResult]) -> bool:
    """Whether too many targets failed for the required share ever to be reached: no need to wait for it."""
    bad = sum(1 for r in results if r.result != "succeeded")
    return bool(results) and (len(results) - bad) / len(results) < _ratio(stage)


def _with_health_failed(
    criteria: list[Criterion], stage: Stage | None, results: Sequence[TargetResult]
) -> tuple[Criterion, ...]:
    if not _hopeless(stage, results):
        return tuple(criteria)
    bad = [r for r in results if r.result != "succeeded"]
    text = f"{len(bad)} of {len(results)} targets failed: " + "; ".join(f"{r.target} {r.code}" for r in bad[:5])
    return (criteria[0].model_copy(update={"state": "failed", "message": text}), *criteria[1:])


def _health(stage: Stage | None, results: Sequence[TargetResult], window: Window) -> Criterion:
    """Healthy share over the stage's targets, held for `minHealthyTime` without a break."""
    need = _ratio(stage)
    hold = (stage.min_healthy_time if stage else None) or timedelta(0)
    sampled = bool(hold or (stage and stage.analysis))
    if not results and not (sampled and window.targets):
        return _criterion("healthy", "passed", 1.0, 0, "the stage has no targets of its own")
    if not sampled:
        good = sum(1 for r in results if r.result == "succeeded" and r.healthy is not False)
        share = good / len(results)
        return _criterion(
            "healthy",
            "passed" if share >= need else "unknown",
            share,
            good,
            f"{good} of {len(results)} targets healthy",
        )
    heard = sorted(((s.at, s.sequence, t, bool(s.healthy)) for t, ss in window.samples.items() for s in ss))
    silence = STALE_AFTER * window.interval + timedelta(seconds=1)
    since: datetime | None = None
    before: datetime | None = None
    share = 0.0
    last: dict[str, tuple[datetime, bool]] = {}
    for place, (moment, _, target, healthy) in enumerate(heard):
        last[target] = (moment, healthy)
        if place + 1 < len(heard) and heard[place + 1][0] == moment:
            continue  # one instant is judged once, with everything that was said at it
        fine = sum(1 for t in window.targets if t in last and last[t][1] and moment - last[t][0] <= silence)
        share = fine / len(window.targets) if window.targets else 1.0
        if before is not None and moment - before > silence:
            since = None  # nobody said anything for so long: health did not hold over the gap
        since = (since or moment) if share >= need else None
        before = moment
    stale = before is None or window.now - before > silence
    held = before - since if before is not None and since is not None and not stale else timedelta(0)
    good = round(share * len(window.targets))
    spans = f"{held.total_seconds():.1f}s of {hold.total_seconds():.1f}s"
    text = f"{good} of {len(window.targets)} targets healthy for {spans}"
    done = since is not None and not stale and held >= hold
    return _criterion("healthy", "passed" if done else "unknown", share if heard else None, len(heard), text)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One interval's value over the stage's targets; None is unknown."""

    value: float | None


def _measure(metric: Metric, window: Window) -> tuple[Measurement, ...]:
    """Values per interval since the stage began, whole intervals only, over all of the stage's targets."""
    interval = metric.interval or DEFAULT_INTERVAL
    count = max(0, (window.now - window.since) // interval)
    buckets: list[list[Sample]] = [[] for _ in range(count)]
    for samples in window.samples.values():
        for sample in samples:
            slot = (sample.at - window.since) // interval
            if 0 <= slot < count:
                buckets[slot].append(sample)
    return tuple(Measurement(_value(metric.metric or "", bucket)) for bucket in buckets)


def _value(name: str, samples: Sequence[Sample]) -> float | None:
    requests = sum(s.requests for s in samples)
    if name == "requests":
        return float(requests) if samples else None
    if name == "error_rate":
        return sum(s.errors for s in samples) / requests if requests else None
    if name == "healthy":
        known = [s for s in samples if s.healthy is not None]
        return sum(1 for s in known if s.healthy) / len(known) if known else None
    # The worst target's percentile: percentiles of different targets cannot be averaged.
    values = [v for s in samples if s.requests and (v := getattr(s, name, None)) is not None]
    return max(values, default=None)


def _good(metric: Metric, value: float) -> bool:
    if metric.fail_when is not None and holds(metric.fail_when, value):
        return False
    return metric.success_when is None or holds(metric.success_when, value)


def _judge(name: str, metric: Metric, measurements: Sequence[Measurement]) -> Criterion:
    known = [m.value for m in measurements if m.value is not None]
    failures = sum(1 for value in known if not _good(metric, value))
    last = known[-1] if known else None
    text = f"{failures} of {counted(len(known), 'measurement')} bad, {metric.failure_limit} allowed"
    text += f", {metric.min_samples} needed"
    state: State = "unknown"
    if metric.source != "agents" or metric.judge is not None:
        text = "this metric's source or judge is not available to this controller"
    elif failures > metric.failure_limit:
        state = "failed"
        worst = next(value for value in known if not _good(metric, value))
        text += f"; first bad value {worst:g}, wanted {metric.success_when or 'not ' + str(metric.fail_when)}"
    elif len(known) >= metric.min_samples:
        state = "passed"
    return _criterion(name, state, last, len(known), text, failures)


def _mentions(text: str, measured: Mapping[str, Sequence[Measurement]]) -> bool:
    return all(clause.metric in measured for clauses in parse_condition(text) for clause in clauses)


def _trigger(text: str, measured: Mapping[str, Sequence[Measurement]]) -> Criterion:
    """A rollbackWhen rule over the latest known value of each metric it names; unknown does not trigger."""
    latest = {n: next((m.value for m in reversed(ms) if m.value is not None), None) for n, ms in measured.items()}

    def true(clause: Clause) -> bool:
        value = latest[clause.metric]
        return value is not None and clause.holds(value)

    hit = any(all(true(c) for c in clauses) for clauses in parse_condition(text))
    return _criterion(
        f"rollbackWhen {text}", "failed" if hit else "passed", None, 0, "triggered" if hit else "quiet"
    )


def _on_no_data(criteria: Sequence[Criterion], metrics: Mapping[str, Metric]) -> Literal["wait", "fail", "pass"]:
    """The strictest answer to missing data among the unknown metrics."""
    wishes = {metrics[c.name].on_no_data for c in criteria if c.state == "unknown" and c.name in metrics}
    return "fail" if "fail" in wishes else "wait" if "wait" in wishes or not wishes else "pass"


def _criterion(
    name: str, state: State, value: float | None, samples: int, message: str, failures: int = 0
) -> Criterion:
    return Criterion(name=name, state=state, value=value, samples=samples, failures=failures, message=message)
