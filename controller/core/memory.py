"""What an assembly of documents keeps for the next one, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.core.coverage import Approvals
from controller.core.parse import Parsed, raw
from controller.core.references import Reference, needs
from controller.model.diagnostic import Diagnostic
from controller.model.documents import Agent, Document, Freeze, path_kind
from controller.model.intent import Loaded

Files = Mapping[str, tuple[str, Parsed]]
"""path -> (blob id, parsed file)"""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept between two commits. Nothing in it is changed once it is here."""

    files: dict[str, tuple[str, Parsed]]
    kinds: dict[str, dict[str, Loaded[Document]]]
    references: dict[str, tuple[Reference, ...]]
    dependents: dict[str, set[str]]
    found: dict[str, tuple[Diagnostic, ...]]
    """Diagnostics by the path that they are about; clean paths are absent."""
    folded: dict[str, set[str]]
    keys: dict[str, set[str]]
    """Paths of agents by bare public key."""
    slots: dict[str, Approvals]
    """What each environment's slot asks for."""


NOTHING = Memory({}, {}, {}, {}, {}, {}, {}, {})


def changed_paths(before: Mapping[str, tuple[str, Parsed]], files: Files) -> list[str]:
    """Paths that were added, removed or got other bytes."""
    get = before.get
    changed = []
    for path, entry in files.items():
        old = get(path)
        if old is entry:
            continue
        # A parsed file is a function of path, bytes and mode; the mode shows only in the diagnostics.
        if (
            old is None
            or old[0] != entry[0]
            or old[1].sha256 != entry[1].sha256
            or old[1].diagnostics != entry[1].diagnostics
        ):
            changed.append(path)
    if len(before) + sum(path not in before for path in changed) != len(files):
        changed.extend(path for path in before if path not in files)
    return changed


def upwards(dependents: Mapping[str, set[str]], path: str) -> set[str]:
    """Environments that promote from this one, directly or over others: a cycle may open or close there."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        above = {user for user in dependents.get(waiting.pop(), ()) if path_kind(user) == "Environment"} - found
        found |= above
        waiting.extend(above)
    return found


def broken_paths(memory: Memory, diagnostics: list[Diagnostic]) -> frozenset[str]:
    """Paths with an error, and the paths of what cannot go on because of them."""
    broken = {diagnostic.path for diagnostic in diagnostics if diagnostic.severity == "error"}
    waiting = sorted(broken)
    while waiting:
        path = waiting.pop()
        spoiled = {user for user in memory.dependents.get(path, ()) if needs(user, path)}
        spoiled |= _spoils(memory, path)
        waiting.extend(spoiled - broken)
        broken |= spoiled
    return frozenset(broken)


def _spoils(memory: Memory, path: str) -> set[str]:
    """Environments that a broken agent or freeze may concern: those it names, all when it names none."""
    kind = path_kind(path)
    if kind not in ("Agent", "Freeze") or path not in memory.files:
        return set()
    parsed = memory.files[path][1]
    if isinstance(parsed.document, Agent):
        names: Any = [parsed.document.spec.environment]
    elif isinstance(parsed.document, Freeze):
        names = parsed.document.spec.environments
    else:
        value = raw(parsed)
        spec = value.get("spec") if isinstance(value, dict) else None
        spec = spec if isinstance(spec, dict) else {}
        names = [spec.get("environment")] if kind == "Agent" else spec.get("environments")
    environments = memory.kinds.get("Environment", {})
    if not isinstance(names, list | tuple) or not all(name in environments for name in names) or not names:
        return {loaded.path for loaded in environments.values()}
    return {environments[name].path for name in names}
