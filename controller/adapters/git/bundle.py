"""Git bundles (gitformat-bundle(5), version 2) whose bytes follow from the tips alone, and opening foreign ones.

`git bundle create` packs with whatever threads, delta search and zlib a machine has. Here objects come in one
order: branch by branch, commits oldest first, each with what its tree adds. A tree is a delta of its predecessor
at the same path, and the zlib streams hold stored blocks (RFC 1951, 3.2.4), which every version writes alike.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from controller.adapters.git.objects import EMPTY_TREE, TREE, commit_links
from controller.adapters.git.pack import KINDS, delta, entry_head, offset_distance
from controller.adapters.git.program import git
from controller.adapters.git.store import ObjectStore
from controller.errors import Invalid

MAGIC: Final = b"# v2 git bundle\n"
_OFS_DELTA: Final = 6
_WORTH: Final = 256
_DEPTH: Final = 16
_STORED: Final = 65535
_HEAD: Final = 1 << 16
SECONDS: Final = 3600.0
Object = tuple[str, bytes, str]
"""Id, kind, and the id of the tree it is a delta of ("": none)."""


def write_bundle(store: ObjectStore, refs: Sequence[tuple[str, str]], out: BinaryIO) -> None:
    """Write a complete bundle of `refs`, (name, commit) in this order. Raises Refused("object-corrupt")."""
    listed = list(_objects(store, [oid for _, oid in refs]))
    out.write(MAGIC + b"".join(f"{oid} {name}\n".encode() for name, oid in refs) + b"\n")
    head = b"PACK" + struct.pack(">II", 2, len(listed))
    checksum = hashlib.sha1(head, usedforsecurity=False)
    out.write(head)
    offset = len(head)
    placed: dict[str, tuple[int, int]] = {}
    for oid, kind, base in listed:
        data = store.raw(oid, kind)
        at, depth = placed.get(base, (0, _DEPTH)) if len(data) >= _WORTH else (0, _DEPTH)
        if depth < _DEPTH:
            change = delta(store.raw(base, b"tree"), data)
            entry = entry_head(_OFS_DELTA, len(change)) + offset_distance(offset - at) + stored(change)
        else:
            entry = entry_head(KINDS[kind], len(data)) + stored(data)
        if kind == b"tree":
            placed[oid] = (offset, depth + 1 if depth < _DEPTH else 0)
        checksum.update(entry)
        out.write(entry)
        offset += len(entry)
    out.write(checksum.digest())


def stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks."""
    parts = [b"\x78\x01"]
    for at in range(0, max(len(data), 1), _STORED):
        piece = data[at : at + _STORED]
        last = at + _STORED >= len(data)
        parts.append(struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF) + piece)
    return b"".join([*parts, struct.pack(">I", zlib.adler32(data))])


def _objects(store: ObjectStore, tips: Sequence[str]) -> Iterator[Object]:
    """Every object reachable from the tips, once: a base before what builds on it."""
    seen: set[str] = set()
    for tip in tips:
        for oid in _commits(store, tip, seen):
            tree, parents = commit_links(store.raw(oid, b"commit"))
            yield oid, b"commit", ""
            before = commit_links(store.raw(parents[0], b"commit"))[0] if parents else EMPTY_TREE
            yield from _tree(store, tree, before, seen)


def _commits(store: ObjectStore, tip: str, seen: set[str]) -> Iterator[str]:
    """Commits that were not seen yet, parents before children, by first parents."""
    waiting = [tip]
    while waiting:
        oid = waiting[-1]
        if oid in seen:
            waiting.pop()
            continue
        missing = [parent for parent in commit_links(store.raw(oid, b"commit"))[1] if parent not in seen]
        if missing:
            waiting += reversed(missing)
        else:
            seen.add(oid)
            waiting.pop()
            yield oid


def _tree(store: ObjectStore, oid: str, before: str, seen: set[str]) -> Iterator[Object]:
    if oid in seen:
        return
    seen.add(oid)
    yield oid, b"tree", before if before != oid else ""
    former: Mapping[str, tuple[bytes, bytes, bytes]] = {} if before == EMPTY_TREE else store.tree(before)
    for name, (mode, _, raw) in store.tree(oid).items():
        child = raw.hex()
        if mode == b"160000" or child in seen:
            continue
        if mode == TREE:
            old = former.get(name)
            yield from _tree(store, child, old[2].hex() if old and old[0] == TREE else EMPTY_TREE, seen)
        else:
            seen.add(child)
            yield child, b"blob", ""


# --- opening ---------------------------------------------------------------------------------------------


def is_bundle(path: Path) -> bool:
    """Whether a file begins as a Git bundle does."""
    with path.open("rb") as file:
        return file.read(16).startswith((MAGIC, b"# v3 git bundle\n"))


def bundle_refs(path: Path) -> dict[str, str]:
    """The refs of a complete bundle. Raises Invalid("bundle-malformed" | "bundle-incomplete")."""
    with path.open("rb") as file:
        head, empty, _ = file.read(_HEAD).partition(b"\n\n")
    lines = head.split(b"\n")
    if not empty or lines[0] + b"\n" != MAGIC:
        raise _malformed(path, "its header is not of version 2, or does not end")
    refs: dict[str, str] = {}
    for line in lines[1:]:
        if line.startswith(b"-"):
            raise Invalid(
                "bundle-incomplete",
                "the Git bundle needs commits that it does not hold",
                where=str(path),
                expected="a bundle of the whole history",
                got=line[:60].decode("ascii", "replace"),
                cure="ask for a bundle without prerequisites",
            )
        oid, _, name = line.decode("utf-8", "replace").partition(" ")
        refs[name] = oid
    return refs


def unbundle(path: Path, gitdir: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """A new bare repository with the wanted refs of a bundle, its objects checked as by `fsckObjects`.

    `wanted` maps the names to have to the names in the bundle; those that are absent there are left out. Raises
    Invalid("bundle-malformed" | "bundle-incomplete"), Unavailable when git cannot be run.
    """
    refs = dict(_wanted(bundle_refs(path), wanted))
    if not refs:
        raise _malformed(path, "it holds none of the project's branches")
    made = git(None, ["init", "-q", "--bare", "--template=", str(gitdir)], timeout=60.0)
    if made.code:
        raise _malformed(path, made.words)
    # `git fetch` takes a bundle's objects unchecked before git 2.46: the pack is taken out and indexed strictly.
    pack = _pack_of(path, gitdir / "objects" / "pack")
    done = git(gitdir, ["index-pack", "--strict", str(pack)], timeout=SECONDS)
    for name, oid in refs.items():
        if done.code == 0:
            done = git(gitdir, ["update-ref", name, oid], timeout=60.0)
    if done.code:
        raise _malformed(path, done.words)
    return refs


def _wanted(refs: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for ours, theirs in wanted.items():
        oid = refs.get(theirs)
        if oid is not None and re.fullmatch("[0-9a-f]{40}", oid):
            yield ours, oid


def _pack_of(path: Path, folder: Path) -> Path:
    """The pack in a bundle, as a file of its own below `folder`."""
    target = folder / "pack-of-bundle.pack"
    with path.open("rb") as file, target.open("xb") as out:
        file.seek(file.read(_HEAD).index(b"\n\n") + 2)
        shutil.copyfileobj(file, out, 1 << 20)
    return target


def _malformed(path: Path, why: str) -> Invalid:
    return Invalid(
        "bundle-malformed",
        "the Git bundle cannot be used",
        where=str(path),
        expected="a bundle whose objects are all there and well formed",
        got=why[:300],
        cure="ask for it again; it was damaged or made to deceive",
    )
