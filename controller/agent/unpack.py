"""Unpack image layers into a folder without ever leaving it (image-spec 1.1, layer.md).

Paths are looked up as in a chroot: a symlink met on the way is followed inside the folder only. Absolute
symlinks are rewritten to stay inside, because the process driver runs without a chroot; when all layers are
in, every symlink is looked at once more and one that leads out makes the whole image refused.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import posixpath
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from controller.errors import Invalid, LockgateError, Refused, Unavailable

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_HEADER_LIMIT: Final = 1024 * 1024
_LINK_HOPS: Final = 40
_CHUNK: Final = 256 * 1024
_ZSTD_WINDOW: Final = 128 * 1024 * 1024
_EXTENDED: Final = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an image may grow to. Sizes in bytes, after decompression, over all layers."""

    total_bytes: int = 8 * 1024**3
    entries: int = 500_000
    path_length: int = 4096
    depth: int = 128


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was unpacked; `skipped` are the paths of devices and fifos, which are never made."""

    entries: int
    total_bytes: int
    skipped: tuple[str, ...]


def unpack(layers: Iterable[tuple[str, IO[bytes]]], dest: Path, limits: UnpackLimits | None = None) -> Unpacked:
    """Unpack layers (media type, compressed bytes; lowest first) into `dest`, which must not exist or be empty.

    Owners, times and extended attributes are not taken over; modes lose setuid, setgid, sticky and write for
    others. On any error `dest` is removed. Raises Refused with "layer-escapes", "layer-too-large",
    "layer-unsafe" or "layer-corrupt", Invalid("layer-unsupported"), Unavailable("disk-full").
    """
    dest.mkdir(parents=True, exist_ok=True)
    if any(dest.iterdir()):
        raise Invalid(
            "unpack-not-empty", "the folder is not empty", where=str(dest), expected="an empty folder", got="files"
        )
    state = _Unpacking(dest.resolve(), limits or UnpackLimits())
    try:
        for number, (media_type, file) in enumerate(layers, start=1):
            state.layer(f"layer {number}", media_type, file)
        state.audit_links()
    except LockgateError:
        shutil.rmtree(dest, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(dest, ignore_errors=True)
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise _unsafe(f"folder {dest}", "paths this system can hold", error.strerror or "") from None
        raise write_failed(error, f"folder {dest}") from None
    return Unpacked(state.entries, state.total, tuple(state.skipped))


def write_failed(error: OSError, where: str) -> LockgateError:
    """The typed error for a failed write: the disk is full, or something else of this machine is wrong."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable(
            "disk-full",
            "there is no room left to write",
            where=where,
            expected="free space",
            got=error.strerror or "",
            cure="free some space or raise the quota, then retry",
        )
    return Unavailable(
        "write-failed",
        "writing failed",
        where=where,
        expected="a writable folder",
        got=error.strerror or type(error).__name__,
        cure="check the disk and the permissions",
    )


class _Bounded:
    """A decompressed stream that ends in an error, not in a full disk."""

    def __init__(self, stream: Any, state: _Unpacking) -> None:
        self._stream = stream
        self._state = state

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._state.count(len(data))
        return data


