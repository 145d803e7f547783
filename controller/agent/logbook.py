"""The log as this agent has seen it: it only ever grows, and the agent bears witness to that.

The last checkpoint is kept in the agent's directory, so that a controller that was restored from an old clone, or
that shows another history than before, is refused for good. A new agent begins at the trust root's minimum
checkpoint, or at the first one that it is shown.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from controller.adapters.signers import signing_now
from controller.agent.files import write_atomic
from controller.agent.restarts import RESTART, Base
from controller.core.restart import check_quorum
from controller.core.trust import TrustState, VerifySsh
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger.cosign import can_cosign, cosign, witnesses
from controller.ledger.log import Checkpoint, open_checkpoint, origin_of, read_checkpoint, verify_consistency
from controller.model.order import AgentKey, Cosignature, Delivery, LogProof, LogState
from controller.model.restart import RestartProof
from controller.model.trustroot import TrustRoot
from controller.ports import Signer

FILE = "checkpoint"
CONFLICT = "log-conflict.json"
REMEMBERED = 256
"""Sizes and roots known to be of this log, so that they need no proof again."""

Ask = Callable[[int, int], Sequence[str]]
"""The hashes (base64) that lead from one size to another; raises Refused when there are none to be had."""


class Logbook:
    """What one agent knows of the log. Thread-safe: two connections bring checkpoints.

    `keys` gives the controller's keys by key id, `now` dates cosignatures.
    """

    def __init__(
        self,
        directory: Path,
        root: TrustRoot,
        agent: str,
        signer: Signer,
        keys: Callable[[], Mapping[str, str]],
        now: Callable[[], datetime],
    ) -> None:
        self._path = directory / FILE
        self._conflict = directory / CONFLICT
        self._base = Base(directory / RESTART)
        self._origin = origin_of(root.project, root.genesis)
        self._agent = agent
        self._signer = signer
        self._keys = keys
        self._now = now
        self._lock = threading.RLock()
        self._note = b""
        self._size, self._root = self._begin(root)
        self._project = (root.project, root.genesis)
        self._pinned = root.checkpoint.size if root.checkpoint is not None else 0
        self._roots: OrderedDict[int, bytes] = OrderedDict({self._size: self._root})
        self._signed: Cosignature | None = None
        self.complaint: str | None = None
        """The code for which this controller is refused now."""

    @property
    def size(self) -> int:
        """How many entries the largest checkpoint seen has; 0 before the first."""
        return self._size

    def cosignature(self) -> Cosignature | None:
        """This agent's signature over the largest checkpoint it has seen; None before it saw one. A renewed
        certificate calls for a new one."""
        with self._lock:
            signer, certificate = signing_now(self._signer)
            if not self._note or not can_cosign(signer.public_key):
                return None
            made = self._signed
            if made is None or (made.size, made.certificate) != (self._size, certificate):
                line = cosign(self._note, self._origin, self._agent, signer, self._now())
                self._signed = Cosignature(size=self._size, line=line, certificate=certificate)
            return self._signed

    def follow(self, proof: LogProof, told: int, ask: Ask) -> None:
        """Go on to the checkpoint of a delivery, which answers a poll that `told` of so many entries.

        Raises Refused("checkpoint-signature"), Refused("log-inconsistent") when it is no continuation of what
        was seen - kept with both checkpoints as evidence -, Unavailable when a proof could not be asked for.
        """
        note = proof.checkpoint.encode()
        with self._lock:
            shown = open_checkpoint(note, self._origin, self._keys())
            try:
                self._check(shown, proof, told, ask)
            except (Refused, Invalid) as error:
                self.complaint = "log-inconsistent"
                self._keep_conflict(note, error)
                raise _inconsistent(self._size, shown, error) from error
            self.complaint = None
            if shown.size > self._size or not self._note:
                write_atomic(self._path, note)
                self._note, self._size, self._root = note, shown.size, shown.root
            self._remember(shown.size, shown.root)

    @property
    def restarts(self) -> int:
        """The newest restart of the log that this agent knows of."""
        return self._base.number

    def restart(self, proof: RestartProof, trust_at: Callable[[int], TrustState], verify_ssh: VerifySsh) -> None:
        """Go back to where owners say that the log goes on, since the rest of it is lost.

        Each restart counts once, and never leads back before what the trust root pins. Raises
        Refused("log-inconsistent" | "restart-unsigned" | "order-untrusted-signer").
        """
        restart = proof.restart
        with self._lock:
            root = base64.b64decode(restart.root)
            why = ""
            if (restart.project, restart.genesis) != self._project:
                why = "the restart is of another project"
            elif restart.number <= self._base.number:
                why = f"restart {self._base.number} is known already"
            elif restart.size < self._pinned:
                why = f"the restart goes back to {restart.size} entries, the trust root pins {self._pinned}"
            elif self._size >= restart.size > 0 and self._roots.get(restart.size, root) != root:
                why = "the restart goes on from another log than this agent saw"
            if why:
                raise Refused("log-inconsistent", why, where=f"restart {restart.number}")
            check_quorum(restart, proof.signatures, trust_at(restart.trust_version), verify_ssh)
            self._base.keep(restart.number, restart.size, root, self._note)
            if self._conflict.exists():
                self._conflict.replace(self._conflict.with_name(f"log-conflict-{restart.number}.json"))
            self._path.unlink(missing_ok=True)
            self._note, self._size, self._root = b"", restart.size, root
            self._roots = OrderedDict({restart.size: root})
            self._signed = None

    def went_through(self, restarts: int) -> None:
        """The log that this agent follows went through so many restarts: none of them leads back any more."""
        with self._lock:
            if restarts > self._base.number:
                self._base.keep(restarts, self._size, self._root, b"")

    def holds(self, state: LogState, ask: Ask) -> None:
        """That what an order says of the log is true of the log that this agent follows.

        Raises Refused("log-inconsistent"), Unavailable.
        """
        try:
            root = bytes.fromhex(state.root.removeprefix("sha256:"))
        except ValueError as error:
            raise Refused("log-inconsistent", "the log's root does not read", got=state.root[:80]) from error
        self._part_of_it(Checkpoint(self._origin, state.size, root), ask)

    def witnessed(
        self, delivery: Delivery, least: int, agents: Mapping[str, AgentKey], ask: Ask
    ) -> frozenset[str]:
        """Which other agents cosigned the log that this agent follows, at `least` entries or later.

        What does not hold counts for nothing; a signed checkpoint of another log is refused. Raises
        Refused("split-view") for that, Unavailable.
        """
        found: set[str] = set()
        for text in delivery.witnessed:
            note = text.encode()
            checkpoint = open_checkpoint(note, self._origin, self._keys())
            signers = witnesses(note, agents, delivery.certificates, self._now()).keys() - {self._agent}
            if checkpoint.size < least or not signers:
                continue
            try:
                self._part_of_it(checkpoint, ask)
            except Refused as error:
                self._keep_conflict(note, error)
                raise Refused(
                    "split-view",
                    "other agents were shown another log than this one",
                    where=f"{', '.join(sorted(signers))} at {checkpoint.size} entries",
                    expected="one log for all",
                    got=error.got or error.what,
                    cure="stop the controller and compare its evidence with a clone: both checkpoints are kept in "
                    + str(self._conflict),
                ) from error
            found |= signers
        return frozenset(found)

    def _begin(self, root: TrustRoot) -> tuple[int, bytes]:
        pinned = (0, b"")
        if root.checkpoint is not None:
            pinned = (root.checkpoint.size, base64.b64decode(root.checkpoint.root))
        base = self._base.begin(pinned)
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return base
        if self._base.replaces(data):
            return base  # it was about to be taken away
        try:
            known = read_checkpoint(data)
        except Invalid as error:
            raise Invalid(
                "checkpoint-malformed",
                "the agent's last checkpoint is damaged",
                where=str(self._path),
                cure="restore it from a backup; without it this agent would believe an older log again",
            ) from error
        if known.origin != self._origin:
            raise Refused(
                "genesis-mismatch",
                "the agent's directory belongs to another project",
                where=str(self._path),
                expected=self._origin,
                got=known.origin,
                cure="give this agent its own --dir",
            )
        if known.size < pinned[0]:
            return pinned  # an owner pinned a later one since
        self._note = data
        return known.size, known.root

    def _check(self, shown: Checkpoint, proof: LogProof, told: int, ask: Ask) -> None:
        if shown.size < told:
            raise Refused("log-inconsistent", "the log is shorter than it was", got=f"size {shown.size}")
        if self._size == 0:
            return
        if shown.size > self._size:
            # The other connection may have moved this agent on since the poll that this proof was made for.
            hashes = proof.hashes if proof.start == self._size else ask(self._size, shown.size)
            verify_consistency(self._size, shown.size, self._root, shown.root, _decoded(hashes))
        else:
            self._part_of_it(shown, ask)

    def _part_of_it(self, older: Checkpoint, ask: Ask) -> None:
        """That a checkpoint is of the log that this agent follows, no larger than what it has seen."""
        with self._lock:
            if older.size > self._size or older.size == 0:
                raise Refused("log-inconsistent", "the log does not reach that size", got=f"size {older.size}")
            known = self._roots.get(older.size)
            if known is None:
                hashes = _decoded(ask(older.size, self._size))
                verify_consistency(older.size, self._size, older.root, self._root, hashes)
                self._remember(older.size, older.root)
            elif known != older.root:
                raise Refused("log-inconsistent", "two roots for one size", got=f"size {older.size}")

    def _remember(self, size: int, root: bytes) -> None:
        self._roots[size] = root
        while len(self._roots) > REMEMBERED:
            self._roots.popitem(last=False)

    def _keep_conflict(self, shown: bytes, error: LockgateError) -> None:
        """Both checkpoints, each signed: proof of two histories for whoever looks into it. The first is kept."""
        if self._conflict.exists():
            return
        record = {
            "at": self._now().isoformat(),
            "known": self._note.decode() or f"size {self._size}",
            "shown": shown.decode("utf-8", "replace"),
            "why": str(error),
        }
        try:
            write_atomic(self._conflict, json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n")
        except OSError:
            return  # a full disk keeps nobody from refusing


def _decoded(hashes: Sequence[str]) -> list[bytes]:
    try:
        return [base64.b64decode(item, validate=True) for item in hashes]
    except ValueError as error:
        raise Refused("log-inconsistent", "the proof does not read") from error


def _inconsistent(size: int, shown: Checkpoint, error: LockgateError) -> Refused:
    return Refused(
        "log-inconsistent",
        "the controller shows another history than before",
        where=f"the log at {shown.size} entries",
        expected=f"a continuation of the checkpoint of {size} entries that this agent saw",
        got=error.what,
        cure="give the controller the evidence branch that holds what was seen; `lockgate verify` tells which",
    )
