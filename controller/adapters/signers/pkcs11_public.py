"""The public half of a token's key, from its public key object or its certificate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controller.adapters.git.sshformat import PublicKey, public_text
from controller.errors import Invalid, LockgateError

_CURVES: Final[dict[bytes, ec.EllipticCurve]] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}
_ED25519: Final = frozenset(
    {
        bytes.fromhex("06032b6570"),  # id-Ed25519 (RFC 8410)
        bytes.fromhex("06092b06010401da470f01"),  # the object identifier before it
        b"\x13\x0cedwards25519",  # the curve's name, as PKCS#11 v3.0 section 2.3.6 allows
    }
)


def public_key_of(private: Any, objects: Callable[[Any], Sequence[Any]], where: str) -> str:
    """The OpenSSH text of the public key that belongs to a token's private key.

    `objects` lists the token's objects of a class. The public half has the private key's id, or its label where
    it has no id. Raises Invalid("key-unusable").
    """
    import pkcs11

    for kind, read in (
        (pkcs11.ObjectClass.PUBLIC_KEY, _of_key),
        (pkcs11.ObjectClass.CERTIFICATE, _of_certificate),
    ):
        for one in objects(kind):
            if not _belongs(one, private):
                continue
            try:
                return public_text(read(one))
            except (ValueError, pkcs11.PKCS11Error, LockgateError):
                raise _unusable(where, f"a key of another kind ({private.key_type!r})") from None
    raise _unusable(where, "neither its public key nor its certificate on the token")


def _belongs(one: Any, private: Any) -> bool:
    import pkcs11

    for attribute in (pkcs11.Attribute.ID, pkcs11.Attribute.LABEL):
        mine, its = _value(private, attribute), _value(one, attribute)
        if mine or its:
            return bool(mine == its)
    return False


def _value(one: Any, attribute: Any) -> Any:
    import pkcs11

    try:
        return one[attribute]
    except pkcs11.PKCS11Error:
        return None


def _of_key(public: Any) -> PublicKey:
    import pkcs11

    attribute = pkcs11.Attribute
    if public.key_type == pkcs11.KeyType.RSA:
        exponent, modulus = public[attribute.PUBLIC_EXPONENT], public[attribute.MODULUS]
        return rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    curve, point = bytes(public[attribute.EC_PARAMS]), bytes(public[attribute.EC_POINT])
    # CKA_EC_POINT is a DER OCTET STRING; some modules leave its head out.
    for head in (2, 3):
        if point[:1] == b"\x04" and len(point) > head and point[head - 1] == len(point) - head:
            point = point[head:]
            break
    if curve in _ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    if curve not in _CURVES:
        raise ValueError("an unknown curve")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[curve], point)


def _of_certificate(certificate: Any) -> PublicKey:
    import pkcs11

    key = x509.load_der_x509_certificate(bytes(certificate[pkcs11.Attribute.VALUE])).public_key()
    if isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return key
    raise ValueError("a key of another kind")


def _unusable(where: str, got: str) -> Invalid:
    return Invalid(
        "key-unusable",
        "the token's key cannot be used",
        where=where,
        expected="an ed25519, ecdsa (P-256, P-384, P-521) or rsa key with its public half on the token",
        got=got,
        cure="write the public key, or the certificate, to the token beside the private key, with the same id",
    )
