"""Exports: everything about one run in one file, for somebody who has nothing else.

Built from the evidence branch at one commit and the blobs it names: the same run at the same commit gives the same
bytes, wherever and whenever it is exported. What an auditor checks it by is in `controller.uses.exports.bundle`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field
from typing_extensions import TypedDict

from controller import __version__
from controller.core.trust import CONTROLLER, TrustState, VerifySsh
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger import fold
from controller.ledger.append import run_entries
from controller.ledger.canonical import canonical, digest
from controller.ledger.content import content_at
from controller.ledger.entry import artifact_path, read
from controller.ledger.log import CHECKPOINT, Tree, read_checkpoint
from controller.ledger.receipt import Receipt
from controller.model.entry import Accepted, Entry, Inputs, Opened, Pin, Sealed, Wire
from controller.model.keys import key_id, public_key
from controller.model.trustroot import TrustRoot
from controller.model.words import counted
from controller.ports import Repo
from controller.uses.allowed_signers import allowed_signers
from controller.uses.exports.pack_texts import readme
from controller.uses.exports.packfile import Pack, can_hold
from controller.uses.exports.story_page import page
from controller.uses.story import commits_of
from controller.uses.trust_chain import build_chain, trust_history
from controller.uses.view import evidence_tip, no_run, run_folder_of

FORMAT = "https://lockgate.dev/audit-pack/v1"
MANIFEST = "manifest.json"
CHAIN = "proof/trust-chain.json"
SIGNERS = "proof/allowed_signers"
EVIDENCE = "evidence/"
DOCUMENTS = "documents/"
COMMITS = "chain/"
FACTS = re.compile(
    r"\n\n(?:Lockgate-Run: (?P<run>\S+)\n)?Lockgate-Entry: (?P<index>\d+)\nLockgate-Kind: (?P<kind>[a-z-]+)\n"
    r"(?:Lockgate-Result: [^\n]*\n)?Lockgate-Digest: (?P<digest>sha256:[0-9a-f]{64})\n"
    r"(?:Lockgate-About: (?P<about>\S+)\n)?\Z"
)
"""The trailers of an evidence commit's message (`ledger.entry.message_of`)."""
_BACK = 512
"""How far before a run the acceptance of its promotion is looked for."""


class Peak(Wire):
    """The root of a perfect subtree of the log, in hex."""

    height: int
    hash: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Wire):
    """What a pack says of itself. `opened` is the index of the run's first entry and of the first commit in
    `chain/`; `peaks` are the log's over everything before it; `tips` those of the Git bundle; `generator` the
    version of this program, because another one may write another page."""

    format: str
    generator: str
    project: str
    genesis: str
    run: str
    environment: str
    release: str
    phase: str
    sealed: bool
    evidence: str
    accepted: str
    opened: int
    size: int
    peaks: tuple[Peak, ...]
    tips: dict[str, str] | None = None


class ExportAnswer(TypedDict):
    """A pack that was written: `sealed` is false for a partial one."""

    run: str
    file: str
    sha256: str
    bytes: int
    files: int
    sealed: bool
    evidence: str
    bundle: bool


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run is exported from: an evidence commit, with the run's folder and entries there."""

    repo: Repo
    root: TrustRoot
    tip: str
    run: str
    folder: str
    entries: tuple[Entry, ...]
    state: fold.State

    @property
    def sealed(self) -> bool:
        return isinstance(self.entries[-1].detail, Sealed)

    @property
    def accepted(self) -> str:
        return self.state.cursors.main or self.root.genesis


def source(repo: Repo, run: str, *, root: TrustRoot | None = None, at: str | None = None) -> Source:
    """Find a run at an evidence commit, by default the tip. Raises Invalid("run-not-found" | "commit-not-found"),
    Refused("genesis-mismatch") for a root of another project."""
    tip = evidence_tip(repo)
    if tip is not None and at is not None:
        if at not in repo.chain(tip):
            cure = "see its commits with: git log lockgate/evidence"
            raise Invalid("commit-not-found", "the evidence branch has no such commit", got=at[:40], cure=cure)
        tip = at
    folder = run_folder_of(repo, tip, run) if tip is not None else None
    if tip is None or folder is None:
        raise no_run(run)
    state = fold.load_state(repo, tip)
    own = TrustRoot(project=state.cursors.project, genesis=state.cursors.genesis)
    if root is not None and (root.project, root.genesis) != (own.project, own.genesis):
        raise Refused(
            "genesis-mismatch",
            "the evidence answers to another trust root",
            expected=f"{root.project} from {root.genesis[:12]}",
            got=f"{own.project} from {own.genesis[:12]}",
            cure="use the trust-root.json of this repository",
        )
    return Source(repo, root or own, tip, run, folder, run_entries(repo, tip, folder), state)


