"""Layers never leave their folder."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import resource
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.agent.unpack import Unpacked, UnpackLimits, unpack
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.uses.images import make_tar

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = TAR + "+gzip"
ZSTD = TAR + "+zstd"

Entry = tuple[str, str, str]
"""kind (file, dir, link, hard, fifo, char), path, content or target."""

KINDS = {
    "dir": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
    "odd": b"Z",
}


def tar(*entries: Entry, mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for kind, path, content in entries:
            info = tarfile.TarInfo(path)
            info.mode = 0o755 if kind == "dir" else mode
            if kind == "file":
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content.encode()))
                continue
            info.type = KINDS[kind]
            info.linkname = content
            archive.addfile(info)
    return buffer.getvalue()


def apply(dest: Path, *layers: bytes, limits: UnpackLimits | None = None, media_type: str = TAR) -> Unpacked:
    return unpack([(media_type, io.BytesIO(layer)) for layer in layers], dest, limits)


def tree(dest: Path) -> dict[str, str]:
    """Every path below `dest`: content, "-> target" or "/"."""
    found = {}
    for path in sorted(dest.rglob("*")):
        name = str(path.relative_to(dest))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


@pytest.fixture
def dest(tmp_path: Path) -> Iterator[Path]:
    """A folder to unpack into; whatever happens, its neighbours stay as they are."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    yield tmp_path / "inside" / "dest"
    assert (outside / "secret").read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) in (["inside", "outside"], ["outside"])
    assert {path.name for path in (tmp_path / "inside").glob("*")} <= {"dest"}
    assert [path.name for path in outside.iterdir()] == ["secret"]


# What ordinary images need


@pytest.mark.parametrize(
    ("media_type", "pack"),
    [
        (TAR, bytes),
        (GZIP, gzip.compress),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress),
        (ZSTD, zstandard.ZstdCompressor().compress),
    ],
)
def test_layers_lie_on_top_of_each_other(dest: Path, media_type: str, pack) -> None:  # type: ignore[no-untyped-def]
    lower = make_tar({"app/a": b"one", "app/b": b"#!/bin/sh\n"})
    upper = make_tar({"app/a": b"two", "etc/c": b"three"})
    done = apply(dest, pack(lower), pack(upper), media_type=media_type)
    assert tree(dest) == {"app": "/", "app/a": "two", "app/b": "#!/bin/sh\n", "etc": "/", "etc/c": "three"}
    assert stat.S_IMODE((dest / "app/b").stat().st_mode) == 0o755
    assert done.entries == 7


def test_several_gzip_members_and_zstd_frames_are_one_layer(dest: Path) -> None:
    data = make_tar({"a": b"1" * 5000})
    apply(dest, gzip.compress(data[:1000]) + gzip.compress(data[1000:]), media_type=GZIP)
    frames = zstandard.ZstdCompressor().compress(data[:1000]) + zstandard.ZstdCompressor().compress(data[1000:])
    (first,) = tree(dest).values()
    shutil.rmtree(dest)
    apply(dest, frames, media_type=ZSTD)
    assert tree(dest) == {"a": first}


def test_whiteouts_hide_lower_layers_only(dest: Path) -> None:
    lower = tar(("file", "d/old", "1"), ("file", "d/sub/x", "2"), ("file", "gone", "3"), ("file", "e/keep", "4"))
    upper = tar(
        ("file", "d/new", "5"),
        ("file", "d/.wh..wh..opq", ""),
        ("file", "d/sub/y", "6"),
        ("file", ".wh.gone", ""),
        ("file", ".wh.never-was", ""),
        ("file", ".wh..wh.plnk", ""),
    )
    apply(dest, lower, upper)
    assert tree(dest) == {"d": "/", "d/new": "5", "d/sub": "/", "d/sub/y": "6", "e": "/", "e/keep": "4"}


def test_a_whiteout_spares_what_its_own_layer_brings(dest: Path) -> None:
    lower = tar(("file", "d/old", "1"))
    apply(dest, lower, tar(("file", "d/new", "2"), ("file", ".wh.d", "")))
    assert tree(dest) == {"d": "/", "d/new": "2"}


def test_kinds_replace_each_other(dest: Path) -> None:
    lower = tar(
        ("file", "a", "1"), ("file", "b/x", "2"), ("link", "c", "a"), ("dir", "d", ""), ("file", "d/y", "3")
    )
    apply(dest, lower, tar(("dir", "a", ""), ("file", "b", "4"), ("file", "c", "5"), ("dir", "d", "")))
    assert tree(dest) == {"a": "/", "b": "4", "c": "5", "d": "/", "d/y": "3"}


