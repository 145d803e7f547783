"""What must hold for a run's in-toto links: they are there, say what the entries say, and are signed by those who
may. With this, `verify` and stock `in-toto-verify` give the same answer about a run that completed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from controller.errors import LockgateError
from controller.ledger import dsse, links
from controller.ledger.canonical import canonical_plain as canonical
from controller.ledger.canonical import digest, parse_canonical
from controller.ledger.speaker import key_at
from controller.model.entry import Approval, Deployed, Entry, Opened, Sealed
from controller.model.keys import key_id
from controller.model.link import SEAL, SUMS, approve_link, deploy_link, link_name
from controller.model.order import Report, body_of
from controller.uses.rules.seen import Seen
from controller.uses.rules.subject import Problem, Subject


def links_hold(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """Links come with the seal, follow from the run's entries and files, and are signed by those who may."""
    detail = subject.entry.detail
    if subject.entry.predicate.run is None:
        return
    entries, files = seen.files.add(subject)
    if isinstance(detail, Approval):
        yield from _approval_holds(seen, subject, detail)
    elif isinstance(detail, Deployed):
        yield from _deployed_holds(seen, subject, detail)
    found = dict(subject.beside("links"))
    if isinstance(detail, Sealed):
        yield from _seal_holds(seen, subject, entries, files, found)
    else:
        for path in found:
            yield "link-mismatch", path, "links come with the seal of their run"


def _approval_holds(seen: Seen, subject: Subject, detail: Approval) -> Iterator[Problem]:
    if detail.link is None:
        return
    try:
        key = seen.files.repo.commit(detail.commit).key
    except LockgateError:
        key = None
    if (
        key is None
        or key_id(key) != detail.key_id
        or not links.holds(approve_link(detail.subject), detail.link, key)
    ):
        yield "link-mismatch", subject.entry.path, f"the link of {detail.principal}'s approval does not hold"


def _deployed_holds(seen: Seen, subject: Subject, detail: Deployed) -> Iterator[Problem]:
    run, pinned, declared = subject.entry.predicate.run or "", seen.pinned(subject), seen.declared(subject)

    @cache
    def reports() -> Mapping[str, bytes]:
        return {digest(line): line for _, data in subject.beside("reports") for line in data.split(b"\n") if line}

    for result in detail.results:
        name, payload = result.target, deploy_link(run, result.manifest_digest or "")
        own = pinned.get(name)
        if own is not None and not own.authority and links.holds(payload, result.link, own.public_key):
            continue
        # A certified key, or one that was declared while the run was open: as the controller judged it then.
        said = _report(reports().get(result.report or ""))
        given = result.link if result.link is not None else said.link if said is not None else None
        if given is None or said is None or result.result != "succeeded":
            holds = False
        else:
            now = declared(name)
            key = key_at(now, name, said.said_at, said.certificate) if now is not None else None
            holds = links.holds(payload, given, key)
        if result.link is not None and not holds:
            yield "link-mismatch", subject.entry.path, f"the link of {name} does not hold"
        elif result.link is None and holds:
            yield "link-missing", subject.entry.path, f"the link that {name} reported is left out"


def _report(line: bytes | None) -> Report | None:
    """What a recorded line reports, if it reads."""
    try:
        body = body_of(parse_canonical(dsse.split(line).payload)) if line is not None else None
    except (LockgateError, ValueError):
        return None
    return body if isinstance(body, Report) else None


def _seal_holds(
    seen: Seen, subject: Subject, entries: list[Entry], files: dict[str, str], found: dict[str, bytes]
) -> Iterator[Problem]:
    folder, keyid = subject.place.folder or "", subject.keyid
    key = subject.commit.key
    keys: dict[str, str] = {keyid: key} if key is not None and key_id(key) == keyid else {}
    yield from seal_links_hold(entries, folder, keyid, keys, files, found)


def seal_links_hold(
    entries: Sequence[Entry],
    folder: str,
    keyid: str,
    keys: Mapping[str, str],
    files: Mapping[str, str],
    found: dict[str, bytes],
) -> Iterator[Problem]:
    """The links of a sealed run, `found` by path, follow from its entries and `files` (path → hex SHA-256, links
    left out), and are signed by the key that sealed it."""
    whole = [entry.predicate.sequence for entry in entries] == list(range(1, len(entries) + 1))
    if not entries or not whole or not isinstance(entries[0].detail, Opened):
        return  # an entry cannot be read, which was found where it stands
    listed = dict(files) | {path: digest(data)[7:] for path, data in found.items()}
    listed.pop(f"{folder}/{SUMS}", None)
    listed.pop(f"{folder}/{link_name(SEAL, keyid)}", None)
    sums = links.sums_of(entries, listed)
    for name, data in links.received(entries).items():
        yield from _same(f"{folder}/{name}", data, found)
    ours = dict(links.step_links(entries, folder, files)) | {SEAL: links.seal_link(entries, folder, files, sums)}
    for step, payload in ours.items():
        path = f"{folder}/{link_name(step, keyid)}"
        envelope = found.pop(path, None)
        if envelope is None:
            yield "link-missing", path, f"the run has no link of the step {step}"
        elif not _signed(envelope, payload, keys):
            yield "link-mismatch", path, "the link is not what the entries say, or not signed by the controller"
    yield from _same(f"{folder}/{SUMS}", sums, found)
    for path in found:
        yield "link-mismatch", path, "no step of the run has this link"


def _same(path: str, expected: bytes, found: dict[str, bytes]) -> Iterator[Problem]:
    data = found.pop(path, None)
    if data is None:
        yield "link-missing", path, "the file that the run's entries call for is not there"
    elif data != expected:
        yield "link-mismatch", path, "the file is not what the run's entries call for"


def _signed(data: bytes, payload: links.Payload, keys: Mapping[str, str]) -> bool:
    try:
        opened = dsse.open_envelope(data, keys)
    except LockgateError:
        return False
    return (opened.payload_type, opened.payload) == (dsse.STATEMENT_PAYLOAD, canonical(payload))