def audit_pack(
    found: Source, verify_ssh: VerifySsh, *, partial: bool = False, tips: Mapping[str, str] | None = None
) -> Pack:
    """The pack of a run, without its Git bundle; `tips` are those of the bundle that will be added.

    Raises Refused("run-not-sealed") for an open run unless `partial`, and what reading the history raises.
    """
    if not found.sealed and not partial:
        raise Refused(
            "run-not-sealed",
            f"{found.run} is still open: what is exported now is not its whole story",
            where=found.run,
            expected="a sealed run",
            got=f"{counted(len(found.entries), 'entry')} and no seal",
            cure="wait for its end, or export it as unsealed with --partial",
        )
    repo, tip = found.repo, found.tip
    chain = repo.chain(tip)
    commits = commits_of(repo, tip, found.entries)
    place = {oid: at for at, oid in enumerate(chain)}
    begin = place[commits[found.entries[0].digest]]
    files: dict[str, bytes] = {}
    events = _events(found, chain, begin)
    for path, file in repo.files(tip, found.folder):
        files[EVIDENCE + path] = repo.read(file.blob)
    for path, data in [*_artifacts(found), *((e.path, _content(repo, tip, e.path)) for e in events)]:
        files[EVIDENCE + path] = data
    checkpoint = _content(repo, tip, CHECKPOINT)
    files[EVIDENCE + CHECKPOINT] = checkpoint
    size = read_checkpoint(checkpoint).size
    tree = Tree(size, lambda path: content_at(repo, tip, path))
    for entry in (*found.entries, *events):
        index = entry.predicate.index
        receipt = Receipt(index, tuple(tree.inclusion(index)), checkpoint)
        files[f"receipts/{index:06d}.tlog-proof"] = receipt.dumps()
    for at in range(begin, len(chain)):
        files[f"{COMMITS}{at:06d}-{chain[at]}.commit"] = repo.raw(chain[at])[1]
    files |= dict(_documents(found))
    files |= dict(_trust(found, verify_ssh))
    manifest = _manifest(found, size, tree, tips)
    files[MANIFEST] = canonical(manifest.wire()) + b"\n"
    files["story.html"] = page(manifest.wire(), found.entries, events, commits).encode()
    files["README.md"] = readme(manifest.wire(), found.folder).encode()
    top = f"lockgate-{found.run}" + ("" if found.sealed else "-unsealed")
    return Pack(top, files, int(found.entries[-1].at.timestamp()))


def _manifest(found: Source, size: int, tree: Tree, tips: Mapping[str, str] | None) -> Manifest:
    opened, last = found.entries[0], found.entries[-1].detail
    index = opened.predicate.index
    return Manifest(
        format=FORMAT,
        generator=__version__,
        project=found.root.project,
        genesis=found.root.genesis,
        run=found.run,
        environment=opened.predicate.environment or "",
        release=opened.detail.release,
        phase=last.phase if isinstance(last, Sealed) else "open",
        sealed=found.sealed,
        evidence=found.tip,
        accepted=found.accepted,
        opened=index,
        size=size,
        peaks=tuple(Peak(height=height, hash=node.hex()) for height, node in tree.peaks(index)),
        tips=dict(tips) if tips is not None else None,
    )


def _content(repo: Repo, commit: str, path: str) -> bytes:
    data = content_at(repo, commit, path)
    if data is None:
        raise Refused("record-missing", "a record is missing", where=path, cure="run `lockgate verify`")
    return data


