"""The classic in-toto links of a run, so that stock `in-toto-verify` can check it against the owners' layout.

What the links say follows from the run's entries and files alone: whoever appends the seal signs them, whoever
verifies it makes them again and compares.
"""

from __future__ import annotations

import base64
import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from controller.errors import LockgateError
from controller.ledger import dsse
from controller.ledger.canonical import canonical_plain as canonical
from controller.ledger.canonical import digest
from controller.model import link as links
from controller.model.entry import Approval, Deployed, Entry, Gates, Inputs, Opened, Ordered, Sealed, Verified
from controller.model.keys import key_id
from controller.model.link import LinkSignature
from controller.ports import Signer

Payload = Mapping[str, Any]


def can_link(openssh: str) -> bool:
    """Whether people sign links with such a key: Ed25519 alone, which every in-toto reads."""
    return openssh.startswith("ssh-ed25519 ")


def sign_link(payload: Payload, signer: Signer) -> LinkSignature:
    """A signature over a link, as it travels."""
    raw = signer.sign_raw(dsse.pae(dsse.STATEMENT_PAYLOAD, canonical(payload)))
    return LinkSignature(keyid=key_id(signer.public_key), sig=base64.b64encode(raw).decode())


def envelope_of(payload: Payload, signature: LinkSignature) -> bytes:
    """The link's file: the DSSE envelope that the signature makes of a payload."""
    value = {
        "payload": base64.b64encode(canonical(payload)).decode(),
        "payloadType": dsse.STATEMENT_PAYLOAD,
        "signatures": [{"keyid": signature.keyid, "sig": signature.sig}],
    }
    return canonical(value)


def holds(payload: Payload, signature: LinkSignature | None, key: str | None) -> bool:
    """Whether `key` (OpenSSH) signed exactly this link."""
    if signature is None or key is None:
        return False
    try:
        dsse.open_envelope(envelope_of(payload, signature), {signature.keyid: key})
    except LockgateError:
        return False
    return True


def received(entries: Sequence[Entry]) -> dict[str, bytes]:
    """The links that others signed, by name below the run's folder: approvers, and agents that deployed.

    An agent that failed, or runs something else, has no link here: its report is on record all the same.
    """
    run = entries[0].predicate.run or ""
    found: dict[str, bytes] = {}
    for entry in entries:
        detail = entry.detail
        if isinstance(detail, Approval) and detail.counted and detail.link is not None:
            payload = links.approve_link(detail.subject)
            found[links.link_name(links.APPROVE, detail.link.keyid)] = envelope_of(payload, detail.link)
        elif isinstance(detail, Deployed):
            for result in detail.results:
                if result.result == "succeeded" and result.link is not None and result.manifest_digest is not None:
                    payload = links.deploy_link(run, result.manifest_digest)
                    found[links.link_name(links.DEPLOY, result.link.keyid)] = envelope_of(payload, result.link)
    return found


def seal_files(
    entries: Sequence[Entry], folder: str, files: Mapping[str, str], signer: Signer
) -> dict[str, bytes]:
    """Everything that sealing a run adds below its folder but the entry, by path: links, and the checksums.

    `entries` are the run's, the sealed one last; `files` the other paths of its folder, that of the sealed entry
    included, to the hex SHA-256 of their bytes.
    """
    keyid = key_id(signer.public_key)
    made = {f"{folder}/{name}": data for name, data in received(entries).items()}
    for step, payload in step_links(entries, folder, files):
        envelope = envelope_of(payload, sign_link(payload, signer))
        made[f"{folder}/{links.link_name(step, keyid)}"] = envelope
    listed = {**files, **{path: digest(data)[7:] for path, data in made.items()}}
    sums = sums_of(entries, listed)
    made[f"{folder}/{links.SUMS}"] = sums
    payload = seal_link(entries, folder, files, sums)
    made[f"{folder}/{links.link_name(links.SEAL, keyid)}"] = envelope_of(payload, sign_link(payload, signer))
    return made


