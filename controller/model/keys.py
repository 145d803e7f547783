"""Public keys by name: the OpenSSH form people publish, and the key id that envelopes carry."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from nacl.bindings import (
    crypto_sign_BYTES,
    crypto_sign_ed25519ph_final_verify,
    crypto_sign_ed25519ph_state,
    crypto_sign_ed25519ph_update,
    crypto_sign_open,
    crypto_sign_PUBLICKEYBYTES,
)
from nacl.exceptions import BadSignatureError

from controller.errors import Invalid

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey
_CURVES = {
    "secp256r1": "ecdsa-sha2-nistp256",
    "secp384r1": "ecdsa-sha2-nistp384",
    "secp521r1": "ecdsa-sha2-nistp521",
}


def ed25519_holds(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether an Ed25519 signature (RFC 8032) by the raw public `key` over `data` is good.

    By libsodium, which takes half of OpenSSL's time and also refuses keys of small order.
    """
    if len(signature) != crypto_sign_BYTES or len(key) != crypto_sign_PUBLICKEYBYTES:
        return False
    try:
        crypto_sign_open(signature + data, key)
    except BadSignatureError:
        return False
    return True


def ed25519ph_holds(key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether an Ed25519ph signature (RFC 8032, no context) by the raw public `key` over `data` is good."""
    if len(signature) != crypto_sign_BYTES or len(key) != crypto_sign_PUBLICKEYBYTES:
        return False
    state = crypto_sign_ed25519ph_state()
    crypto_sign_ed25519ph_update(state, data)
    try:
        return bool(crypto_sign_ed25519ph_final_verify(state, signature, key))
    except BadSignatureError:
        return False


@lru_cache(maxsize=4096)
def public_key(openssh: str) -> PublicKey:
    """The key in an OpenSSH public key line ("ssh-ed25519 AAAA…"); raises Invalid("key-unusable")."""
    try:
        key = load_ssh_public_key(openssh.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("key-unusable", f"not a usable OpenSSH public key ({error})", got=openssh[:40]) from error
    if isinstance(key, (Ed25519PublicKey, EllipticCurvePublicKey, RSAPublicKey)):
        return key
    raise Invalid("key-unusable", "the key type is not supported", expected="ed25519, ecdsa or rsa")


def _wire_id(openssh: str) -> str:
    try:
        return hashlib.sha256(base64.b64decode(openssh.split()[1], validate=True)).hexdigest()
    except (IndexError, ValueError) as error:
        raise Invalid("key-unusable", f"not a usable OpenSSH public key ({error})", got=openssh[:40]) from error


@lru_cache(maxsize=4096)
def key_id(openssh: str) -> str:
    """The securesystemslib key id (64 hex digits) of an OpenSSH public key.

    sha256 over the OLPC canonical JSON of {keytype, keyval, scheme}, as in TUF and in-toto metadata, so
    that stock tools find our keys. Security keys (sk-*) cannot sign envelopes and have no such id; theirs is the
    sha256 of the SSH wire form. Raises Invalid("key-unusable").
    """
    if openssh.startswith("sk-"):
        return _wire_id(openssh)
    key = public_key(openssh)
    if isinstance(key, Ed25519PublicKey):
        kind = scheme = "ed25519"
        public = key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    else:
        public = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
        if isinstance(key, RSAPublicKey):
            kind, scheme = "rsa", "rsa-pkcs1v15-sha256"
        else:
            kind, scheme = "ecdsa", _CURVES.get(key.curve.name, "")
            if not scheme:
                raise Invalid("key-unusable", f"curve {key.curve.name} is not supported")
    # OLPC canonical JSON escapes only quotes and backslashes; line breaks of a PEM stay as they are.
    text = f'{{"keytype":"{kind}","keyval":{{"public":"{public}"}},"scheme":"{scheme}"}}'
    return hashlib.sha256(text.encode("ascii")).hexdigest()