def _events(found: Source, chain: Sequence[str], begin: int) -> list[Entry]:
    """The events that belong to the run: its lock, the acceptance of its promotion, and whatever since it opened
    names it or mends the branch."""
    repo = found.repo
    paths: list[str] = []
    lock = fold.lookup_lock(repo, found.tip, found.entries[0].detail.release)
    if lock is not None:
        paths.append(lock.event)
    accepted = _acceptance(found, chain, begin)
    if accepted is not None:
        paths.append(accepted)
    for at in range(begin, len(chain)):
        facts = FACTS.search(repo.commit(chain[at]).message)
        if facts is None or facts["run"] is not None:
            continue
        if facts["about"] == found.run or facts["kind"] == "evidence-repaired":
            paths += _added(repo, chain, at)
    unique = dict.fromkeys(paths)
    entries = [read(_content(repo, found.tip, path), path, None) for path in unique]
    return sorted(entries, key=lambda entry: entry.predicate.index)


def _acceptance(found: Source, chain: Sequence[str], begin: int) -> str | None:
    """The path of the event by which main's promotion was accepted, where it is not far back."""
    detail: Opened = found.entries[0].detail
    for at in range(begin - 1, max(begin - _BACK, 0), -1):
        facts = FACTS.search(found.repo.commit(chain[at]).message)
        if facts is None or facts["kind"] != "accepted":
            continue
        for path in _added(found.repo, chain, at):
            entry = read(_content(found.repo, chain[at], path), path, None).detail
            if isinstance(entry, Accepted) and any(slot.commit == detail.commit for slot in entry.slots):
                return path
    return None


def _added(repo: Repo, chain: Sequence[str], at: int) -> list[str]:
    changes = repo.changes(chain[at - 1] if at else None, chain[at])
    return [one.path for one in changes if one.path.startswith("events/") and one.path.endswith(".dsse.json")]


def _artifacts(found: Source) -> Iterator[tuple[str, bytes]]:
    """Every artifact that an entry of the run names and the branch holds."""
    named: set[str] = set()
    for entry in found.entries:
        named |= set(digests_in(entry.predicate.detail.get("artifacts")))
        named |= set(digests_in(entry.predicate.how))
    for value in sorted(named):
        data = content_at(found.repo, found.tip, artifact_path(value))
        if data is not None:
            yield artifact_path(value), data


def digests_in(value: Any) -> Iterator[str]:
    """Every digest in a JSON value."""
    if isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from digests_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from digests_in(item)


def _documents(found: Source) -> Iterator[tuple[str, bytes]]:
    """The files of main that the run pinned, byte for byte."""
    pins: list[Pin] = []
    for entry in found.entries:
        if isinstance(entry.detail, Opened):
            pins += [*entry.detail.pins, *([entry.detail.slot] if entry.detail.slot is not None else [])]
        elif isinstance(entry.detail, Inputs):
            pins.append(entry.detail.lock)
    for pin in pins:
        try:
            data = found.repo.read(pin.blob)
        except LockgateError:
            continue  # what the record pins and main never had is for verification to say
        if digest(data) == pin.sha256 and can_hold(pin.path):
            yield DOCUMENTS + pin.path, data


def _trust(found: Source, verify_ssh: VerifySsh) -> Iterator[tuple[str, bytes]]:
    """The chain that proves itself from genesis, the documents with their signatures, and keys for stock tools."""
    repo, root, accepted = found.repo, found.root, found.accepted
    yield CHAIN, build_chain(repo, root, accepted, verify_ssh).dumps()
    for path, file in repo.files(accepted, "trust"):
        if file.mode in (0o100644, 0o100755) and can_hold(path):
            yield path, repo.read(file.blob)
    yield SIGNERS, allowed_signers(repo, root, accepted, verify_ssh, CONTROLLER).encode()
    yield from key_files([state for _, state in trust_history(repo, root, accepted, verify_ssh)]).items()


def key_files(trusts: Sequence[TrustState]) -> dict[str, bytes]:
    """The controller's keys of every trust version as PEM, by the path they have in a pack."""
    keys = {key for state in trusts for key in state.keys_of_role(CONTROLLER) if not key.startswith("sk-")}
    form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    return {f"keys/{key_id(key)}.pem": public_key(key).public_bytes(*form) for key in keys}
