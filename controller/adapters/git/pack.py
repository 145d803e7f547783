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
from collections.abc import Mapping
from pathlib import Path
from typing import Final

KINDS: Final = {b"commit": 1, b"tree": 2, b"blob": 3}
_LEVEL: Final = 1
_LARGE: Final = 1 << 31

Objects = Mapping[str, tuple[bytes, bytes]]
"""Object id → (kind, bytes)."""


def _entry(kind: int, data: bytes) -> bytes:
    size = len(data)
    first = kind << 4 | size & 0x0F
    size >>= 4
    head = bytearray()
    while size:
        head.append(first | 0x80)
        first = size & 0x7F
        size >>= 7
    head.append(first)
    return bytes(head) + zlib.compress(data, _LEVEL)


def encode_pack(objects: Objects) -> tuple[bytes, bytes, str]:
    """(pack bytes, index bytes, checksum in hex) of `objects`."""
    parts = [b"PACK" + struct.pack(">II", 2, len(objects))]
    offset = len(parts[0])
    rows: list[tuple[bytes, int, int]] = []
    for oid, (kind, data) in objects.items():
        entry = _entry(KINDS[kind], data)
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


def write_pack(objects_dir: Path, objects: Objects) -> Path:
    """Store `objects` as one pack in `objects_dir`/pack, durable on return. Raises OSError and leaves nothing."""
    folder = objects_dir / "pack"
    folder.mkdir(exist_ok=True)
    pack, index, checksum = encode_pack(objects)
    target = folder / f"pack-{checksum}.pack"
    if target.with_suffix(".idx").exists():
        return target
    made: list[str] = []
    try:
        for data in (pack, index):
            made.append(_temporary(folder, data))
        Path(made[0]).rename(target)
        Path(made[1]).rename(target.with_suffix(".idx"))
    finally:
        for name in made:
            Path(name).unlink(missing_ok=True)
    fsync_directory(folder)
    return target
