"""Certificates of registries: which authorities count is the environment's word, and what is wrong is said."""

from __future__ import annotations

import os
import ssl

import httpx

from controller.errors import Unavailable, UsageError

CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where httpx looks for authorities instead of those it brings along."""


def authorities() -> ssl.SSLContext:
    """What connections are checked with. Raises UsageError("ca-unreadable") when the authorities that were named
    cannot be read."""
    try:
        return httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        named = [f"{name}={os.environ[name]}" for name in CA_VARIABLES if os.environ.get(name)]
        raise UsageError(
            "ca-unreadable",
            "the certificate authorities cannot be read",
            where=", ".join(named) or "the authorities of the installation",
            expected="a file of PEM certificates, or a folder of them hashed by `openssl rehash`",
            got=getattr(error, "strerror", None) or type(error).__name__,
            cure="correct the variable, or unset it",
        ) from error


def untrusted(error: BaseException, where: str) -> Unavailable | None:
    """What to say when a connection failed because of the other side's certificate; None for other failures."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ssl.SSLCertVerificationError):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        return None
    return Unavailable(
        "registry-untrusted",
        "the registry's certificate is not trusted",
        where=where,
        expected="a valid certificate for this host by an authority that counts here",
        got=seen.verify_message or seen.reason or "another one",
        cure="name your authority's file in SSL_CERT_FILE, or correct the host or its certificate",
    )
