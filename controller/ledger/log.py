"""The transparency log over the entries: RFC 6962 tree, C2SP tiles, checkpoints as signed notes.

A log entry's data is the 32 bytes of the sha256 of a stored envelope, so its leaf hash is
sha256(0x00 || sha256(envelope)) and inclusion can be shown from an entry's digest alone; it is never the id of
a commit, which would contain itself. Formats: https://c2sp.org/tlog-tiles (height 8, hash tiles and checkpoint
only), https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.errors import Invalid, Refused
from controller.ledger.dsse import verify_raw
from controller.model.keys import public_key
from controller.ports import Signer

HEIGHT = 8
WIDTH = 1 << HEIGHT
HASH = 32
ROOT = "log/"
CHECKPOINT = "log/checkpoint"
EMPTY_ROOT = hashlib.sha256(b"").digest()
_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 section 2.1: the hash of a leaf."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: the hash of an inner node."""
    return _sha256(b"\x01" + left + right).digest()


def digest_bytes(digest: str) -> bytes:
    """The 32 bytes of a `sha256:<hex>` digest."""
    return bytes.fromhex(digest.removeprefix("sha256:"))


def merkle_root(leaves: Iterable[bytes]) -> bytes:
    """RFC 6962 Merkle tree hash over the data of `leaves`."""
    return Log().append([leaf_hash(data) for data in leaves])[0].root


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """A tile's path in the evidence tree: groups of three digits, all but the last marked `x`."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    path = f"{ROOT}tile/{level}/" + "/".join(reversed(groups))
    return path if width == WIDTH else f"{path}.p/{width}"


@dataclass(frozen=True, slots=True)
class Log:
    """The right edge of the tree: all that appending needs, O(log n).

    `peaks` are the roots of the perfect subtrees, largest first, as (height, hash); `partials[level]` are
    the concatenated hashes of the incomplete tile of that level.
    """

    size: int = 0
    peaks: tuple[tuple[int, bytes], ...] = ()
    partials: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        """The Merkle tree hash; sha256 of nothing for the empty tree."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1][1]
        for _, peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def append(self, leaves: Sequence[bytes]) -> tuple[Log, dict[str, bytes | None]]:
        """Append leaf hashes; returns the new edge and the tile files that change (None: delete).

        Complete tiles are written once; an incomplete tile is replaced by its longer successor.
        """
        peaks = list(self.peaks)
        partials = [bytearray(partial) for partial in self.partials]
        files: dict[str, bytes | None] = {}
        for level, partial in enumerate(self.partials):
            if partial:
                files[tile_path(level, self.size >> (HEIGHT * (level + 1)), len(partial) // HASH)] = None
        size = self.size
        for leaf in leaves:
            height, node = 0, leaf
            _tile(partials, files, 0, size, node)
            while peaks and peaks[-1][0] == height:
                node = node_hash(peaks.pop()[1], node)
                height += 1
                if height % HEIGHT == 0:
                    _tile(partials, files, height // HEIGHT, size, node)
            peaks.append((height, node))
            size += 1
        for level, tile in enumerate(partials):
            if tile:
                files[tile_path(level, size >> (HEIGHT * (level + 1)), len(tile) // HASH)] = bytes(tile)
        for level, (was, tile) in enumerate(zip(self.partials, partials, strict=False)):
            if was == tile:
                files.pop(tile_path(level, size >> (HEIGHT * (level + 1)), len(tile) // HASH), None)
        return Log(size, tuple(peaks), tuple(bytes(tile) for tile in partials)), files


def _tile(partials: list[bytearray], files: dict[str, bytes | None], level: int, index: int, node: bytes) -> None:
    """Put a node into its level's incomplete tile; a full tile becomes a file. `index` is the leaf's."""
    while len(partials) <= level:
        partials.append(bytearray())
    partials[level] += node
    if len(partials[level]) == WIDTH * HASH:
        files[tile_path(level, index >> (HEIGHT * (level + 1)))] = bytes(partials[level])
        partials[level].clear()


def restore(size: int, read: Callable[[str], bytes | None]) -> Log:
    """The right edge of a tree of `size` leaves from its incomplete tiles.

    Raises Refused("log-mismatch") when a tile is missing or has another length.
    """
    partials: list[bytes] = []
    peaks: list[tuple[int, bytes]] = []
    for level in range(_levels(size)):
        path = _edge_tile(size, level)
        partial = read(path) if path else b""
        if partial is None or len(partial) != HASH * ((size >> (HEIGHT * level)) % WIDTH):
            raise Refused("log-mismatch", "a tile of the log's edge is missing or cut", where=path or "log")
        partials.append(partial)
        found: list[tuple[int, bytes]] = []
        position = 0
        for bit in reversed(range(HEIGHT)):
            if (len(partial) // HASH) >> bit & 1:
                part = partial[position * HASH : (position + (1 << bit)) * HASH]
                found.append((HEIGHT * level + bit, _perfect(part)))
                position += 1 << bit
        peaks = found + peaks
    return Log(size, tuple(peaks), tuple(partials))


def _levels(size: int) -> int:
    levels = 0
    while size:
        levels += 1
        size >>= HEIGHT
    return levels


def _edge_tile(size: int, level: int) -> str | None:
    nodes = size >> (HEIGHT * level)
    return tile_path(level, nodes >> HEIGHT, nodes % WIDTH) if nodes % WIDTH else None


def _perfect(hashes: bytes) -> bytes:
    """The root over 2^k concatenated hashes."""
    while len(hashes) > HASH:
        hashes = b"".join(
            [_sha256(b"\x01" + hashes[i : i + 2 * HASH]).digest() for i in range(0, len(hashes), 2 * HASH)]
        )
    return hashes


# --- proofs ----------------------------------------------------------------------------------------------


class Tree:
    """A log of `size` leaves read from its tiles, for making proofs; reads O(log n) tiles a proof."""

    def __init__(self, size: int, read: Callable[[str], bytes | None]) -> None:
        self.size = size
        self._read = read
        self._tiles: dict[str, bytes] = {}
        self._nodes: dict[tuple[int, int], bytes] = {}

    def root(self, size: int) -> bytes:
        """The Merkle root over the first `size` leaves."""
        if not 0 < size <= self.size:
            raise Refused("log-range", f"no root of {size} of {self.size} leaves")
        return self._range(0, size)

    def peaks(self, size: int) -> tuple[tuple[int, bytes], ...]:
        """The roots of the perfect subtrees over the first `size` leaves, largest first, as (height, hash)."""
        if not 0 <= size <= self.size:
            raise Refused("log-range", f"no peaks of {size} of {self.size} leaves")
        found, low = [], 0
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                found.append((height, self._node(height, low)))
                low += 1 << height
        return tuple(found)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """RFC 6962 section 2.1.1: the audit path of leaf `index` in the tree of the first `size` leaves."""
        size = self.size if size is None else size
        if not 0 <= index < size <= self.size:
            raise Refused("log-range", f"leaf {index} is not in a tree of {size} of {self.size} leaves")
        path: list[bytes] = []
        low, high = 0, size
        while high - low > 1:
            split = low + _split(high - low)
            if index < split:
                path.append(self._range(split, high))
                high = split
            else:
                path.append(self._range(low, split))
                low = split
        return path[::-1]

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """RFC 6962 section 2.1.2: that the tree of `old` leaves is a prefix of the one of `size`."""
        size = self.size if size is None else size
        if not 0 < old <= size <= self.size:
            raise Refused("log-range", f"no consistency proof from {old} to {size} of {self.size} leaves")
        path: list[bytes] = []
        low, high, whole = 0, size, True
        while old != high:
            split = low + _split(high - low)
            if old <= split:
                path.append(self._range(split, high))
                high = split
            else:
                path.append(self._range(low, split))
                low, whole = split, False
        if not whole:
            path.append(self._range(low, high))
        return path[::-1]

    def _range(self, low: int, high: int) -> bytes:
        """The Merkle tree hash of leaves low..high, where low is aligned to the split that made it."""
        count = high - low
        if count & (count - 1) == 0:
            return self._node(count.bit_length() - 1, low)
        split = low + _split(count)
        return node_hash(self._range(low, split), self._range(split, high))

    def _node(self, height: int, leaf: int) -> bytes:
        known = self._nodes.get((height, leaf))
        if known is not None:
            return known
        level, inside = divmod(height, HEIGHT)
        first = leaf >> (HEIGHT * level)
        tile = self._tile_of(level, first // WIDTH)
        start = first % WIDTH
        part = tile[start * HASH : (start + (1 << inside)) * HASH]
        if len(part) != HASH << inside:
            raise Refused("log-mismatch", "a tile of the log is cut", where=tile_path(level, first // WIDTH))
        made = self._nodes[height, leaf] = _perfect(part)
        return made

    def _tile_of(self, level: int, index: int) -> bytes:
        width = min(WIDTH, (self.size >> (HEIGHT * level)) - index * WIDTH)
        path = tile_path(level, index, width)
        if path not in self._tiles:
            data = self._read(path)
            if data is None or len(data) != width * HASH:
                raise Refused("log-mismatch", "a tile of the log is missing or cut", where=path)
            self._tiles[path] = data
        return self._tiles[path]


def _split(count: int) -> int:
    """The largest power of two below `count` (> 1)."""
    return 1 << (count - 1).bit_length() - 1


def verify_inclusion(index: int, size: int, leaf: bytes, root: bytes, path: Sequence[bytes]) -> None:
    """Check an audit path (RFC 9162 section 2.1.3.2); raises Refused("log-inconsistent")."""
    _check_hashes([leaf, root, *path])
    if not 0 <= index < size:
        raise _inconsistent(f"leaf {index} is not in a tree of {size}")
    node, last, current = leaf, size - 1, index
    for sibling in path:
        if last == 0:
            raise _inconsistent("the path is too long")
        if current & 1 or current == last:
            node = node_hash(sibling, node)
            while not current & 1 and current:
                current >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        current >>= 1
        last >>= 1
    if last or node != root:
        raise _inconsistent("the leaf is not in the tree of that root")


def verify_consistency(old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> None:
    """Check a consistency proof (RFC 9162 section 2.1.4.2); raises Refused("log-inconsistent").

    A tree of size 0 is consistent with everything and proves nothing, so it is refused.
    """
    _check_hashes([old_root, root, *path])
    if not 0 < old <= size:
        raise _inconsistent(f"no proof goes from size {old} to {size}")
    if old == size:
        if path or old_root != root:
            raise _inconsistent("two roots for one size")
        return
    proof = list(path)
    if old & (old - 1) == 0:
        proof.insert(0, old_root)
    if not proof:
        raise _inconsistent("the proof is empty")
    first, last = old - 1, size - 1
    while first & 1:
        first >>= 1
        last >>= 1
    before = after = proof[0]
    for sibling in proof[1:]:
        if last == 0:
            raise _inconsistent("the proof is too long")
        if first & 1 or first == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not first & 1 and first:
                first >>= 1
                last >>= 1
        else:
            after = node_hash(after, sibling)
        first >>= 1
        last >>= 1
    if last or before != old_root or after != root:
        raise _inconsistent("the longer log does not extend the shorter one")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(item) != HASH for item in hashes):
        raise _inconsistent("a hash does not have 32 bytes")


def _inconsistent(why: str) -> Refused:
    return Refused("log-inconsistent", f"the log proof does not hold: {why}")


# --- checkpoints -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement of the log's size and root; `key` is the OpenSSH key whose signature held."""

    origin: str
    size: int
    root: bytes
    key: str | None = None


def origin_of(project: str, genesis: str) -> str:
    """The checkpoint's origin line: one log per project and genesis commit."""
    return f"{project}/{genesis[:16]}"


def sign_checkpoint(origin: str, log: Log, signer: Signer) -> bytes:
    """The checkpoint of `log` as a signed note with one signature; the key's name is the origin."""
    return checkpoint_of(origin, log.size, log.root, signer)


def checkpoint_of(origin: str, size: int, root: bytes, signer: Signer) -> bytes:
    """The checkpoint of a tree of `size` leaves."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    signature = signer.sign_raw(text.encode())
    blob = base64.b64encode(_note_key(origin, signer.public_key) + signature).decode()
    return f"{text}\n— {origin} {blob}\n".encode()


def read_checkpoint(data: bytes) -> Checkpoint:
    """What a checkpoint says, its signature not checked; raises Invalid("checkpoint-malformed")."""
    return parse_note(data)[0]


def open_checkpoint(data: bytes, origin: str, keys: Mapping[str, str]) -> Checkpoint:
    """Check a checkpoint's form, origin and signature; `keys` maps key ids to OpenSSH public keys.

    Raises Invalid("checkpoint-malformed") or Refused("checkpoint-signature").
    """
    checkpoint, text, signatures = parse_note(data)
    if checkpoint.origin != origin:
        raise Refused(
            "checkpoint-signature", "the checkpoint is another log's", expected=origin, got=checkpoint.origin
        )
    for openssh in keys.values():
        prefix = _note_key(origin, openssh)
        for name, blob in signatures:
            if name == origin and blob[:4] == prefix and verify_raw(public_key(openssh), blob[4:], text):
                return Checkpoint(origin, checkpoint.size, checkpoint.root, openssh)
    raise Refused("checkpoint-signature", "no key that may sign here signed the checkpoint", where=CHECKPOINT)


def _note_key(name: str, openssh: str) -> bytes:
    """The four key-id bytes of a signed note: Ed25519 is type 0x01, other keys use the free type 0xff."""
    kind, blob = openssh.split()[:2]
    raw = base64.b64decode(blob)
    typed = b"\x01" + raw[-HASH:] if kind == "ssh-ed25519" else b"\xff" + raw
    return _sha256(name.encode() + b"\n" + typed).digest()[:4]


def decode_base64(text: str) -> bytes:
    """Base64 in its one spelling: other bits behind the last byte would be other bytes that say the same. Raises
    ValueError."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 in another spelling than its one")
    return data


def parse_note(data: bytes) -> tuple[Checkpoint, bytes, list[tuple[str, bytes]]]:
    """A checkpoint taken apart: what it says, the bytes that are signed, and its (name, blob) signatures, none
    of them checked; raises Invalid("checkpoint-malformed")."""
    try:
        text, _, tail = data.decode("utf-8").partition("\n\n")
        origin, size, root = text.split("\n")
        decoded = decode_base64(root)
        signatures = []
        for line in tail.removesuffix("\n").split("\n"):
            dash, name, blob = line.split(" ")
            if dash != "—":
                raise ValueError("a signature line does not begin with a dash")
            signatures.append((name, decode_base64(blob)))
        if not origin or str(int(size)) != size or int(size) < 0 or len(decoded) != HASH or data[-1:] != b"\n":
            raise ValueError("origin, size or root is not in its form")
    except ValueError as error:
        raise Invalid("checkpoint-malformed", f"not a signed checkpoint ({error})", where=CHECKPOINT) from error
    return Checkpoint(origin, int(size), decoded), (text + "\n").encode(), signatures
