"""Entries: a draft of the core becomes signed bytes at a place, and bytes become an entry again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from controller.errors import Invalid, Refused
from controller.ledger import dsse
from controller.ledger.canonical import canonical, decode_plain, digest, encode_plain, is_plain, parse_canonical
from controller.ledger.rules import RULES, newer, unknown_entry
from controller.ledger.statement import STATEMENT_TYPE, WITH_FLOATS, Statement, statement_model
from controller.ledger.written import written_validator
from controller.model.entry import (
    EVENT_KINDS,
    KINDS,
    RUN_KINDS,
    TEST_RESULT,
    Draft,
    Entry,
    LockMade,
    Pin,
    Predicate,
    Wire,
    predicate_type,
)
from controller.ports import Signer

_M = TypeVar("_M", bound=Wire)
_set = object.__setattr__
_FIELDS = tuple(Predicate.model_fields)
_ENTRY_NAME = re.compile(r"/\d+-([a-z-]+)\.dsse\.json$")
_ODD_CHARACTER = re.compile(rb"[\xee-\xf4]")
_SAFE_PATH = re.compile(r"(inputs|reports|logs|links)/[A-Za-z0-9._-]+")
_ARTIFACT = re.compile(r"artifacts/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_TRAILERS = ("Lockgate-Run", "Lockgate-Entry", "Lockgate-Kind", "Lockgate-Result", "Lockgate-Digest")


@dataclass(frozen=True, slots=True)
class Built:
    """A signed entry ready to be committed; `files` are all paths of its commit except derived ones."""

    path: str
    envelope: bytes
    entry: Entry
    message: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands: dense `index` on the branch; in a run, its folder, `sequence` and `previous`
    envelope digest, and the lock it deploys once known."""

    index: int
    folder: str | None = None
    sequence: int | None = None
    previous: str | None = None
    lock: Pin | None = None


def run_id(environment: str, number: int, commit: str) -> str:
    """`<environment>-<n>-<first 8 of the promotion commit>`; n is dense per environment, from 1."""
    return f"{environment}-{number}-{commit[:8]}"


def run_folder(environment: str, opened: datetime, run: str) -> str:
    """The folder of a run, sharded by the day (UTC) it was opened."""
    return f"runs/{environment}/{_day(opened)}/{run}"


def artifact_path(named: str) -> str:
    """Where the artifact of this digest ("sha256:…") stands."""
    value = named.removeprefix("sha256:")
    return f"artifacts/sha256/{value[:2]}/{value}"


def artifact_digest(path: str) -> str | None:
    """The digest that an artifact's path names; None for any other path."""
    found = _ARTIFACT.fullmatch(path)
    return f"sha256:{found[2]}" if found is not None else None


def entry_path(place: Place, kind: str, at: datetime) -> str:
    """The path of an entry: by sequence in its run's folder, or by index among the day's events."""
    if place.folder is not None and place.sequence is not None:
        return f"{place.folder}/{place.sequence:03d}-{kind}.dsse.json"
    return f"events/{_day(at)}/{place.index:06d}-{kind}.dsse.json"


def _day(at: datetime) -> str:
    there = at.astimezone(UTC)
    return f"{there.year:04d}/{there.month:02d}/{there.day:02d}"


