"""Every kind of document, loaded. `controller.model.places` says where they live and loads none of them."""

from __future__ import annotations

from controller.model.agent import Agent, AgentSpec
from controller.model.base import API_VERSION, Document
from controller.model.component import Component, ComponentSpec
from controller.model.environment import Environment, EnvironmentSpec
from controller.model.freeze import Freeze, FreezeSpec
from controller.model.lock import ReleaseLock, ReleaseLockSpec, lock_bytes, manifest_digest
from controller.model.places import (
    DOCUMENT_DIRECTORIES,
    PROJECT_PATH,
    RESERVED,
    TRUST_PATH,
    path_kind,
    path_name,
    path_of,
    schema_stem,
)
from controller.model.policy import Policy, PolicySpec
from controller.model.project import Project, ProjectSpec
from controller.model.promotion import Promotion, PromotionSpec
from controller.model.release import Release, ReleaseSpec
from controller.model.strategy import Strategy, StrategySpec
from controller.model.trust import Trust, TrustSpec

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
