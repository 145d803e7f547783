"""Private keys in files, as a Signer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controller.adapters.git import sshformat
from controller.errors import Invalid, Refused


def _load(path: Path) -> sshformat.PrivateKey:
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
    try:
        if b"OPENSSH PRIVATE KEY" in data[:100]:
            key: object = serialization.load_ssh_private_key(data, None)
        else:
            key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(path, "a file that is no such key, or one with a passphrase") from error
    if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return key
    raise _unusable(path, type(key).__name__)


def _unusable(path: Path, got: str) -> Invalid:
    return Invalid(
        "key-unusable",
        "the private key cannot be used",
        where=str(path),
        expected="an ed25519, ecdsa or rsa key in OpenSSH or PKCS#8 form, without a passphrase",
        got=got,
        cure="make one with: ssh-keygen -t ed25519 -N '' -f FILE",
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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._public!r})"


class FileSigner(KeySigner):
    """A Signer over a private key file (OpenSSH or PKCS#8 PEM, no passphrase).

    Raises Refused("key-permissions") when group or others may read the file, Invalid when it holds no usable key.
    """

    __slots__ = ()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(_load(Path(path)))


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
