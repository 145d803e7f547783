"""The trust chain as an agent walks it: from the genesis commit its root names to the newest trust version.

A link is {"document": base64 of trust/trust.yaml, "signatures": {principal: armored SSHSIG}}. The first link
also proves that its document is the genesis commit's: {"commit": base64, "trees": [base64 of the root tree,
base64 of the tree trust/]}, Git objects without their header, whose ids are recomputed here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

from controller.core.trust import TrustState, VerifySsh, check_successor
from controller.errors import LockgateError, Refused
from controller.model.trustroot import TrustRoot


def walk(root: TrustRoot, links: Sequence[Any], verify_ssh: VerifySsh) -> TrustState:
    """The trust state at the chain's end.

    Raises Refused("genesis-mismatch") when the chain begins elsewhere, Refused("trust-quorum"),
    Refused("trust-rollback") for a link that may not follow, Refused("trust-chain-malformed").
    """
    try:
        if not links:
            raise ValueError("no links")
        first = links[0]
        document = _bytes(first["document"])
        _check_genesis(root.genesis, _bytes(first["commit"]), [_bytes(t) for t in first["trees"]], document)
        state = TrustState.parse(document)
        for link in links[1:]:
            signatures = {str(name): str(armored) for name, armored in link["signatures"].items()}
            state = check_successor(state, _bytes(link["document"]), signatures, verify_ssh)
        return state
    except LockgateError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Refused(
            "trust-chain-malformed",
            "the controller's trust chain does not read",
            got=f"{type(error).__name__}: {error}"[:200],
            cure="find out who answers at the controller's address",
        ) from error


def genesis_link(commit: bytes, trees: Sequence[bytes], document: bytes) -> dict[str, Any]:
    """The first link, from the genesis commit's raw objects (root tree, then trust/)."""
    return {
        "document": _text(document),
        "commit": _text(commit),
        "trees": [_text(tree) for tree in trees],
        "signatures": {},
    }


def successor_link(document: bytes, signatures: dict[str, str]) -> dict[str, Any]:
    """A later link: the next version's bytes and the owners' signatures over them."""
    return {"document": _text(document), "signatures": dict(signatures)}


def _check_genesis(genesis: str, commit: bytes, trees: Sequence[bytes], document: bytes) -> None:
    if _object_id(b"commit", commit, genesis) != genesis:
        raise _mismatch(genesis, _object_id(b"commit", commit, genesis))
    line = commit.split(b"\n", 1)[0]
    if not line.startswith(b"tree "):
        raise ValueError("the commit names no tree")
    wanted = line[5:].decode("ascii")
    for kind, data, name in (
        (b"tree", trees[0], b"trust"),
        (b"tree", trees[1], b"trust.yaml"),
        (b"blob", document, b""),
    ):
        if _object_id(kind, data, genesis) != wanted:
            raise _mismatch(wanted, _object_id(kind, data, genesis))
        if name:
            wanted = _entry(data, name, len(genesis) // 2)


def _entry(tree: bytes, wanted: bytes, width: int) -> str:
    """The object id of one entry of a raw tree (mode, space, name, NUL, binary id)."""
    at = 0
    while at < len(tree):
        end = tree.index(b"\0", at)
        name = tree[at:end].split(b" ", 1)[1]
        if name == wanted:
            return tree[end + 1 : end + 1 + width].hex()
        at = end + 1 + width
    raise ValueError(f"the genesis commit has no {wanted.decode()}")


def _object_id(kind: bytes, data: bytes, like: str) -> str:
    make = hashlib.sha1 if len(like) == 40 else hashlib.sha256
    return make(b"%b %d\0" % (kind, len(data)) + data).hexdigest()


def _mismatch(expected: str, got: str) -> Refused:
    return Refused(
        "genesis-mismatch",
        "the controller's trust chain begins in another genesis commit than this agent's root",
        expected=expected,
        got=got,
        cure="start the agent with the project's own trust-root.json, or correct the controller's address",
    )


def _bytes(text: Any) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
