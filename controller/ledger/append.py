"""Appending: drafts become a batch of signed commits on the evidence branch, swapped in by one push."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from controller.errors import Invalid, Refused, Stalled
from controller.ledger import fold, links, log
from controller.ledger.canonical import canonical, digest
from controller.ledger.content import content_at
from controller.ledger.entry import Place, artifact_digest, build, is_event, read, run_folder
from controller.ledger.fold import State
from controller.ledger.log import Log
from controller.model.entry import Draft, Entry, EntryRef, Genesis, Observed, Opened, Sealed, What, When
from controller.model.history import NewCommit
from controller.ports import Repo, Signer

EVIDENCE_REF = "refs/heads/lockgate/evidence"
RESERVED = frozenset({"cursors", "completed", "locks"})
"""Environment names whose derived files would stand among, or be, the ledger's own."""


@dataclass(frozen=True, slots=True)
class RunChain:
    """An open run's chain: where its next entry goes, what it links to, and what its seal will list."""

    folder: str
    sequence: int = 1
    previous: str | None = None
    refs: tuple[EntryRef, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Every path of the run's folder so far, to the hex SHA-256 of its bytes; for the seal alone."""

    def extended(self, entry: Entry) -> RunChain:
        """The chain after one more entry."""
        sequence = entry.predicate.sequence or self.sequence
        ref = EntryRef(sequence=sequence, kind=entry.kind, digest=entry.digest)
        return RunChain(self.folder, sequence + 1, entry.digest, (*self.refs, ref), self.files)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The evidence branch at one tip: everything that appending needs, independent of its length.

    `open_entries` are the open runs' entries in sequence; `recorded` those of the last `write`, with their
    commit ids.
    """

    commit: str | None = None
    state: State = field(default_factory=State)
    log: Log = field(default_factory=Log)
    chains: Mapping[str, RunChain] = field(default_factory=dict)
    open_entries: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)
    recorded: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch ready to be pushed; `ledger` is the tip it makes, its commit still the one it builds on."""

    commits: list[NewCommit]
    entries: list[Entry]
    ledger: Ledger


def genesis_draft(project: str, genesis: str, refs: Mapping[str, str], at: datetime) -> Draft:
    """The first entry of a branch (index 0): it names the trust root the branch answers to."""
    return Draft(
        kind="genesis",
        run=None,
        environment=None,
        at=at,
        observed=Observed(main=genesis, requests=None, trust_version=1),
        result="STARTED",
        summary=f"{project}: evidence begins from genesis {genesis[:12]}",
        who=(),
        what=What(),
        when=When(decided=at),
        detail=Genesis(project=project, genesis=genesis, refs=dict(refs)),
    )


def load(repo: Repo, tip: str) -> Ledger:
    """The ledger at an evidence tip. Reads cursors, environments, open runs and the log's edge only.

    Signatures are not checked again: that is verification's work. Raises Refused("state-mismatch" |
    "log-mismatch" | "chain-broken" | "object-corrupt") when the tree is not what the controller wrote.
    """
    state, chains, entries = load_open(repo, tip)
    chains = {run: replace(chain, files=_hashes(repo, tip, chain.folder)) for run, chain in chains.items()}
    return Ledger(tip, state, load_log(repo, tip, state.cursors.index), chains, entries)


def load_open(repo: Repo, tip: str) -> tuple[State, dict[str, RunChain], dict[str, tuple[Entry, ...]]]:
    """The derived state at a commit (also inside a batch), and the open runs' chains and entries."""
    state = fold.load_state(repo, tip)
    chains: dict[str, RunChain] = {}
    entries: dict[str, tuple[Entry, ...]] = {}
    for runs in state.open.values():
        for opened in runs:
            found = run_entries(repo, tip, opened.path)
            chain = RunChain(opened.path)
            for entry in found:
                if (entry.predicate.sequence, entry.predicate.previous) != (chain.sequence, chain.previous):
                    raise Refused("chain-broken", "the open run's chain does not hold", where=entry.path)
                chain = chain.extended(entry)
            chains[opened.run], entries[opened.run] = chain, found
    return state, chains, entries


def run_entries(repo: Repo, commit: str, folder: str) -> tuple[Entry, ...]:
    """The entries of one run in sequence, read from a commit's tree, their signatures not checked."""
    found = [
        read(repo.read(file.blob), path, None)
        for path, file in repo.files(commit, folder)
        if path.endswith(".dsse.json")
    ]
    return tuple(sorted(found, key=lambda entry: entry.predicate.sequence or 0))


def load_log(repo: Repo, tip: str, size: int | None = None) -> Log:
    """The log's edge that a commit's tree holds: of `size` entries, by default as many as its checkpoint says.

    Raises Refused("log-mismatch" | "object-corrupt") or Invalid("checkpoint-malformed").
    """

    checkpoint = content_at(repo, tip, log.CHECKPOINT)
    if checkpoint is None:
        raise Refused("log-mismatch", "the log's checkpoint is missing", where=log.CHECKPOINT)
    said = log.read_checkpoint(checkpoint)
    size = said.size if size is None else size
    edge = log.restore(size, partial(content_at, repo, tip))
    if (said.size, said.root) != (size, edge.root):
        raise Refused(
            "log-mismatch",
            "the checkpoint is not that of the log's tiles",
            where=log.CHECKPOINT,
            expected=f"size {size}",
            got=f"size {said.size}",
        )
    return edge


def prepare(ledger: Ledger, drafts: Sequence[Draft], signer: Signer, origin: str) -> Prepared:
    """Build, sign and chain a batch; nothing is written. `origin` is the checkpoint's (`log.origin_of`).

    A draft earlier than the last entry is raised to its time; sealed details get their entries and root here.
    Only the batch's last commit carries the log's tiles and checkpoint. Raises Invalid or Refused for a draft
    that has no place (unknown run, run opened twice).
    """
    state, chains, open_entries = ledger.state, dict(ledger.chains), dict(ledger.open_entries)
    commits: list[NewCommit] = []
    entries: list[Entry] = []
    leaves: list[bytes] = []
    for draft in drafts:
        last = state.cursors.at
        if last is not None and draft.at < last:
            draft = draft.model_copy(update={"at": last})
        chain = _chain(chains, draft)
        if chain is not None and isinstance(draft.detail, Sealed):
            draft = draft.model_copy(update={"detail": _complete(draft.detail, chain)})
        built = build(draft, _place(state, draft, chain), signer)
        entry = built.entry
        after = fold.apply(state, entry)
        changes: dict[str, bytes | None] = {**built.files, **fold.derived_files(state, after)}
        state = after
        if chain is not None and draft.run is not None:
            if chain.sequence == 1:
                changes[f"{chain.folder}/run.json"] = header(entry)
            chain = replace(chain, files=_added(chain, changes))
            if isinstance(entry.detail, Sealed):
                whole = (*open_entries.get(draft.run, ()), entry)
                changes |= links.seal_files(whole, chain.folder, chain.files, signer)
                chains.pop(draft.run)
                open_entries.pop(draft.run)
            else:
                chains[draft.run] = chain.extended(entry)
                open_entries[draft.run] = (*open_entries.get(draft.run, ()), entry)
        commits.append(NewCommit(changes, built.message, entry.predicate.at))
        entries.append(entry)
        leaves.append(log.leaf_hash(log.digest_bytes(entry.digest)))
    edge = ledger.log
    if commits:
        edge, tiles = edge.append(leaves)
        tiles[log.CHECKPOINT] = log.sign_checkpoint(origin, edge, signer)
        commits[-1] = replace(commits[-1], changes={**commits[-1].changes, **tiles})
    return Prepared(commits, entries, Ledger(ledger.commit, state, edge, chains, open_entries))


def write(repo: Repo, prepared: Prepared, expected: str | None, signer: Signer, ref: str = EVIDENCE_REF) -> Ledger:
    """Push a batch by one compare-and-swap from `expected` and return the new tip.

    The batch's trees follow from that of the ledger it was prepared on. Where `expected` is another commit,
    foreign ones stand on top of the ledger's, and nothing of their trees remains. Artifacts that stand
    already are not written again. Raises what Repo.append raises, and Stalled("artifact-mismatch"); then nothing
    was written, and the pass is to be thrown away.
    """
    if not prepared.commits:
        return prepared.ledger
    base = prepared.ledger.commit
    ids = repo.append(ref, expected, _once(repo, base, prepared.commits), signer, base)
    recorded = tuple(
        entry.model_copy(update={"commit": commit}) for entry, commit in zip(prepared.entries, ids, strict=True)
    )
    state = prepared.ledger.state.forget_written()
    return replace(prepared.ledger, commit=ids[-1], state=state, recorded=recorded)


def _once(repo: Repo, tip: str | None, commits: Sequence[NewCommit]) -> list[NewCommit]:
    """The commits without artifacts that the tip or an earlier one of them holds: what a digest names is added
    once and never changes."""
    held: set[str] = set()
    found: list[NewCommit] = []
    for commit in commits:
        artifacts = {path: value for path in commit.changes if (value := artifact_digest(path)) is not None}
        if artifacts:
            held |= {path for path, value in artifacts.items() if _stands(repo, tip, path, value)}
            commit = replace(commit, changes={p: data for p, data in commit.changes.items() if p not in held})
            held |= set(artifacts)
        found.append(commit)
    return found


def _stands(repo: Repo, tip: str | None, path: str, named: str) -> bool:
    file = repo.file(tip, path) if tip is not None else None
    if file is not None and digest(repo.read(file.blob)) != named:
        raise Stalled(
            "artifact-mismatch",
            "an artifact on the evidence branch is not what its name says",
            where=path,
            expected=named,
            got=digest(repo.read(file.blob)),
            cure="run `lockgate verify`; somebody wrote to the evidence branch with the controller's key",
        )
    return file is not None


def header(entry: Entry) -> bytes:
    """run.json: the run's immutable header, from its `opened` entry."""
    detail: Opened = entry.detail
    return canonical(
        {
            "run": entry.predicate.run,
            "environment": entry.predicate.environment,
            "number": detail.number,
            "mode": detail.mode,
            "release": detail.release,
            "commit": detail.commit,
            "opened": entry.predicate.wire()["at"],
        }
    )


def seal_root(refs: Sequence[EntryRef]) -> str:
    """The RFC 6962 Merkle root over the digests of a run's entries."""
    return "sha256:" + log.merkle_root(log.digest_bytes(ref.digest) for ref in refs).hex()


def _complete(detail: Sealed, chain: RunChain) -> Sealed:
    return detail.model_copy(update={"entries": chain.refs, "root": seal_root(chain.refs)})


def _chain(chains: dict[str, RunChain], draft: Draft) -> RunChain | None:
    if is_event(draft.kind):
        if draft.run is not None:
            raise Invalid("entry-invalid", f"a {draft.kind} event belongs to no run", got=draft.run)
        return None
    if draft.run is None or draft.environment is None:
        raise Invalid("entry-invalid", f"a {draft.kind} entry needs its run and environment")
    chain = chains.get(draft.run)
    if isinstance(draft.detail, Opened):
        if chain is not None:
            raise Refused("run-open", "the run is open already", where=draft.run)
        if draft.environment in RESERVED:
            raise Refused("environment-reserved", "no environment may have this name", where=draft.environment)
        return RunChain(run_folder(draft.environment, draft.at, draft.run))
    if chain is None:
        raise Refused("run-not-open", f"a {draft.kind} entry is for a run that is not open", where=draft.run)
    return chain


def _hashes(repo: Repo, tip: str, folder: str) -> dict[str, str]:
    return {path: digest(repo.read(file.blob))[7:] for path, file in repo.files(tip, folder)}


def _added(chain: RunChain, changes: Mapping[str, bytes | None]) -> dict[str, str]:
    """The chain's files with those of one more commit."""
    here = f"{chain.folder}/"
    new = {path: digest(data)[7:] for path, data in changes.items() if data is not None and path.startswith(here)}
    return {**chain.files, **new}


def _place(state: State, draft: Draft, chain: RunChain | None) -> Place:
    if chain is None or draft.run is None:
        return Place(state.cursors.index)
    opened = state.open_run(draft.run)
    lock = opened.lock if opened is not None else None
    return Place(state.cursors.index, chain.folder, chain.sequence, chain.previous, lock)
