"""What a registry answers, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ManifestAnswer:
    """A manifest or index as served. `digest` is sha256 over `body`, never the server's word."""

    digest: str
    media_type: str
    body: bytes
