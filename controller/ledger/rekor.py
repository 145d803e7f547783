"""Entries in a Rekor v2 log: what is submitted for a checkpoint, and offline proof that it is there. Pure.

Formats: rekor-tiles' `hashedrekord` 0.0.2 entries and TransparencyLogEntry, RFC 6962 proofs, signed notes
(https://c2sp.org/signed-note) and checkpoints (https://c2sp.org/tlog-checkpoint).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from controller.errors import Invalid, LockgateError, Refused
from controller.ledger.canonical import canonical
from controller.ledger.log import HASH, decode_base64, leaf_hash, verify_inclusion
from controller.model.keys import PublicKey, ed25519_holds, ed25519ph_holds, public_key

KIND: Final = ("hashedrekord", "0.0.2")
MOST_HASHES: Final = 63
_CURVES: Final = {
    "secp256r1": ("PKIX_ECDSA_P256_SHA_256", "SHA2_256", hashes.SHA256()),
    "secp384r1": ("PKIX_ECDSA_P384_SHA_384", "SHA2_384", hashes.SHA384()),
    "secp521r1": ("PKIX_ECDSA_P521_SHA_512", "SHA2_512", hashes.SHA512()),
}
_RSA_BITS: Final = (2048, 3072, 4096)


@dataclass(frozen=True, slots=True)
class Logged:
    """A log's answer, as it is recorded: the entry's `index` and `body`, the audit path `hashes` up to the root of
    `checkpoint`, the log's own signed note."""

    index: int
    body: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How a key signs for Rekor: the name of key and signature, that of the digest, and the digest."""

    details: str
    digest_name: str
    digest: hashes.HashAlgorithm

    def of(self, data: bytes) -> bytes:
        """The digest of `data`."""
        return hashlib.new(self.digest.name, data).digest()


def algorithm_of(key: PublicKey) -> Algorithm:
    """Raises Invalid("rekor-key-unfit") for keys that Rekor v2 takes no entries from."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Algorithm("PKIX_ED25519_PH", "SHA2_512", hashes.SHA512())
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return Algorithm(f"PKIX_RSA_PKCS1V15_{key.key_size}_SHA256", "SHA2_256", hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return Algorithm(*_CURVES[key.curve.name])
    raise Invalid(
        "rekor-key-unfit",
        "Rekor takes no entries signed by such a key",
        expected="ecdsa P-256, P-384 or P-521, rsa of 2048, 3072 or 4096 bits, or ed25519",
        got=type(key).__name__,
        cure="name another key with --log-key",
    )


def request_of(openssh: str, message: bytes, signature: bytes) -> dict[str, Any]:
    """The body of `POST /api/v2/log/entries`: the digest of `message`, its signature and the key, nothing else."""
    algorithm = algorithm_of(public_key(openssh))
    signed = _signature(openssh, algorithm, signature)
    return {"hashedRekordRequestV002": {"digest": _base64(algorithm.of(message)), "signature": signed}}


def body_of(openssh: str, message: bytes, signature: bytes) -> bytes:
    """The entry that Rekor makes of such a request: the RFC 8785 bytes that are the leaf."""
    algorithm = algorithm_of(public_key(openssh))
    data = {"algorithm": algorithm.digest_name, "digest": _base64(algorithm.of(message))}
    spec = {"hashedRekordV002": {"data": data, "signature": _signature(openssh, algorithm, signature)}}
    return canonical({"apiVersion": KIND[1], "kind": KIND[0], "spec": spec})


def read_answer(data: bytes) -> Logged:
    """A TransparencyLogEntry as Rekor v2 sends it. Raises Refused("rekor-entry-invalid")."""
    try:
        value = json.loads(data)
        proof = value["inclusionProof"]
        return Logged(
            index=int(value.get("logIndex", 0)),
            body=decode_base64(value["canonicalizedBody"]),
            hashes=tuple(decode_base64(item) for item in proof.get("hashes") or ()),
            checkpoint=str(proof["checkpoint"]["envelope"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _refused("an answer that is no log entry with its inclusion proof") from error


def check_logged(
    logged: Logged, message: bytes, submitters: Iterable[str], origin: str, keys: Sequence[str]
) -> int:
    """Prove offline that the log `origin` holds an entry about `message` by one of `submitters` (OpenSSH keys).

    `keys` are the log's pinned PEM keys. Returns the size of the log that the proof leads to. Raises
    Refused("rekor-entry-invalid"), Invalid("rekor-log-key-malformed").
    """
    by = _submitter(logged.body, submitters)
    if by is None:
        raise _refused("an entry under a key that no controller has in Trust")
    openssh, signature = by
    if body_of(openssh, message, signature) != logged.body:
        raise _refused("an entry about something else than this checkpoint")
    if not _holds(public_key(openssh), message, signature):
        raise _refused("an entry whose signature does not hold")
    size, root = open_note(logged.checkpoint, origin, keys)
    if len(logged.hashes) > MOST_HASHES:
        raise _refused("an inclusion proof that is too long")
    try:
        verify_inclusion(logged.index, size, leaf_hash(logged.body), root, logged.hashes)
    except LockgateError as error:
        raise _refused(error.said) from error
    return size


def open_note(text: str, origin: str, keys: Sequence[str]) -> tuple[int, bytes]:
    """Size and root of the checkpoint in a note that one of the log's pinned PEM `keys` signed.

    Witnesses' lines and extension lines are let be. Raises Refused("rekor-entry-invalid"),
    Invalid("rekor-log-key-malformed").
    """
    if not keys:
        raise _refused("no key of this log is pinned")
    head, empty, tail = text.rpartition("\n\n")
    body = (head + "\n").encode()
    try:
        named, number, encoded, *_ = head.split("\n")
        size, root = int(number), decode_base64(encoded)
        lines = [line.split(" ") for line in tail.removesuffix("\n").split("\n")]
        signed = [(name, decode_base64(blob)) for dash, name, blob in lines if dash == "—"]
    except ValueError as error:
        raise _refused("a checkpoint that is no signed note") from error
    if not empty or named != origin or str(size) != number or size < 0 or len(root) != HASH:
        raise _refused(f"the checkpoint of {named[:80]!r} instead of {origin!r}")
    for pem in keys:
        key = log_key(pem)
        start = _note_id(origin, key)
        if any(name == origin and blob[:4] == start and _note_holds(key, blob[4:], body) for name, blob in signed):
            return size, root
    raise _refused("a checkpoint that no pinned key of the log signed")


LogKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


def log_key(pem: str) -> LogKey:
    """A log's pinned key: Ed25519 or ECDSA P-256. Raises Invalid("rekor-log-key-malformed")."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    raise Invalid(
        "rekor-log-key-malformed",
        "a transparency log's key does not read",
        where="trust/trust.yaml transparencyLogs",
        expected="a PEM public key an item, Ed25519 or ECDSA P-256",
        got=type(key).__name__ if key is not None else "no such key",
    )


def _note_id(origin: str, key: LogKey) -> bytes:
    """Four bytes: Ed25519 as signed-note says, ECDSA by the key alone, as Rekor and the note format have it."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return hashlib.sha256(origin.encode() + b"\n\x01" + key.public_bytes_raw()).digest()[:4]
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()[:4]


def _note_holds(key: LogKey, signature: bytes, body: bytes) -> bool:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ed25519_holds(key.public_bytes_raw(), signature, body)
    try:
        key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _submitter(body: bytes, submitters: Iterable[str]) -> tuple[str, bytes] | None:
    """Which of the keys an entry is by, and its signature; None where it is by none of them."""
    try:
        value = json.loads(body)
        signed = value["spec"]["hashedRekordV002"]["signature"]
        raw, signature = signed["verifier"]["publicKey"]["rawBytes"], decode_base64(signed["content"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        kind, version = KIND
        raise _refused(f"an entry that is no {kind} {version} under a public key") from error
    return next(((key, signature) for key in submitters if _base64(_der(key)) == raw), None)


def _holds(key: PublicKey, message: bytes, signature: bytes) -> bool:
    algorithm = algorithm_of(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ed25519ph_holds(key.public_bytes_raw(), signature, message)
    digest, hashed = algorithm.of(message), utils.Prehashed(algorithm.digest)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, digest, padding.PKCS1v15(), hashed)
        else:
            key.verify(signature, digest, ec.ECDSA(hashed))
    except InvalidSignature:
        return False
    return True


def _signature(openssh: str, algorithm: Algorithm, signature: bytes) -> dict[str, Any]:
    verifier = {"keyDetails": algorithm.details, "publicKey": {"rawBytes": _base64(_der(openssh))}}
    return {"content": _base64(signature), "verifier": verifier}


def _der(openssh: str) -> bytes:
    return public_key(openssh).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _refused(got: str) -> Refused:
    return Refused(
        "rekor-entry-invalid",
        "the transparency log's entry does not hold",
        expected="an entry about this checkpoint, in the log under its pinned key",
        got=got,
    )
