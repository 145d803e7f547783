"""Git objects as bytes: commits parsed once with their signature checked, trees parsed strictly.

Formats: gitformat-signature(5), git-hash-object(1), and the checks of git-fsck(1) that keep a tree unambiguous.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from typing import Final, Literal

from controller.adapters.git import sshsig
from controller.errors import Invalid, Refused
from controller.model.history import Commit, Person

TREE: Final = b"40000"
EMPTY_TREE: Final = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MODES: Final = {
    b"100644": 0o100644,
    b"100755": 0o100755,
    b"100664": 0o100664,
    b"120000": 0o120000,
    b"160000": 0o160000,
}
_KNOWN: Final = frozenset({TREE, *MODES})
_ODD: Final = {".", "..", *(f".{g}{i}{t}" for g in "gG" for i in "iI" for t in "tT")}
_ODD_NAMES: Final = frozenset(name.encode() for name in _ODD)
_FEW: Final = 32
"""More new entries than this are not compared with each neighbour one by one."""
_ENTRY = re.compile(rb"([0-7]+) ([^\0/]+)\0(.{20})", re.DOTALL)
_PERSON = re.compile(rb"(?s)(.*?) ?<([^<>\n]*)> (\d{1,12}) [+-]\d{4}")
_OID = re.compile(rb"[0-9a-f]{40}")
_PLAIN = re.compile(
    rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)"
    rb"author ([^\n<>]*) <([^<>\n]*)> (\d{1,11}) [+-]\d{4}\n"
    rb"committer ([^\n<>]*) <([^<>\n]*)> (\d{1,11}) [+-]\d{4}"
    rb"\n(gpgsig -----BEGIN SSH SIGNATURE-----\n(?: [A-Za-z0-9+/=]+\n)+ -----END SSH SIGNATURE-----\n)\n"
)
"""A commit with one SSH signature and no other header; every other one is read line by line."""

Tree = dict[str, tuple[bytes, bytes, bytes]]
"""Name → (mode as written, raw name, raw object id), in the tree's own order."""


def object_id(kind: bytes, data: bytes) -> str:
    """The SHA-1 object id of `data` stored as `kind` (b"blob", b"tree", b"commit")."""
    return hashlib.sha1(b"%s %d\0" % (kind, len(data)) + data, usedforsecurity=False).hexdigest()


def _bad_tree(oid: str, why: str) -> Refused:
    return Refused(
        "tree-malformed",
        "a tree is ambiguous or broken",
        where=oid,
        expected="unique, sorted names with known modes",
        got=why,
        cure="git fsck --strict in the origin, and rewrite the commit that brought this tree",
    )


def parse_tree(oid: str, data: bytes) -> Tree:
    """The entries of a raw tree. Raises Refused("tree-malformed") on duplicates, disorder or odd names."""
    entries: list[tuple[bytes, bytes, bytes]] = _ENTRY.findall(data)
    keys = [name + b"/" if mode == TREE else name for mode, name, _ in entries]
    if sum([len(mode) + len(name) for mode, name, _ in entries]) + 22 * len(entries) != len(data):
        raise _bad_tree(oid, "bytes that are no entry")
    if sorted(keys) != keys:
        raise _bad_tree(oid, "names out of order")
    if unknown := {mode for mode, _, _ in entries} - _KNOWN:
        raise _bad_tree(oid, f"mode {min(unknown).decode()}")
    tree: Tree = dict(
        zip([name.decode("utf-8", "surrogateescape") for _, name, _ in entries], entries, strict=True)
    )
    if len(tree) != len(entries):
        raise _bad_tree(oid, "two entries of one name")
    if not _ODD.isdisjoint(tree):
        raise _bad_tree(oid, "a name that git keeps for itself")
    return tree


Entries = list[tuple[bytes, bytes, bytes]]


class Listing:
    """A tree's bytes and where its entries begin, for comparing it with its successor."""

    __slots__ = ("data", "starts")

    def __init__(self, data: bytes, starts: list[int]) -> None:
        self.data = data
        self.starts = starts
        """Ascending, the length of `data` included."""


def entries(tree: Listing) -> Entries:
    """All entries of a tree."""
    found: Entries = _ENTRY.findall(tree.data)
    return found


def listing(oid: str, data: bytes) -> Listing:
    """The listing of a whole tree. Raises Refused("tree-malformed") as `parse_tree`."""
    starts = [0]
    for mode, name, _ in parse_tree(oid, data).values():
        starts.append(starts[-1] + len(mode) + len(name) + 22)
    return Listing(data, starts)


