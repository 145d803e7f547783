"""Signers by address: `file:PATH` or a bare path, `env:NAME`, `ssh-agent:WHICH`, `pkcs11:URI`.

Whatever holds the private key, the Signer that comes back makes the same signatures: SSHSIG for commits and trust
documents, bare ones for DSSE envelopes and checkpoints. No address holds a secret, so addresses may be logged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from controller.adapters.git.keys import FileSigner, KeySigner, private_key
from controller.adapters.signers.certified import CertifiedSigner, signing_now
from controller.adapters.signers.passphrase import passphrase_from
from controller.adapters.signers.sshagent import AgentSigner
from controller.errors import Invalid
from controller.ports import Signer

__all__ = ["SCHEMES", "CertifiedSigner", "open_signer", "signing_now"]

SCHEMES = ("file", "env", "ssh-agent", "pkcs11")


def open_signer(address: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Signer:
    """The signer at an address; a path without a scheme is a file.

    `environ` (by default this process's) holds env: keys, LOCKGATE_KEY_PASSPHRASE and SSH_AUTH_SOCK. Raises
    Refused("key-permissions"), Invalid("key-unreadable" | "key-unusable" | "key-locked" | "key-not-in-agent" |
    "signer-scheme-unknown"), Unavailable("ssh-agent-unreachable"), and for tokens as
    `TokenSigner`.
    """
    known = os.environ if environ is None else environ
    text = os.fspath(address)
    if "\n" in text or "PRIVATE KEY" in text:
        # Nothing of it is repeated: it may be the secret itself.
        raise Invalid(
            "key-unreadable",
            "a key is named by its address, not by its text",
            expected="a path, " + ", ".join(f"{name}:…" for name in SCHEMES),
            got="text of several lines",
            cure="put the key's text into a file of mode 0600 or an environment variable, and name that",
        )
    scheme, colon, rest = text.partition(":")
    named = scheme == "pkcs11"  # never a path, and longer than a file's name may be
    if not colon or "/" in scheme or "." in scheme or (not named and Path(text).exists()):
        return FileSigner(text, passphrase_from(known))
    if scheme == "file":
        return FileSigner(rest.removeprefix("//") or ".", passphrase_from(known))
    if scheme == "env":
        return _from_environment(rest, known)
    if scheme == "ssh-agent":
        return AgentSigner(known.get("SSH_AUTH_SOCK", ""), rest)
    if scheme == "pkcs11":
        from controller.adapters.signers.pkcs11 import TokenSigner

        return TokenSigner(rest, known)
    raise Invalid(
        "signer-scheme-unknown",
        "there is no such kind of signer",
        where=f"{scheme}:",
        expected="a path, " + ", ".join(f"{name}:…" for name in SCHEMES),
        got=f"{scheme}:",
        cure="name a key file, an environment variable that holds a key, or a key of ssh-agent or of a token",
    )


def _from_environment(name: str, environ: Mapping[str, str]) -> Signer:
    where = f"env:{name}"
    text = environ.get(name, "").strip()
    if not text:
        raise Invalid(
            "key-unreadable",
            "the environment holds no private key of this name",
            where=where,
            expected="the text of a private key file",
            got="nothing",
            cure=f"set {name} to the key's text, its line breaks kept",
        )
    if "\n" not in text:
        text = text.replace("\\n", "\n")  # how many secret stores hand out what spans lines
    return KeySigner(private_key(text.encode("utf-8", "replace") + b"\n", where, passphrase_from(environ)))
