"""Every kind of document, and where it lives."""

from __future__ import annotations

import re

from controller.model.agent import Agent, AgentSpec
from controller.model.base import API_VERSION, Document
from controller.model.component import Component, ComponentSpec
from controller.model.environment import Environment, EnvironmentSpec
from controller.model.freeze import Freeze, FreezeSpec
from controller.model.lock import ReleaseLock, ReleaseLockSpec, lock_bytes, manifest_digest
from controller.model.policy import Policy, PolicySpec
from controller.model.project import Project, ProjectSpec
from controller.model.promotion import Promotion, PromotionSpec
from controller.model.release import Release, ReleaseSpec
from controller.model.strategy import Strategy, StrategySpec
from controller.model.trust import Trust, TrustSpec

PROJECT_PATH = "lockgate.yaml"
TRUST_PATH = "trust/trust.yaml"

KINDS: dict[str, type[Document]] = {
    "Project": Project,
    "Trust": Trust,
    "Component": Component,
    "Release": Release,
    "ReleaseLock": ReleaseLock,
    "Environment": Environment,
    "Strategy": Strategy,
    "Policy": Policy,
    "Promotion": Promotion,
    "Agent": Agent,
    "Freeze": Freeze,
}

RESERVED = ("feeds", "runbooks", "versions")
"""Directories of kinds that this version does not read yet."""

_FIXED = {PROJECT_PATH: "Project", TRUST_PATH: "Trust"}
_DIRECTORIES = {
    document.directory[:-1]: kind
    for kind, document in KINDS.items()
    if kind not in ("Project", "Trust", "ReleaseLock")
}
DOCUMENT_DIRECTORIES = frozenset(_DIRECTORIES)


def path_kind(path: str) -> str | None:
    """The kind of document that a path holds, None where it holds none (a README, a signature)."""
    fixed = _FIXED.get(path)
    if fixed is not None:
        return fixed
    directory, slash, name = path.partition("/")
    kind = _DIRECTORIES.get(directory)
    if not slash or kind is None or "/" in name or not name.endswith(".yaml") or name == ".yaml":
        return None
    if kind == "Release" and name.endswith(".lock.yaml"):
        return "ReleaseLock"
    return kind


def path_name(path: str) -> str:
    """The name a document at `path` must have: its file's stem."""
    name = path.rpartition("/")[2]
    return name.removesuffix(".yaml").removesuffix(".lock")


def path_of(kind: str, name: str) -> str:
    """Where the document of this kind and name lives. Raises KeyError for an unknown kind."""
    if kind == "Project":
        return PROJECT_PATH
    if kind == "Trust":
        return TRUST_PATH
    document = KINDS[kind]
    return f"{document.directory}{name}{document.suffix}"


def schema_stem(kind: str) -> str:
    """ReleaseLock -> release-lock: the stem of a kind's schema file."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind).lower()


__all__ = [
    "API_VERSION",
    "DOCUMENT_DIRECTORIES",
    "KINDS",
    "PROJECT_PATH",
    "RESERVED",
    "TRUST_PATH",
    "Agent",
    "AgentSpec",
    "Component",
    "ComponentSpec",
    "Document",
    "Environment",
    "EnvironmentSpec",
    "Freeze",
    "FreezeSpec",
    "Policy",
    "PolicySpec",
    "Project",
    "ProjectSpec",
    "Promotion",
    "PromotionSpec",
    "Release",
    "ReleaseLock",
    "ReleaseLockSpec",
    "ReleaseSpec",
    "Strategy",
    "StrategySpec",
    "Trust",
    "TrustSpec",
    "lock_bytes",
    "manifest_digest",
    "path_kind",
    "path_name",
    "path_of",
    "schema_stem",
]