def _window(old: Listing, data: bytes) -> tuple[int, int]:
    """(first, last): before `old.starts[first]` a tree and `data` have the same bytes, and from `old.starts[last]`
    on too, counted from the end."""
    was = old.data
    shorter = min(len(was), len(data))
    # The first and the last byte that differ, found by one subtraction of the bytes as numbers.
    apart = int.from_bytes(was[:shorter], "big") ^ int.from_bytes(data[:shorter], "big")
    first = bisect_right(old.starts, shorter - (apart.bit_length() + 7) // 8) - 1
    room = shorter - old.starts[first]
    if not room:
        return first, len(old.starts) - 1
    apart = int.from_bytes(was[-room:], "little") ^ int.from_bytes(data[-room:], "little")
    return first, bisect_left(old.starts, len(was) - (room - (apart.bit_length() + 7) // 8))


def differing(old: Listing, new: Listing) -> tuple[Entries, Entries]:
    """Entries of two trees among which all are that differ; the cost is that of what lies between them."""
    if not old.data or not new.data:
        return entries(old), entries(new)
    first, last = _window(old, new.data)
    begin, end = old.starts[first], old.starts[last]
    behind = end + len(new.data) - len(old.data)
    at = bisect_left(new.starts, behind)
    if at == len(new.starts) or new.starts[at] != behind:
        return entries(old), entries(new)
    return _ENTRY.findall(old.data[begin:end]), _ENTRY.findall(new.data[begin:behind])


def succeed(oid: str, old: Listing, data: bytes) -> tuple[Listing, Entries, Entries] | None:
    """A tree that differs from `old` in one place: its listing, and old and new entries of that place.

    What both have in common before and after needs no second look, so the cost is that of what changed. None
    when much changed, or when the tree has to be read whole to be judged.
    """
    was = old.data
    if not was:
        return None
    first, last = _window(old, data)
    begin, end = old.starts[first], old.starts[last]
    shift = len(data) - len(was)
    middle = data[begin : end + shift]
    made: Entries = _ENTRY.findall(middle)
    starts = [begin]
    for mode, name, _ in made:
        starts.append(starts[-1] + len(mode) + len(name) + 22)
    if starts[-1] != end + shift or len(made) > _FEW:
        return None
    # In order with its neighbours, with known modes, and no name that stands in the tree once more (as a file
    # and as a folder, which the order alone does not show).
    before, behind = old.starts[max(first - 1, 0)], old.starts[min(last + 1, len(old.starts) - 1)]
    near = _ENTRY.findall(data[before : behind + shift])
    keys = [name + b"/" if mode == TREE else name for mode, name, _ in near]
    if sorted(keys) != keys or any(
        mode not in _KNOWN or name in _ODD_NAMES or data.count(b" %b\0" % name) != 1 for mode, name, _ in made
    ):
        return None
    found: Entries = _ENTRY.findall(was[begin:end])
    tail = [at + shift for at in old.starts[last + 1 :]] if shift else old.starts[last + 1 :]
    return Listing(data, [*old.starts[:first], *starts, *tail]), found, made


def _person(line: bytes | None) -> Person | None:
    match = _PERSON.fullmatch(line) if line is not None else None
    if match is None:
        return None
    try:
        at = datetime.fromtimestamp(int(match[3]), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return Person(match[1].decode("utf-8", "replace"), match[2].decode("utf-8", "replace"), at)


_NOBODY = Person("", "", EPOCH)


def _headers(head: bytes) -> tuple[list[tuple[bytes, bytes]], bytes, list[bytes]]:
    """(plain headers, the head without signature headers, the signature headers' values)."""
    headers: list[tuple[bytes, bytes]] = []
    kept: list[bytes] = []
    signatures: list[bytes] = []
    signing = False
    for line in head.split(b"\n"):
        if line.startswith(b" "):
            if signing:
                signatures[-1] += b"\n" + line[1:]
            else:
                kept.append(line)
            continue
        name, _, value = line.partition(b" ")
        signing = name in (b"gpgsig", b"gpgsig-sha256")
        if signing:
            signatures.append(value if name == b"gpgsig" else b"")
        else:
            kept.append(line)
            headers.append((name, value))
    return headers, b"\n".join(kept), signatures


def parse_commit(oid: str, data: bytes) -> Commit:
    """A raw commit as a value, its signature checked over its bytes without the signature header.

    Nothing raises: a commit that breaks a rule of its own carries the code in `malformed`, and its signature
    counts as bad.
    """
    plain = _PLAIN.match(data)
    if plain is not None and b"\0" not in data:
        return _plain_commit(oid, data, plain)
    head, separator, body = data.partition(b"\n\n")
    headers, kept, signatures = _headers(head if separator else data.removesuffix(b"\n"))
    names = [name for name, _ in headers]
    parents = [value for name, value in headers if name == b"parent"]
    values = dict(reversed(headers))
    author, committer = _person(values.get(b"author")), _person(values.get(b"committer"))
    shape = [b"tree", *[b"parent"] * len(parents), b"author", b"committer"]
    sound = (
        len(signatures) <= 1
        and b"\0" not in data
        and names[: len(shape)] == shape
        and not {b"tree", b"parent", b"author", b"committer"} & set(names[len(shape) :])
        and all(_OID.fullmatch(value) for value in (values[b"tree"], *parents))
        and author is not None
        and committer is not None
    )
    signature: Literal["none", "good", "bad"] = "bad" if signatures else "none"
    key = None
    if sound and signatures and signatures[0].startswith(sshsig.BEGIN):
        try:
            key = sshsig.verify(signatures[0], kept + b"\n\n" + body if separator else kept + b"\n", "git")
            signature = "good"
        except Refused:
            key = None
    return Commit(
        id=oid,
        tree=values.get(b"tree", b"").decode("ascii", "replace"),
        parents=tuple(value.decode("ascii", "replace") for value in parents),
        author=author or _NOBODY,
        committer=committer or _NOBODY,
        message=body.decode("utf-8", "replace"),
        signature=signature,
        key=key,
        malformed=None if sound else "commit-malformed",
    )


def _plain_commit(oid: str, data: bytes, parts: re.Match[bytes]) -> Commit:
    tree, parents, name, email, at, committer, committer_email, committed, signed = parts.groups()
    author = Person(
        name.decode("utf-8", "replace"),
        email.decode("utf-8", "replace"),
        datetime.fromtimestamp(int(at), UTC),
    )
    if (name, email, at) == (committer, committer_email, committed):
        who = author
    else:
        who = Person(
            committer.decode("utf-8", "replace"),
            committer_email.decode("utf-8", "replace"),
            datetime.fromtimestamp(int(committed), UTC),
        )
    start, end = parts.span(9)
    signature: Literal["good", "bad"] = "good"
    key = None
    try:
        key = sshsig.verify(signed[7:].replace(b"\n ", b"\n"), data[:start] + data[end:], "git")
    except Refused:
        signature = "bad"
    return Commit(
        id=oid,
        tree=tree.decode("ascii"),
        parents=tuple(line[7:].decode("ascii") for line in parents.splitlines()),
        author=author,
        committer=who,
        message=data[end + 1 :].decode("utf-8", "replace"),
        signature=signature,
        key=key,
    )


def commit_links(data: bytes) -> tuple[str, list[str]]:
    """(tree, parents) of a raw commit, for walks that need nothing else."""
    tree = data[5:45].decode("ascii", "replace")
    parents: list[str] = []
    at = 46
    while data.startswith(b"parent ", at):
        parents.append(data[at + 7 : at + 47].decode("ascii", "replace"))
        at += 48
    return tree, parents


def _clean(text: str) -> bytes:
    return re.sub(r"[\x00-\x1f<>]", "", text).strip().encode()


def encode_person(name: str, email: str, at: datetime) -> bytes:
    """ "name <email> seconds +0000": whole seconds, the zone is always UTC."""
    return b"%s <%s> %d +0000" % (_clean(name), _clean(email), int(at.timestamp()))


def encode_commit(tree: str, parents: tuple[str, ...], author: bytes, committer: bytes, message: str) -> bytes:
    """The bytes of an unsigned commit; the message gets its final newline."""
    if "\0" in message:
        raise Invalid(
            "message-invalid",
            "a commit message cannot hold a NUL",
            expected="text without NUL characters",
            got=repr(message[:60]),
            cure="remove the character",
        )
    text = message.encode("utf-8", "replace")
    lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
    lines += [b"author " + author, b"committer " + committer, b"", text if text.endswith(b"\n") else text + b"\n"]
    return b"\n".join(lines)


def attach_signature(payload: bytes, armored: str) -> bytes:
    """A commit's bytes with `armored` as its gpgsig header, where git puts it."""
    head, _, body = payload.partition(b"\n\n")
    folded = b"\n ".join(armored.strip().encode().split(b"\n"))
    return head + b"\ngpgsig " + folded + b"\n\n" + body