def build(draft: Draft, place: Place, signer: Signer) -> Built:
    """Sign a draft at its place and read it back, so that nothing unreadable is ever written.

    Raises Invalid("entry-invalid") for a draft whose detail is not its kind's or whose files lie elsewhere.
    """
    path = entry_path(place, draft.kind, draft.at)
    model = KINDS.get(draft.kind)
    if model is None or not isinstance(draft.detail, model):
        raise Invalid("entry-invalid", f"the detail of a {draft.kind} draft is of another kind", where=path)
    if (draft.kind in RUN_KINDS) != (place.sequence is not None):
        raise Invalid("entry-invalid", f"a {draft.kind} entry stands in no such place", where=path)
    detail = draft.detail.wire()
    predicate: dict[str, Any] = draft.model_dump(
        mode="json", by_alias=True, exclude={"detail", "files"}, exclude_none=True
    )
    predicate |= {"rules": RULES, "index": place.index, "detail": detail}
    if place.sequence is not None:
        predicate["sequence"] = place.sequence
    if place.previous is not None:
        predicate["previous"] = place.previous
    if predicate_type(draft.kind) == TEST_RESULT:
        predicate |= test_result(draft.kind, draft.detail, place.lock)
    named = subjects(draft.what.digests, draft.detail, place.lock)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": descriptors(named or [(path, digest(canonical(detail)))]),
        "predicateType": predicate_type(draft.kind),
        "predicate": predicate,
    }
    payload = canonical(statement)
    envelope = dsse.sign(payload, dsse.STATEMENT_PAYLOAD, signer)
    entry, _ = _typed(payload, digest(envelope), path)
    files = {path: envelope}
    for name, data in draft.files.items():
        name = name.replace("{nnn}", f"{place.sequence or 0:03d}")
        if place.folder is not None and artifact_digest(name) == digest(data):
            files[name] = data
        elif place.folder is not None and _SAFE_PATH.fullmatch(name):
            files[f"{place.folder}/{name}"] = data
        else:
            raise Invalid("entry-invalid", f"{name!r} is no place for a file of an entry", where=path)
    return Built(path, envelope, entry, message_of(entry), files)


def subjects(digests: Mapping[str, str], detail: Wire, lock: Pin | None) -> list[tuple[str, str]]:
    """What the statement is about, as (name, digest): images by name, then the lock.

    Empty for an entry about nothing with a digest; its subject is the entry's path and the digest of its
    canonical detail.
    """
    if isinstance(detail, LockMade):
        return [*sorted(detail.components.items()), (detail.path, detail.sha256)]
    named = sorted(digests.items())
    if lock is not None:
        named.append((lock.path, lock.sha256))
    return named


