"""Receipts of entries: made from a repository, checked with nothing but the trust root and the entry."""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.chain import Chain, walk_states
from controller.core.trust import CONTROLLER, TrustState, VerifySsh
from controller.errors import Invalid, Refused
from controller.ledger import dsse
from controller.ledger.append import run_entries
from controller.ledger.canonical import digest
from controller.ledger.content import content_at
from controller.ledger.cosign import lines_of
from controller.ledger.entry import read
from controller.ledger.fold import load_state
from controller.ledger.log import CHECKPOINT, Checkpoint, Tree, origin_of, read_checkpoint
from controller.ledger.receipt import Receipt, check_receipt, read_receipt
from controller.model.entry import Entry, Witnessed
from controller.model.keys import key_id
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.trust_chain import trust_history
from controller.uses.view import evidence_tip, no_run, run_folder_of


@dataclass(frozen=True, slots=True)
class Made:
    """An entry's envelope and its receipt; `name` is the entry's file name without extensions."""

    name: str
    entry: Entry
    envelope: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Held:
    """What a receipt that holds proves: the entry, and the checkpoint it is in with the number of further
    signature lines (cosignatures, which are not judged here)."""

    entry: Entry
    checkpoint: Checkpoint
    cosignatures: int


def receipts(
    repo: Repo, root: TrustRoot, run: str, verify_ssh: VerifySsh, sequence: int | None = None
) -> list[Made]:
    """The receipts of a run's entries, or of one of them; under a cosigned checkpoint where one covers it.

    Raises Invalid("run-not-found" | "step-not-found"), Refused when the log or the trust chain does not hold.
    """
    tip = evidence_tip(repo)
    folder = run_folder_of(repo, tip, run) if tip is not None else None
    if tip is None or folder is None:
        raise no_run(run)
    entries = [
        entry
        for entry in run_entries(repo, tip, folder)
        if sequence is None or entry.predicate.sequence == sequence
    ]
    if not entries:
        raise Invalid("step-not-found", f"{run} has no entry {sequence}", cure=f"see `lockgate timeline {run}`")
    state = load_state(repo, tip)
    links = [link for link, _ in trust_history(repo, root, state.cursors.main or root.genesis, verify_ssh)]
    extra = Chain(links=links).dumps()
    newest = _file(repo, tip, CHECKPOINT)
    tree = Tree(read_checkpoint(newest).size, lambda path: content_at(repo, tip, path))
    cosigned = _cosigned(repo, tip, state.cursors.log.witnessed.event) if state.cursors.log.witnessed else b""
    made = []
    for entry in entries:
        index = entry.predicate.index
        checkpoint = cosigned if cosigned and read_checkpoint(cosigned).size > index else newest
        path = tuple(tree.inclusion(index, read_checkpoint(checkpoint).size))
        name = entry.path.rpartition("/")[2].removesuffix(".dsse.json")
        made.append(Made(name, entry, _file(repo, tip, entry.path), Receipt(index, path, checkpoint, extra)))
    return made


def check(receipt: bytes, envelope: bytes, root: TrustRoot, verify_ssh: VerifySsh) -> Held:
    """Check a receipt and its entry from the trust root alone.

    Raises Invalid("receipt-malformed" | "entry-invalid" | …), Refused("genesis-mismatch" | "envelope-signature" |
    "checkpoint-signature" | "log-inconsistent" | "receipt-mismatch").
    """
    found = read_receipt(receipt)
    if found.extra is None:
        raise Invalid(
            "receipt-malformed",
            "the receipt brings no trust chain",
            expected="a receipt as `lockgate receipt make` writes it",
            got="no extra line",
            cure="ask for a receipt made by `lockgate receipt make`",
        )
    trusts = walk_states(root, Chain.loads(found.extra).links, verify_ssh)
    entry = read(envelope, "", None)
    version, at = entry.predicate.observed.trust_version, entry.predicate.at
    dsse.open_envelope(envelope, _keys([t for t in trusts if t.version == version], entry))
    origin = origin_of(root.project, root.genesis)
    later = _keys([trust for trust in trusts if trust.version >= version], None)
    checkpoint = check_receipt(found, digest(envelope), origin, later)
    if entry.predicate.index != found.index:
        raise Refused(
            "receipt-mismatch",
            "the receipt is of another entry",
            expected=f"index {entry.predicate.index}, recorded at {at.isoformat()}",
            got=f"index {found.index}",
        )
    return Held(entry, checkpoint, len(lines_of(found.checkpoint)) - 1)


def _keys(trusts: list[TrustState], entry: Entry | None) -> dict[str, str]:
    """The controller's keys in some trust versions; those valid when `entry` was made, or all."""
    at = entry.predicate.at if entry is not None else None
    found = [key for trust in trusts for key in trust.keys_of_role(CONTROLLER, at) if not key.startswith("sk-")]
    return {key_id(key): key for key in found}


def _cosigned(repo: Repo, tip: str, path: str) -> bytes:
    """The largest checkpoint of a `witnessed` entry."""
    detail = read(_file(repo, tip, path), path, None).detail
    assert isinstance(detail, Witnessed)
    return detail.checkpoints[-1].encode()


def _file(repo: Repo, commit: str, path: str) -> bytes:
    data = content_at(repo, commit, path)
    if data is None:
        raise Refused("log-mismatch", "a file of the evidence is missing", where=path)
    return data
