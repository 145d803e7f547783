"""The kinds of documents and where they live, without loading what any of them says."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.model.base import Document

PROJECT_PATH = "lockgate.yaml"
TRUST_PATH = "trust/trust.yaml"

_YAML = ".yaml"
_LOCK = ".lock.yaml"
_FOLDERS = {
    "Component": "components",
    "Release": "releases",
    "ReleaseLock": "releases",
    "Environment": "environments",
    "Strategy": "strategies",
    "Policy": "policies",
    "Promotion": "promotions",
    "Agent": "agents",
    "Freeze": "freezes",
}
_FIXED = {"Project": PROJECT_PATH, "Trust": TRUST_PATH}
_AT = {path: kind for kind, path in _FIXED.items()}
_DIRECTORIES = {folder: kind for kind, folder in _FOLDERS.items() if kind != "ReleaseLock"}
_MODULES = {"ReleaseLock": "lock"}

RESERVED = ("feeds", "runbooks", "versions")
"""Directories of kinds that this version does not read yet."""
DOCUMENT_DIRECTORIES = frozenset(_DIRECTORIES)


def path_kind(path: str) -> str | None:
    """The kind of document that a path holds, None where it holds none (a README, a signature)."""
    fixed = _AT.get(path)
    if fixed is not None:
        return fixed
    directory, slash, name = path.partition("/")
    kind = _DIRECTORIES.get(directory)
    if not slash or kind is None or "/" in name or not name.endswith(_YAML) or name == _YAML:
        return None
    if kind == "Release" and name.endswith(_LOCK):
        return "ReleaseLock"
    return kind


def path_name(path: str) -> str:
    """The name a document at `path` must have: its file's stem."""
    name = path.rpartition("/")[2]
    return name.removesuffix(_YAML).removesuffix(".lock")


def path_of(kind: str, name: str) -> str:
    """Where the document of this kind and name lives. Raises KeyError for an unknown kind."""
    if kind in _FIXED:
        return _FIXED[kind]
    return f"{folder_of(kind)}{name}{_LOCK if kind == 'ReleaseLock' else _YAML}"


def folder_of(kind: str) -> str:
    """The folder of a kind's documents, with its slash. Raises KeyError for a kind that has none."""
    return f"{_FOLDERS[kind]}/"


def schema_stem(kind: str) -> str:
    """ReleaseLock -> release-lock: the stem of a kind's schema file."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind).lower()


def model_of(kind: str) -> type[Document]:
    """The model of a kind, loaded with the first document of it: most commands read few kinds, and every model
    costs some of their start. Raises KeyError for an unknown kind."""
    if kind not in _FIXED and kind not in _FOLDERS:
        raise KeyError(kind)
    model: type[Document] = getattr(
        importlib.import_module(f"controller.model.{_MODULES.get(kind, kind.lower())}"), kind
    )
    return model