def step_links(entries: Sequence[Entry], folder: str, files: Mapping[str, str]) -> Iterator[tuple[str, Payload]]:
    """The controller's links but that of the seal, as (step, payload); those of steps not reached are left out.

    A run that did not complete lacks that of its verification, so that no layout accepts it.
    """
    inputs = _inputs(entries)
    if inputs is None:
        return
    said: Inputs = inputs.detail
    opened: Opened = entries[0].detail
    run, manifest = links.run_digest(inputs.predicate.run or ""), said.manifest_digest
    release = f"releases/{opened.release}.yaml"
    pinned = {pin.path: pin.sha256 for pin in opened.pins if pin.path == release}
    images = {f"images/{name}": value for name, value in inputs.predicate.what.digests.items()}
    lock = {said.lock.path: said.lock.sha256}
    yield links.RESOLVE, links.link(links.RESOLVE, pinned, {**lock, "manifest": manifest, **images})

    made = _of(entries, "opened", "inputs")
    read = _below(files, folder, "inputs/*").keys() - _below(files, folder, "inputs/gates-*").keys()
    made |= _below(files, folder, "run.json") | {path: files[path] for path in read}
    words = {"inputs": said.digest, "subject": said.approval_subject, "run": run}
    yield links.INPUTS, links.link(links.INPUTS, {**lock, "manifest": manifest}, {**made, **words})

    decided = _decision(entries)
    if decided is not None and decided.aggregate in ("PASS", "WARN"):
        made = _of(entries, "gates") | _below(files, folder, "inputs/gates-*.json")
        yield links.GATES, links.link(links.GATES, {"inputs": said.digest}, {**made, "decision": decided.decision})
    if any(isinstance(entry.detail, Ordered) for entry in entries):
        # Nothing is ordered before the approvals suffice.
        yield links.APPROVE, links.approve_link(said.approval_subject)
    checked = [entry.detail for entry in entries if isinstance(entry.detail, Verified)]
    if entries[-1].detail.phase == "completed" and checked and checked[-1].ok:
        made = _of(entries, "verified") | _below(files, folder, "reports/*-verify.jsonl")
        taken = {"manifest": manifest, "run": run}
        yield links.VERIFY, links.link(links.VERIFY, taken, {**made, "manifest": manifest})


def sums_of(entries: Sequence[Entry], files: Mapping[str, str]) -> bytes:
    """The list of checksums: every path in `files` and the lock, from the root of a checkout."""
    listed = dict(files)
    inputs = _inputs(entries)
    if inputs is not None:
        listed[inputs.detail.lock.path] = inputs.detail.lock.sha256.removeprefix("sha256:")
    return "".join(f"{value}  {path}\n" for path, value in sorted(listed.items())).encode()


def seal_link(entries: Sequence[Entry], folder: str, files: Mapping[str, str], sums: bytes) -> Payload:
    """The link of the seal: everything the run left, and the root over its entries. It names no other links:
    in-toto leaves them out when it looks at a folder, and the checksums list them."""
    sealed: Sealed = entries[-1].detail
    inputs, decided = _inputs(entries), _decision(entries)
    words = {"run": links.run_digest(entries[-1].predicate.run or "")}
    if inputs is not None:
        words |= {"manifest": inputs.detail.manifest_digest, "subject": inputs.detail.approval_subject}
    if decided is not None:
        words["decision"] = decided.decision
    taken = {path: value for path, value in files.items() if path != entries[-1].path}
    made = {**files, f"{folder}/{links.SUMS}": digest(sums)}
    if sealed.root is not None:
        made["root"] = sealed.root
    return links.link(links.SEAL, {**taken, **words}, made)


def _inputs(entries: Iterable[Entry]) -> Entry | None:
    return next((entry for entry in entries if isinstance(entry.detail, Inputs)), None)


def _decision(entries: Iterable[Entry]) -> Gates | None:
    gates = [entry.detail for entry in entries if isinstance(entry.detail, Gates)]
    return gates[-1] if gates else None


def _of(entries: Iterable[Entry], *kinds: str) -> dict[str, str]:
    return {entry.path: entry.digest for entry in entries if entry.kind in kinds}


def _below(files: Mapping[str, str], folder: str, *patterns: str) -> dict[str, str]:
    start, match = len(folder) + 1, _matching(*patterns)
    return {path: value for path, value in files.items() if match(path, start)}


@cache
def _matching(*patterns: str) -> Callable[[str, int], object]:
    """Whether a path from a place on fits one of the patterns."""
    return re.compile("|".join(map(fnmatch.translate, patterns))).match
