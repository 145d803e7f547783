"""What must hold for the rest of an audit pack: nothing that nobody speaks for, no reading that says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from controller import __version__
from controller.core.effects import agent_key
from controller.core.parse import parse
from controller.core.trust import CONTROLLER, TrustState
from controller.errors import LockgateError
from controller.ledger import dsse
from controller.ledger.canonical import digest, parse_canonical
from controller.ledger.entry import artifact_path
from controller.ledger.log import CHECKPOINT
from controller.ledger.speaker import speaks_with
from controller.model.agent import Agent
from controller.model.entry import Entry, Evaluated, Inputs, Opened, Sealed
from controller.model.order import AgentKey, body_of
from controller.uses.exports.export import (
    CHAIN,
    COMMITS,
    DOCUMENTS,
    EVIDENCE,
    MANIFEST,
    SIGNERS,
    Manifest,
    digests_in,
    key_files,
)
from controller.uses.exports.pack_texts import readme
from controller.uses.exports.packfile import SUMS, Pack
from controller.uses.exports.story_page import page
from controller.uses.rules.link_checks import seal_links_hold
from controller.uses.rules.subject import Problem

_WRITTEN = {MANIFEST, SUMS, CHAIN, SIGNERS, "README.md", "story.html", EVIDENCE + CHECKPOINT}
_PLAIN = re.compile(r"(receipts/[0-9]{6,}\.tlog-proof|trust/.+|evidence/artifacts/sha256/.+)")
_BESIDE = re.compile(r"(run\.json|inputs/gates-[0-9]{2,}\.json|(reports|links|logs)/[A-Za-z0-9._-]+)")


def nothing_else(pack: Pack, own: Sequence[Entry], envelopes: Mapping[str, Entry]) -> Iterator[Problem]:
    """Every file is of a kind that something here speaks for."""
    folder = f"{EVIDENCE}{PurePosixPath(own[0].path).parent}/" if own else EVIDENCE
    known = {EVIDENCE + entry.path for entry in envelopes.values()} | _WRITTEN
    for entry in own:
        if isinstance(entry.detail, Inputs):
            known |= {f"{folder}inputs/{name}.json" for name in entry.detail.files}
            known.add(DOCUMENTS + entry.detail.lock.path)
        elif isinstance(entry.detail, Opened):
            known |= {DOCUMENTS + pin.path for pin in entry.detail.pins}
            known |= {DOCUMENTS + entry.detail.slot.path} if entry.detail.slot is not None else set()
    for path in pack.files:
        beside = path.startswith(folder) and _BESIDE.fullmatch(path[len(folder) :])
        if not (path in known or beside or _PLAIN.fullmatch(path) or path.startswith((COMMITS, "keys/"))):
            yield "pack-malformed", path, "nothing in the pack speaks for this file"


def readings_hold(
    pack: Pack,
    manifest: Manifest,
    own: Sequence[Entry],
    envelopes: Mapping[str, Entry],
    commits: Mapping[str, str],
    trusts: Sequence[TrustState],
    document: bytes,
) -> Iterator[Problem]:
    """What people and stock tools read first says what the entries say: the page, the README, the keys."""
    made: dict[str, bytes] = dict(key_files(trusts)) | {"trust/trust.yaml": document}
    if manifest.generator == __version__ and own:
        events = sorted(
            (one for one in envelopes.values() if one.run is None), key=lambda one: one.predicate.index
        )
        mine = {entry.digest: commits[entry.digest] for entry in own if entry.digest in commits}
        made["story.html"] = page(manifest.wire(), own, events, mine).encode()
        made["README.md"] = readme(manifest.wire(), str(PurePosixPath(own[0].path).parent)).encode()
    for path in sorted(made.keys() | {path for path in pack.files if path.startswith("keys/")}):
        if pack.files.get(path) != made.get(path):
            yield "story-mismatch", path, "the file is not what the signed records in the pack give"
    keys = {" ".join(key.split()[:2]) for state in trusts for key in state.keys_of_role(CONTROLLER)}
    lines = pack.files.get(SIGNERS, b"").decode("utf-8", "replace").splitlines()
    if {" ".join(line.split()[-2:]) for line in lines} != keys:
        yield "story-mismatch", SIGNERS, "the allowed signers are not the controller's keys"


def links_hold(pack: Pack, own: Sequence[Entry], keys: Mapping[str, str]) -> Iterator[Problem]:
    """The in-toto links of a sealed run follow from what is here; artifacts that its entries name are here."""
    for entry in own:
        for value in digests_in(entry.predicate.detail.get("artifacts")):
            if EVIDENCE + artifact_path(value) not in pack.files:
                yield "record-missing", entry.path, f"the artifact {value} is not in the pack"
    if not own:
        return
    folder = str(PurePosixPath(own[0].path).parent)
    inside = {path.removeprefix(EVIDENCE): data for path, data in pack.files.items() if path.startswith(EVIDENCE)}
    found = {path: data for path, data in inside.items() if path.startswith(f"{folder}/links/")}
    if not isinstance(own[-1].detail, Sealed):
        yield from (("link-mismatch", path, "links come with the seal of their run") for path in found)
        return
    files = {p: digest(data)[7:] for p, data in inside.items() if p.startswith(f"{folder}/") and p not in found}
    keyid = dsse.split(inside[own[-1].path]).keyid
    yield from seal_links_hold(own, folder, keyid, keys, files, found)


def reports_hold(pack: Pack, own: Sequence[Entry]) -> Iterator[Problem]:
    """Agents' statements are those that the entries name, under the keys that the run pinned.

    A statement under a key that was declared later is for the whole history to judge.
    """
    agents: dict[str, AgentKey] = {}
    opened = own[0].detail if own and isinstance(own[0].detail, Opened) else None
    pins = [entry.detail.lock for entry in own if isinstance(entry.detail, Inputs)]
    if opened is not None:
        pins += [*opened.pins, *([opened.slot] if opened.slot is not None else [])]
    for pin in pins:
        data = pack.files.get(DOCUMENTS + pin.path)
        if data is None or digest(data) != pin.sha256:
            yield "digest-mismatch", DOCUMENTS + pin.path, "the document is not the one that the run pinned"
        elif pin.path.startswith("agents/"):
            document = parse(pin.path, data).document
            if isinstance(document, Agent):
                agents[document.metadata.name] = agent_key(document)
    for entry in own:
        prefix = f"{EVIDENCE}{PurePosixPath(entry.path).parent}/reports/{entry.predicate.sequence or 0:03d}-"
        found = {path: data for path, data in pack.files.items() if path.startswith(prefix)}
        whole = b"".join(found.values())
        if isinstance(entry.detail, Evaluated) and digest(whole) != entry.detail.statements:
            yield "report-mismatch", entry.path, "the statements are not those the verdict was made from"
        named = {result.report for result in getattr(entry.detail, "results", ())}
        for path, data in found.items():
            for line in data.splitlines():
                if not isinstance(entry.detail, Evaluated) and digest(line) not in named:
                    yield "report-mismatch", path, "the entry names no such report"
                elif not _signed(line, agents):
                    yield "report-signature", path, "a statement is not the agent's that the run pinned"


def _signed(line: bytes, agents: Mapping[str, AgentKey]) -> bool:
    try:
        parts = dsse.split(line)
        body = body_of(parse_canonical(parts.payload))
        key = agents.get(str(getattr(body, "agent", None) or getattr(body, "target", None)))
        if key is None:
            return False
        if speaks_with(key, parts.keyid):
            dsse.check(parts, {parts.keyid: key.public_key})
    except (LockgateError, ValueError):
        return False
    return True
