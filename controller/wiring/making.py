"""What makes: keys, repositories and people's commits. Short commands that only read import none of it."""

from __future__ import annotations

from controller.adapters.git.create import GitWorkshop
from controller.adapters.git.keys import FileSigner, generate_key
from controller.adapters.git.people import swap, write_commit
from controller.adapters.signers import open_signer

__all__ = ["FileSigner", "GitWorkshop", "generate_key", "open_signer", "swap", "write_commit"]
