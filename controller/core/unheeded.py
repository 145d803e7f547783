"""Settings that documents may already hold and that this version does not act on: `validate` tells of each.

They are part of the documents' published form. A limit that nobody keeps must not look like one that is kept, so
whoever sets one is told; whoever leaves it at its default is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from controller.core.compose import Pointer
from controller.core.finding import shown
from controller.core.memory import Memory
from controller.core.parse import line_of
from controller.model.diagnostic import Diagnostic
from controller.model.documents import Agent, Environment, Project, Promotion, Strategy

if TYPE_CHECKING:
    from controller.model.intent import Intent

Setting = tuple[Pointer, str]
"""Where a setting stands, and what happens instead."""


def unheeded(intent: Intent) -> list[Diagnostic]:
    """A warning for every setting that nothing acts on, by path and line."""
    found = []
    for path, (_, parsed) in cast(Memory, intent.memory).files.items():
        document = parsed.document
        settings = _SETTINGS.get(document.kind) if document is not None else None
        for at, instead in settings(document) if settings is not None and document is not None else ():
            found.append(
                Diagnostic(
                    path,
                    line_of(parsed, at),
                    "warning",
                    code="not-acted-on",
                    message=f"this version does not act on {shown(at)}: {instead}",
                    cure="remove it, or do not rely on it",
                )
            )
    return sorted(found)


def _project(document: Project) -> Iterator[Setting]:
    if document.spec.offline:
        yield ("spec", "offline"), "registries are asked as always"
    if document.spec.quotas != type(document.spec.quotas)():
        yield ("spec", "quotas"), "nothing is counted"


def _environment(document: Environment) -> Iterator[Setting]:
    if document.spec.auto_promote:
        yield ("spec", "autoPromote"), "releases come here by promotion alone"
    if document.spec.secrets:
        yield ("spec", "secrets"), "components run without them"


def _strategy(document: Strategy) -> Iterator[Setting]:
    for place, stage in enumerate(document.spec.stages):
        if stage.max_parallel is not None:
            at = ("spec", "stages", place, "maxParallel")
            yield at, "all targets of a stage are told at once; make more stages"
    for name, metric in document.spec.analysis.items():
        if metric.source != "agents":
            yield ("spec", "analysis", name, "source"), "it stays unknown, and unknown does not pass"
        if metric.judge is not None:
            yield ("spec", "analysis", name, "judge"), "it stays unknown, and unknown does not pass"
        if metric.baseline not in (None, "none"):
            yield ("spec", "analysis", name, "baseline"), "values are compared with numbers alone"


def _promotion(document: Promotion) -> Iterator[Setting]:
    if document.spec.schedule is not None and document.spec.schedule.preconditions:
        yield ("spec", "schedule", "preconditions"), "the promotion begins without them"


def _agent(document: Agent) -> Iterator[Setting]:
    if document.spec.driver != "process":
        yield ("spec", "driver"), "agents run components as processes"
    if document.spec.driver_config:
        yield ("spec", "driverConfig"), "the driver has no settings"


_SETTINGS: dict[str, Callable[..., Iterator[Setting]]] = {
    "Project": _project,
    "Environment": _environment,
    "Strategy": _strategy,
    "Promotion": _promotion,
    "Agent": _agent,
}
