"""SSH signatures as OpenSSH makes them (PROTOCOL.sshsig, version 1), checked and made in process.

`verify` accepts what `ssh-keygen -Y verify` accepts and is stricter in four places: nothing may follow the
signature, the reserved field is empty, RSA keys have at least 2048 bits, and security keys must have asserted
user presence.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from controller.errors import Refused
from controller.model.keys import ed25519_holds
from controller.model.sshwire import Reader, magnitude, string

BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
END: Final = b"-----END SSH SIGNATURE-----"
_MAGIC: Final = b"SSHSIG"
_VERSION: Final = b"\x00\x00\x00\x01"
_HASHES: Final = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
_CURVES: Final[dict[bytes, tuple[bytes, ec.EllipticCurve, hashes.HashAlgorithm]]] = {
    b"ecdsa-sha2-nistp256": (b"nistp256", ec.SECP256R1(), hashes.SHA256()),
    b"ecdsa-sha2-nistp384": (b"nistp384", ec.SECP384R1(), hashes.SHA384()),
    b"ecdsa-sha2-nistp521": (b"nistp521", ec.SECP521R1(), hashes.SHA512()),
}
_RSA_HASHES: Final[dict[bytes, hashes.HashAlgorithm]] = {
    b"rsa-sha2-256": hashes.SHA256(),
    b"rsa-sha2-512": hashes.SHA512(),
}
_SK_ED25519: Final = b"sk-ssh-ed25519@openssh.com"
_ED25519_SIGNATURE: Final = 64
_ED25519_BLOB: Final = len(b"ssh-ed25519") + _ED25519_SIGNATURE + 8
"""Bytes of a signature, and of the structure around it: two lengths, the algorithm's name, the signature."""
_MIN_RSA_BITS: Final = 2048
_USER_PRESENT: Final = 0x01
_ARMOR = re.compile(rb"\s*" + re.escape(BEGIN) + rb"\r?\n([A-Za-z0-9+/=\s]+?)\r?\n" + re.escape(END) + rb"\s*")
_FIRST_LINE: Final = BEGIN + b"\n"
_LAST_LINE: Final = b"\n" + END
_WHITE = re.compile(rb"\s+")

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def invalid(why: str) -> Refused:
    """The one refusal of this module: why a signature or a key does not hold."""
    return Refused(
        "signature-invalid",
        "the signature does not hold",
        expected="an SSH signature by ed25519, ecdsa, rsa-sha2 or sk-ed25519 over these very bytes",
        got=why,
        cure="sign the same bytes again with the key meant",
    )


def _reader(data: bytes) -> Reader:
    return Reader(data, invalid)


def _mpint(value: int) -> bytes:
    return string(magnitude(value))


def _signed_blob(data: bytes, namespace: bytes, algorithm: bytes) -> bytes:
    digest = _HASHES[algorithm](data).digest()
    return _MAGIC + string(namespace) + string(b"") + string(algorithm) + string(digest)


@lru_cache(maxsize=1024)
def _load_key(blob: bytes) -> tuple[bytes, PublicKey, bytes]:
    """(key type, key, security-key application) of a public key blob."""
    fields = _reader(blob)
    kind = fields.string()
    application = b""
    key: PublicKey
    try:
        if kind == b"ssh-ed25519":
            key = ed25519.Ed25519PublicKey.from_public_bytes(fields.string())
        elif kind == _SK_ED25519:
            key = ed25519.Ed25519PublicKey.from_public_bytes(fields.string())
            application = fields.string()
        elif kind in _CURVES:
            name, curve, _ = _CURVES[kind]
            if fields.string() != name:
                raise invalid("a curve that differs from the key type")
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, fields.string())
        elif kind == b"ssh-rsa":
            exponent, modulus = fields.mpint(), fields.mpint()
            if modulus.bit_length() < _MIN_RSA_BITS:
                raise invalid(f"an RSA key of {modulus.bit_length()} bits")
            key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        else:
            raise invalid(f"key type {kind[:40].decode('ascii', 'replace')}")
    except ValueError as error:
        raise invalid("a public key that is no key") from error
    fields.end()
    return kind, key, application


@lru_cache(maxsize=1024)
def _public_text(blob: bytes) -> str:
    return f"{_load_key(blob)[0].decode()} {base64.b64encode(blob).decode()}"


def parse_public_key(text: str) -> str:
    """An OpenSSH public key line normalised to "type base64" without comment. Raises Refused."""
    fields = text.split()
    if len(fields) < 2:
        raise invalid("a public key line without a key")
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except ValueError as error:
        raise invalid("a public key that is not base64") from error
    public = _public_text(blob)
    if public.split()[0] != fields[0]:
        raise invalid("a key type that differs from the key")
    return public


