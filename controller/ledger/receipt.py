"""One-file receipts: that an entry is in the log, for whoever holds the trust root and the entry alone.

The format is https://c2sp.org/tlog-proof (v1): a header, optional extra data, the entry's index, the audit path
and a signed checkpoint, cosignatures included. The extra data is the trust chain, which proves itself from the
pinned genesis, so that no repository is needed to check a receipt.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from controller.errors import Invalid
from controller.ledger.log import (
    HASH,
    Checkpoint,
    decode_base64,
    digest_bytes,
    leaf_hash,
    open_checkpoint,
    read_checkpoint,
    verify_inclusion,
)

HEADER = "c2sp.org/tlog-proof@v1"
MOST_HASHES = 63
MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Receipt:
    """A leaf's `index`, its audit `path` up to the root of `checkpoint` (a signed note, verbatim), and `extra`."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def dumps(self) -> bytes:
        """The file's bytes."""
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(item).decode() for item in self.path]
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint


def read_receipt(data: bytes) -> Receipt:
    """A receipt from its bytes, every line in its one spelling. Raises Invalid("receipt-malformed") and
    Invalid("checkpoint-malformed")."""
    try:
        head, empty, checkpoint = data.partition(b"\n\n")
        if not empty or len(data) > MOST_BYTES:
            raise ValueError("no checkpoint after an empty line")
        header, *lines = head.decode("ascii").split("\n")
        if header != HEADER:
            raise ValueError(f"the first line is not {HEADER}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "))
        word, _, number = lines.pop(0).partition(" ") if lines else ("", "", "")
        if word != "index" or str(int(number)) != number or not 0 <= int(number) < 1 << 63:
            raise ValueError("the index is not in its form")
        path = tuple(decode_base64(line) for line in lines)
        if len(path) > MOST_HASHES or any(len(item) != HASH for item in path):
            raise ValueError("the path is not of SHA-256 hashes")
    except ValueError as error:
        raise Invalid(
            "receipt-malformed",
            f"this is no receipt ({error})",
            expected=f"a {HEADER} file, as `lockgate receipt make` writes it",
        ) from error
    read_checkpoint(checkpoint)
    return Receipt(int(number), path, checkpoint, extra)


def check_receipt(receipt: Receipt, envelope_digest: str, origin: str, keys: Mapping[str, str]) -> Checkpoint:
    """Check that the entry with this digest ("sha256:…") is in the log `origin` that one of `keys` signed.

    Raises Refused("checkpoint-signature") and Refused("log-inconsistent").
    """
    checkpoint = open_checkpoint(receipt.checkpoint, origin, keys)
    leaf = leaf_hash(digest_bytes(envelope_digest))
    verify_inclusion(receipt.index, checkpoint.size, leaf, checkpoint.root, receipt.path)
    return checkpoint
