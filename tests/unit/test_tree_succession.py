"""Comparing a tree with its successor reads only what changed, and judges it as strictly as reading it whole."""

from __future__ import annotations

import random

import pytest

from controller.adapters.git import objects
from controller.errors import Refused

MODES = (b"100644", b"100644", b"40000", b"100755")
ODD = (b"100600", b"040000", b"000000")
NAMES = tuple(b"a a.b a0 a-b b run run.json runs x001 x002 .git .. zz 001.p \xc3\xa9 c d e f g h".split())


def _entry(rng: random.Random) -> tuple[bytes, bytes, bytes]:
    mode = rng.choice(MODES) if rng.random() < 0.97 else rng.choice(ODD)
    # Ids that look like entries themselves must not mislead.
    oid = b" a\x00100644 b\x00" + rng.randbytes(8) if rng.random() < 0.2 else rng.randbytes(20)
    return mode, rng.choice(NAMES), oid[:20].ljust(20, b"\x01")


def _bytes(entries: list[tuple[bytes, bytes, bytes]]) -> bytes:
    return b"".join(b"%b %b\0%b" % entry for entry in entries)


def _sorted(entries: list[tuple[bytes, bytes, bytes]]) -> list[tuple[bytes, bytes, bytes]]:
    return sorted(entries, key=lambda e: e[1] + b"/" if e[0] == b"40000" else e[1])


def _sound(rng: random.Random) -> list[tuple[bytes, bytes, bytes]]:
    found = {entry[1]: entry for entry in (_entry(rng) for _ in range(rng.randrange(1, 12)))}
    return _sorted([e for e in found.values() if e[0] in MODES and not e[1].startswith(b".")])


@pytest.mark.parametrize("seed", range(40))
def test_a_successor_is_read_as_if_it_were_read_whole(seed: int) -> None:
    rng = random.Random(seed)
    judged = 0
    for _ in range(200):
        before = _sound(rng)
        after = list(before)
        for _ in range(rng.randrange(1, 4)):
            if after and rng.random() < 0.6:
                place = rng.randrange(len(after))
                after[place : place + 1] = [_entry(rng)] if rng.random() < 0.6 else []
            else:
                after.insert(rng.randrange(len(after) + 1), _entry(rng))
        after = _sorted(after) if rng.random() < 0.7 else after
        data = _bytes(after)
        if data and rng.random() < 0.1:
            cut = rng.randrange(len(data))
            data = data[:cut] + rng.randbytes(rng.randrange(3)) + data[cut + rng.randrange(3) :]
        old = objects.listing("old", _bytes(before))
        made = objects.succeed("new", old, data)
        try:
            whole = objects.listing("new", data)
        except Refused:
            assert made is None
            continue
        gone, came = objects.differing(old, whole)
        assert set(gone) - set(came) == set(before) - set(objects.entries(whole))
        assert set(came) - set(gone) == set(objects.entries(whole)) - set(before)
        if made is None:
            continue
        judged += 1
        listing, gone, came = made
        assert (listing.data, listing.starts) == (whole.data, whole.starts)
        assert set(gone) - set(came) == set(before) - set(objects.entries(whole))
        assert set(came) - set(gone) == set(objects.entries(whole)) - set(before)
    assert judged > 20
