"""Whether an object database is what its own checksums say: packs, their indexes, and loose objects.

gitformat-pack(5): a pack and its index each end in the SHA-1 of what stands before. This finds bytes that rotted
or were edited in place, at the speed of the disk; it does not find a pack that was made wrong on purpose, which
`git fsck` does, and which no clone carries on, because git names the objects it receives by their bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20
_SUM: Final = 20


def intact(objects: Path) -> bool:
    """Whether every pack, index and loose object below an `objects` folder holds its checksum.

    False also where that cannot be said: unreadable files, alternates, packs that vanish during the look.
    """
    try:
        if (objects / "info" / "alternates").exists():
            return False
        packs = sorted((objects / "pack").glob("*.idx")) if (objects / "pack").is_dir() else []
        return all(_sealed(index) and _sealed(index.with_suffix(".pack")) for index in packs) and all(
            _named(file)
            for folder in objects.iterdir()
            if len(folder.name) == 2 and folder.is_dir()
            for file in folder.iterdir()
            if not file.name.startswith("tmp_")
        )
    except OSError:
        return False


def _sealed(path: Path) -> bool:
    """Whether a file ends in the SHA-1 of what stands before."""
    left = path.stat().st_size - _SUM
    made = hashlib.sha1(usedforsecurity=False)
    with path.open("rb", buffering=0) as file:
        while left > 0:
            piece = file.read(min(left, _PIECE))
            if not piece:
                return False
            made.update(piece)
            left -= len(piece)
        return left == 0 and file.read(_SUM + 1) == made.digest()


def _named(path: Path) -> bool:
    """Whether a loose object is what its name says; unpacked piece by piece, so that no bomb fills the memory."""
    made = hashlib.sha1(usedforsecurity=False)
    unpacking = zlib.decompressobj()
    with path.open("rb") as file:
        while piece := file.read(1 << 16):
            while piece and not unpacking.eof:
                try:
                    made.update(unpacking.decompress(piece, _PIECE))
                except zlib.error:
                    return False
                piece = unpacking.unconsumed_tail
    return unpacking.eof and made.hexdigest() == path.parent.name + path.name