class _Header(tarfile.TarInfo):
    """A tar header that refuses absurd sizes before anything reads that much into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError:
            if any(buf):  # tarfile would take a damaged header for the end of the archive
                raise _corrupt("layer header", "a damaged header") from None
            raise
        if header.size < 0 or (header.type in _EXTENDED and header.size > _HEADER_LIMIT):
            raise _unsafe("layer header", f"at most {_HEADER_LIMIT} bytes", f"{header.size} bytes")
        return header


class _Unpacking:
    """One image's way into one folder."""

    def __init__(self, root: Path, limits: UnpackLimits) -> None:
        self._root = root
        self._limits = limits
        self._where = ""
        self._written: set[Parts] = set()
        self.entries = 0
        self.total = 0
        self.skipped: list[str] = []

    def count(self, size: int) -> None:
        """Add decompressed bytes; Refused("layer-too-large") beyond the limit."""
        self.total += size
        if self.total > self._limits.total_bytes:
            raise _too_large(self._where, f"at most {self._limits.total_bytes} bytes unpacked")

    def layer(self, where: str, media_type: str, file: IO[bytes]) -> None:
        """Apply one layer. Whiteouts hide what lower layers brought, never what this one brings."""
        self._where = where
        self._written = set()
        bounded: Any = _Bounded(_decompressed(media_type, file, where), self)
        try:
            with tarfile.open(
                fileobj=bounded, mode="r|", tarinfo=_Header, errors="surrogateescape", encoding="utf-8"
            ) as tar:
                while (member := tar.next()) is not None:
                    self._member(tar, member)
                    tar.members = []  # type: ignore[attr-defined]  # or it keeps every header
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise _corrupt(where, type(error).__name__) from None
        except (ValueError, IndexError, RecursionError) as error:
            # tarfile meets some malformed extended headers with plain exceptions.
            raise _corrupt(where, type(error).__name__) from None

    def audit_links(self) -> None:
        """Raises Refused("layer-escapes") when any symlink, as it finally stands, leads out of the folder."""
        for folder, folders, files in os.walk(self._root):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(self._root):
                    raise _escapes("a symlink", str(path.relative_to(self._root)))

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise _too_large(self._where, f"at most {self._limits.entries} entries")
        parts = self._parts(member.name)
        if not parts:
            return
        parent, name = self._inside(parts[:-1]), parts[-1]
        if name.startswith(_WHITEOUT):
            self._whiteout(parent, name)
        elif member.isdir():
            self._folder((*parent, name), member.mode)
        elif member.issym():
            self._symlink((*parent, name), member.linkname)
        elif member.islnk():
            self._hardlink((*parent, name), member.linkname)
        elif member.isfile() and not member.issparse():
            self._file(tar, member, (*parent, name))
        elif member.ischr() or member.isblk() or member.isfifo():
            self.skipped.append("/".join(parts))
        else:
            raise _unsafe(self._where, "files, folders and links", f"entry type {member.type!r}")

    def _parts(self, name: str) -> Parts:
        """An entry's path in pieces. Raises Refused for absolute paths, "..", NULs and absurd lengths."""
        if name.startswith("/") or ".." in name.split("/"):
            raise _escapes(self._where, name)
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if "\0" in name or len(name) > self._limits.path_length or len(parts) > self._limits.depth:
            raise _unsafe(self._where, f"a path of at most {self._limits.path_length} characters", name[:80])
        if any(len(os.fsencode(part)) > 255 for part in parts):
            raise _unsafe(self._where, "file names of at most 255 bytes", name[:80])
        return parts

    def _path(self, parts: Parts) -> Path:
        return self._root.joinpath(*parts)

    def _inside(self, parts: Parts, *, make: bool = True) -> Parts:
        """Where a folder really is: symlinks followed as in a chroot, missing folders made.

        The result is made of real folders only, so joining a name to it cannot leave the root.
        """
        real: list[str] = []
        todo = list(reversed(parts))
        hops = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del real[-1:]
                continue
            path = self._path((*real, part))
            mode = _lmode(path)
            if mode is not None and stat.S_ISLNK(mode):
                hops += 1
                target = str(path.readlink())
                if hops > _LINK_HOPS:
                    raise _escapes(self._where, "/".join(parts))
                if target.startswith("/"):
                    real.clear()
                todo.extend(reversed(target.split("/")))
                continue
            if mode is None and make:
                path.mkdir(mode=0o755)
            elif mode is None or not stat.S_ISDIR(mode):
                raise _unsafe(self._where, "a folder", f"something else at {'/'.join((*real, part))[:200]}")
            real.append(part)
            if make:
                self._mark(tuple(real))
        return tuple(real)

    def _mark(self, parts: Parts) -> None:
        self._written.update(parts[:depth] for depth in range(1, len(parts) + 1))

    def _clear(self, parts: Parts) -> Path:
        """Make room for an entry: whatever stands there goes, links are never written through."""
        path = self._path(parts)
        mode = _lmode(path)
        if mode is not None:
            _remove(path, mode)
        self._mark(parts)
        return path

    def _folder(self, parts: Parts, mode: int) -> None:
        path = self._path(parts)
        there = _lmode(path)
        if there is None or not stat.S_ISDIR(there):
            self._clear(parts)
            path.mkdir()
        self._mark(parts)
        path.chmod((mode & 0o755) | 0o700)

    def _file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parts: Parts) -> None:
        source = tar.extractfile(member)
        path = self._clear(parts)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            size = 0
            while source is not None and (chunk := source.read(_CHUNK)):
                size += file.write(chunk)
            if size != member.size:
                raise _corrupt(self._where, f"{size} of {member.size} bytes")
            os.fchmod(file.fileno(), (member.mode & 0o755) | 0o400)

    def _symlink(self, parts: Parts, target: str) -> None:
        if "\0" in target or not 0 < len(target) <= self._limits.path_length:
            raise _unsafe(self._where, "a symlink with a plain target", target[:80])
        if target.startswith("/"):
            target = "../" * (len(parts) - 1) + (posixpath.normpath(target).lstrip("/") or ".")
        self._clear(parts).symlink_to(target)

    def _hardlink(self, parts: Parts, linkname: str) -> None:
        wanted = self._parts(linkname)
        if not wanted:
            raise _unsafe(self._where, "a hard link to a file", linkname[:80])
        source = (*self._inside(wanted[:-1], make=False), wanted[-1])
        if source == parts:
            return
        mode = _lmode(self._path(source))
        if mode is None or not stat.S_ISREG(mode):
            raise _unsafe(self._where, "a hard link to a file", linkname[:200])
        # Clearing the way could remove the source itself when it lies below a folder of that name.
        if source[: len(parts)] == parts:
            raise _unsafe(self._where, "a hard link to a file elsewhere", linkname[:200])
        self._clear(parts)
        os.link(self._path(source), self._path(parts), follow_symlinks=False)

    def _whiteout(self, parent: Parts, name: str) -> None:
        if name == _OPAQUE:
            for child in sorted(self._path(parent).iterdir()):
                self._hide((*parent, child.name))
        elif name.startswith(_WHITEOUT + _WHITEOUT):
            return
        else:
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise _escapes(self._where, name)
            self._hide((*parent, hidden))

    def _hide(self, parts: Parts) -> None:
        """Remove what lower layers put at `parts`, sparing what the current layer wrote."""
        path = self._path(parts)
        mode = _lmode(path)
        if mode is None:
            return
        if parts not in self._written:
            _remove(path, mode)
        elif stat.S_ISDIR(mode):
            for child in sorted(path.iterdir()):
                self._hide((*parts, child.name))


