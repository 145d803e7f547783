"""Every document of a commit together: what they refer to, and who may change what a run reads.

The work of a commit is proportional to what changed since the intent before it: what was found about each
document is kept with the intent, together with who refers to whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from controller.core.compose import Pointer
from controller.core.coverage import (
    Approvals,
    agent_bare_keys,
    approvals_for,
    covers,
    listed,
    principals_by_key,
)
from controller.core.memory import NOTHING, Files, Memory, broken_paths, changed_paths, upwards
from controller.core.parse import line_of
from controller.core.references import references
from controller.ledger.append import RESERVED
from controller.model.diagnostic import Diagnostic
from controller.model.documents import (
    PROJECT_PATH,
    TRUST_PATH,
    Agent,
    Document,
    Environment,
    Freeze,
    Release,
    ReleaseLock,
    Trust,
    path_kind,
    path_name,
    path_of,
)
from controller.model.intent import Intent, Loaded
from controller.model.lock import release_digest
from controller.model.sshwire import bare_key


def assemble(commit: str, files: Files, previous: Intent | None = None) -> Intent:
    """The intent of a commit from its parsed files: path -> (blob id, Parsed).

    `previous` is any earlier intent of this project; it only makes the call cheaper, never different.
    """
    before = previous.memory if previous is not None and isinstance(previous.memory, Memory) else NOTHING
    changed = changed_paths(before.files, files)
    pass_ = _Pass(before, files, changed)
    memory = pass_.run() if changed or before is NOTHING else before
    return _intent(commit, memory)


class _Pass:
    """One assembly. Each step is one kind of check; all read the maps made first."""

    def __init__(self, before: Memory, files: Files, changed: list[str]) -> None:
        self.before = before
        self.changed = changed
        self.files = dict(files)
        self.kinds = {kind: dict(loaded) for kind, loaded in before.kinds.items()}
        self.references = dict(before.references)
        self.dependents = dict(before.dependents)
        self.folded = dict(before.folded)
        self.keys = dict(before.keys)
        self.found = dict(before.found)
        self.slots: dict[str, Approvals] = {}
        self.examples: list[str] = []
        self.dirty: set[str] = set(changed)
        self.own: set[tuple[int, str]] = set()
        self._principals: dict[str, str] | None = None

    def run(self) -> Memory:
        everything = TRUST_PATH in self.changed or self.before is NOTHING
        for path in self.changed:
            self.load(path)
        self.demand(everything)
        if everything or set(self.slots.values()) != set(self.before.slots.values()):
            self.dirty.update(self.files)
        for path in self.changed:
            self.spread(path)
        for path in self.dirty:
            diagnostics = tuple(self.check(path)) if path in self.files else ()
            if diagnostics:
                self.found[path] = diagnostics
            else:
                self.found.pop(path, None)
        return Memory(
            self.files,
            self.kinds,
            self.references,
            self.dependents,
            self.found,
            self.folded,
            self.keys,
            self.slots,
        )

    # -- maps ------------------------------------------------------------------------------------------------

    def load(self, path: str) -> None:
        """Bring every map up to date with one path."""
        old = self.before.files.get(path)
        new = self.files.get(path)
        if (old is None) != (new is None):
            self.index(self.folded, path.casefold(), path, new is not None)
        for reference in self.references.pop(path, ()):
            self.index(self.dependents, reference.path, path, False)
        kind, name = path_kind(path), path_name(path)
        if kind is None:
            return
        if old is not None and isinstance(old[1].document, Agent):
            for key in agent_bare_keys(old[1].document):
                self.index(self.keys, key, path, False)
        document = new[1].document if new is not None else None
        by_name = self.kinds.setdefault(kind, {})
        if new is None or document is None:
            by_name.pop(name, None)
            return
        by_name[name] = Loaded(path, new[0], new[1].sha256, document)
        refers = references(document)
        if refers:
            self.references[path] = refers
            for reference in refers:
                self.index(self.dependents, reference.path, path, True)
        if isinstance(document, Agent):
            for key in agent_bare_keys(document):
                self.index(self.keys, key, path, True)

    def index(self, index: dict[str, set[str]], key: str, path: str, present: bool) -> None:
        """Add or remove one path; whoever shares the key is looked at again.

        Sets of the memory before are copied before they are changed.
        """
        mark = (id(index), key)
        if mark not in self.own:
            self.own.add(mark)
            index[key] = set(index.get(key, ()))
        paths = index[key]
        if present:
            paths.add(path)
        else:
            paths.discard(path)
        if index is not self.dependents:
            self.dirty |= paths

    def trust(self) -> Trust | None:
        parsed = self.files.get(TRUST_PATH)
        return cast("Trust | None", parsed[1].document) if parsed else None

    def principals(self, trust: Trust) -> dict[str, str]:
        if self._principals is None:
            self._principals = principals_by_key(trust)
        return self._principals

    def demand(self, everything: bool) -> None:
        """What each environment's slot asks for."""
        trust = self.trust()
        environments = self.kinds.get("Environment", {})
        known = {} if everything or trust is None else self.before.slots
        if trust is not None:
            self.slots = {
                name: known[name] if name in known else approvals_for(trust, path_of("Promotion", name)) or ()
                for name in environments
            }
        self.examples = [name for _, name in self.demands(self.slots)]
        if self.slots.keys() != self.before.slots.keys():
            # A finding that names one of the environments that read a file may have to name another.
            self.dirty.update(self.before.found)

    def spread(self, path: str) -> None:
        """Look again at what names the changed path, and at what it names."""
        kind = path_kind(path)
        appeared = _is_document(self.before.files, path) != _is_document(self.files, path)
        for dependents in (self.dependents, self.before.dependents):
            if appeared or kind == "Release":
                self.dirty |= dependents.get(path, set())
            if kind == "Environment":
                self.dirty |= upwards(dependents, path)
        # What an environment starts or stops to read must be as hard to change as its slot.
        for reference in (*self.references.get(path, ()), *self.before.references.get(path, ())):
            self.dirty.add(reference.path)

    # -- checks of one path ----------------------------------------------------------------------------------

    def check(self, path: str) -> Iterator[Diagnostic]:
        parsed = self.files[path][1]
        yield from parsed.diagnostics
        others = self.folded[path.casefold()] - {path}
        if others:
            yield _diagnostic(
                path,
                0,
                "case-collision",
                f"the path differs from {min(others)} only in case",
                "rename one of them",
            )
        document = parsed.document
        if document is None:
            return
        for at, code, message, cure in self.among(path, document):
            yield _diagnostic(path, line_of(parsed, at), code, message, cure)

    def among(self, path: str, document: Document) -> Iterator[tuple[Pointer, str, str, str]]:
        """What is wrong with a document among the others."""
        for reference in self.references.get(path, ()):
            if reference.required and reference.path not in self.files:
                yield (
                    reference.at,
                    f"unknown-{reference.what}",
                    f"the {reference.what} '{path_name(reference.path)}' does not exist",
                    f"add {reference.path}, or name another",
                )
        if isinstance(document, Environment):
            yield from self.environment(document)
        elif isinstance(document, Agent):
            yield from self.agent(path, document)
        elif isinstance(document, ReleaseLock):
            yield from self.lock(document)
        yield from self.weaker(path, document)

    def environment(self, document: Environment) -> Iterator[tuple[Pointer, str, str, str]]:
        if document.name in RESERVED:
            yield (
                ("metadata", "name"),
                "environment-reserved",
                f"the ledger keeps the name '{document.name}' for its own files",
                "give the environment another name",
            )
        cycle = self.cycle(document.name)
        if cycle:
            yield (
                ("spec", "promotesFrom"),
                "promotion-cycle",
                f"environments promote in a circle: {' → '.join(cycle)}",
                "remove one of them from promotesFrom",
            )
        trust = self.trust()
        if trust is not None:
            for role in document.spec.approvals.roles:
                if role not in trust.spec.roles:
                    yield (
                        ("spec", "approvals", "roles", role),
                        "unknown-role",
                        f"the role '{role}' does not exist",
                        f"define it in {TRUST_PATH}",
                    )

    def cycle(self, start: str) -> list[str]:
        """The way from an environment back to itself over promotesFrom, shortest first; empty when none."""
        environments = self.kinds.get("Environment", {})
        ways: list[list[str]] = [[start]]
        seen: set[str] = set()
        for way in ways:
            loaded = environments.get(way[-1])
            if loaded is None:
                continue
            for upstream in cast(Environment, loaded.document).spec.promotes_from:
                if upstream == start:
                    return [*way, start]
                if upstream not in seen:
                    seen.add(upstream)
                    ways.append([*way, upstream])
        return []

    def agent(self, path: str, document: Agent) -> Iterator[tuple[Pointer, str, str, str]]:
        for place, key in enumerate(agent_bare_keys(document)):
            others = [
                path_name(other)
                for other in sorted(self.keys.get(key, set()) - {path})
                if place > 0 or not self.same_authority(document, other)
            ]
            owner = f"agent '{others[0]}'" if others else None
            trust = self.trust()
            if trust is not None and owner is None:
                principal = self.principals(trust).get(key)
                owner = f"principal '{principal}'" if principal else None
            if owner is not None:
                yield (
                    ("spec", "publicKey") if place == 0 else ("spec", "previousKeys", place - 1, "publicKey"),
                    "key-reused",
                    f"the key is also that of {owner}",
                    "give every agent and every principal a key of its own",
                )

    def same_authority(self, document: Agent, path: str) -> bool:
        """Whether two agents share an authority that certifies keys for both, each by its name."""
        other = self.files[path][1].document if path in self.files else None
        return (
            isinstance(other, Agent)
            and document.spec.cert_authority
            and other.spec.cert_authority
            and bare_key(other.spec.public_key) == bare_key(document.spec.public_key)
        )

    def lock(self, document: ReleaseLock) -> Iterator[tuple[Pointer, str, str, str]]:
        release = self.files.get(path_of("Release", document.name))
        wanted = release[1].document if release is not None else None
        if isinstance(wanted, Release) and release_digest(wanted) != document.spec.release_digest:
            yield (
                ("spec", "releaseDigest"),
                "release-changed",
                f"releases/{document.name}.yaml changed after it was locked",
                "restore it, or give the changed release a new name",
            )

    # -- nothing around the slot (trust rule 8) --------------------------------------------------------------

    def weaker(self, path: str, document: Document) -> Iterator[tuple[Pointer, str, str, str]]:
        trust = self.trust()
        if trust is None or not any(self.slots.values()):
            return
        given = approvals_for(trust, path)
        if given is None:
            return
        for required, environment in self.demands(self.readers(path, document)):
            if not covers(trust, given, required):
                yield (
                    (),
                    "weaker-than-slot",
                    f"a change of this file needs {listed(given)}, but promotions/{environment}.yaml, "
                    f"whose runs read it, needs {listed(required)}",
                    f"ask for {listed(required)} in the path rule of {path} in {TRUST_PATH}",
                )
                return

    def demands(self, environments: Iterable[str]) -> list[tuple[Approvals, str]]:
        """The different approvals that these environments ask for, each with the first of them by name."""
        first: dict[Approvals, str] = {}
        for name in environments:
            required = self.slots[name]
            if required not in first or name < first[required]:
                first[required] = name
        return sorted(first.items(), key=lambda item: item[1])

    def readers(self, path: str, document: Document) -> Iterable[str]:
        """The environments whose runs read the document; one of each demand where all of them do."""
        environments = self.kinds.get("Environment", {})
        kind = document.kind
        if kind == "Environment":
            return [document.name]
        if isinstance(document, Agent):
            return [document.spec.environment] if document.spec.environment in environments else ()
        if kind in ("Strategy", "Policy"):
            users = self.dependents.get(path, set())
            return [path_name(user) for user in users if path_kind(user) == "Environment"]
        if isinstance(document, Freeze) and "*" not in document.spec.environments:
            return [name for name in document.spec.environments if name in environments]
        return self.examples if kind in ("Component", "Freeze") else ()


