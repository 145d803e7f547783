"""OpenSSH certificates: an authority's word that a key is, for a while, somebody's.

Format: OpenSSH PROTOCOL.certkeys, ssh-ed25519-cert-v01@openssh.com. Read strictly: a user certificate with named
principals, an end, and no critical option, since an option that is not understood must not be passed over.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from controller.errors import Invalid, Refused
from controller.model.keys import public_key
from controller.model.sshwire import Reader, bare_key, string

CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com"
MOST_BYTES = 16_384
_USER = 1
_MOST_SECONDS = 253_402_300_799
"""The last second of the year 9999: what OpenSSH calls forever lies far behind it."""
_ECDSA: dict[str, hashes.HashAlgorithm] = {
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}
_RSA: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose signature was checked: the certified key, by whom, for whom, and from when to when."""

    key: str
    authority: str
    serial: int
    identity: str
    principals: tuple[str, ...]
    after: datetime
    before: datetime


def _refuse(code: str, what: str, expected: str, got: str) -> Refused:
    return Refused(
        code,
        what,
        expected=expected,
        got=got,
        cure="have the authority certify the key again: ssh-keygen -s CA -I ID -n AGENT -V +1h KEY.pub",
    )


def _malformed(got: str) -> Refused:
    return _refuse(
        "certificate-malformed",
        "this is no certificate that counts here",
        f"a user certificate, {CERTIFICATE}",
        got,
    )


def _reader(data: bytes) -> Reader:
    return Reader(data, _malformed)


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise _malformed("text that is not ASCII") from error


@lru_cache(maxsize=1024)
def read_certificate(text: str) -> Certificate:
    """The certificate of a line as `ssh-keygen -s` writes it to KEY-cert.pub, its signature checked.

    Raises Refused("certificate-malformed" | "certificate-signature"). Whose authority that is, and whether the
    time and the name fit, is for `certified_key` to say.
    """
    fields = text.split()
    if len(fields) < 2 or fields[0] != CERTIFICATE or len(fields[1]) > MOST_BYTES:
        raise _malformed(fields[0][:60] if fields else "nothing")
    try:
        data = base64.b64decode(fields[1], validate=True)
    except ValueError as error:
        raise _malformed("text that is not base64") from error
    reader = _reader(data)
    if _text(reader.string()) != CERTIFICATE:
        raise _malformed("data of another kind")
    reader.string()  # the nonce
    key = reader.string()
    serial, kind, identity = reader.number(8), reader.number(4), _text(reader.string())
    principals = [_text(name) for name in _reader(reader.string()).strings()]
    after, before = reader.number(8), reader.number(8)
    critical, _extensions, reserved = reader.string(), reader.string(), reader.string()
    authority = reader.string()
    signed = data[: reader.at]
    signature = reader.string()
    reader.end()
    if len(key) != 32 or kind != _USER or critical or reserved:
        raise _malformed("a host's certificate, critical options, or a key of another length")
    if not principals or before > _MOST_SECONDS or after >= before:
        raise _malformed("no principals, or no end")
    by = _openssh(authority)
    _check(by, signature, signed)
    public = string(b"ssh-ed25519") + string(key)
    return Certificate(
        key=f"ssh-ed25519 {base64.b64encode(public).decode()}",
        authority=by,
        serial=serial,
        identity=identity,
        principals=tuple(principals),
        after=datetime.fromtimestamp(after, UTC),
        before=datetime.fromtimestamp(before, UTC),
    )


def certified_key(text: str, authority: str, name: str, at: datetime) -> str:
    """The key that `authority` (an OpenSSH public key) certifies for `name` at `at`.

    Raises as `read_certificate`, and Refused("certificate-authority" | "certificate-principal" |
    "certificate-expired").
    """
    found = read_certificate(text)
    wanted = bare_key(authority)
    if found.authority != wanted:
        raise _refuse(
            "certificate-authority", "another authority certified the key", wanted[:60], found.authority[:60]
        )
    if name not in found.principals:
        raise _refuse(
            "certificate-principal", "the certificate is for another name", name, ", ".join(found.principals)[:200]
        )
    if not found.after <= at < found.before:
        raise _refuse(
            "certificate-expired",
            "the certificate is not valid at that time",
            f"from {found.after.isoformat()} until {found.before.isoformat()}",
            at.isoformat(),
        )
    return found.key


def _openssh(blob: bytes) -> str:
    kind = _text(_reader(blob).string())
    if "-cert-" in kind:
        raise _malformed("an authority that is itself certified")
    return f"{kind} {base64.b64encode(blob).decode()}"


def _check(authority: str, signature: bytes, signed: bytes) -> None:
    fields = _reader(signature)
    algorithm, raw = _text(fields.string()), fields.string()
    fields.end()
    try:
        key = public_key(authority)
    except Invalid as error:
        raise _malformed(f"an authority of kind {authority.split()[0]}") from error
    try:
        if isinstance(key, Ed25519PublicKey) and algorithm == "ssh-ed25519":
            key.verify(raw, signed)
        elif isinstance(key, EllipticCurvePublicKey) and algorithm == authority.split()[0]:
            numbers = _reader(raw)
            r, s = (int.from_bytes(numbers.string(), "big") for _ in range(2))
            numbers.end()
            key.verify(encode_dss_signature(r, s), signed, ECDSA(_ECDSA[algorithm]))
        elif isinstance(key, RSAPublicKey) and algorithm in _RSA and key.key_size >= 2048:
            key.verify(raw, signed, PKCS1v15(), _RSA[algorithm])
        else:
            raise _malformed(f"a signature by {algorithm[:40]}")
    except InvalidSignature as error:
        raise _refuse(
            "certificate-signature",
            "the certificate's signature does not hold",
            "the authority's signature over these very bytes",
            "another",
        ) from error
