"""Private keys in files, as a Signer."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from nacl.bindings import (
    crypto_sign_ed25519ph_final_create,
    crypto_sign_ed25519ph_state,
    crypto_sign_ed25519ph_update,
)

from controller.adapters.git import sshformat
from controller.errors import Invalid, Refused

Passphrase = Callable[[str], bytes | None]
"""Asked with where the key is, when it needs one; None when there is nobody to ask."""


def read_private(path: Path) -> bytes:
    """The bytes of a private key file that only its user may read.

    Raises Refused("key-permissions"), Invalid("key-unreadable").
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(1 << 20)
    except OSError as error:
        raise Invalid(
            "key-unreadable",
            "the private key cannot be read",
            where=str(path),
            expected="a readable private key file",
            got=error.strerror or type(error).__name__,
            cure="name the file that holds the key, readable by this user",
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise Refused(
            "key-permissions",
            "the private key is open to other users",
            where=str(path),
            expected="mode 0600",
            got=f"mode {stat.S_IMODE(mode):04o}",
            cure=f"chmod 600 {path}, and replace the key if others may have read it",
        )
    return data


def private_key(data: bytes, where: str, passphrase: Passphrase | None = None) -> sshformat.PrivateKey:
    """The key in OpenSSH or PEM text, decrypted where needed. Raises Invalid("key-unusable" | "key-locked")."""
    try:
        key: object = _decoded(data, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        if not _is_encrypted(data, error):
            raise _unusable(where, "text that is no such key") from error
        secret = passphrase(where) if passphrase is not None else None
        if secret is None:
            raise _locked(where, "none") from error
        try:
            key = _decoded(data, secret)
        except (TypeError, ValueError, UnsupportedAlgorithm) as wrong:
            raise _locked(where, "one that does not open it") from wrong
    if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return key
    raise _unusable(where, type(key).__name__)


def _decoded(data: bytes, secret: bytes | None) -> object:
    if b"OPENSSH PRIVATE KEY" in data[:100]:
        return serialization.load_ssh_private_key(data, secret)
    return serialization.load_pem_private_key(data, secret)


def _is_encrypted(data: bytes, error: Exception) -> bool:
    """Whether a key failed to load for want of its passphrase: the loaders say so in words only."""
    return b"ENCRYPTED" in data[:200] or "password" in str(error).lower() or "encrypted" in str(error).lower()


def _locked(where: str, got: str) -> Invalid:
    return Invalid(
        "key-locked",
        "the private key needs its passphrase",
        where=where,
        expected="the passphrase in LOCKGATE_KEY_PASSPHRASE, or typed on a terminal",
        got=got,
        cure="set LOCKGATE_KEY_PASSPHRASE, or add the key to ssh-agent and name it as ssh-agent:COMMENT",
    )


def _unusable(where: str, got: str) -> Invalid:
    return Invalid(
        "key-unusable",
        "the private key cannot be used",
        where=where,
        expected="an ed25519, ecdsa or rsa key in OpenSSH or PEM form",
        got=got,
        cure="make one with: ssh-keygen -t ed25519 -f FILE; keys on hardware sign through ssh-agent:COMMENT",
    )


class KeySigner:
    """A Signer over a private key held in memory."""

    __slots__ = ("_blob", "_key", "_public")

    def __init__(self, key: sshformat.PrivateKey) -> None:
        self._key = key
        self._blob = sshformat.public_blob(key.public_key())
        self._public = sshformat.public_text(key)

    @property
    def public_key(self) -> str:
        """OpenSSH public key without comment."""
        return self._public

    def sign_raw(self, data: bytes) -> bytes:
        """The bare signature over `data`."""
        return sshformat.sign_raw(self._key, data)

    def sign_ssh(self, data: bytes, namespace: str) -> str:
        """An armored SSHSIG over `data`."""
        return sshformat.sign_with(self._key, self._blob, data, namespace)

    def sign_prehashed(self, data: bytes) -> bytes:
        """The Ed25519ph signature (RFC 8032, no context) over `data`; the bare one of any other key."""
        if not isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self.sign_raw(data)
        state = crypto_sign_ed25519ph_state()
        crypto_sign_ed25519ph_update(state, data)
        both = self._key.private_bytes_raw() + self._key.public_key().public_bytes_raw()
        return bytes(crypto_sign_ed25519ph_final_create(state, both))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._public!r})"


class FileSigner(KeySigner):
    """A Signer over a private key file (OpenSSH or PEM); `passphrase` is asked when it is encrypted.

    Raises Refused("key-permissions") when group or others may read the file, Invalid when it holds no usable key.
    """

    __slots__ = ()

    def __init__(self, path: str | os.PathLike[str], passphrase: Passphrase | None = None) -> None:
        super().__init__(private_key(read_private(Path(path)), str(path), passphrase))


def generate_key(path: str | os.PathLike[str], comment: str = "") -> FileSigner:
    """Make an ed25519 key: OpenSSH private key at `path` (0600), public key at `path`.pub. Never overwrites."""
    target = Path(path)
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Invalid(
            "key-exists",
            "a key is there already",
            where=str(target),
            expected="a path without a file",
            got="a file",
            cure="choose another path, or move the old key away",
        ) from error
    with os.fdopen(fd, "wb") as file:
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    line = f"{sshformat.public_text(key)} {comment}".rstrip() + "\n"
    target.with_name(target.name + ".pub").write_text(line, encoding="utf-8")
    return FileSigner(target)
