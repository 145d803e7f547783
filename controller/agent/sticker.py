"""The version sticker: `lockgate.version.json` on a target says what was put there, by which order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import AwareDatetime, Field, ValidationError

from controller.agent.files import write_atomic
from controller.errors import Invalid
from controller.ledger.canonical import canonical
from controller.model.order import Digest, Order, Wire

NAME = "lockgate.version.json"


class Sticker(Wire):
    """What runs on this target: the release, its digests, and the order, artifacts and evidence of it."""

    release: str
    manifest_digest: Digest
    digests: dict[str, Digest]
    artifacts: dict[str, Digest] = Field(default_factory=dict)
    run: str
    order: str
    evidence_commit: str
    at: AwareDatetime


def sticker_for(order: Order, at: AwareDatetime) -> Sticker:
    """The sticker of a target on which `order` was carried out at `at`."""
    return Sticker(
        release=order.release,
        manifest_digest=order.manifest_digest,
        digests={name: component.digest for name, component in order.components.items()},
        artifacts=dict(order.artifacts),
        run=order.run,
        order=order.id,
        evidence_commit=order.evidence_commit,
        at=at,
    )


def write_sticker(directory: Path, sticker: Sticker) -> str:
    """Write atomically and durably; returns "sha256:…" over the file's bytes.

    A sticker of the same order is kept as it is, so that a resumed order does not change its time.
    """
    try:
        present, digest = read_sticker(directory)
    except Invalid:
        present = digest = None
    if present is not None and digest is not None and present.order == sticker.order:
        return digest
    data = canonical(sticker.plain()) + b"\n"
    write_atomic(directory / NAME, data)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read_sticker(directory: Path) -> tuple[Sticker | None, str | None]:
    """The sticker and the digest of its bytes; (None, None) when there is none.

    Raises Invalid("sticker-invalid") when the file is not a sticker: somebody edited it.
    """
    path = directory / NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None, None
    try:
        sticker = Sticker.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise Invalid(
            "sticker-invalid",
            "the version sticker is not readable",
            where=str(path),
            cure="deploy again; the sticker is written anew",
        ) from error
    return sticker, "sha256:" + hashlib.sha256(data).hexdigest()
