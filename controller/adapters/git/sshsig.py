"""SSH signatures and the keys that make them: the one door to `sshformat` and `keys`."""

from controller.adapters.git.keys import FileSigner, KeySigner, generate_key
from controller.adapters.git.sshformat import (
    BEGIN,
    fingerprint,
    parse_public_key,
    public_text,
    sign,
    sign_raw,
    verify,
    verify_raw,
)

__all__ = [
    "BEGIN",
    "FileSigner",
    "KeySigner",
    "fingerprint",
    "generate_key",
    "parse_public_key",
    "public_text",
    "sign",
    "sign_raw",
    "verify",
    "verify_raw",
]