def test_links_within_the_image(dest: Path) -> None:
    lower = tar(("dir", "usr/bin", ""), ("link", "bin", "usr/bin"), ("link", "opt/abs", "/usr/bin"))
    upper = tar(("file", "bin/tool", "x"), ("hard", "usr/tool2", "bin/tool"), ("file", "opt/abs/other", "y"))
    apply(dest, lower, upper)
    assert (dest / "usr/bin/tool").read_text() == "x"
    assert (dest / "usr/tool2").stat().st_ino == (dest / "usr/bin/tool").stat().st_ino
    assert (dest / "opt/abs").readlink() == Path("../usr/bin")
    assert (dest / "opt/abs/other").read_text() == "y"


def test_modes_are_made_harmless_and_devices_are_skipped(dest: Path) -> None:
    done = apply(dest, tar(("file", "suid", "x"), ("fifo", "pipe", ""), ("char", "dev/null", ""), mode=0o7777))
    assert stat.S_IMODE((dest / "suid").stat().st_mode) == 0o755
    assert done.skipped == ("pipe", "dev/null")
    assert tree(dest) == {"dev": "/", "suid": "x"}


def test_a_hard_link_replaced_later_does_not_change_the_other(dest: Path) -> None:
    apply(dest, tar(("file", "a", "1"), ("hard", "b", "a")), tar(("file", "b", "2")))
    assert tree(dest) == {"a": "1", "b": "2"}


# Attacks


ESCAPES: list[list[Entry]] = [
    [("file", "../outside/evil", "x")],
    [("file", "/etc/evil", "x")],
    [("file", "a/../../evil", "x")],
    [("dir", "..", "")],
    [("link", "l", "../../outside")],
    [("link", "l", "../../outside/secret")],
    [("link", "d/l", "../../x")],
    [("dir", "a", ""), ("link", "a/b", "."), ("link", "z", "a/b/b/b/../../../outside")],
    [("hard", "h", "../../outside/secret")],
    [("hard", "h", "/etc/passwd")],
    [("file", "d/.wh...", "x")],
    [("file", "d/.wh..", "x")],
    [("file", ".wh.", "x")],
    [("link", "a", "b"), ("link", "b", "a"), ("file", "a/x", "1")],
    [("link", "etc", "/etc"), ("file", "etc/passwd", "x")],
]


@pytest.mark.parametrize("entries", ESCAPES, ids=[str(number) for number in range(len(ESCAPES))])
def test_escapes_are_refused_and_nothing_stays(dest: Path, entries: list[Entry]) -> None:
    with pytest.raises(Refused) as caught:
        apply(dest, tar(*entries))
    assert caught.value.code == "layer-escapes"
    assert not dest.exists()


CONFINED: list[list[list[Entry]]] = [
    [[("link", "l", "../../outside"), ("file", "l/evil", "x"), ("file", "l", "")]],
    [[("link", "l", "/../../outside"), ("file", "l/evil", "x")]],
    [[("link", "conf", "/etc")], [("file", "etc/x", ""), ("file", "conf/passwd", "x")]],
    [[("link", "l", "/etc/passwd")], [("file", "l", "x")]],
    [[("link", "l", "../../outside")], [("file", "l/.wh.secret", "")], [("dir", "l", "")]],
    [[("link", "l", "../../outside")], [("file", "l/.wh..wh..opq", "")], [("dir", "l", "")]],
    [[("link", "l", "../../outside/secret")], [("file", ".wh.l", "")]],
    [[("link", "l", "../../outside")], [("dir", "l", ""), ("file", "l/x", "1")]],
]


@pytest.mark.parametrize("layers", CONFINED, ids=[str(number) for number in range(len(CONFINED))])
def test_links_on_the_way_lead_inside_only(dest: Path, layers: list[list[Entry]]) -> None:
    apply(dest, *(tar(*entries) for entries in layers))
    for path in dest.rglob("*"):
        assert Path(os.path.realpath(path)).is_relative_to(dest.resolve())


@pytest.mark.parametrize(
    "entries",
    [
        [("hard", "h", "missing")],
        [("dir", "d", ""), ("hard", "h", "d")],
        [("link", "l", "a"), ("hard", "h", "l")],
        [("file", "a/x", "1"), ("hard", "a", "a/x")],
        [("file", "a", "1"), ("file", "a/b", "2")],
        [("sparse", "s", "")],
        [("odd", "s", "")],
        [("file", "x" * 300, "1")],
        [("file", "d/" * 200 + "x", "1")],
        [("file", "d" * 200 + "/" + "e/" * 100 + "x" * 5000, "1")],
    ],
)
def test_what_is_unsafe_is_refused(dest: Path, entries: list[Entry]) -> None:
    with pytest.raises(Refused) as caught:
        apply(dest, tar(*entries))
    # A type nobody knows reads as a file, a sparse map that is missing as damage: neither is unpacked wrongly.
    assert caught.value.code in ("layer-unsafe", "layer-corrupt")
    assert not dest.exists()


