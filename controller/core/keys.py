"""OpenSSH public keys as identities: one spelling a key, and the key id that DSSE envelopes name it by.

Formats: RFC 4253 section 6.6 (rsa), RFC 5656 (ecdsa), RFC 8709 (ed25519), PROTOCOL.u2f (sk keys).
"""

from __future__ import annotations

import base64
from functools import lru_cache

from controller.errors import Invalid
from controller.model.sshwire import Reader, magnitude, string

_FIELDS = {
    "ssh-ed25519": 2,
    "ssh-rsa": 3,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}


def _malformed(key: str, why: str) -> Invalid:
    return Invalid(
        "key-malformed",
        "this is no OpenSSH public key",
        where=key[:80],
        expected="algorithm and base64, as in a .pub file",
        got=why,
        cure="copy the line from the .pub file",
    )


@lru_cache(maxsize=4096)
def normal_key(key: str) -> str:
    """One spelling for one key: algorithm and canonical base64, without comment.

    Two lines that hold the same key material become equal, whatever their comments, base64 padding bits or
    leading zeros. Raises Invalid("key-malformed").
    """
    algorithm, _, rest = key.strip().partition(" ")
    words = rest.split()
    wanted = _FIELDS.get(algorithm)
    if wanted is None or not words:
        raise _malformed(key, f"algorithm {algorithm[:40]!r}")
    try:
        fields = Reader(base64.b64decode(words[0], validate=True), ValueError).strings()
    except ValueError as error:
        raise _malformed(key, "data that does not decode") from error
    if len(fields) != wanted or fields[0] != algorithm.encode():
        raise _malformed(key, "data of another algorithm")
    if algorithm == "ssh-rsa":
        fields[1:] = [magnitude(int.from_bytes(field, "big")) for field in fields[1:]]
    elif (algorithm.endswith("ed25519") or "ed25519@" in algorithm) and len(fields[1]) != 32:
        raise _malformed(key, f"{len(fields[1])} bytes of key")
    blob = b"".join(map(string, fields))
    return f"{algorithm} {base64.b64encode(blob).decode()}"


def key_id(key: str) -> str:
    """The id of a key in its one spelling, see `model.keys.key_id`.

    Raises Invalid("key-malformed") or Invalid("key-unusable").
    """
    # Cryptography is slow to load, and most documents name keys that need none of it to be checked.
    from controller.model import keys as model_keys

    return model_keys.key_id(normal_key(key))
