"""The trust chain: from a pinned genesis commit id to the Trust in force, by bytes that prove themselves.

The first link is the genesis commit object itself with the tree objects down to trust/trust.yaml; Git's object
ids chain them to the pinned id. Each further link is the next Trust document with its owners' signatures. Who
holds only a trust root (an agent) needs no clone and believes nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from controller.core.trust import TrustState, VerifySsh, check_successor
from controller.errors import Invalid, Refused
from controller.model.trustroot import TrustRoot

_MOST_LINKS = 10_000


class ChainLink(BaseModel):
    """One link; bytes are base64 in JSON. `commit` and `trees` (root tree, then trust/) only in the first,
    `signatures` (principal to armored SSHSIG) only in later ones."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", strict=True
    )

    document: bytes
    signatures: dict[str, str] = {}
    commit: bytes | None = None
    trees: list[bytes] = []


class Chain(BaseModel):
    """The wire form of a chain."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    links: list[ChainLink]

    def dumps(self) -> bytes:
        """JSON bytes."""
        return self.model_dump_json(exclude_defaults=True).encode()

    @classmethod
    def loads(cls, data: bytes) -> Chain:
        """A chain from its JSON. Raises Invalid("trust-chain-malformed")."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise Invalid(
                "trust-chain-malformed",
                f"the trust chain does not read: {first['msg']}",
                where=".".join(str(part) for part in first["loc"]),
                cure="ask the controller again",
            ) from error


def object_id(kind: str, data: bytes) -> str:
    """Git's SHA-1 id of an object: over "<kind> <size>", a NUL, and the bytes."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data, usedforsecurity=False).hexdigest()


def walk_states(root: TrustRoot, links: Sequence[ChainLink], verify_ssh: VerifySsh) -> list[TrustState]:
    """Every trust version of the chain, oldest first; the last one is in force.

    Raises Refused("genesis-mismatch") when the first link does not hash to the pinned genesis commit,
    Refused("trust-quorum") or Refused("trust-rollback") as `check_successor` does.
    """
    if not links or len(links) > _MOST_LINKS:
        raise _mismatch(root, "a chain from genesis on", f"{len(links)} links")
    first, *rest = links
    states = [TrustState.parse(_genesis_document(root, first))]
    for link in rest:
        states.append(check_successor(states[-1], link.document, link.signatures, verify_ssh))
    return states


def _genesis_document(root: TrustRoot, link: ChainLink) -> bytes:
    if link.commit is None or len(link.trees) != 2:
        raise _mismatch(root, "commit, root tree and trust tree", "less")
    if object_id("commit", link.commit) != root.genesis:
        raise _mismatch(root, root.genesis, object_id("commit", link.commit))
    head = link.commit.partition(b"\n\n")[0].split(b"\n")
    if not head[0].startswith(b"tree ") or any(line.startswith(b"parent ") for line in head):
        raise _mismatch(root, "a first commit", "one with parents")
    top, trust = link.trees
    if head[0] != b"tree " + object_id("tree", top).encode():
        raise _mismatch(root, "the genesis commit's tree", object_id("tree", top))
    entries = _entries(root, top)
    strange = sorted(entries.keys() - {b"trust", b"lockgate.yaml"})
    if strange:
        raise _mismatch(root, "trust/ and lockgate.yaml alone", strange[0].decode(errors="replace"))
    if entries.get(b"trust") != (b"40000", object_id("tree", trust)):
        raise _mismatch(root, "the genesis tree's trust/", object_id("tree", trust))
    document = _entries(root, trust).get(b"trust.yaml")
    if document != (b"100644", object_id("blob", link.document)):
        raise _mismatch(root, "the genesis trust/trust.yaml", object_id("blob", link.document))
    return link.document


def tree_entries(data: bytes) -> dict[bytes, tuple[bytes, str]] | None:
    """A tree object's entries by name: mode and id; None for a malformed tree."""
    found: dict[bytes, tuple[bytes, str]] = {}
    at = 0
    while at < len(data):
        end = data.find(b"\0", at)
        mode, space, name = data[at:end].partition(b" ")
        if end < 0 or not space or end + 21 > len(data) or name in found:
            return None
        found[name] = (mode, data[end + 1 : end + 21].hex())
        at = end + 21
    return found


def _entries(root: TrustRoot, data: bytes) -> dict[bytes, tuple[bytes, str]]:
    found = tree_entries(data)
    if found is None:
        raise _mismatch(root, "a well-formed tree", "a malformed one")
    return found


def _mismatch(root: TrustRoot, expected: str, got: str) -> Refused:
    return Refused(
        "genesis-mismatch",
        "the trust chain does not start at the pinned genesis",
        where=f"project {root.project}, genesis {root.genesis[:12]}",
        expected=expected,
        got=got,
        cure="use the trust-root.json of this repository",
    )
