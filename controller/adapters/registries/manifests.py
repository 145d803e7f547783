"""What both registries hold manifests to: media types, digests recomputed, nothing ambiguous."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from controller.errors import Invalid, Refused, Unavailable
from controller.model.registry import ManifestAnswer

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT: Final = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

MANIFEST_LIMIT: Final = 4 * 1024 * 1024
"""Bytes; the distribution specification asks registries to accept manifests up to this size."""

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)


def is_tag(text: str) -> bool:
    """Whether `text` is a tag by the grammar of the OCI distribution specification."""
    return _TAG.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 digest ("sha256:" and 64 lower-case hex digits)."""
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether `text` is a repository name by the grammar of the OCI distribution specification."""
    return len(text) <= 255 and _NAME.fullmatch(text) is not None


def sha256_digest(data: bytes) -> str:
    """The OCI digest string of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_reference(repository: str, reference: str) -> None:
    """Raises Invalid("reference-invalid") when `reference` is neither a tag nor a sha256 digest."""
    if not is_tag(reference) and not is_digest(reference):
        raise Invalid(
            "reference-invalid",
            "this is neither a tag nor a sha256 digest",
            where=f"repository {repository}",
            expected="a tag of at most 128 characters or sha256:<64 hex digits>",
            got=reference[:140],
            cure="correct the tag or digest in the document",
        )


def not_found(repository: str, reference: str) -> Invalid:
    """The error for a manifest that is not there, told apart by tag and digest."""
    code, what = ("manifest-not-found", "manifest") if is_digest(reference) else ("tag-not-found", "tag")
    return Invalid(
        code,
        f"the repository has no such {what}",
        where=f"repository {repository}",
        expected=reference,
        got="nothing",
        cure=f"push the {what} or correct the reference",
    )


def digest_mismatch(where: str, expected: str, got: str) -> Refused:
    """Bytes are not what their digest says: tampering, or a broken registry or disk."""
    return Refused(
        "digest-mismatch",
        "the bytes do not match their digest",
        where=where,
        expected=expected,
        got=got,
        cure="do not deploy this; find out who changed the content",
    )


def read_manifest(
    body: bytes, content_type: str | None, *, repository: str, reference: str, claimed: str | None = None
) -> ManifestAnswer:
    """A manifest or index from the bytes served, with everything checked that the bytes can show.

    `content_type` is what the transport or descriptor said (None: said nothing), `claimed` a digest the
    server stated beside the bytes. Raises Refused("digest-mismatch") when the bytes are not what was asked
    for or claimed, Refused("manifest-ambiguous") when two readers could understand them differently,
    Invalid("manifest-unsupported") for other kinds of document (Docker schema 1, artifacts of old drafts).
    """
    where = f"{repository}@{reference}" if is_digest(reference) else f"{repository}:{reference}"
    if len(body) > MANIFEST_LIMIT:
        raise too_large(where, MANIFEST_LIMIT)
    digest = sha256_digest(body)
    if is_digest(reference) and reference != digest:
        raise digest_mismatch(where, reference, digest)
    if claimed is not None and claimed != digest:
        raise digest_mismatch(where, claimed[:140], digest)
    return ManifestAnswer(digest=digest, media_type=_media_type(body, content_type, where), body=body)


def too_large(where: str, limit: int) -> Refused:
    """The answer is bigger than any honest one."""
    return Refused(
        "registry-answer-too-large",
        "the registry's answer is larger than allowed",
        where=where,
        expected=f"at most {limit} bytes",
        got="more",
        cure="check what was pushed under this reference",
    )


def parse_json_object(body: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises Invalid("manifest-malformed"); for a key twice, Refused("manifest-ambiguous")."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(pairs, where))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Invalid(
            "manifest-malformed",
            "this is not a JSON object",
            where=where,
            expected="an OCI manifest or index",
            got=f"{len(body)} bytes of something else",
            cure="push the image again",
        )
    return value


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _ambiguous(where, "each key once", "a duplicate key")
    return result


def _media_type(body: bytes, content_type: str | None, where: str) -> str:
    document = parse_json_object(body, where)
    stated = document.get("mediaType")
    served = content_type.partition(";")[0].strip().lower() if content_type else None
    if "manifests" in document and ("layers" in document or "config" in document):
        raise _ambiguous(where, "either manifests or layers", "both")
    if stated is not None and served is not None and stated != served:
        raise _ambiguous(where, f"the Content-Type {served}", f"mediaType {str(stated)[:100]}")
    kind = stated or served or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if kind not in INDEX_TYPES and kind not in MANIFEST_TYPES:
        raise Invalid(
            "manifest-unsupported",
            "this kind of manifest is not supported",
            where=where,
            expected="an OCI or Docker v2 manifest or index",
            got=str(kind)[:100],
            cure="push the image again with a current tool",
        )
    key = "manifests" if kind in INDEX_TYPES else "layers"
    if not isinstance(document.get(key), list):
        raise _ambiguous(where, f"a list of {key} in {kind}", "none")
    return str(kind)


def _ambiguous(where: str, expected: str, got: str) -> Refused:
    return Refused(
        "manifest-ambiguous",
        "the manifest could be read in two ways",
        where=where,
        expected=expected,
        got=got,
        cure="push the image again with a current tool",
    )


def truncated(where: str) -> Unavailable:
    """The body ended before it was complete."""
    return Unavailable(
        "registry-truncated",
        "the registry's answer ended early",
        where=where,
        expected="the whole body",
        got="a connection that closed early",
        cure="try again; check the registry and proxies between",
    )
