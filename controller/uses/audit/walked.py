"""What a walk over evidence begins from, what it learns, and where it ends."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.core.trust import CONTROLLER, TrustState
from controller.errors import Refused
from controller.ledger import fold
from controller.ledger.append import RunChain, load
from controller.ledger.log import Log
from controller.ledger.rules import newer, unknown_entry
from controller.model.entry import Accepted, Entry, EvidenceRestarted, MainAcknowledged, RequestJudged
from controller.model.history import Change
from controller.model.keys import key_id
from controller.ports import Repo
from controller.uses.own import claimed_rules
from controller.uses.rules.replay_checks import Ask

ENTRY = ".dsse.json"


@dataclass(frozen=True, slots=True)
class Ground:
    """What every segment is judged on. `trusts` are all candidates by version: whether main really accepted
    one is judged afterwards, from `Facts.keys`. `main` maps main's first-parent commits to their position.
    `intact`: what the repository holds is whole, so that objects that can be named need not be read."""

    project: str
    genesis: str
    origin: str
    trusts: Mapping[int, tuple[TrustState, ...]]
    main: Mapping[str, int]
    ask: Ask | None = None
    intact: bool = False


@dataclass(slots=True)
class Facts:
    """What the entries say about the other branches, each with the evidence commit that says it."""

    entries: int = 0
    runs: int = 0
    keys: dict[tuple[str, int], tuple[str, str]] = field(default_factory=dict)
    observed: dict[tuple[str, int], str] = field(default_factory=dict)
    requests_seen: dict[str, str] = field(default_factory=dict)
    accepted: list[tuple[str, str]] = field(default_factory=list)
    moves: list[tuple[Accepted, str]] = field(default_factory=list)
    """What the entries say that accepted main, one by one."""
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    acknowledged: dict[str, MainAcknowledged] = field(default_factory=dict)
    restarts: list[tuple[EvidenceRestarted, datetime, int, str]] = field(default_factory=list)
    requests: list[tuple[RequestJudged, datetime, int, str]] = field(default_factory=list)
    locks: list[tuple[str, str, str]] = field(default_factory=list)
    reverts: dict[tuple[str, str], str | None] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    run_ids: set[str] = field(default_factory=set)
    visible: list[tuple[Entry, str]] = field(default_factory=list)
    """Entries that record cosignatures and time-stamps of the log."""

    def restarted(self, detail: EvidenceRestarted, at: datetime, version: int, oid: str) -> None:
        """What owners vouched for counts as said; whether they signed it is judged afterwards."""
        self.restarts.append((detail, at, version, oid))
        restart = detail.restart
        self.locks += [(lock.path, lock.sha256, oid) for lock in restart.locks]
        self.reverts |= {(one.run, one.path): one.blob for one in restart.reverts}
        for one in restart.acknowledged:
            self.acknowledged[one.commit] = MainAcknowledged(commit=one.commit, code=one.code, acknowledgements=())

    def join(self, later: Facts) -> None:
        """Add what a later segment found."""
        self.entries += later.entries
        self.runs += later.runs
        self.keys = later.keys | self.keys
        self.observed = later.observed | self.observed
        self.requests_seen = later.requests_seen | self.requests_seen
        self.refused = later.refused | self.refused
        self.accepted += later.accepted
        self.moves += later.moves
        self.acknowledged |= later.acknowledged
        self.restarts += later.restarts
        self.requests += later.requests
        self.locks += later.locks
        self.reverts |= later.reverts
        self.repaired += later.repaired
        self.run_ids |= later.run_ids
        self.visible += later.visible


@dataclass(frozen=True, slots=True)
class Edge:
    """Where a segment begins or ends: derived state, log and open chains; equal edges join."""

    state: fold.State = field(default_factory=fold.State)
    log: Log = field(default_factory=Log)
    chains: Mapping[str, RunChain] = field(default_factory=dict)


def edge_at(repo: Repo, commit: str) -> Edge:
    """The edge that a commit's tree claims. Raises Refused or Invalid as `append.load`."""
    ledger = load(repo, commit)
    return Edge(ledger.state, ledger.log, ledger.chains)


def holds_controller(trust: TrustState, key: str, at: datetime) -> bool:
    """Whether `key` is the controller's at `at` under this trust."""
    name = trust.principal_of(key, at)
    return name is not None and trust.holds(name, CONTROLLER)


class ControllerKeys:
    """The controller's keys by trust version and key id."""

    def __init__(self, trusts: Mapping[int, Sequence[TrustState]]) -> None:
        self._trusts = trusts
        self._known: dict[int, list[tuple[str, str, TrustState]]] = {}

    def of(self, keyid: str, entry: Entry) -> str:
        """The controller's key of that id under the trust version the entry was made under. Raises
        Refused("envelope-signature")."""
        version = entry.predicate.observed.trust_version
        if version not in self._known:
            self._known[version] = [
                (key_id(key), key, trust)
                for trust in self._trusts.get(version, ())
                for key in trust.keys_of_role(CONTROLLER)
                if not key.startswith("sk-")
            ]
        for known, key, trust in self._known[version]:
            if known == keyid and holds_controller(trust, key, entry.predicate.at):
                return key
        raise Refused("envelope-signature", "the entry is signed by a key that is not the controller's then")


def check_rules(repo: Repo, commit: str, changes: Sequence[Change]) -> None:
    """Before anything else of a commit is looked at: its tree names rules that this program knows. Raises
    Refused("rules-unknown")."""
    rules = claimed_rules(repo, commit)
    if newer(rules):
        added = [change.path for change in changes if change.old is None and change.path.endswith(ENTRY)]
        raise unknown_entry(rules, added[0] if added else fold.CURSORS)


def blob_id(data: bytes) -> str:
    """The Git object id of a blob with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
