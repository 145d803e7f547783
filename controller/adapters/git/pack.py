"""Writing objects durably: one pack and its index per batch (gitformat-pack(5), version 2).

A pack costs three fsyncs whatever it holds; loose objects cost one each, so a batch is always one pack.
The pack is complete before its index appears, and git ignores a pack without an index: a crash leaves at worst
a temporary file, which `git gc` sweeps.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import zlib
from binascii import crc32
from pathlib import Path
from typing import Final

from controller.crashpoints import reached

KINDS: Final = {b"commit": 1, b"tree": 2, b"blob": 3}
_LEVEL: Final = 1
_LARGE: Final = 1 << 31

_OFS_DELTA: Final = 6
_WORTH: Final = 1024
_DEPTH: Final = 16


class Sink(dict[str, tuple[bytes, bytes]]):
    """Objects to be stored: id → (kind, bytes). `bases` names the former version of a tree, if it has one."""

    __slots__ = ("bases",)

    def __init__(self) -> None:
        super().__init__()
        self.bases: dict[str, str] = {}


def entry_head(kind: int, size: int) -> bytes:
    """The type and size before an object of a pack."""
    first = kind << 4 | size & 0x0F
    size >>= 4
    head = bytearray()
    while size:
        head.append(first | 0x80)
        first = size & 0x7F
        size >>= 7
    head.append(first)
    return bytes(head)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def offset_distance(value: int) -> bytes:
    """How far before a delta its base stands."""
    out = bytearray([value & 0x7F])
    while value := value >> 7:
        value -= 1
        out.insert(0, value & 0x7F | 0x80)
    return bytes(out)


def _common(one: bytes, two: bytes, limit: int, *, end: bool) -> int:
    """How many bytes `one` and `two` share at the start or at the end, at most `limit`."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        same = one[-middle:] == two[-middle:] if end else one[low:middle] == two[low:middle]
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def _copy(offset: int, size: int) -> bytes:
    out = b""
    while size:
        piece = min(size, 0xFFFF)
        out += b"\xbf" + offset.to_bytes(4, "little") + piece.to_bytes(2, "little")
        offset += piece
        size -= piece
    return out


def delta(base: bytes, data: bytes) -> bytes:
    """A git delta for a tree in which few entries changed: what is before, what is new, what is after."""
    before = _common(base, data, min(len(base), len(data)), end=False)
    after = _common(base, data, min(len(base), len(data)) - before, end=True)
    fresh = data[before : len(data) - after]
    inserts = b"".join(
        len(piece).to_bytes(1, "big") + piece
        for piece in (fresh[at : at + 127] for at in range(0, len(fresh), 127))
    )
    copied = _copy(0, before) + inserts + _copy(len(base) - after, after)
    return _varint(len(base)) + _varint(len(data)) + copied


def encode_pack(objects: Sink) -> tuple[bytes, bytes, str]:
    """(pack bytes, index bytes, checksum in hex) of `objects`.

    A tree whose former version is in the same pack is stored as a delta of it: large folders would otherwise
    dominate the cost of a batch.
    """
    parts = [b"PACK" + struct.pack(">II", 2, len(objects))]
    offset = len(parts[0])
    rows: list[tuple[bytes, int, int]] = []
    placed: dict[str, tuple[int, int]] = {}
    for oid, (kind, data) in objects.items():
        base = objects.bases.get(oid, "") if len(data) >= _WORTH else ""
        at, depth = placed.get(base, (0, _DEPTH))
        if depth < _DEPTH:
            change = delta(objects[base][1], data)
            entry = (
                entry_head(_OFS_DELTA, len(change)) + offset_distance(offset - at) + zlib.compress(change, _LEVEL)
            )
            placed[oid] = (offset, depth + 1)
        else:
            entry = entry_head(KINDS[kind], len(data)) + zlib.compress(data, _LEVEL)
            placed[oid] = (offset, 0)
        rows.append((bytes.fromhex(oid), crc32(entry), offset))
        parts.append(entry)
        offset += len(entry)
    body = b"".join(parts)
    checksum = hashlib.sha1(body, usedforsecurity=False).digest()
    return body + checksum, _encode_index(sorted(rows), checksum), checksum.hex()


def _encode_index(rows: list[tuple[bytes, int, int]], checksum: bytes) -> bytes:
    counts = [0] * 256
    for oid, _, _ in rows:
        counts[oid[0]] += 1
    fanout, total = [], 0
    for count in counts:
        total += count
        fanout.append(total)
    large = [offset for _, _, offset in rows if offset >= _LARGE]
    far = iter(range(len(large)))
    offsets = [offset if offset < _LARGE else _LARGE | next(far) for _, _, offset in rows]
    index = b"".join(
        [
            b"\xfftOc" + struct.pack(">I", 2),
            struct.pack(">256I", *fanout),
            *(oid for oid, _, _ in rows),
            struct.pack(f">{len(rows)}I", *(crc for _, crc, _ in rows)),
            struct.pack(f">{len(rows)}I", *offsets),
            struct.pack(f">{len(large)}Q", *large),
            checksum,
        ]
    )
    return index + hashlib.sha1(index, usedforsecurity=False).digest()


def fsync_directory(path: Path) -> None:
    """Make a rename or creation in `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _temporary(folder: Path, data: bytes) -> str:
    fd, name = tempfile.mkstemp(prefix="tmp_pack_", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fdatasync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return name


def write_pack(objects_dir: Path, objects: Sink) -> Path:
    """Store `objects` as one pack in `objects_dir`/pack, durable on return. Raises OSError and leaves nothing.

    A pack is never taken back, not even when its swap is lost: a rival with the same key writes the same bytes
    under the same name, and may have won with them.
    """
    reached("pack-before")
    folder = objects_dir / "pack"
    folder.mkdir(exist_ok=True)
    pack, index, checksum = encode_pack(objects)
    target = folder / f"pack-{checksum}.pack"
    if target.with_suffix(".idx").exists():
        fsync_directory(folder)
        return target
    made: list[str] = []
    try:
        for data in (pack, index):
            made.append(_temporary(folder, data))
        Path(made[0]).rename(target)
        reached("pack-unindexed")
        Path(made[1]).rename(target.with_suffix(".idx"))
    finally:
        for name in made:
            Path(name).unlink(missing_ok=True)
    fsync_directory(folder)
    reached("pack-after")
    return target
