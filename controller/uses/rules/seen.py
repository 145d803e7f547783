"""What the rules about entries remember while evidence is walked: read once a run, a release or a document."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from controller.core.effects import agent_key
from controller.core.parse import parse
from controller.core.trust import TrustState
from controller.ledger import fold
from controller.ledger.entry import read
from controller.model.agent import Agent
from controller.model.entry import (
    EvidenceRestarted,
    LockMade,
    Opened,
    Pin,
)
from controller.model.order import AgentKey
from controller.ports import Repo
from controller.uses.rules.answer_checks import Answers
from controller.uses.rules.artifact_checks import Artifacts
from controller.uses.rules.input_checks import Truth
from controller.uses.rules.intent_checks import Asked
from controller.uses.rules.order_checks import Orders
from controller.uses.rules.passes import Passes
from controller.uses.rules.pin_checks import Pinned
from controller.uses.rules.replay_checks import Ask, Replay
from controller.uses.rules.replay_record_checks import replay_on_record
from controller.uses.rules.run_files import RunFiles
from controller.uses.rules.statement_checks import Declared, declared_at
from controller.uses.rules.subject import Subject

_KEPT = 256


class Seen:
    """What the checks remember of open runs: the lock's components and the agents' keys, read once a run."""

    def __init__(
        self,
        repo: Repo,
        ask: Ask | None = None,
        trusts: Mapping[int, tuple[TrustState, ...]] | None = None,
        project: str = "",
    ) -> None:
        self._repo = repo
        self.trusts: Mapping[int, tuple[TrustState, ...]] = trusts or {}
        self.asked = Asked(repo)
        self.answers = Answers(repo, project)
        self.pinned_files = Pinned(repo, project)
        self.passes = Passes()
        self.truth = Truth(repo)
        self.accepted: str | None = None
        self.orders = Orders(repo, trusts or {})
        self.replay = Replay(repo, ask)
        self.replays = partial(replay_on_record, repo, ask)
        self.files = RunFiles(repo)
        self.artifacts = Artifacts(repo)
        self._locks: dict[str, tuple[fold.LockRecord, Mapping[str, str]] | None] = {}
        self._contents: dict[str, tuple[fold.LockRecord, Mapping[str, str]] | None] = {}
        self._agents: dict[str, Mapping[str, AgentKey]] = {}
        self._documents: dict[str, tuple[str, AgentKey] | None] = {}

    def forget(self, run: str) -> None:
        """The run is sealed: nothing more of it will come."""
        self._locks.pop(run, None)
        self._agents.pop(run, None)
        self.files.forget(run)

    def lock(self, subject: Subject, release: str) -> tuple[fold.LockRecord, Mapping[str, str]] | None:
        """The lock that evidence recorded for the run's release, with its components."""
        run = subject.entry.predicate.run or ""
        found = self._locks.get(run)
        if found is None:
            found = self._locks[run] = self._read_lock(subject.commit.id, release)
        return found

    def _read_lock(self, commit: str, release: str) -> tuple[fold.LockRecord, Mapping[str, str]] | None:
        if release not in self._contents:
            record = fold.lookup_lock(self._repo, commit, release)
            file = self._repo.file(commit, record.event) if record is not None else None
            if record is None or file is None:
                return None
            if len(self._contents) >= _KEPT:
                self._contents.clear()
            detail = read(self._repo.read(file.blob), record.event, None).detail
            components = _components(detail, release)
            self._contents[release] = (record, components) if components is not None else None
        return self._contents[release]

    def made(self, release: str) -> None:
        """Another lock was recorded for a release."""
        self._contents.pop(release, None)

    def open(self, run: str, detail: Opened) -> None:
        """Keep the keys of the agents that the run pinned, by agent."""
        keys: dict[str, AgentKey] = {}
        for pin in detail.pins:
            if pin.path.startswith("agents/"):
                declared = self._agent(pin)
                if declared is not None:
                    keys[declared[0]] = declared[1]
        self._agents[run] = keys

    def _agent(self, pin: Pin) -> tuple[str, AgentKey] | None:
        """(name, key) of an agent's document; each version is read once."""
        if pin.blob not in self._documents:
            if len(self._documents) >= _KEPT:
                self._documents.clear()
            document = parse(pin.path, self._repo.read(pin.blob)).document
            found = (document.metadata.name, agent_key(document)) if isinstance(document, Agent) else None
            self._documents[pin.blob] = found
        return self._documents[pin.blob]

    def agents(self, subject: Subject) -> Mapping[str, str]:
        """The keys that the run's agents sign everything with; those with certified keys have none."""
        return {name: key.public_key for name, key in self.pinned(subject).items() if not key.authority}

    def declared(self, subject: Subject) -> Declared:
        """The agents' keys as the main that the entry was made from declares them."""
        return declared_at(self._repo, subject.entry.predicate.observed.main)

    def pinned(self, subject: Subject) -> Mapping[str, AgentKey]:
        """The keys of the run's agents; read from its opened entry where the walk began later."""
        run = subject.entry.predicate.run or ""
        if run not in self._agents:
            opened = self.files.opened(run)
            path = f"{subject.place.folder}/001-opened.dsse.json"
            file = self._repo.file(subject.commit.id, path) if opened is None else None
            detail = read(self._repo.read(file.blob), path, None).detail if file is not None else opened
            if isinstance(detail, Opened):
                self.open(run, detail)
        return self._agents.get(run, {})


def _components(detail: object, release: str) -> Mapping[str, str] | None:
    """A locked release's components, by the entry that records the lock or vouches for it."""
    if isinstance(detail, EvidenceRestarted):
        return next((lock.components for lock in detail.restart.locks if lock.release == release), None)
    return detail.components if isinstance(detail, LockMade) else None
