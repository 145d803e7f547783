"""Walking the transparency log: after each batch its tiles and checkpoint must be what the entries add up to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.errors import Invalid, LockgateError, Refused
from controller.ledger import log
from controller.ledger.append import load_log
from controller.model.history import Change, Commit
from controller.model.keys import key_id
from controller.ports import Repo

_FILE = 0o100644
Find = Callable[[str, str, str, str], None]
"""Takes a finding: code, commit, path, message."""


class LogWalk:
    """The log as far as it was walked: `edge`, and the `leaves` of entries that no checkpoint covers yet."""

    def __init__(self, repo: Repo, origin: str, edge: log.Log, find: Find) -> None:
        self._repo = repo
        self._origin = origin
        self._find = find
        self.edge = edge
        self.leaves: list[bytes] = []
        self.lost = False
        """Whether the log cannot be rebuilt from here on: an entry before could not be read."""

    def add(self, digest: str) -> None:
        """One more entry, by its envelope's digest."""
        self.leaves.append(log.leaf_hash(log.digest_bytes(digest)))

    def compare(self, commit: Commit, tiles: Mapping[str, Change], blobs: Mapping[str, bytes]) -> None:
        """A commit that touches the log must bring it exactly to its own entry."""
        if not tiles:
            return
        if self.lost:
            self._take_up(commit.id)
            return
        self.edge, expected = self.edge.append(self.leaves)
        self.leaves = []
        wrong = [
            path
            for path in sorted((expected.keys() | tiles.keys()) - {log.CHECKPOINT})
            if path not in tiles or path not in expected or blobs.get(path) != expected[path]
        ]
        wrong += [path for path, tile in tiles.items() if tile.new is not None and tile.new.mode != _FILE]
        if wrong:
            more = f", and {len(wrong) - 1} more tiles" if len(wrong) > 1 else ""
            self._find("log-mismatch", commit.id, wrong[0], f"the tile is not what the entries add up to{more}")
        data = blobs.get(log.CHECKPOINT)
        if data is None:
            self._find("log-mismatch", commit.id, log.CHECKPOINT, "the log changed without a checkpoint")
            return
        self._checkpoint(commit, data, says_why=not wrong)

    def proven(self, commit: Commit, edge: log.Log, checkpoint: bytes) -> None:
        """A commit whose tiles were proven to bring the log to `edge`."""
        self.edge, self.leaves = edge, []
        self._checkpoint(commit, checkpoint, says_why=True)

    def lose(self, oid: str) -> None:
        """The log's leaves are unknown from here to the next checkpoint: said once, whatever follows from it."""
        if not self.lost:
            self.lost = True
            size = self.edge.size + len(self.leaves)
            self._find("log-mismatch", oid, log.CHECKPOINT, f"the log cannot be rebuilt beyond entry {size}")

    def end(self, last: str | None, *, complete: bool) -> None:
        """The walk is over at `last`; a `complete` one must leave nothing that no checkpoint covers."""
        if self.lost and last is not None:
            self._take_up(last)
        elif self.leaves and complete:
            what = f"the log does not cover the last {len(self.leaves)} entries"
            self._find("log-mismatch", last or "", log.CHECKPOINT, what)

    def _checkpoint(self, commit: Commit, data: bytes, says_why: bool) -> None:
        """The checkpoint is signed by the commit's key, over the log as it stands."""
        keys = {key_id(commit.key): commit.key} if commit.key is not None else {}
        try:
            said = log.open_checkpoint(data, self._origin, keys)
        except (Refused, Invalid) as error:
            self._find(error.code, commit.id, log.CHECKPOINT, error.what)
            return
        if (said.size, said.root) != (self.edge.size, self.edge.root):
            if says_why:
                self._find("log-mismatch", commit.id, log.CHECKPOINT, "the checkpoint is not that of the entries")
            # The entries that follow are compared with the log that the controller went on with.
            self._take_up(commit.id)

    def _take_up(self, oid: str) -> None:
        """Go on with the log as a commit's tree holds it; where that does not hold either, stay without."""
        self.leaves = []
        try:
            self.edge = load_log(self._repo, oid)
            self.lost = False
        except LockgateError:
            self.lost = True
