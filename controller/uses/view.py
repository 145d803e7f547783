"""A project as it stands: the branches' tips, what evidence says, and the files of accepted main."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from controller.core.chain import tree_entries
from controller.core.parse import parse, reads
from controller.core.run import Run, fold
from controller.core.trust import TrustState
from controller.core.validate import assemble
from controller.errors import Invalid, LockgateError, UsageError
from controller.ledger.append import load_open, run_entries
from controller.ledger.fold import EnvironmentState, State
from controller.model.entry import Pin
from controller.model.history import Tips
from controller.model.intent import Intent
from controller.model.places import TRUST_PATH
from controller.ports import Repo
from controller.uses.own import Foreign, controls, line

if TYPE_CHECKING:
    from controller.model.order import Obstacle

_REGULAR = (0o100644, 0o100755)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Something outside that the controller asks for, and has no good answer to since `since` (RFC 3339): the
    last error's code, message and cure; `answer-pending` while the first attempt is under way."""

    type: str
    release: str
    code: str
    message: str
    cure: str
    since: str


@dataclass(frozen=True, slots=True)
class Health:
    """What the controller says of itself, and when it last heard from each agent, as far as it was asked.

    `refused`: names in which polls are refused, and the code. `awaited`: by environment, the targets whose
    reports are missing; an environment that is not named was not told of. `obstacles`: by target, what its order
    in hand waits for. `unanswered`: what the controller asks for in vain.
    """

    state: str
    code: str = ""
    message: str = ""
    at: str | None = None
    agents: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    awaited: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    obstacles: Mapping[str, Obstacle] = field(default_factory=dict)
    unanswered: tuple[Unanswered, ...] = ()


@dataclass(frozen=True)
class View:
    """What short commands read. `accepted` is the commit whose files count; before evidence begins, main's tip.

    `tips.evidence` is the newest commit of the controller; `foreign` stands on top of it and is not read.
    """

    repo: Repo
    tips: Tips
    accepted: str | None
    state: State
    runs: Mapping[str, Run]
    health: Health | None = None
    foreign: Foreign | None = None

    @cached_property
    def intent(self) -> Intent:
        """The documents of accepted main, or all their diagnostics."""
        if self.accepted is None:
            return assemble("", {})
        return intent_at(self.repo, self.accepted)

    @cached_property
    def trust(self) -> TrustState:
        """The trust document of accepted main. Raises Invalid("trust-missing"), Invalid("trust-malformed")."""
        return trust_at(self.repo, self.accepted)

    @cached_property
    def environments(self) -> list[str]:
        """Every environment of accepted main or with a history, in order of promotion."""
        names = {p.removeprefix("environments/").removesuffix(".yaml") for p in self._environment_files()}
        names |= set(self.state.environments)

        def place(name: str) -> tuple[int, str]:
            loaded = self.intent.environments.get(name)
            return (loaded.document.spec.order if loaded else 1 << 30, name)

        return sorted(names, key=place)

    def _environment_files(self) -> list[str]:
        if self.accepted is None:
            return []
        files = self.repo.files(self.accepted, "environments")
        return [path for path, _ in files if path.count("/") == 1 and path.endswith(".yaml")]

    def environment(self, name: str) -> EnvironmentState:
        """What evidence says of an environment. Raises Invalid("environment-unknown")."""
        if name not in self.environments:
            raise Invalid(
                "environment-unknown",
                "there is no such environment",
                where=name,
                expected=", ".join(self.environments) or "an environment on main, which has none",
                got=name,
                cure="name one that is there, or add environments/<name>.yaml",
            )
        return self.state.environments.get(name) or EnvironmentState(environment=name)

    def last_run(self, environment: str) -> Run | None:
        """The newest run that is sealed, folded from its entries; None while one is open or none ever was."""
        place = self.state.environments.get(environment)
        if place is None or place.last_run is None or environment in self.runs or self.tips.evidence is None:
            return None
        folder = run_folder_of(self.repo, self.tips.evidence, place.last_run.run)
        return fold(run_entries(self.repo, self.tips.evidence, folder)) if folder else None

    def document(self, pin: Pin) -> Any:
        """The document of a pinned file; None when it does not parse."""
        return parse(pin.path, self.repo.read(pin.blob)).document


def view(repo: Repo, health: Health | None = None) -> View:
    """Read a project. No evidence branch yet is an empty state, not an error.

    What stands on the evidence branch without a signature of the controller is not read; who the controller is
    is taken from main, where `verify` proves it from a trust root. Raises Unavailable when the origin does not
    answer and Refused when what the evidence says is damaged.
    """
    tips = repo.observe()
    if tips.evidence is None:
        return View(repo, tips, tips.main, State(), {}, health)
    good, foreign = _own_line(repo, tips)
    tips = replace(tips, evidence=good)
    if good is None:
        return View(repo, tips, tips.main, State(), {}, health, foreign)
    state, _, entries = load_open(repo, good)
    runs = {run.environment: run for run in (fold(found) for found in entries.values())}
    return View(repo, tips, state.cursors.main or tips.main, state, runs, health, foreign)


