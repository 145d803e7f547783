"""What the owners' in-toto layout demands of approvers: links under their own keys, before anything is ordered.

Stock `in-toto-verify` looks only at a sealed run, when it is too late to sign. So a run waits for these links as
it waits for approvals, and verification asks for them at the first order.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from controller.model.entry import Approval
from controller.model.link import APPROVE, SEAL


@dataclass(frozen=True, slots=True)
class Demand:
    """Links of so many of these keys (by id), as the layout at `path` says. `problem` is why it does not read:
    nothing that is signed is known to suffice then."""

    path: str
    keys: frozenset[str]
    number: int
    problem: str = ""


@lru_cache(64)
def demand_of(path: str, data: bytes) -> Demand | None:
    """The links that a layout (in-toto specification 1.0, 4.3, in a DSSE envelope) demands of others than the
    controller, whose link of the step is always there; None when it demands none."""
    try:
        layout = json.loads(base64.b64decode(json.loads(data)["payload"], validate=True))
        steps = {str(step["name"]): step for step in layout["steps"]}
        allowed = _keys(steps[APPROVE]["pubkeys"])
        ours = allowed & _keys(steps[SEAL]["pubkeys"])
        threshold = int(steps[APPROVE]["threshold"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Demand(path, frozenset(), 1, f"{path} is no layout of these steps ({type(error).__name__})")
    number = threshold - bool(ours)
    return Demand(path, allowed - ours, number) if number > 0 else None


def lacking(demand: Demand | None, approvals: Iterable[Approval]) -> int:
    """How many links the approvals of a run still lack."""
    if demand is None:
        return 0
    given = {one.link.keyid for one in approvals if one.counted and one.link is not None}
    return max(demand.number - len(given & demand.keys), 0)


def _keys(value: object) -> frozenset[str]:
    if not isinstance(value, list):
        raise TypeError("no list of keys")
    return frozenset(str(one) for one in value)
