"""The audit pack's container: one tar file (POSIX.1-1988 ustar) whose bytes follow from its content alone.

Nothing is compressed, because compressors of other versions give other bytes; whoever wants it small compresses
the file as a whole. Files are sorted, owned by nobody, of one mode and one time. Reading takes exactly what
writing makes: a header that is not the one written for that name and size is refused, so there are no links,
devices, absolute names, names twice or numbers that two readers understand differently.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from controller.errors import Invalid

BLOCK = 512
SUMS = "MANIFEST.sha256"
REPOSITORY = "repository.bundle"
MOST_FILES = 1_000_000
MOST_BYTES = 256 << 20
"""Bytes of one file, the Git bundle excepted, which is never held in memory."""
MOST_TOTAL = 1 << 30
MOST_BUNDLE = 16 << 30
_PIECE = 1 << 20
_NAME = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._@+-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._@+-]+)*")


@dataclass(frozen=True, slots=True)
class Pack:
    """Files below one folder `top`, by path. `bundle` is the Git bundle's file, when there is one."""

    top: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    mtime: int = 0
    bundle: Path | None = None


def can_hold(path: str) -> bool:
    """Whether a pack can hold a file of this name."""
    return _NAME.fullmatch(path) is not None and len(path) <= 140


def sums(pack: Pack) -> bytes:
    """The manifest in the form of sha256sum(1): every file but itself."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in pack.files.items() if name != SUMS}
    if pack.bundle is not None:
        found[REPOSITORY] = _file_sum(pack.bundle)
    return "".join(f"{found[name]}  {name}\n" for name in sorted(found)).encode()


def _file_sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_pack(pack: Pack, out: BinaryIO) -> None:
    """Write the pack with its manifest. Raises Invalid("pack-name") for a name that no ustar header holds."""
    files = {**pack.files, SUMS: sums(pack)}
    names = sorted({*files, *([REPOSITORY] if pack.bundle is not None else [])})
    for name in names:
        if name == REPOSITORY and pack.bundle is not None:
            size = pack.bundle.stat().st_size
            out.write(_header(f"{pack.top}/{name}", size, pack.mtime))
            with pack.bundle.open("rb") as file:
                while piece := file.read(_PIECE):
                    out.write(piece)
        else:
            size = len(files[name])
            out.write(_header(f"{pack.top}/{name}", size, pack.mtime))
            out.write(files[name])
        out.write(bytes(-size % BLOCK))
    out.write(bytes(2 * BLOCK))


def _header(path: str, size: int, mtime: int) -> bytes:
    prefix, name = _split(path)
    fields = [
        name.ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0" * 2,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(64),
        b"0000000\0" * 2,
        prefix.ljust(155, b"\0"),
        bytes(12),
    ]
    made = b"".join(fields)
    if len(made) != BLOCK or size >= 8**11:
        raise _unnamed(path)
    return made[:148] + b"%06o\0 " % sum(made) + made[156:]


def _split(path: str) -> tuple[bytes, bytes]:
    data = path.encode("ascii", "replace")
    if _NAME.fullmatch(path) is None:
        raise _unnamed(path)
    if len(data) <= 100:
        return b"", data
    at = data.find(b"/", len(data) - 101)
    if not 0 < at <= 155:
        raise _unnamed(path)
    return data[:at], data[at + 1 :]


def _unnamed(path: str) -> Invalid:
    return Invalid(
        "pack-name",
        "a file of the pack has no place in it",
        where=path[:200],
        expected="letters, digits and ._@+- in a path of at most 255 characters",
    )


# --- reading ---------------------------------------------------------------------------------------------


def read_pack(path: Path, folder: Path) -> Pack:
    """A pack from its file; the Git bundle in it goes to `folder`, a private place, everything else to memory.

    Raises Invalid("pack-malformed") for anything that `write_pack` would not have written.
    """
    try:
        with path.open("rb") as file:
            return _read(file, folder)
    except OSError as error:
        raise Invalid(
            "pack-unreadable",
            "the pack cannot be read",
            where=str(path),
            expected="a file that `lockgate export` wrote",
            got=error.strerror or "an error",
            cure="check the path and its permissions",
        ) from error


def _read(file: BinaryIO, folder: Path) -> Pack:
    files: dict[str, bytes] = {}
    top, mtime, bundle, total, last = "", 0, None, 0, ""
    for name, size, at in _members(file):
        head, _, rest = name.partition("/")
        if not rest or (top and head != top) or (last and rest <= last) or len(files) >= MOST_FILES:
            raise malformed("the files are not those of one folder, each once and in order", name)
        if not last:
            mtime = at
        top, last = head, rest
        if at != mtime:
            raise malformed("the files are not all of one time", name)
        if rest == REPOSITORY:
            bundle = folder / REPOSITORY
            _copy(file, size, bundle)
        else:
            total += size
            if size > MOST_BYTES or total > MOST_TOTAL:
                raise malformed("the pack is larger than this program reads", name)
            files[rest] = _exactly(file, size)
        if any(_exactly(file, -size % BLOCK)):
            raise malformed("there is something between two files", name)
    if not top:
        raise malformed("there is no file in it", "")
    return Pack(top, files, mtime, bundle)


def _members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """(name, size, time) of each file; its bytes are to be read before the next is asked for."""
    while any(block := _exactly(file, BLOCK)):
        try:
            prefix, name = block[345:500].rstrip(b"\0"), block[:100].rstrip(b"\0")
            path = (prefix + b"/" + name if prefix else name).decode("ascii")
            size, mtime = int(block[124:135], 8), int(block[136:147], 8)
            same = block == _header(path, size, mtime)
        except (ValueError, Invalid):
            same = False
        if not same:
            raise malformed("a header is not of a regular file as this program writes it", "")
        yield path, size, mtime
    if any(_exactly(file, BLOCK)) or file.read(1):
        raise malformed("there is something after the end", "")


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size > MOST_BYTES:
        raise malformed("the pack is larger than this program reads", "")
    data = file.read(size)
    if len(data) != size:
        raise malformed("it is cut off", "")
    return data


def _copy(file: BinaryIO, size: int, target: Path) -> None:
    if size > MOST_BUNDLE:
        raise malformed("the Git bundle is larger than this program reads", REPOSITORY)
    with target.open("xb") as out:
        while size:
            piece = _exactly(file, min(size, _PIECE))
            out.write(piece)
            size -= len(piece)


def malformed(why: str, where: str) -> Invalid:
    """The error for a file that is no pack."""
    return Invalid(
        "pack-malformed",
        f"this is no audit pack: {why}",
        where=where[:200],
        expected="a file as `lockgate export` writes it",
        cure="ask for the pack again; it was damaged or made by something else",
    )


def check_sums(pack: Pack) -> Iterator[tuple[str, str]]:
    """(path, message) of every file that is not what the manifest says."""
    text = pack.files.get(SUMS)
    if text is None:
        yield SUMS, "there is no manifest"
        return
    if text == sums(pack):
        return
    try:
        lines = [line.split("  ", 1) for line in text.decode("ascii").splitlines()]
        said = {name: value for value, name in lines}
    except ValueError:
        yield SUMS, "the manifest is not in its form"
        return
    real = {name: value for value, name in (line.split("  ", 1) for line in sums(pack).decode().splitlines())}
    for name in sorted(said.keys() | real.keys()):
        if said.get(name) != real.get(name):
            what = "is missing" if name not in real else "is not listed" if name not in said else "was changed"
            yield name, f"the file {what}"
    if said == real:
        yield SUMS, "the manifest is not in its form"