def fingerprint(public_key: str) -> str:
    """ "SHA256:…" as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _check(blob: bytes, signature: bytes, signed: bytes) -> None:
    kind, key, application = _load_key(blob)
    fields = _reader(signature)
    algorithm, raw = fields.string(), fields.string()
    try:
        if kind == _SK_ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
            flags, counter = fields.take(1), fields.take(4)
            _same(algorithm, kind)
            if not flags[0] & _USER_PRESENT:
                raise invalid("a security key that nobody touched")
            hashed = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(signed).digest()
            _ed25519(key, raw, hashed)
        elif isinstance(key, ed25519.Ed25519PublicKey):
            _same(algorithm, kind)
            _ed25519(key, raw, signed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            _same(algorithm, kind)
            numbers = _reader(raw)
            r, s = numbers.mpint(), numbers.mpint()
            numbers.end()
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(_CURVES[kind][2]))
        else:
            if algorithm not in _RSA_HASHES:
                raise invalid(f"signature algorithm {algorithm[:40].decode('ascii', 'replace')}")
            width = (key.key_size + 7) // 8
            key.verify(raw.rjust(width, b"\0"), signed, padding.PKCS1v15(), _RSA_HASHES[algorithm])
    except InvalidSignature as error:
        raise invalid("other bytes than were signed, or another key") from error
    fields.end()


def _ed25519(key: ed25519.Ed25519PublicKey, signature: bytes, data: bytes) -> None:
    if not ed25519_holds(key.public_bytes_raw(), signature, data):
        raise InvalidSignature


def _same(algorithm: bytes, kind: bytes) -> None:
    if algorithm != kind:
        raise invalid("a signature algorithm that differs from the key type")


def dearmor(armored: str | bytes) -> bytes:
    """The binary signature inside the armor. Raises Refused("signature-invalid")."""
    text = armored.encode("utf-8", "surrogateescape") if isinstance(armored, str) else armored
    if text.startswith(_FIRST_LINE) and text.rstrip(b"\n").endswith(_LAST_LINE):
        # What ssh-keygen writes, at a third of the price; anything else goes the long way, to the same answer.
        inner = text.rstrip(b"\n")[len(_FIRST_LINE) : -len(_LAST_LINE)]
        with suppress(binascii.Error):
            return base64.b64decode(inner.replace(b"\n", b""), validate=True)
    match = _ARMOR.fullmatch(text)
    if match is None:
        raise invalid("no SSH signature armor")
    try:
        return base64.b64decode(_WHITE.sub(b"", match[1]), validate=True)
    except binascii.Error as error:
        raise invalid("armor that is not base64") from error


def armor(blob: bytes) -> str:
    """A binary signature in the armor that ssh-keygen writes (70 columns)."""
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]
    return "\n".join([BEGIN.decode(), *lines, END.decode(), ""])


def verify(armored: str | bytes, data: bytes, namespace: str) -> str:
    """The public key ("ssh-ed25519 AAAA…") whose signature over `data` in `namespace` this is.

    Raises Refused("signature-invalid"). Whose key it is, and whether it counts, is for trust to say.
    """
    blob = dearmor(armored)
    if (known := _ed25519_head(blob[:-_ED25519_SIGNATURE], namespace)) is not None:
        # Signatures of one Ed25519 key in one namespace differ in nothing but their last 64 bytes.
        loaded, hashed, public = known
        if not ed25519_holds(loaded, blob[-_ED25519_SIGNATURE:], _signed_blob(data, namespace.encode(), hashed)):
            raise invalid("other bytes than were signed, or another key")
        return public
    fields = _reader(blob)
    if fields.take(len(_MAGIC)) != _MAGIC or fields.take(4) != _VERSION:
        raise invalid("another format or version")
    key, space, reserved, algorithm, signature = (fields.string() for _ in range(5))
    fields.end()
    if not namespace or space != namespace.encode():
        raise invalid(f"namespace {space[:40].decode('utf-8', 'replace')!r} instead of {namespace!r}")
    if reserved:
        raise invalid("a reserved field that is not empty")
    if algorithm not in _HASHES:
        raise invalid(f"hash {algorithm[:40].decode('ascii', 'replace')}")
    _check(key, signature, _signed_blob(data, space, algorithm))
    return _public_text(key)


@lru_cache(maxsize=1024)
def _ed25519_head(head: bytes, namespace: str) -> tuple[bytes, bytes, str] | None:
    """(raw key, hash, OpenSSH text) when `head` and 64 more bytes are a well-formed Ed25519 signature in the
    namespace; None for everything else, which is read field by field."""
    for algorithm in _HASHES:
        ending = (
            string(namespace.encode())
            + string(b"")
            + string(algorithm)
            + _ED25519_BLOB.to_bytes(4, "big")
            + string(b"ssh-ed25519")
            + _ED25519_SIGNATURE.to_bytes(4, "big")
        )
        if not namespace or not head.startswith(_MAGIC + _VERSION) or not head.endswith(ending):
            continue
        middle = _reader(head[len(_MAGIC + _VERSION) : -len(ending)])
        try:
            key = middle.string()
            middle.end()
            kind, loaded, _ = _load_key(key)
        except Refused:
            return None
        if kind == b"ssh-ed25519" and isinstance(loaded, ed25519.Ed25519PublicKey):
            return loaded.public_bytes_raw(), algorithm, _public_text(key)
    return None


def public_blob(key: PublicKey) -> bytes:
    """A public key in SSH wire format."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return string(b"ssh-ed25519") + string(key.public_bytes_raw())
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return string(b"ssh-rsa") + _mpint(numbers.e) + _mpint(numbers.n)
    kind, name = _curve_of(key.curve)
    point = key.public_numbers()
    width = (key.curve.key_size + 7) // 8
    encoded = b"\x04" + point.x.to_bytes(width, "big") + point.y.to_bytes(width, "big")
    return string(kind) + string(name) + string(encoded)