def evidence_tip(repo: Repo) -> str | None:
    """The newest commit of the controller on the evidence branch now; what stands on top of it is not read."""
    tips = repo.observe()
    return _own_line(repo, tips)[0] if tips.evidence is not None else None


def _own_line(repo: Repo, tips: Tips) -> tuple[str | None, Foreign | None]:
    """The newest evidence commit with a controller's signature, and what stands on top of it."""
    assert tips.evidence is not None
    if tips.main is None:
        return tips.evidence, None
    commit = repo.commit(tips.evidence)
    newest = _trusts(repo, [tips.main])
    if commit.key is not None and controls(newest, commit.key, commit.committer.at):
        return tips.evidence, None
    versions: dict[int, list[TrustState]] = {}
    for trust in _trusts(repo, repo.chain(tips.main)):
        versions.setdefault(trust.version, []).append(trust)
    if not versions:
        return tips.evidence, None
    found = line(repo, versions, tips.evidence, commit.committer.at)
    return found.good, found.foreign


def _trusts(repo: Repo, commits: Iterable[str]) -> list[TrustState]:
    """The trust documents of these commits of main, each once, as main claims them."""
    found: dict[str, TrustState] = {}
    for commit in commits:
        file = repo.file(commit, TRUST_PATH)
        if file is not None and file.blob not in found:
            with contextlib.suppress(LockgateError):
                found[file.blob] = TrustState.parse(repo.read(file.blob))
    return list(found.values())


def intent_at(repo: Repo, commit: str) -> Intent:
    """Every document of a commit, or all diagnostics."""
    files = {}
    for path, file in repo.files(commit):
        if reads(path, file.mode):
            data = repo.read(file.blob) if file.mode in _REGULAR else b""
            files[path] = (file.blob, parse(path, data, file.mode))
    return assemble(commit, files)


def trust_at(repo: Repo, commit: str | None) -> TrustState:
    """The trust document of a commit. Raises Invalid("trust-missing"), Invalid("trust-malformed")."""
    file = repo.file(commit, TRUST_PATH) if commit is not None else None
    if file is None:
        raise Invalid(
            "trust-missing",
            "there is no trust document",
            where=TRUST_PATH,
            expected="a file that says who may sign what",
            got="none",
            cure="name a repository made by `lockgate init` with --repo",
        )
    return TrustState.parse(repo.read(file.blob))


def project_of(found: View) -> str:
    """The project's name: as evidence began, else as lockgate.yaml says. Raises UsageError("project-unknown")."""
    if found.state.cursors.project:
        return found.state.cursors.project
    project = found.intent.project
    if project is None:
        raise UsageError(
            "project-unknown",
            "the repository does not say which project it is",
            where="lockgate.yaml",
            expected="a Project document on main",
            got="none that validates",
            cure="see `lockgate validate`",
        )
    return str(project.document.metadata.name)


def run_folder_of(repo: Repo, evidence: str, run: str) -> str | None:
    """The folder of a run in an evidence commit's tree, by its name alone: newest day first."""
    environment = run.rsplit("-", 2)[0]
    top = _tree(repo, repo.commit(evidence).tree, f"runs/{environment}".split("/"))
    if top is None:
        return None
    for year, year_tree in _down(repo, top):
        for month, month_tree in _down(repo, year_tree):
            for day, day_tree in _down(repo, month_tree):
                if run in dict(_down(repo, day_tree)):
                    return f"runs/{environment}/{year}/{month}/{day}/{run}"
    return None


def no_run(run: str) -> Invalid:
    """What is said of a run that is not on record."""
    return Invalid(
        "run-not-found",
        f"there is no run {run}",
        expected="a run's whole id, like prod-1-3e9eb586",
        got=run,
        cure="list them with `lockgate runs`",
    )


def _tree(repo: Repo, tree: str, parts: list[str]) -> str | None:
    for part in parts:
        found = dict(_down(repo, tree)).get(part)
        if found is None:
            return None
        tree = found
    return tree


def _down(repo: Repo, tree: str) -> list[tuple[str, str]]:
    """The folders of a tree object, last name first."""
    entries = tree_entries(repo.raw(tree)[1]) or {}
    folders = [(name.decode("utf-8", "replace"), oid) for name, (mode, oid) in entries.items() if mode == b"40000"]
    return sorted(folders, reverse=True)
