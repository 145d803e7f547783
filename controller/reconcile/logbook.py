"""The log as agents are shown it: checkpoints, proofs made when somebody asks, and the witnesses' signatures.

Nothing here is durable: checkpoints follow from the recorded tiles, and agents send their cosignatures with
every poll.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from controller.core.world import Cosigned
from controller.errors import LockgateError
from controller.ledger.cosign import attach, witnesses
from controller.ledger.log import HASH, WIDTH, Log, Tree, checkpoint_of, origin_of
from controller.model.order import AgentKey, Cosignature, LogProof
from controller.model.trustroot import TrustRoot
from controller.ports import Signer

KEPT_TILES = 256
"""Complete tiles kept: two megabytes."""
KEPT_NOTES = 64
Read = Callable[[str], bytes | None]


class LogBook:
    """A LogView over the recorded log. Thread-safe: the pass moves it on, the agents' door asks it."""

    def __init__(self, root: TrustRoot, signer: Signer) -> None:
        self._origin = origin_of(root.project, root.genesis)
        self._signer = signer
        self._lock = threading.RLock()
        self._log = Log()
        self._tree = Tree(0, lambda _: None)
        self._tiles: OrderedDict[str, bytes] = OrderedDict()
        self._notes: OrderedDict[int, bytes] = OrderedDict()
        self._cosigned: dict[str, Cosigned] = {}
        self.version = 0
        """Grows with every cosignature kept."""

    def update(self, log: Log, read: Read) -> None:
        """The log as it is recorded now; `read` gives its tiles by path, of this and of no later state."""
        with self._lock:
            if log.size == self._log.size and log.root == self._log.root:
                return
            if log.size < self._log.size:  # another branch: nothing of the former one is true of it
                self._tiles.clear()
                self._cosigned.clear()
            self._notes.clear()
            self._log = log
            self._tree = Tree(log.size, lambda path: self._read(path, read))

    def restart(self) -> None:
        """Forget the former log: nothing of it is true of the one that goes on after a restart."""
        with self._lock:
            self._tiles.clear()
            self._cosigned.clear()
            self._notes.clear()
            self._log, self._tree = Log(), Tree(0, lambda _: None)
            self.version += 1

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self._log.size

    def note(self, size: int) -> bytes:
        """The signed checkpoint of the first `size` entries. Raises Refused("log-range" | "log-mismatch")."""
        with self._lock:
            note = self._notes.get(size)
            if note is None:
                root = self._log.root if size == self._log.size else self._tree.root(size)
                note = checkpoint_of(self._origin, size, root, self._signer)
                self._notes[size] = note
                while len(self._notes) > KEPT_NOTES:
                    self._notes.popitem(last=False)
            return note

    def proof(self, start: int) -> LogProof | None:
        """The newest checkpoint and the way to it from `start`, where there is one."""
        with self._lock:
            if not self._log.size:
                return None
            hashes = self.consistency(start, self._log.size) if 0 < start < self._log.size else []
            size = self._log.size
            return LogProof(checkpoint=self.note(size).decode(), size=size, start=start, hashes=hashes)

    def consistency(self, start: int, size: int) -> list[str]:
        """The proof from one size to another, base64. Raises Refused("log-range" | "log-mismatch")."""
        with self._lock:
            return [base64.b64encode(item).decode() for item in self._tree.consistency(start, size)]

    def cosigned(self, agent: str, key: AgentKey, cosignature: Cosignature, now: datetime) -> bool:
        """Keep a cosignature that holds and is over a larger checkpoint than the agent's last, or over as large a
        one under a renewed certificate."""
        size, certificate = cosignature.size, cosignature.certificate if key.authority else None
        with self._lock:
            known = self._cosigned.get(agent)
            if known is not None and (known.size, known.certificate) == (size, certificate):
                return False
            if known is not None and known.size > size:
                return False
            certificates = {agent: certificate} if certificate is not None else {}
            try:
                note = attach(self.note(size), [cosignature.line])
                at = witnesses(note, {agent: key}, certificates, now).get(agent)
            except LockgateError:
                return False
            if at is None:
                return False
            self._cosigned[agent] = Cosigned(agent, size, note, at, certificate)
            self.version += 1
            return True

    def witnessed(self, agent: str, size: int) -> list[str]:
        """What other agents cosigned of at least `size` entries."""
        with self._lock:
            return [
                one.note.decode()
                for name, one in sorted(self._cosigned.items())
                if name != agent and one.size >= size
            ]

    def certificates(self) -> dict[str, str]:
        """The certificates that go with the newest cosignatures, by agent."""
        with self._lock:
            known = self._cosigned.items()
            return {name: one.certificate for name, one in known if one.certificate is not None}

    def cosignatures(self) -> tuple[Cosigned, ...]:
        """The newest cosignature of each agent, by name."""
        with self._lock:
            return tuple(one for _, one in sorted(self._cosigned.items()))

    def _read(self, path: str, read: Read) -> bytes | None:
        found = self._tiles.get(path)
        if found is None:
            found = read(path)
            if found is not None and len(found) == HASH * WIDTH:
                self._tiles[path] = found
                while len(self._tiles) > KEPT_TILES:
                    self._tiles.popitem(last=False)
        return found
