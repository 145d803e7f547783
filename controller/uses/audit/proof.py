"""Proving an evidence commit by making it again: the tree it must leave is built in memory and compared by id.

One equal id proves every path at once: the entry and its files are new and stand where they belong, open/ and
state/ are what the entries add up to, the log covers what it says, and nothing else changed. It needs one look
at the commit and one at what it added. Where the ids differ, or anything is unusual, there is no proof, and the
walk compares path by path to say what is wrong: what is guessed here can cost time, never a finding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from controller.errors import Invalid, Refused
from controller.ledger import dsse, fold, log
from controller.ledger.append import RunChain
from controller.ledger.canonical import digest
from controller.ledger.entry import Place, artifact_path, entry_path, read_parts, run_folder
from controller.model.entry import Entry, Gates, Inputs, Opened, Sealed
from controller.model.history import Commit, TreeFile
from controller.ports import Replica, Repo

_ENTRY = ".dsse.json"
_FACTS = re.compile(r"\n\n(?:Lockgate-Run: (\S+)\n)?Lockgate-Entry: (\d+)\nLockgate-Kind: ([a-z-]+)\n")


@dataclass(frozen=True, slots=True)
class Added:
    """What a commit adds: its entry, the envelope and the statement that it was read from, and the paths of every
    new record, whose bytes are in `blobs`."""

    entry: Entry
    parts: dsse.Parts
    statement: Mapping[str, Any]
    records: Sequence[str]
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Proof:
    """What a commit was proven to add, and the state it leaves; `log` and `checkpoint` when it ends a batch."""

    added: Added
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


@dataclass(frozen=True, slots=True)
class _Read:
    """An entry that was read where it seems to stand."""

    path: str
    data: bytes
    parts: dsse.Parts
    entry: Entry
    statement: Mapping[str, Any]


class Prover:
    """Proofs for consecutive commits after `last` up to `tip`, whose tree says which blob each path holds;
    `chains` are the runs that are open at `last`."""

    def __init__(self, repo: Repo, tip: str | None, last: str | None, chains: Mapping[str, RunChain]) -> None:
        self._repo = repo
        self._tip = tip
        self._begun = {chain.folder: last for chain in chains.values()}
        self._ready: dict[str, _Read] = {}
        self._replica: Replica | None = None
        self._at: str | None = None
        self._listings: dict[str, dict[str, TreeFile]] = {}
        self._day = ""

    def ahead(self, commits: Sequence[str], chains: Mapping[str, RunChain]) -> None:
        """Read the entries that the next commits seem to add, those of one kind after each other.

        What reads a kind is large, and much faster while it is in the processor's cache.
        """
        open_runs = dict(chains)
        found: list[tuple[str, str, str, bytes, dsse.Parts]] = []
        for oid in commits:
            with suppress(Refused, Invalid):
                commit = self._repo.commit(oid)
                facts = _FACTS.search(commit.message)
                path = self._path(commit, facts, open_runs)
                if facts is None or path is None:
                    continue
                run, (folder, _, name) = facts[1], path.rpartition("/")
                if run is not None:
                    open_runs[run] = RunChain(folder, int(name.partition("-")[0]) + 1)
                file = self._listing(folder).get(path)
                if file is not None:
                    data = self._repo.read(file.blob)
                    found.append((facts[3], oid, path, data, dsse.split(data)))
        found.sort(key=lambda one: one[0])
        self._ready = {}
        for _, oid, path, data, parts in found:
            with suppress(Refused, Invalid):
                self._ready[oid] = _Read(path, data, parts, *read_parts(parts, digest(data), path))

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
        path = self._path(commit, _FACTS.search(commit.message), on.chains)
        listing = self._listing(path.rpartition("/")[0]) if path is not None else {}
        if path is None or path not in listing:
            return None
        read = self._ready.pop(commit.id, None)
        if read is None or read.path != path:
            data = self._repo.read(listing[path].blob)
            parts = dsse.split(data)
            read = _Read(path, data, parts, *read_parts(parts, digest(data), path))
        entry = read.entry
        known = {path: listing[path].blob} | self._beside(replica, entry, listing)
        blobs = {name: self._repo.read(blob) if name != path else read.data for name, blob in known.items()}
        after = fold.apply(on.state, entry)
        made = Added(entry, read.parts, read.statement, list(known), blobs)
        if replica.apply(fold.derived_files(on.state, after), known) == commit.tree:
            return Proof(made, after) if replica.stored() else None
        file = self._repo.file(commit.id, log.CHECKPOINT)
        if file is None:
            return None
        edge, tiles = on.log.append([*on.leaves, log.leaf_hash(log.digest_bytes(entry.digest))])
        checkpoint = self._repo.read(file.blob)
        if replica.apply({**tiles, log.CHECKPOINT: checkpoint}, {}) != commit.tree or not replica.stored():
            return None
        return Proof(made, after, edge, checkpoint)

    def _path(self, commit: Commit, facts: re.Match[str] | None, chains: Mapping[str, RunChain]) -> str | None:
        """Where the commit's entry stands, as far as its message says what it is."""
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

    def _beside(self, replica: Replica, entry: Entry, listing: dict[str, TreeFile]) -> dict[str, str]:
        """The blobs that the commit adds beside its entry: those that the tip holds and that fit the entry."""
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
        found = {name: listing.pop(name).blob for name in names if name in listing}
        if isinstance(detail, Inputs):
            found |= self._artifacts(replica, detail)
        if isinstance(detail, Sealed):
            self._listings.pop(folder, None)
        return found

    def _artifacts(self, replica: Replica, detail: Inputs) -> dict[str, str]:
        """The artifacts that the entry names and that do not stand yet."""
        found = {}
        for path in map(artifact_path, detail.artifacts.values()):
            if self._tip is not None and not replica.holds(path):
                file = self._repo.file(self._tip, path)
                if file is not None:
                    found[path] = file.blob
        return found

    def _listing(self, folder: str) -> dict[str, TreeFile]:
        """The files below a folder of the tip that no commit was proven to add yet; the last day's of events."""
        known = self._listings.get(folder)
        if known is None:
            if folder.startswith("events/"):
                self._listings.pop(self._day, None)
                self._day = folder
            known = dict(self._repo.files(self._tip, folder)) if self._tip is not None else {}
            last = self._begun.pop(folder, None)
            for path, _ in self._repo.files(last, folder) if last is not None else ():
                known.pop(path, None)  # what stood before the walk began in the midst of the run
            self._listings[folder] = known
        return known
