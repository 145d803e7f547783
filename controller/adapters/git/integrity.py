"""Whether an object database is what its own checksums say: packs, their indexes, and loose objects.

gitformat-pack(5): a pack and its index each end in the SHA-1 of what stands before. This finds bytes that rotted
or were edited in place, at the speed of the disk; it does not find a pack that was made wrong on purpose, which
`git fsck` does, and which no clone carries on, because git names the objects it receives by their bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20
_SUM: Final = 20


def intact(objects: Path, since: str = "") -> str | None:
    """Whether every pack, index and loose object below an `objects` folder holds its checksum: then a mark, to be
    given as `since` the next time, when only files that were changed after it are read; None when one does not.

    A mark counts for the folder that it was made of. Change times are the kernel's: nobody sets them back without
    the machine's clock. None also where it cannot be said: unreadable files, alternates, packs that vanish.
    """
    try:
        if (objects / "info" / "alternates").exists():
            return None
        seen = objects.stat()
        here = f"{seen.st_dev}-{seen.st_ino}-"
        known = newest = int(since.removeprefix(here)) if since.startswith(here) else 0
        for file, holds in _files(objects):
            changed = file.stat().st_ctime_ns
            newest = max(newest, changed)
            if changed >= known and not holds(file):
                return None
        return f"{here}{newest}"
    except (OSError, ValueError):
        return None


def _files(objects: Path) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
    """Every file that holds objects, and what tells whether it is whole."""
    for index in sorted((objects / "pack").glob("*.idx")):
        yield index, _sealed
        yield index.with_suffix(".pack"), _sealed
    for folder in objects.iterdir():
        if len(folder.name) == 2 and folder.is_dir():
            yield from ((file, _named) for file in folder.iterdir() if not file.name.startswith("tmp_"))


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
