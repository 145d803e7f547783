"""A key with its OpenSSH certificate, read again when they are renewed."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from controller.errors import Invalid, LockgateError
from controller.model.sshcert import read_certificate
from controller.ports import Signer


@dataclass(frozen=True, slots=True)
class Certified:
    """A signer and the certificate of its key, as they were at one moment."""

    signer: Signer
    certificate: str


class CertifiedSigner:
    """A Signer whose key an authority certifies for short times.

    `address` is the key's (see `open_signer`), `certificate` the file that the authority renews. Both are looked
    at before each use; renewed ones count as soon as they fit each other, so either may be replaced first.
    Thread-safe. Raises Invalid("certificate-unreadable" | "certificate-key") and as `read_certificate`.
    """

    def __init__(self, address: str | os.PathLike[str], certificate: Path) -> None:
        self._address = address
        self._path = certificate
        self._lock = threading.Lock()
        self._mark = self._stamp()
        self._held = self._load()

    def current(self) -> Certified:
        """The newest pair of key and certificate that fit."""
        with self._lock:
            mark = self._stamp()
            if mark != self._mark:
                # Half renewed: the former pair signs until the other half is there.
                with contextlib.suppress(LockgateError):
                    self._held, self._mark = self._load(), mark
            return self._held

    def _load(self) -> Certified:
        from controller.adapters.signers import open_signer

        try:
            text = self._path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(
                "certificate-unreadable",
                "the certificate cannot be read",
                where=str(self._path),
                expected="the file that ssh-keygen -s wrote",
                got=type(error).__name__,
                cure="name it with --certificate",
            ) from error
        line = " ".join(text.split()[:2])
        signer, certified = open_signer(self._address), read_certificate(line)
        if certified.key != signer.public_key:
            raise Invalid(
                "certificate-key",
                "the certificate is for another key",
                where=str(self._path),
                expected=signer.public_key[:60],
                got=certified.key[:60],
                cure="certify this key: ssh-keygen -s CA -I ID -n AGENT -V +1h KEY.pub",
            )
        return Certified(signer, line)

    def _stamp(self) -> tuple[int, ...]:
        found = []
        for path in (self._path, Path(os.fspath(self._address).removeprefix("file:"))):
            try:
                stat = path.stat()
            except OSError:
                continue
            found += [stat.st_mtime_ns, stat.st_ino, stat.st_size]
        return tuple(found)

    @property
    def public_key(self) -> str:
        """OpenSSH public key without comment."""
        return self.current().signer.public_key

    def sign_raw(self, data: bytes) -> bytes:
        """The bare signature over `data`."""
        return self.current().signer.sign_raw(data)

    def sign_ssh(self, data: bytes, namespace: str) -> str:
        """An armored SSHSIG over `data`."""
        return self.current().signer.sign_ssh(data, namespace)


def signing_now(signer: Signer) -> tuple[Signer, str | None]:
    """What signs one message now: the signer, and the certificate to send along, if its key has one."""
    if isinstance(signer, CertifiedSigner):
        held = signer.current()
        return held.signer, held.certificate
    return signer, None
