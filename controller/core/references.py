"""Which documents a document names, and which of them it cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from controller.core.compose import Pointer
from controller.model.documents import (
    Agent,
    Document,
    Environment,
    Freeze,
    Promotion,
    Release,
    ReleaseLock,
    path_of,
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A document named by another: what it is called there, where it lives, whether it must exist."""

    at: Pointer
    what: str
    path: str
    required: bool = True


def references(document: Document) -> tuple[Reference, ...]:
    """Everything a document names, in the order it is written."""
    find = _REFERENCES.get(document.kind)
    return tuple(find(document)) if find else ()


def needs(user: str, path: str) -> bool:
    """Whether `user` stands still while `path`, which it names, is broken."""
    return (user.partition("/")[0], path.partition("/")[0]) in _NEEDS


_NEEDS = {
    ("environments", "strategies"),
    ("environments", "policies"),
    ("promotions", "environments"),
    ("promotions", "releases"),
    ("releases", "components"),
}


def _environment(document: Environment) -> Iterator[Reference]:
    spec = document.spec
    yield Reference(("spec", "strategy"), "strategy", path_of("Strategy", spec.strategy))
    for index, name in enumerate(spec.gate_names):
        yield Reference(("spec", "gates", index), "policy", path_of("Policy", name))
    for index, name in enumerate(spec.promotes_from):
        yield Reference(("spec", "promotesFrom", index), "environment", path_of("Environment", name))


def _release(document: Release) -> Iterator[Reference]:
    for name in document.spec.components:
        yield Reference(("spec", "components", name), "component", path_of("Component", name))
    if document.spec.pin_from is not None:
        yield Reference(("spec", "pinFrom"), "environment", path_of("Environment", document.spec.pin_from))


def _lock(document: ReleaseLock) -> Iterator[Reference]:
    yield Reference(("metadata", "name"), "release", path_of("Release", document.name))


def _promotion(document: Promotion) -> Iterator[Reference]:
    release = document.spec.release
    yield Reference(("metadata", "name"), "environment", path_of("Environment", document.name))
    yield Reference(("spec", "release"), "release", path_of("Release", release))
    yield Reference(("spec", "release"), "lock", path_of("ReleaseLock", release), required=False)


def _agent(document: Agent) -> Iterator[Reference]:
    environment = document.spec.environment
    yield Reference(("spec", "environment"), "environment", path_of("Environment", environment))


def _freeze(document: Freeze) -> Iterator[Reference]:
    for index, name in enumerate(document.spec.environments):
        if name != "*":
            yield Reference(("spec", "environments", index), "environment", path_of("Environment", name))


_REFERENCES = cast(
    "dict[str, Callable[[Document], Iterator[Reference]]]",
    {
        "Agent": _agent,
        "Environment": _environment,
        "Freeze": _freeze,
        "Promotion": _promotion,
        "Release": _release,
        "ReleaseLock": _lock,
    },
)
