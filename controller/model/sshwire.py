"""SSH's own forms: public key lines, and the fields of its binary formats (RFC 4251, section 5), read strictly
and written."""

from __future__ import annotations

from collections.abc import Callable


class Reader:
    """Reads one field after the other; `refuse` makes the error that says what is wrong with them."""

    __slots__ = ("_data", "_refuse", "at")

    def __init__(self, data: bytes, refuse: Callable[[str], Exception]) -> None:
        self._data = data
        self._refuse = refuse
        self.at = 0
        """How many bytes were read."""

    def take(self, count: int) -> bytes:
        """So many bytes."""
        piece = self._data[self.at : self.at + count]
        if len(piece) != count:
            raise self._refuse("a truncated structure")
        self.at += count
        return piece

    def number(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """A string: its length in four bytes, then its bytes."""
        return self.take(self.number(4))

    def mpint(self) -> int:
        """A number of any length that is not negative."""
        raw = self.string()
        if raw and raw[0] & 0x80:
            raise self._refuse("a negative number")
        return int.from_bytes(raw, "big")

    def strings(self) -> list[bytes]:
        """All that is left, as strings."""
        found = []
        while self.at < len(self._data):
            found.append(self.string())
        return found

    def end(self) -> None:
        """That nothing is left."""
        if self.at != len(self._data):
            raise self._refuse("bytes after the end of a structure")


def string(data: bytes) -> bytes:
    """`data` as a string: four bytes of length, then the bytes."""
    return len(data).to_bytes(4, "big") + data


def magnitude(value: int) -> bytes:
    """The bytes of a number that is not negative, as an mpint holds them: the first bit is no sign."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b""


def bare_key(line: str) -> str:
    """A public key line without its comment."""
    return " ".join(line.split()[:2])
