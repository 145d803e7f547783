"""Where this agent's log began again, kept in its directory: each restart leads back once."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from controller.agent.files import write_atomic
from controller.errors import Invalid

RESTART = "log-restart.json"


class Base:
    """The newest restart that is known, and the size and root of the log that it went on from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.number = 0
        self._size, self._root, self._over = 0, b"", ""
        try:
            kept = json.loads(path.read_bytes())
            self.number, self._size = int(kept["number"]), int(kept["size"])
            self._root, self._over = base64.b64decode(kept["root"], validate=True), str(kept["over"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(
                "checkpoint-malformed",
                "the agent's record of the log's restart is damaged",
                where=str(path),
                cure="restore it from a backup; without it this agent would take an old restart again",
            ) from error

    def begin(self, pinned: tuple[int, bytes]) -> tuple[int, bytes]:
        """Size and root to begin at without a checkpoint: those of the restart, or the pinned ones."""
        return (self._size, self._root) if self.number and self._size >= pinned[0] else pinned

    def replaces(self, note: bytes) -> bool:
        """Whether a checkpoint is the one that the restart led back from."""
        return bool(self._over) and hashlib.sha256(note).hexdigest() == self._over

    def keep(self, number: int, size: int, root: bytes, over: bytes) -> None:
        """Keep a restart durably, before the checkpoint that it leads back from (`over`) is taken away."""
        said = hashlib.sha256(over).hexdigest() if over else ""
        record = {"number": number, "size": size, "root": base64.b64encode(root).decode(), "over": said}
        write_atomic(self._path, json.dumps(record).encode() + b"\n")
        self.number, self._size, self._root, self._over = number, size, root, said