def _curve_of(curve: ec.EllipticCurve) -> tuple[bytes, bytes]:
    for kind, (name, known, _) in _CURVES.items():
        if known.name == curve.name:
            return kind, name
    raise invalid(f"curve {curve.name}")


def public_text(key: PrivateKey | PublicKey) -> str:
    """The OpenSSH public key line of a key, without comment."""
    public = key if isinstance(key, PublicKey) else key.public_key()
    return _public_text(public_blob(public))


def sign(key: PrivateKey, data: bytes, namespace: str) -> str:
    """An armored SSHSIG by `key` over `data` (sha512), as `ssh-keygen -Y sign -n namespace` makes it."""
    return sign_with(key, public_blob(key.public_key()), data, namespace)


def sign_with(key: PrivateKey, public: bytes, data: bytes, namespace: str) -> str:
    """`sign` for a caller that holds the public blob already (saves encoding it for each signature)."""

    def signed(message: bytes) -> bytes:
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return string(b"ssh-ed25519") + string(key.sign(message))
        if isinstance(key, rsa.RSAPrivateKey):
            return string(b"rsa-sha2-512") + string(key.sign(message, padding.PKCS1v15(), hashes.SHA512()))
        kind, _ = _curve_of(key.curve)
        return ecdsa_blob(kind, *decode_dss_signature(key.sign(message, ec.ECDSA(_CURVES[kind][2]))))

    return sign_by(signed, public, data, namespace)


def sign_by(signed: Callable[[bytes], bytes], public: bytes, data: bytes, namespace: str) -> str:
    """`sign` by whatever holds the key: `signed` gives the SSH signature (algorithm, bytes) over its argument."""
    space = namespace.encode()
    signature = signed(_signed_blob(data, space, b"sha512"))
    body = string(public) + string(space) + string(b"") + string(b"sha512") + string(signature)
    return armor(_MAGIC + _VERSION + body)


def ecdsa_blob(kind: bytes, r: int, s: int) -> bytes:
    """The SSH signature of an ECDSA key of this kind (RFC 5656 section 3.1.2)."""
    return string(kind) + string(_mpint(r) + _mpint(s))


def sign_raw(key: PrivateKey, data: bytes) -> bytes:
    """The bare signature over `data`: Ed25519 as is, ECDSA in DER with the curve's hash, RSA PKCS#1 SHA-256."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(_CURVES[_curve_of(key.curve)[0]][2]))


def verify_raw(public_key: str, signature: bytes, data: bytes) -> None:
    """Check a bare signature made by `sign_raw`. Raises Refused("signature-invalid")."""
    blob = base64.b64decode(parse_public_key(public_key).split()[1])
    kind, key, _ = _load_key(blob)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and kind != _SK_ED25519:
            _ed25519(key, signature, data)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(_CURVES[kind][2]))
        else:
            raise invalid("a security key, which makes no bare signatures")
    except InvalidSignature as error:
        raise invalid("other bytes than were signed, or another key") from error
