"""What an order says of documents: written by the controller, and compared by an agent with what people signed."""

from __future__ import annotations

from typing import Any

from controller.model.component import Component
from controller.model.order import ExecProbe, HttpProbe, OrderCheck
from controller.model.strategy import Strategy

FIRST_ROLES = frozenset({"init", "migration"})
"""Components that run first and once: on the first target of the first stage, before anything else starts."""


def run_of(component: Component) -> dict[str, Any]:
    """How a component runs, as an order carries it."""
    return component.spec.run.model_dump(mode="json", by_alias=True, exclude_none=True)


def checks_of(strategy: Strategy) -> tuple[OrderCheck, ...]:
    """The strategy's `verify` checks as a check order carries them."""
    return tuple(
        OrderCheck(
            http=HttpProbe(**one.http.model_dump()) if one.http is not None else None,
            exec=ExecProbe(**one.exec.model_dump()) if one.exec is not None else None,
        )
        for one in strategy.spec.verify
    )