def _is_document(files: Files, path: str) -> bool | None:
    """None: there is no such file."""
    return files[path][1].document is not None if path in files else None


def _diagnostic(path: str, line: int, code: str, message: str, cure: str) -> Diagnostic:
    return Diagnostic(path, line, "error", code, message, cure)


def _intent(commit: str, memory: Memory) -> Intent:
    def named(kind: str) -> Mapping[str, Any]:
        return memory.kinds.get(kind, {})

    diagnostics = [diagnostic for path in sorted(memory.found) for diagnostic in memory.found[path]]
    for path, kind in ((PROJECT_PATH, "Project"), (TRUST_PATH, "Trust")):
        if path not in memory.files:
            message = f"there is no {path}, the {kind} of this repository"
            diagnostics.append(_diagnostic(path, 0, "missing-file", message, "add it; `lockgate init` writes one"))
    return Intent(
        commit=commit,
        project=named("Project").get("lockgate"),
        trust=named("Trust").get("trust"),
        components=named("Component"),
        releases=named("Release"),
        locks=named("ReleaseLock"),
        environments=named("Environment"),
        strategies=named("Strategy"),
        policies=named("Policy"),
        promotions=named("Promotion"),
        agents=named("Agent"),
        freezes=named("Freeze"),
        diagnostics=tuple(diagnostics),
        broken=broken_paths(memory, diagnostics),
        memory=memory,
    )