def test_bombs_are_stopped(dest: Path) -> None:
    bomb = gzip.compress(tar(("file", "zeros", "\0" * 50_000_000)))
    assert len(bomb) < 100_000
    with pytest.raises(Refused) as caught:
        apply(dest, bomb, media_type=GZIP, limits=UnpackLimits(total_bytes=1_000_000))
    assert caught.value.code == "layer-too-large"
    with pytest.raises(Refused) as caught:
        apply(dest, tar(*(("file", f"f{n}", "") for n in range(50))), limits=UnpackLimits(entries=10))
    assert caught.value.code == "layer-too-large"
    with pytest.raises(Refused) as caught:
        apply(dest, tar(("file", "a", "1" * 700)), tar(("file", "a", "1" * 700)), limits=UnpackLimits(20_000))
    assert caught.value.code == "layer-too-large"


def test_a_huge_header_is_refused_before_it_is_read(dest: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 8 * 1024**3
    with pytest.raises(Refused) as caught:
        apply(dest, info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096)
    assert caught.value.code == "layer-unsafe"


def test_damage_is_said(dest: Path) -> None:
    good = make_tar({"a": b"1" * 3000, "b": b"2" * 3000})
    second = good.index(b"b\0\0\0")
    for media_type, data in (
        (TAR, b""),
        (TAR, good[:1500]),
        (TAR, b"not a tar at all" * 64),
        (TAR, good[:second] + b"c" + good[second + 1 :]),
        (GZIP, gzip.compress(good)[:-20]),
        (GZIP, good),
        (ZSTD, zstandard.ZstdCompressor().compress(good)[:-20]),
        (ZSTD, b"x" * 100),
    ):
        with pytest.raises(Refused) as caught:
            apply(dest, data, media_type=media_type)
        assert caught.value.code == "layer-corrupt"
        assert not dest.exists()
    with pytest.raises(Invalid) as unsupported:
        apply(dest, good, media_type="application/vnd.example.layer+xz")
    assert unsupported.value.code == "layer-unsupported"


def test_the_folder_must_be_empty(dest: Path) -> None:
    apply(dest, make_tar({"a": b"1"}))
    with pytest.raises(Invalid) as caught:
        apply(dest, make_tar({"a": b"2"}))
    assert caught.value.code == "unpack-not-empty"
    assert tree(dest) == {"a": "1"}


def test_a_full_disk_is_unavailable(dest: Path) -> None:
    with file_size_limit(10_000), pytest.raises(Unavailable) as caught:
        apply(dest, make_tar({"a": b"1" * 20_000}))
    assert caught.value.code == "disk-full"
    assert not dest.exists()


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of a file fail in the kernel, as on a disk or quota that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NAMES = st.sampled_from(["a", "b", "c", ".", "..", ".wh.a", ".wh..wh..opq", "..."])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TARGETS = st.tuples(st.sampled_from(["", "/", "../", "../../outside/"]), PATHS).map("".join)
ENTRIES = st.one_of(
    st.tuples(st.just("file"), PATHS, st.just("x")),
    st.tuples(st.just("dir"), PATHS, st.just("")),
    st.tuples(st.sampled_from(["link", "hard"]), PATHS, TARGETS),
)


@given(st.lists(st.lists(ENTRIES, max_size=8), max_size=3))
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_archive_ever_leaves(tmp_path: Path, layers: Iterable[list[Entry]]) -> None:
    place = tmp_path / os.urandom(6).hex()
    (place / "outside").mkdir(parents=True)
    (place / "outside" / "secret").write_text("untouched")
    dest = place / "in" / "dest"
    try:
        apply(dest, *(tar(*entries) for entries in layers))
    except LockgateError as error:
        assert error.code in ("layer-escapes", "layer-unsafe")
        assert not dest.exists()
    else:
        for path in dest.rglob("*"):
            assert Path(os.path.realpath(path)).is_relative_to(dest.resolve())
    assert (place / "outside" / "secret").read_text() == "untouched"
    assert [path.name for path in (place / "outside").iterdir()] == ["secret"]
    assert {path.name for path in place.iterdir()} <= {"in", "outside"}
    assert {path.name for path in (place / "in").glob("*")} <= {"dest"}


@given(st.binary(max_size=3000), st.integers(0, 3000))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_crash_it(tmp_path: Path, noise: bytes, at: int) -> None:
    good = tar(("file", "a" * 120, "1" * 600), ("link", "b", "a"), ("dir", "é" * 60, ""))
    data = good[:at] + noise + good[at + len(noise) :]
    with contextlib.suppress(LockgateError):
        apply(tmp_path / os.urandom(6).hex(), data)
