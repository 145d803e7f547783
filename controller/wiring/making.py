"""What makes: keys, repositories and people's commits. Short commands that only read import none of it."""

from __future__ import annotations

from pathlib import Path

from controller.adapters.git.create import GitWorkshop
from controller.adapters.git.keys import FileSigner, generate_key
from controller.adapters.git.people import swap, write_commit
from controller.adapters.signers import open_signer
from controller.ports import Signer

__all__ = ["FileSigner", "GitWorkshop", "generate_key", "load_key", "swap", "write_commit"]


def load_key(address: str | Path) -> Signer:
    """The signer at an address (file:, env:, ssh-agent:, a bare path). Raises as `open_signer`."""
    return open_signer(address)
