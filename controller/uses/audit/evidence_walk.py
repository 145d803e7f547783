"""Walking the evidence branch: every commit checked on its own, and folded into the state it must leave.

The walk is the controller's own fold and log over again. It can begin at any commit, from the state that
commit's tree holds, so that a long branch is walked in segments side by side; the segments are joined by
comparing the state each ends in with the one the next began from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from controller.errors import Invalid, LockgateError, Refused
from controller.ledger import dsse, fold, log
from controller.ledger.append import RunChain, seal_root
from controller.ledger.backing import revert_of
from controller.ledger.canonical import digest
from controller.ledger.entry import Place, entry_path, message_of, read, read_parts, run_folder
from controller.ledger.rules import ROLLBACK, UNKNOWN
from controller.model.entry import (
    Accepted,
    Entry,
    EvidenceRepaired,
    EvidenceRestarted,
    Genesis,
    LockMade,
    MainAcknowledged,
    MainRefused,
    Opened,
    Published,
    RequestJudged,
    Sealed,
    TimeAnchored,
    Witnessed,
)
from controller.model.history import Change, Commit
from controller.ports import Repo
from controller.uses.acknowledged import UNBACKED, unbacked
from controller.uses.audit.findings import Finding, rule_of
from controller.uses.audit.log_walk import LogWalk
from controller.uses.audit.proof import Added, Proof, Prover, Standing
from controller.uses.audit.walked import (
    ENTRY,
    ControllerKeys,
    Edge,
    Facts,
    Ground,
    blob_id,
    check_rules,
    holds_controller,
)
from controller.uses.own import Before, claimed_version, fault
from controller.uses.rules.entry_checks import checks_of
from controller.uses.rules.seen import Seen
from controller.uses.rules.subject import Subject

RECORDS = ("runs/", "events/", "artifacts/")
DERIVED = ("open/", "state/")
_FILE = 0o100644
AHEAD = 64
"""Entries that are read before they are walked."""


class Walk:
    """One pass over consecutive evidence commits after `last` (None: from the branch's root)."""

    def __init__(self, repo: Repo, ground: Ground, edge: Edge, last: str | None) -> None:
        self._repo = repo
        self._ground = ground
        self._state, self._chains = edge.state, dict(edge.chains)
        self._log = LogWalk(repo, ground.origin, edge.log, self._find)
        self._last = self._good = last
        self._foreign: list[tuple[str, str, str]] = []
        self._adrift = False
        self._damaged: set[str] = set()
        self._holes: set[str] = set()
        """Open runs of which an entry could not be read: their chains and seals cannot be rebuilt."""
        self._seen = Seen(repo, ground.ask, ground.trusts, ground.project)
        self._prover = Prover(repo, None, None, {})
        self._keys = ControllerKeys(ground.trusts)
        self.facts = Facts()
        self.findings: list[Finding] = []

    def run(self, commits: Sequence[str], progress: Callable[[], None] | None = None) -> Edge:
        """Walk the commits in order; findings and facts gather here. Returns the edge it ends in."""
        self._prover = Prover(self._repo, commits[-1] if commits else None, self._last, self._chains)
        for place, oid in enumerate(commits):
            if self._ground.intact and place % AHEAD == 0:
                self._prover.ahead(commits[place : place + AHEAD], self._chains)
            try:
                self._step(oid)
            except (Refused, Invalid) as error:
                if error.code == UNKNOWN:
                    # Nothing from here on is for this program to judge, also not whether it repairs what stands
                    # before it: that is all there is to say.
                    self._foreign = []
                    self._find(UNKNOWN, oid, error.where, error.what)
                    return Edge(self._state.forget_written(), self._log.edge, self._chains)
                if error.where not in self._damaged:
                    self._damaged.add(error.where)
                    self._find(error.code, oid, error.where if error.where != oid else "", error.what)
                self._log.lose(oid)
                self._resume(oid)
            self._last = oid
            if progress is not None:
                progress()
        foreign = bool(self._foreign)
        self._give_up_foreign()
        self._log.end(self._last, complete=not foreign)
        return Edge(self._state.forget_written(), self._log.edge, self._chains)

    # --- one commit --------------------------------------------------------------------------------------

    def _step(self, oid: str) -> None:
        commit = self._repo.commit(oid)
        defect = self._defect(commit)
        if defect is not None:
            self._foreign.append((oid, *defect))
            return
        if self._ground.intact and not self._foreign and not self._adrift and not self._log.lost:
            seen = Standing(self._last, self._state, self._chains, self._log.edge, self._log.leaves)
            proof = self._prover.prove(commit, seen)
            if proof is not None:
                self._proven(commit, proof)
                return
        changes = self._changes(commit)
        check_rules(self._repo, oid, changes)
        records: list[str] = []
        derived: dict[str, Change] = {}
        tiles: dict[str, Change] = {}
        blobs: dict[str, bytes] = {}
        for change in changes:
            path = change.path
            if path.startswith(RECORDS):
                if change.old is not None or change.new is None or change.new.mode != _FILE:
                    what = "is removed" if change.new is None else "is changed" if change.old else "is no file"
                    self._find("record-changed", oid, path, f"a record {what}; records are only added")
                else:
                    records.append(path)
            elif path.startswith(DERIVED):
                derived[path] = change
            elif path.startswith(log.ROOT):
                tiles[path] = change
            else:
                self._find("record-misplaced", oid, path, "nothing of the controller's belongs here")
            if change.new is not None:
                blobs[path] = self._read(oid, change.new.blob, path)
        added = self._entry(commit, records, blobs)
        place = self._stands(commit, added) if added is not None else None
        if added is not None and place is not None:
            after = fold.apply(self._state, added.entry)
            self._compare(oid, fold.derived_files(self._state, after), derived, blobs)
            self._enter(commit, added.entry, place, after)
        if log.CHECKPOINT in tiles:
            self._pushed(oid)
        self._log.compare(commit, tiles, blobs)
        self._good = oid

    def _proven(self, commit: Commit, proof: Proof) -> None:
        """A commit whose whole tree was made again: what is left are signatures, its place and its meaning."""
        entry = proof.added.entry
        self._log.add(entry.digest)
        try:
            self._signed(commit, proof.added.parts, entry)
        except (Refused, Invalid) as error:
            self._find(error.code, commit.id, entry.path, error.what)
            self._resume(commit.id)
        else:
            place = self._stands(commit, proof.added)
            if place is not None:
                self._enter(commit, entry, place, proof.after)
        if proof.log is not None:
            self._pushed(commit.id)
            self._log.proven(commit, proof.log, proof.checkpoint)
        self._good = commit.id

    def _pushed(self, oid: str) -> None:
        """After the last entry of a push."""
        self._seen.passes.end()
        for code, path, message in self._seen.answers.end():
            self._find(code, oid, path, message)

    def _read(self, oid: str, blob: str, path: str) -> bytes:
        try:
            return self._repo.read(blob)
        except Refused as error:
            self._damaged.add(blob)
            raise Refused(error.code, f"{error.what} ({error.got})", where=path) from error

    def _defect(self, commit: Commit) -> tuple[str, str] | None:
        """Why a commit is not the controller's, or None."""
        cursors = self._state.cursors
        before = Before(self._last, cursors.trust_version, cursors.at)
        return fault(commit, before, self._ground.trusts, partial(claimed_version, self._repo))

    def _changes(self, commit: Commit) -> list[Change]:
        """What the commit changes, over foreign commits when it is the one that repairs them."""
        if self._foreign:
            over = self._repo.changes(self._good, commit.id)
            if any(change.path.endswith("-evidence-repaired.dsse.json") for change in over):
                return over
            self._give_up_foreign()
        return self._repo.changes(self._last, commit.id)

    def _give_up_foreign(self) -> None:
        for oid, code, message in self._foreign:
            self._find(code, oid, "", message)
        self._foreign = []

    # --- its entry ---------------------------------------------------------------------------------------

    def _entry(self, commit: Commit, records: Sequence[str], blobs: Mapping[str, bytes]) -> Added | None:
        paths = [path for path in records if path.endswith(ENTRY)]
        if len(paths) != 1:
            self._find("entry-count", commit.id, "", f"a commit adds one entry, this one adds {len(paths)}")
            self._log.lose(commit.id)
            self._resume(commit.id)
            return None
        (path,) = paths
        data = blobs[path]
        found = digest(data)
        self._log.add(found)
        try:
            parts = dsse.split(data)
            entry, statement = read_parts(parts, found, path)
            self._signed(commit, parts, entry)
        except (Refused, Invalid) as error:
            if error.code == UNKNOWN:
                raise
            self._find(error.code, commit.id, path, error.what)
            self._resume(commit.id)
            return None
        return Added(entry, parts, statement, records, blobs)

    def _signed(self, commit: Commit, parts: dsse.Parts, entry: Entry) -> None:
        """The envelope and its commit are signed by the controller of then. Raises Refused for the envelope."""
        key = self._keys.of(parts.keyid, entry)
        dsse.check(parts, {parts.keyid: key})
        path = entry.path
        version = entry.predicate.observed.trust_version
        assert commit.key is not None
        if not any(
            holds_controller(t, commit.key, commit.committer.at) for t in self._ground.trusts.get(version, ())
        ):
            self._find("foreign-evidence", commit.id, path, f"not the controller's key in trust version {version}")
        if version < self._state.cursors.trust_version:
            self._find("trust-rollback", commit.id, path, "the entry was made under an older trust version")
        if entry.predicate.rules < self._state.cursors.rules:
            self._find(ROLLBACK, commit.id, path, "the entry was made under older rules than the one before it")
        for used in {commit.key, key}:
            self.facts.keys.setdefault((used, version), (commit.id, path))

    def _stands(self, commit: Commit, added: Added) -> Place | None:
        """Where the entry stands, None where it cannot be folded; what is wrong with it there is found."""
        entry = added.entry
        predicate, state, place = entry.predicate, self._state, self._place(entry)
        opened = isinstance(entry.detail, Opened)
        if self._adrift:
            # The state before this entry cannot be read, so its place cannot be checked: go on after it.
            self._resume(commit.id)
            self._note(commit.id, entry)
            return None
        if predicate.index != state.cursors.index:
            self._find(
                "index-gap", commit.id, entry.path, f"index {predicate.index} follows {state.cursors.index - 1}"
            )
            self._resume(commit.id)
            return None
        if not opened and predicate.run is not None and predicate.run not in self._chains:
            self._find("run-not-open", commit.id, entry.path, f"{predicate.run} is not open")
            self._resume(commit.id)
            return None
        if entry.path != entry_path(place, entry.kind, predicate.at):
            self._find("record-misplaced", commit.id, entry.path, "the entry stands in another place than it says")
        if predicate.sequence != place.sequence:
            self._find(
                "sequence-gap", commit.id, entry.path, f"sequence {predicate.sequence}, not {place.sequence}"
            )
        if predicate.previous != place.previous:
            self._find("chain-broken", commit.id, entry.path, "it does not link to the run's entry before it")
        if commit.message != message_of(entry):
            self._find("trailers-mismatch", commit.id, entry.path, "the commit message is not what the entry says")
        last = state.cursors.at
        if (last is not None and predicate.at < last) or int(predicate.at.timestamp()) != int(
            commit.committer.at.timestamp()
        ):
            self._find("clock-rewound", commit.id, entry.path, "its time goes back or is not the commit's")
        if isinstance(entry.detail, MainAcknowledged):
            trusts = self._ground.trusts.get(predicate.observed.trust_version, ())
            wrong = unbacked(entry.detail, state.cursors, trusts, predicate.at)
            if wrong:
                self._find(UNBACKED, commit.id, entry.path, wrong)
            else:
                self.facts.acknowledged[entry.detail.commit] = entry.detail
        self._seen.asked.pending, self._seen.accepted = state.cursors.pending, state.cursors.main
        self._seen.answers.state = state
        self._seen.passes.enter(self._good, state, predicate.at)
        run = self._seen.replay.before(commit.id, entry)
        subject = Subject(
            commit, entry, added.statement, place, added.records, added.blobs, added.parts.keyid, run
        )
        for check in checks_of(entry.kind):
            for code, path, message in check(self._seen, subject):
                self._find(code, commit.id, path, message)
        return place

    def _enter(self, commit: Commit, entry: Entry, place: Place, after: fold.State) -> None:
        """Go on after an entry that was folded."""
        self._state = after.forget_written()
        self._chain(commit.id, entry, place)
        self._note(commit.id, entry)

    def _place(self, entry: Entry) -> Place:
        predicate = entry.predicate
        index = self._state.cursors.index
        if predicate.run is None or predicate.environment is None:
            return Place(index)
        if isinstance(entry.detail, Opened):
            return Place(index, run_folder(predicate.environment, predicate.at, predicate.run), 1)
        chain, opened = self._chains.get(predicate.run), self._state.open_run(predicate.run)
        if chain is None:
            return Place(index)
        lock = opened.lock if opened is not None else None
        if predicate.run in self._holes and chain.previous is None:
            # The entry before it cannot be read: what this one says of it is all there is.
            chain = RunChain(chain.folder, chain.sequence, predicate.previous, chain.refs)
        return Place(index, chain.folder, chain.sequence, chain.previous, lock)

    def _chain(self, oid: str, entry: Entry, place: Place) -> None:
        run = entry.predicate.run
        if run is None or place.folder is None:
            return
        if isinstance(entry.detail, Sealed):
            refs = self._chains.pop(run, RunChain(place.folder)).refs
            if run in self._holes:
                self._holes.discard(run)
                why = "the seal cannot be rebuilt: an entry of the run cannot be read"
                self._find("seal-mismatch", oid, entry.path, why)
            elif (entry.detail.entries, entry.detail.root) != (refs, seal_root(refs)):
                self._find("seal-mismatch", oid, entry.path, "the seal is not over the run's entries")
            self._seen.forget(run)
            return
        self._chains[run] = (self._chains.get(run) or RunChain(place.folder)).extended(entry)

    # --- what the commit leaves --------------------------------------------------------------------------

    def _compare(
        self,
        oid: str,
        expected: Mapping[str, bytes | None],
        found: Mapping[str, Change],
        blobs: Mapping[str, bytes],
    ) -> None:
        """open/ and state/ must change as the fold says; a file folded to equal bytes does not change."""
        for path, data in expected.items():
            change = found.get(path)
            if change is not None:
                same = blobs.get(path) == data and (change.new is None or change.new.mode == _FILE)
            else:
                before = self._repo.file(oid, path)
                same = (before is None) if data is None else before is not None and before.blob == blob_id(data)
            if not same:
                self._find("state-mismatch", oid, path, "the derived file is not what the entries add up to")
        for path in found.keys() - expected.keys():
            self._find("state-mismatch", oid, path, "the entry does not change this derived file")

    # --- keeping -----------------------------------------------------------------------------------------

    def _note(self, oid: str, entry: Entry) -> None:
        """Facts about the other branches, judged when those are."""
        facts, detail, predicate = self.facts, entry.detail, entry.predicate
        observed = predicate.observed
        facts.entries += 1
        if observed.main is not None:
            facts.observed.setdefault((observed.main, observed.trust_version), oid)
        if observed.requests is not None:
            facts.requests_seen.setdefault(observed.requests, oid)
        if isinstance(detail, Opened) and predicate.run is not None:
            facts.runs += 1
            facts.run_ids.add(predicate.run)
        elif isinstance(detail, Accepted):
            facts.accepted.append((detail.tip, oid))
            facts.moves.append((detail, oid))
        elif isinstance(detail, MainRefused):
            facts.refused.setdefault(detail.commit, (detail.code, oid))
        elif isinstance(detail, RequestJudged):
            facts.requests.append((detail, predicate.at, observed.trust_version, oid))
        elif isinstance(detail, (Witnessed, TimeAnchored, Published)):
            facts.visible.append((entry, oid))
        elif isinstance(detail, LockMade):
            facts.locks.append((detail.path, detail.sha256, oid))
        elif isinstance(detail, Genesis):
            if (detail.project, detail.genesis) != (self._ground.project, self._ground.genesis):
                self._find("genesis-mismatch", oid, entry.path, "the branch answers to another trust root")
        elif isinstance(detail, EvidenceRestarted):
            facts.restarted(detail, predicate.at, observed.trust_version, oid)
        elif isinstance(detail, EvidenceRepaired):
            self._repaired(oid, detail, entry.path)
        elif isinstance(detail, Sealed) and predicate.environment is not None:
            place = self._state.environments.get(predicate.environment)
            revert = revert_of(place) if place is not None else None
            if revert is not None and revert[0] == predicate.run:
                facts.reverts[revert[0], revert[1]] = revert[2]
        if (predicate.index == 0) != isinstance(detail, Genesis):
            self._find("genesis-mismatch", oid, entry.path, "the branch begins with its one genesis entry")

    def _repaired(self, oid: str, detail: EvidenceRepaired, path: str) -> None:
        removed = tuple(commit for commit, _, _ in self._foreign)
        if detail.names(removed, self._good):
            self.facts.repaired += removed
            self._foreign = []
            return
        self._give_up_foreign()
        self._find("entry-invalid", oid, path, "the repair does not name what stood on the branch")

    def _resume(self, oid: str) -> None:
        """Go on after a commit that could not be folded, from what its tree claims, so that one defect is
        one finding; a tree that cannot be read leaves the state as it was."""
        self._good = oid
        try:
            self._state = fold.load_state(self._repo, oid)
        except LockgateError:
            self._adrift = True
            return
        self._adrift = False
        self._seen.passes.lose(self._state.cursors.at)
        runs = [opened for many in self._state.open.values() for opened in many]
        self._chains = {opened.run: self._resumed(oid, opened) for opened in runs}
        for run in self._holes:
            self._seen.replay.give_up(run)

    def _resumed(self, oid: str, opened: fold.OpenRun) -> RunChain:
        """An open run's chain as a commit's tree holds it, going over entries that cannot be read."""
        chain = RunChain(opened.path)
        self._holes.discard(opened.run)
        try:
            files = [item for item in self._repo.files(oid, opened.path) if item[0].endswith(ENTRY)]
        except LockgateError:
            files = []
            self._holes.add(opened.run)
        for path, file in files:
            try:
                chain = chain.extended(read(self._repo.read(file.blob), path, None))
            except LockgateError:
                self._holes.add(opened.run)
                chain = RunChain(opened.path, chain.sequence + 1, None, chain.refs)
        return chain

    def _find(self, code: str, oid: str, path: str, message: str) -> None:
        self.findings.append(Finding(code, oid, path, rule_of(code), message))
