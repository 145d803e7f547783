"""The tile log: published vectors, proofs against a plain implementation of RFC 6962, signed checkpoints."""

import hashlib
import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.git.keys import KeySigner
from controller.errors import Invalid, Refused
from controller.ledger.log import (
    EMPTY_ROOT,
    Log,
    Tree,
    leaf_hash,
    merkle_root,
    node_hash,
    open_checkpoint,
    origin_of,
    read_checkpoint,
    restore,
    sign_checkpoint,
    tile_path,
    verify_consistency,
    verify_inclusion,
)
from controller.model.keys import key_id

# The test data of the Certificate Transparency reference implementation for RFC 6962.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
DATA = [hashlib.sha256(b"%d" % i).digest() for i in range(1400)]


def plain_root(data: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    split = 1
    while split * 2 < len(data):
        split *= 2
    return hashlib.sha256(b"\x01" + plain_root(data[:split]) + plain_root(data[split:])).digest()


def grow(data: list[bytes], batch: Callable[[], int]) -> tuple[Log, dict[str, bytes]]:
    log, files, done = Log(), {}, 0
    while done < len(data):
        part = data[done : done + batch()]
        log, changed = log.append([leaf_hash(item) for item in part])
        done += len(part)
        for path, content in changed.items():
            if content is None:
                del files[path]
            else:
                files[path] = content
        assert restore(done, files.get) == log
    return log, files


def test_published_roots() -> None:
    assert merkle_root([]) == EMPTY_ROOT
    for size in range(1, 9):
        assert merkle_root(LEAVES[:size]).hex() == ROOTS[size - 1]


def test_published_proofs() -> None:
    files: dict[str, bytes | None] = {}
    _, files = Log().append([leaf_hash(data) for data in LEAVES])
    tree = Tree(8, files.get)
    assert [item.hex() for item in tree.inclusion(0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [item.hex() for item in tree.consistency(6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]


def test_tiles_hold_the_tree_whatever_the_batches() -> None:
    whole, files = grow(DATA, lambda: 1400)
    rng = random.Random(1)
    assert grow(DATA, lambda: rng.choice([1, 7, 255, 256, 257, 300])) == (whole, files)
    assert whole.root == plain_root(DATA)
    names = {f"log/tile/0/{i:03d}" for i in range(5)} | {"log/tile/0/005.p/120", "log/tile/1/000.p/5"}
    assert files.keys() == names
    asked: list[str] = []
    assert restore(1400, lambda path: asked.append(path) or files[path]) == whole  # type: ignore[func-returns-value]
    assert {path for path in files if ".p/" in path} == set(asked)


def test_a_full_second_level() -> None:
    log, files = Log().append([leaf_hash(b"%d" % i) for i in range(256 * 256 + 1)])
    assert len(files["log/tile/1/000"] or b"") == 8192
    assert len(files["log/tile/2/000.p/1"] or b"") == 32
    assert restore(65537, files.get) == log
    assert tile_path(0, 1234067) == "log/tile/0/x001/x234/067"


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_every_proof_verifies_and_none_other(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 700))
    old = data.draw(st.integers(1, size))
    index = data.draw(st.integers(0, old - 1))
    _, files = Log().append([leaf_hash(item) for item in DATA])
    tree = Tree(1400, files.get)
    root, old_root = plain_root(DATA[:size]), plain_root(DATA[:old])
    proof, path = tree.consistency(old, size), tree.inclusion(index, size)
    verify_consistency(old, size, old_root, root, proof)
    verify_inclusion(index, size, leaf_hash(DATA[index]), root, path)
    with pytest.raises(Refused):
        verify_inclusion(index, size, leaf_hash(b"other"), root, path)
    with pytest.raises(Refused):
        verify_inclusion(index, size, leaf_hash(DATA[index]), root, [*path, bytes(32)])
    with pytest.raises(Refused):
        verify_consistency(old, size, bytes(32), root, proof)
    with pytest.raises(Refused):
        verify_consistency(old, size, old_root, root, [*proof, bytes(32)])
    for cut in range(len(proof)):
        with pytest.raises(Refused):
            verify_consistency(old, size, old_root, root, proof[:cut] + proof[cut + 1 :])


@pytest.mark.parametrize(
    ("old", "size", "old_root", "root", "path"),
    [
        (0, 5, EMPTY_ROOT, bytes(32), []),
        (0, 0, EMPTY_ROOT, EMPTY_ROOT, []),
        (-1, 5, bytes(32), bytes(32), []),
        (6, 5, bytes(32), bytes(32), []),
        (5, 5, bytes(32), bytes([1]) * 32, []),
        (3, 5, bytes(32), bytes(32), [b"short"]),
        (3, 5, b"", bytes(32), [bytes(32)]),
        (3, 5, bytes(32), bytes(32), []),
    ],
)
def test_senseless_consistency_is_refused(old: int, size: int, old_root: bytes, root: bytes, path: list) -> None:
    with pytest.raises(Refused) as caught:
        verify_consistency(old, size, old_root, root, path)
    assert caught.value.code == "log-inconsistent"


def test_no_proof_out_of_range_or_from_cut_tiles() -> None:
    _, files = Log().append([leaf_hash(item) for item in DATA[:300]])
    tree = Tree(300, files.get)
    for call in (lambda: tree.inclusion(300), lambda: tree.consistency(0), lambda: tree.consistency(301)):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "log-range"
    files["log/tile/0/001.p/44"] = b"x" * 31
    with pytest.raises(Refused) as caught:
        Tree(300, files.get).inclusion(299)
    assert caught.value.code == "log-mismatch"
    with pytest.raises(Refused):
        restore(300, files.get)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_checkpoints_are_signed_notes(kind: str) -> None:
    make = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    }
    signer, other = KeySigner(make[kind]()), KeySigner(ed25519.Ed25519PrivateKey.generate())
    origin = origin_of("shop", "ab" * 20)
    assert origin == "shop/abababababababab"
    log, _ = Log().append([leaf_hash(item) for item in DATA[:3]])
    note = sign_checkpoint(origin, log, signer)
    lines = note.decode().split("\n")
    assert lines[:2] == [origin, "3"]
    assert lines[3] == ""
    assert lines[4].startswith(f"— {origin} ")
    keys = {key_id(signer.public_key): signer.public_key}
    opened = open_checkpoint(note, origin, keys)
    assert (opened.size, opened.root, opened.key) == (3, log.root, signer.public_key)
    assert read_checkpoint(note).key is None
    for data, name, known in (
        (note.replace(b"\n3\n", b"\n4\n"), origin, keys),
        (note, "shop/other", keys),
        (note, origin, {key_id(other.public_key): other.public_key}),
        (note, origin, {}),
    ):
        with pytest.raises(Refused) as caught:
            open_checkpoint(data, name, known)
        assert caught.value.code == "checkpoint-signature"


@pytest.mark.parametrize("data", [b"", b"\xff", b"a\n1\nAAAA\n\n", b"o\n01\n" + b"A" * 43 + b"=\n\n- o AAAA\n"])
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_checkpoint(data)
    assert caught.value.code == "checkpoint-malformed"


def test_appending_nothing_changes_nothing() -> None:
    log, _ = Log().append([leaf_hash(b"a"), leaf_hash(b"b")])
    assert log.append([]) == (log, {})
    assert log.root == node_hash(leaf_hash(b"a"), leaf_hash(b"b"))