def descriptors(named: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """in-toto ResourceDescriptors of (name, digest) pairs."""
    return [{"name": name, "digest": {"sha256": value.removeprefix("sha256:")}} for name, value in named]


def test_result(kind: str, detail: Any, lock: Pin | None) -> dict[str, Any]:
    """The members that the vetted test-result predicate v0.1 asks for, from our own detail."""
    configuration = [(lock.path, lock.sha256)] if lock is not None else []
    if kind == "evaluated":
        result = {"passed": "PASSED", "failed": "FAILED", "unknown": "WARNED"}[detail.verdict]
        tests = [(item.name, item.state == "passed", item.state == "failed") for item in detail.criteria]
        configuration.append(("statements", detail.statements))
    else:
        result = "PASSED" if detail.ok else "FAILED"
        tests = [(item.target, item.result == "succeeded", item.result != "succeeded") for item in detail.results]
    return {
        "result": result,
        "configuration": descriptors(configuration),
        "passedTests": [name for name, passed, _ in tests if passed],
        "failedTests": [name for name, _, failed in tests if failed],
    }


def message_of(entry: Entry) -> str:
    """The commit message: a sentence, and the facts as trailers."""
    predicate = entry.predicate
    subject = " ".join(predicate.summary.split()) or f"{predicate.kind} {predicate.index}"
    values = (predicate.run, predicate.index, predicate.kind, " ".join(predicate.result.split()), entry.digest)
    lines = [f"{name}: {value}" for name, value in zip(_TRAILERS, values, strict=True) if value not in (None, "")]
    about = getattr(entry.detail, "run", None) if predicate.run is None else None
    if about:
        # An event that names a run says so where nobody can leave it out: in the signed chain of commits.
        lines.append(f"Lockgate-About: {' '.join(str(about).split())}")
    return f"{subject}\n\n" + "\n".join(lines) + "\n"


def read(envelope: bytes, path: str, keys: Mapping[str, str] | None) -> Entry:
    """An entry from its stored bytes, every field checked strictly.

    With `keys` (key id → OpenSSH key) the signature is checked; None trusts the bytes. Raises
    Refused("envelope-malformed" | "not-canonical" | "envelope-signature" | "rules-unknown") or
    Invalid("entry-invalid").
    """
    return read_parts(split(envelope, keys), digest(envelope), path)[0]


def split(envelope: bytes, keys: Mapping[str, str] | None) -> dsse.Parts:
    """The envelope taken apart and, with `keys`, its signature checked."""
    parts = dsse.split(envelope)
    if keys is not None:
        dsse.check(parts, keys)
    return parts


def read_parts(parts: dsse.Parts, envelope_digest: str, path: str) -> tuple[Entry, Mapping[str, Any]]:
    """The entry in an envelope already taken apart, and the statement it was read from, as it is written."""
    if parts.payload_type != dsse.STATEMENT_PAYLOAD:
        raise Invalid(
            "entry-invalid",
            "the payload is no in-toto statement",
            where=path,
            expected=dsse.STATEMENT_PAYLOAD,
            got=parts.payload_type[:80],
        )
    return _typed(parts.payload, envelope_digest, path)


def _typed(payload: bytes, envelope_digest: str, path: str) -> tuple[Entry, Mapping[str, Any]]:
    statement, value = _well_written(payload, path) or _explained(payload, path)
    typed, predicate = statement.predicate, value["predicate"]
    values = typed.__dict__
    if newer(values["rules"]):
        raise unknown_entry(values["rules"], path)
    fields = {name: values.get(name) for name in _FIELDS}
    fields["detail"] = predicate["detail"]
    if fields["configuration"] is not None:
        fields["configuration"] = tuple(predicate["configuration"])
    entry = instance(
        Entry,
        {
            "predicate": instance(Predicate, fields),
            "detail": typed.detail,
            "digest": envelope_digest,
            "path": path,
            "commit": None,
        },
    )
    return entry, value


def _well_written(payload: bytes, path: str) -> tuple[Statement, dict[str, Any]] | None:
    """The statement, when its path names its kind and its bytes are plainly the written form of its value;
    None when that needs a closer look. Most entries pass here, at a fifth of the cost."""
    named = _ENTRY_NAME.search(path)
    if named is None or named[1] not in KINDS:
        return None
    if not payload.isascii() and _ODD_CHARACTER.search(payload) is not None:
        return None  # keys that Python and ECMAScript may sort differently
    kind = named[1]
    try:
        statement: Statement = written_validator(statement_model(kind)).validate_json(
            payload, by_alias=True, by_name=False
        )
        value = decode_plain(payload)
        predicate = value["predicate"]
        numbers = predicate if kind in WITH_FLOATS else (predicate["why"], predicate["how"])
        plain = is_plain(numbers) and encode_plain(value) == payload
    except (ValueError, TypeError):
        return None
    return (statement, value) if plain else None


def _explained(payload: bytes, path: str) -> tuple[Statement, dict[str, Any]]:
    """The statement, checked step by step, so that what is wrong can be said."""
    try:
        value = parse_canonical(payload)
    except Invalid as error:
        if error.code == "not-canonical":
            raise Refused("not-canonical", "the payload is not RFC 8785 JSON", where=path) from error
        raise Invalid("entry-invalid", error.what, where=path) from error
    predicate = value.get("predicate") if isinstance(value, dict) else None
    if isinstance(predicate, dict) and newer(predicate.get("rules")):
        raise unknown_entry(predicate["rules"], path)  # whatever else it says is not for this program to judge
    kind = predicate.get("kind") if isinstance(predicate, dict) else None
    if not isinstance(predicate, dict) or not isinstance(kind, str) or kind not in KINDS:
        raise Invalid("entry-invalid", "the entry's kind is not known", where=path, got=str(kind)[:40])
    try:
        statement = statement_model(kind).model_validate_json(payload, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Invalid(
            "entry-invalid",
            f"the {kind} entry is not as its schema says: {first['msg']}",
            where=f"{path} at {'.'.join(map(str, first['loc']))}",
        ) from error
    # Strict validation still takes other spellings of a time or of a name; the written form is one.
    if statement.wire() != value:
        raise Invalid("entry-invalid", f"the {kind} entry is not in its written form", where=path)
    return statement, value


def instance(model: type[_M], fields: dict[str, Any]) -> _M:
    """What `model.model_construct(**fields)` makes of all fields of a model, in a tenth of the time; for values
    that come out of validated ones."""
    value = model.__new__(model)
    _set(value, "__dict__", fields)
    _set(value, "__pydantic_fields_set__", set(fields))
    _set(value, "__pydantic_extra__", None)
    _set(value, "__pydantic_private__", None)
    return value


def is_event(kind: str) -> bool:
    """Whether entries of this kind belong to no run."""
    return kind in EVENT_KINDS
