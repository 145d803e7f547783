"""The checkpoint that a trust root may pin: history that was cut back to before it is told by it."""

from __future__ import annotations

import base64
from functools import partial

from controller.errors import LockgateError
from controller.ledger.append import load_log
from controller.ledger.content import content_at
from controller.ledger.log import Tree
from controller.model.trustroot import TrustRoot
from controller.ports import Repo


def pinned_fault(repo: Repo, root: TrustRoot, tip: str | None) -> str:
    """What is wrong with an evidence tip by the pinned checkpoint: the log must reach its size and have its root
    there. "" when nothing is, or nothing is pinned."""
    pinned = root.checkpoint
    if pinned is None:
        return ""
    try:
        size = load_log(repo, tip).size if tip is not None else 0
        if size < pinned.size:
            return f"the log has {size} entries, the trust root pins {pinned.size}"
        if tip is not None:
            tree = Tree(size, partial(content_at, repo, tip))
            if base64.b64encode(tree.root(pinned.size)).decode() != pinned.root:
                return f"the log's root over {pinned.size} entries is not the one that the trust root pins"
    except LockgateError as error:
        return f"the log cannot be compared with the trust root's checkpoint: {error.what}"
    return ""
