"""Strategy: stages by percentage of the targets, and what must be measured before the next one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, Strict, model_validator

from controller.model.base import (
    INTEGRAL,
    Document,
    Duration,
    Name,
    Names,
    Part,
    PositiveDuration,
    Ratio,
    SomeTexts,
    Text,
    Texts,
    one_of,
)
from controller.model.component import HttpPath

AgentMetric = Literal["error_rate", "latency_p50", "latency_p95", "latency_p99", "requests", "healthy"]


class Require(Part):
    """What share of the stage's targets must be healthy."""

    healthy: Ratio = 1.0


class Pause(Part):
    """How long a stage rests after it was found good; without `for` until a person continues."""

    model_config = ConfigDict(alias_generator=lambda name: "for" if name == "duration" else name)

    duration: PositiveDuration | None = None


class Stage(Part):
    """One step of the rollout: the share of targets that run the release when it is done."""

    name: Name | None = None
    percent: Annotated[int, Field(ge=1, le=100), INTEGRAL]
    min_healthy_time: Duration | None = None
    deadline: PositiveDuration | None = None
    require: Require | None = None
    analysis: Names = ()
    pause: Pause | None = None
    max_parallel: Annotated[int, Field(ge=1), INTEGRAL] | None = None


class Prometheus(Part):
    """A query against a Prometheus server."""

    url: Annotated[Text, Field(pattern="^https?://[^ ]+$", description="An http or https URL.")]
    query: Text


class PrometheusSource(Part):
    """The figures come from Prometheus."""

    prometheus: Prometheus


class Judge(Part):
    """A comparison with the baseline: which way is worse, and how much of it is accepted."""

    direction: Literal["increase", "decrease", "either"]
    max_effect: Annotated[float, Field(gt=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None


def _metric_schema(schema: dict[str, Any]) -> None:
    schema.update(one_of("successWhen", "failWhen", "judge", most=False))
    schema["allOf"] = [
        {
            "if": {"properties": {"source": {"const": "agents"}}},
            "then": {"required": ["metric"]},
        }
    ]


class Metric(Part):
    """What is measured and when it is good; at least one of successWhen, failWhen and judge."""

    model_config = ConfigDict(json_schema_extra=_metric_schema)

    source: Literal["agents"] | PrometheusSource = "agents"
    metric: AgentMetric | None = None
    success_when: Text | None = None
    fail_when: Text | None = None
    judge: Judge | None = None
    baseline: Literal["previous", "peers", "none"] | None = None
    interval: PositiveDuration | None = None
    min_samples: Annotated[int, Field(ge=1), INTEGRAL] = 1
    failure_limit: Annotated[int, Field(ge=0), INTEGRAL] = 0
    on_no_data: Literal["wait", "fail", "pass"] = "wait"

    @model_validator(mode="after")
    def _decides(self) -> Self:
        if not self.model_fields_set & {"success_when", "fail_when", "judge"}:
            raise ValueError("a metric says when it is good: successWhen, failWhen or judge")
        if self.source == "agents" and self.metric is None:
            raise ValueError("a metric of the agents names which")
        return self


class HttpCheck(Part):
    """A request that every touched target must answer."""

    path: HttpPath
    expect: Annotated[int, Field(ge=100, le=599), INTEGRAL] = 200
    component: Name | None = None
    port: Name | None = None


class ExecCheck(Part):
    """A command that must end with exit code 0 on every touched target."""

    command: SomeTexts
    component: Name | None = None


class Verify(Part):
    """One check after the last stage: exactly one of http and exec."""

    model_config = ConfigDict(json_schema_extra=one_of("http", "exec"))

    http: HttpCheck | None = None
    exec: ExecCheck | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError("exactly one of http and exec")
        return self


class StrategySpec(Part):
    """Stages, measurements and checks."""

    stages: Annotated[tuple[Stage, ...], Strict(False), Field(min_length=1)]
    analysis: dict[Name, Metric] = Field(default_factory=dict)
    rollback_when: Texts = ()
    verify: Annotated[tuple[Verify, ...], Strict(False)] = ()


class Strategy(Document):
    """A strategy."""

    kind: Literal["Strategy"]
    spec: StrategySpec
