"""The evidence branch and pinned documents in memory, as far as the product reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.model.entry import Pin
from controller.model.history import TreeFile
from tests.support.world_documents import blob_id, parsed


class Tree:
    """The evidence branch's newest tree, as the part of ports.Repo that loading reads."""

    def __init__(self) -> None:
        self.paths: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}

    def write(self, changes: Mapping[str, bytes | None]) -> None:
        for path, data in changes.items():
            if data is None:
                self.paths.pop(path, None)
            else:
                self.paths[path] = data
                self.blobs[blob_id(data)] = data

    def file(self, commit: str, path: str) -> TreeFile | None:
        return TreeFile(blob_id(self.paths[path]), 0o100644) if path in self.paths else None

    def files(self, commit: str, prefix: str = "") -> Iterator[tuple[str, TreeFile]]:
        for path in sorted(self.paths):
            if path.startswith(prefix):
                yield path, TreeFile(blob_id(self.paths[path]), 0o100644)

    def read(self, blob: str) -> bytes:
        return self.blobs[blob]


class Reader:
    """Pinned documents by blob, as `run_documents` asks for them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def document(self, pin: Pin) -> Any:
        return parsed(pin.path, self.blobs[pin.blob]).document
