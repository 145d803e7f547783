"""What this agent has seen approved, and the judgement of what comes next.

The file is kept so that a stolen controller's key cannot lead this target back in time: to older rules of its
environment, to an older promotion, or to content that never was approved here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from controller.adapters.git import sshsig
from controller.adapters.git.objects import parse_commit
from controller.agent.files import write_atomic
from controller.agent.keyring import Keyring
from controller.core.authority import Authority, Rules, Standpoint, authority_of
from controller.errors import Invalid, Refused
from controller.model.order import Approving, Order
from controller.model.trustroot import TrustRoot

FILE = "approved.json"
MOST_TOLD = 1000
"""Refusals written down by one process: whoever has the controller's key could fill the disk with them."""
KEPT = 512
"""Contents and approvals remembered; the oldest are forgotten first."""


class _Memory(BaseModel):
    model_config = ConfigDict(extra="forbid")

    contents: list[str] = []
    approvals: dict[str, AwareDatetime] = {}
    rules: str | None = None
    rules_at: AwareDatetime | None = None
    promoted: AwareDatetime | None = None


class Approved:
    """The approvals that this agent asks for, whatever its controller says. Thread-safe.

    `least` is its own least number of them; `taken(order)` whether it took an order of that id already: what it
    took is carried out once, and only its answer is given again. `refused` is told why an order was not taken,
    each reason once.
    """

    def __init__(
        self,
        directory: Path,
        root: TrustRoot,
        keyring: Keyring,
        now: Callable[[], datetime],
        taken: Callable[[str], bool],
        least: int = 0,
        refused: Callable[[str, Refused], None] = lambda _order, _why: None,
    ) -> None:
        self._path = directory / FILE
        self._root = root
        self._keyring = keyring
        self._now = now
        self._taken = taken
        self._least = least
        self._refused = refused
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._memory = self._load()
        self.complaint: str | None = None
        """The code for which orders of this controller are refused now."""

    def check(self, order: Order, sent: Approving | None) -> None:
        """Take note of what an order rests on. Raises as `authority_of`."""
        if self._taken(order.id):
            return
        with self._lock:
            try:
                now = self._now()
                self._remember(authority_of(order, sent, self._standpoint(now)), now)
                self.complaint = None
            except Refused as error:
                self.complaint = error.code
                self._tell(order.id, error)
                raise

    def _standpoint(self, now: datetime) -> Standpoint:
        known = self._memory
        return Standpoint(
            project=self._root.project,
            ref=self._root.refs.main,
            trust=self._keyring.trust,
            verify_ssh=sshsig.verify,
            read_commit=parse_commit,
            now=now,
            ran=lambda content: content in known.contents,
            first_seen=lambda commit: known.approvals.get(commit, now),
            least=self._least,
            rules=Rules(known.rules, known.rules_at) if known.rules and known.rules_at else None,
            promoted=known.promoted,
        )

    def _tell(self, order: str, error: Refused) -> None:
        told = (order, str(error))
        if told not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(told)
            self._refused(order, error)

    def _remember(self, found: Authority, now: datetime) -> None:
        known = self._memory
        approvals = dict(known.approvals)
        for commit in found.approvals:
            approvals.setdefault(commit, now)
        contents = [one for one in known.contents if one != found.content]
        changes: dict[str, Any] = {
            "contents": [*contents, *([found.content] if found.content else [])][-KEPT:],
            "approvals": dict(list(approvals.items())[-KEPT:]),
            "promoted": max((at for at in (known.promoted, found.promoted) if at is not None), default=None),
        }
        rules = found.rules
        if rules is not None and (
            known.rules_at is None or rules.blob != known.rules or rules.at > known.rules_at
        ):
            changes |= {"rules": rules.blob, "rules_at": rules.at}
        after = known.model_copy(update=changes)
        if after != known:
            write_atomic(self._path, after.model_dump_json(indent=1).encode() + b"\n")
            self._memory = after

    def _load(self) -> _Memory:
        try:
            return _Memory.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Memory()
        except ValidationError as error:
            raise Invalid(
                "approved-malformed",
                "what the agent remembers of approvals is damaged",
                where=str(self._path),
                cure="restore it from a backup; without it this agent would follow older promotions again",
            ) from error
