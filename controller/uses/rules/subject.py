"""One entry under examination, and how a rule says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.core.run import Run
from controller.ledger.entry import Place
from controller.model.entry import (
    Entry,
)
from controller.model.history import Commit

Problem = tuple[str, str, str]
"""Code, path and message of what is wrong."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One entry under examination: `statement` is what it was read from, `records` and `blobs` are what its commit
    added and the bytes, `keyid` names the key that signed it, `run` is its run before it, None where that is not
    followed."""

    commit: Commit
    entry: Entry
    statement: Mapping[str, Any]
    place: Place
    records: Sequence[str]
    blobs: Mapping[str, bytes]
    keyid: str
    run: Run | None

    def beside(self, folder: str) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of what the commit added to a folder of the run."""
        prefix = f"{self.place.folder}/{folder}/"
        return ((path, self.blobs[path]) for path in self.records if path.startswith(prefix))
