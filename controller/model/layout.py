"""What the owners' in-toto layout says of a project: who may sign the link of which step, and how many must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The default expiry: verification judges it against the present, and old runs must stay verifiable. A layout is
withdrawn by the next one."""


@dataclass(frozen=True, slots=True)
class LayoutTerms:
    """The terms of a layout. Keys are OpenSSH public keys by the name of their holder.

    With `approvers` the step `approve` must carry the links of that many of them; without, the controller's
    word for it that approvals sufficed is enough. `certified` are agents that no layout can name: an authority
    certifies their keys, which nobody knows beforehand.
    """

    project: str
    controllers: Mapping[str, tuple[str, ...]]
    agents: Mapping[str, str]
    deployed_by: int = 1
    approvers: Mapping[str, tuple[str, ...]] | None = None
    approved_by: int = 1
    environment: str | None = None
    expires: datetime = FOREVER
    certified: tuple[str, ...] = ()
