"""Proving an evidence commit by making it again: the tree it must leave is built in memory and compared by id.

One equal id proves every path at once: the entry and its files are new and stand where they belong, open/ and
state/ are what the entries add up to, the log covers what it says, and nothing else changed. It needs one look
at the commit and one at what it added. Where the ids differ, or anything is unusual, there is no proof, and the
walk compares path by path to say what is wrong: what is guessed here can cost time, never a finding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.errors import Invalid, Refused
from controller.ledger import dsse, fold, log
from controller.ledger.append import RunChain
from controller.ledger.canonical import digest
from controller.ledger.entry import Place, artifact_path, entry_path, read_parts, run_folder
from controller.model.entry import Entry, Gates, Inputs, Opened, Sealed
from controller.model.history import Change, Commit, TreeFile
from controller.ports import Replica, Repo

_ENTRY = ".dsse.json"
_FACTS = re.compile(r"\n\n(?:Lockgate-Run: (\S+)\n)?Lockgate-Entry: (\d+)\nLockgate-Kind: ([a-z-]+)\n")


@dataclass(frozen=True, slots=True)
class Added:
    """What a commit adds: its entry, the statement that it was read from, and every new record with its bytes."""

    entry: Entry
    statement: Mapping[str, Any]
    records: Sequence[Change]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Proof:
    """What a commit was proven to add, and the state it leaves; `log` and `checkpoint` when it ends a batch."""

    added: Added
    parts: dsse.Parts
    after: fold.State
    log: log.Log | None = None
    checkpoint: bytes = b""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a commit builds on: the one before it, the state and open chains that it left, the log's edge, and the
    leaves that the log does not cover yet."""

    last: str | None
    state: fold.State
    chains: Mapping[str, RunChain]
    log: log.Log
    leaves: list[bytes]


class Prover:
    """Proofs for consecutive commits up to `tip`, whose tree says which blob each path holds."""

    def __init__(self, repo: Repo, tip: str | None) -> None:
        self._repo = repo
        self._tip = tip
        self._replica: Replica | None = None
        self._at: str | None = None
        self._listings: dict[str, dict[str, TreeFile]] = {}
        self._day = ""

    def prove(self, commit: Commit, on: Standing) -> Proof | None:
        """The proof of a commit; None when there is none."""
        try:
            if self._replica is None or self._at != on.last:
                self._replica = self._repo.replica(on.last)
            replica, self._replica = self._replica, None
            proof = self._proof(replica, commit, on)
        except (Refused, Invalid):
            return None
        if proof is not None:
            self._replica, self._at = replica, commit.id
        return proof

    def _proof(self, replica: Replica, commit: Commit, on: Standing) -> Proof | None:
        path = self._path(commit, on.chains)
        listing = self._listing(path.rpartition("/")[0]) if path is not None else {}
        if path is None or path not in listing:
            return None
        data = self._repo.read(listing[path].blob)
        found = digest(data)
        parts = dsse.split(data)
        entry, statement = read_parts(parts, found, path)
        added = {path: listing[path]} | self._beside(replica, entry, listing)
        blobs = {name: self._repo.read(file.blob) if name != path else data for name, file in added.items()}
        after = fold.apply(on.state, entry)
        records = [Change(name, None, file) for name, file in added.items()]
        known = {name: file.blob for name, file in added.items()}
        made = Added(entry, statement, records, blobs)
        if replica.apply(fold.derived_files(on.state, after), known) == commit.tree:
            return Proof(made, parts, after) if replica.stored() else None
        file = self._repo.file(commit.id, log.CHECKPOINT)
        if file is None:
            return None
        edge, tiles = on.log.append([*on.leaves, log.leaf_hash(log.digest_bytes(found))])
        checkpoint = self._repo.read(file.blob)
        if replica.apply({**tiles, log.CHECKPOINT: checkpoint}, {}) != commit.tree or not replica.stored():
            return None
        return Proof(made, parts, after, edge, checkpoint)

    def _path(self, commit: Commit, chains: Mapping[str, RunChain]) -> str | None:
        """Where the commit's entry stands, as far as its message says what it is."""
        facts = _FACTS.search(commit.message)
        if facts is None:
            return None
        run, index, kind = facts[1], int(facts[2]), facts[3]
        at = commit.committer.at
        if run is None:
            return entry_path(Place(index), kind, at)
        chain = chains.get(run)
        if chain is None:
            chain = RunChain(run_folder(run.rsplit("-", 2)[0], at, run))
        return entry_path(Place(index, chain.folder, chain.sequence), kind, at)

    def _beside(self, replica: Replica, entry: Entry, listing: dict[str, TreeFile]) -> dict[str, TreeFile]:
        """The files that the commit adds beside its entry: those that the tip holds and that fit the entry."""
        if entry.predicate.run is None or len(listing) == 1:
            return {}
        detail = entry.detail
        folder = entry.path.rpartition("/")[0]
        if isinstance(detail, Opened):
            names = [f"{folder}/run.json"]
        elif isinstance(detail, Inputs):
            names = [f"{folder}/inputs/{name}.json" for name in detail.files]
        elif isinstance(detail, Gates):
            names = [name for name in listing if name.startswith(f"{folder}/inputs/gates-")][:1]
        elif isinstance(detail, Sealed):
            names = [name for name in listing if not name.endswith(_ENTRY)]
        else:
            own = f"/{entry.predicate.sequence or 0:03d}-"
            names = [name for name in listing if own in name[len(folder) + 1 :]]
        # A walk that began in the midst of the run finds there what stood before.
        found = {name: listing.pop(name) for name in names if name in listing and not replica.holds(name)}
        if isinstance(detail, Inputs):
            found |= self._artifacts(replica, detail)
        if isinstance(detail, Sealed):
            self._listings.pop(folder, None)
        return found

    def _artifacts(self, replica: Replica, detail: Inputs) -> dict[str, TreeFile]:
        """The artifacts that the entry names and that do not stand yet."""
        found = {}
        for path in map(artifact_path, detail.artifacts.values()):
            if self._tip is not None and not replica.holds(path):
                file = self._repo.file(self._tip, path)
                if file is not None:
                    found[path] = file
        return found

    def _listing(self, folder: str) -> dict[str, TreeFile]:
        """The files below a folder of the tip that no commit was proven to add yet; the last day's of events."""
        known = self._listings.get(folder)
        if known is None:
            if folder.startswith("events/"):
                self._listings.pop(self._day, None)
                self._day = folder
            known = dict(self._repo.files(self._tip, folder)) if self._tip is not None else {}
            self._listings[folder] = known
        return known
