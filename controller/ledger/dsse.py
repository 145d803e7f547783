"""DSSE envelopes (https://github.com/secure-systems-lab/dsse, v1.0): canonical, with one signature."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pybase64
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from controller.errors import Invalid, Refused
from controller.ledger.canonical import parse
from controller.model.keys import PublicKey, ed25519_holds, key_id, public_key
from controller.ports import Signer

STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
_TEXT = rb'"([ !#-\[\]-~]*)"'
_HEAD = b'{"payload":"'
_TAIL = re.compile(
    rb'","payloadType":%b,"signatures":\[\{"keyid":%b,"sig":"([A-Za-z0-9+/=]*)"\}\]\}' % (_TEXT, _TEXT)
)
_CURVE_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Opened:
    """What a verified envelope holds. `keyid` is the key its one signature was checked with."""

    payload: bytes
    payload_type: str
    keyid: str


@dataclass(frozen=True, slots=True)
class Parts:
    """An envelope taken apart, its form checked, its signature not yet."""

    payload: bytes
    payload_type: str
    keyid: str
    signature: bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, signer: Signer) -> bytes:
    """The canonical bytes of an envelope around `payload`, signed once by `signer`."""
    signature = signer.sign_raw(pae(payload_type, payload))
    return _serialise(payload, payload_type, key_id(signer.public_key), signature)


def split(data: bytes) -> Parts:
    """Take an envelope apart without checking its signature.

    Raises Refused("envelope-malformed") for anything but an envelope with one signature, and
    Refused("not-canonical") when it does not equal its own re-serialisation.
    """
    end = data.find(b'"', len(_HEAD)) if data.startswith(_HEAD) else -1
    plain = _TAIL.fullmatch(data, end) if end > 0 else None
    if plain is not None:
        payload, signed = _decoded(data[len(_HEAD) : end]), _decoded(plain[3])
        if payload is not None and signed is not None:
            return Parts(payload, plain[1].decode("ascii"), plain[2].decode("ascii"), signed)
    try:
        value = json.loads(data)
        (signature,) = value["signatures"]
        parts = Parts(
            base64.b64decode(value["payload"], validate=True),
            str(value["payloadType"]),
            str(signature["keyid"]),
            base64.b64decode(signature["sig"], validate=True),
        )
        if _serialise(parts.payload, parts.payload_type, parts.keyid, parts.signature) == data:
            return parts
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(
            "envelope-malformed",
            f"not a DSSE envelope with one signature ({type(error).__name__})",
            expected="payload, payloadType and one of signatures{keyid, sig}",
        ) from error
    try:
        parse(data)
    except Invalid as error:
        raise Refused("not-canonical", error.what) from error
    raise Refused(
        "not-canonical",
        "the envelope differs from its own re-serialisation",
        expected="RFC 8785 JSON with exactly payload, payloadType and one signature",
    )


def open_envelope(data: bytes, keys: Mapping[str, str]) -> Opened:
    """Check an envelope's form and signature; `keys` maps key ids to OpenSSH public keys.

    Raises Refused("envelope-malformed" | "not-canonical" | "envelope-signature").
    """
    parts = split(data)
    check(parts, keys)
    return Opened(parts.payload, parts.payload_type, parts.keyid)


def check(parts: Parts, keys: Mapping[str, str]) -> None:
    """Check the signature of an envelope taken apart; raises Refused("envelope-signature").

    The key is found by the id in the envelope, and that id must be the key's own, so a key listed under
    another's name verifies nothing.
    """
    openssh = keys.get(parts.keyid)
    if openssh is None or key_id(openssh) != parts.keyid:
        raise Refused(
            "envelope-signature",
            "the envelope is signed by a key that may not sign here",
            got=parts.keyid[:16],
        )
    if not verify_raw(public_key(openssh), parts.signature, pae(parts.payload_type, parts.payload)):
        raise Refused("envelope-signature", "the signature does not fit the payload", got=parts.keyid[:16])


def verify_raw(key: PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether a bare signature (the counterpart of `Signer.sign_raw`) over `data` is good.

    Ed25519; ECDSA with the curve's SHA-2; RSA as PKCS#1 v1.5 with SHA-256 (what SSH agents can make too).
    """
    try:
        if isinstance(key, Ed25519PublicKey):
            return ed25519_holds(key.public_bytes_raw(), signature, data)
        if isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, data, ECDSA(_CURVE_HASHES[key.curve.name]))
        else:
            key.verify(signature, data, PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, KeyError):
        return False
    return True


def _decoded(text: bytes) -> bytes | None:
    """Base64 with its one canonical spelling, or None."""
    try:
        data = pybase64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return data if pybase64.b64encode(data) == text else None


def _serialise(payload: bytes, payload_type: str, keyid: str, signature: bytes) -> bytes:
    text = (
        f'{{"payload":"{base64.b64encode(payload).decode()}","payloadType":{json.dumps(payload_type)},'
        f'"signatures":[{{"keyid":{json.dumps(keyid)},"sig":"{base64.b64encode(signature).decode()}"}}]}}'
    )
    return text.encode("ascii")