def _decompressed(media_type: str, file: IO[bytes], where: str) -> Any:
    kind = media_type.partition(";")[0]
    if kind.endswith((".tar+gzip", ".tar.gzip")):
        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind.endswith(".tar+zstd"):
        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return reader.stream_reader(file, read_across_frames=True)
    if kind.endswith(".tar"):
        return file
    raise Invalid(
        "layer-unsupported",
        "this kind of layer cannot be unpacked",
        where=where,
        expected="a tar, plain or compressed with gzip or zstd",
        got=media_type[:100],
        cure="build the image with ordinary layers",
    )


def _lmode(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return path.lstat().st_mode
    return None


def _remove(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def _refused(code: str, what: str, where: str, expected: str, got: str) -> Refused:
    cure = "do not deploy this image; build it again and look at how it was made"
    got = got.encode("utf-8", "replace").decode()
    return Refused(code, what, where=where, expected=expected, got=got[:200], cure=cure)


def _escapes(where: str, got: str) -> Refused:
    return _refused("layer-escapes", "an entry leads out of the image", where, "paths inside the image", got)


def _unsafe(where: str, expected: str, got: str) -> Refused:
    return _refused("layer-unsafe", "an entry cannot be unpacked safely", where, expected, got)


def _too_large(where: str, expected: str) -> Refused:
    return _refused("layer-too-large", "the image unpacks to more than allowed", where, expected, "more")


def _corrupt(where: str, got: str) -> Refused:
    return _refused("layer-corrupt", "the layer is damaged", where, "a whole tar archive", got)
