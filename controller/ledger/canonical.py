"""Canonical bytes: RFC 8785 (JSON Canonicalization Scheme), the form of everything that is hashed."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
import rfc8785

from controller.errors import Invalid

MAX_INT = 2**53 - 1
"""The largest integer that every JSON reader agrees on (RFC 8785 section 3.2.2.3, I-JSON)."""

_encode = partial(
    orjson.dumps,
    default=None,
    option=orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS,
)
"""Sorted, compact JSON; TypeError for any type that JSON has not, for integers beyond 2**53-1, half a surrogate
pair and great depth."""


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value (dict, list, tuple, str, int, float, bool, None).

    Raises Invalid("canonical-value") for NaN, infinities, numbers that would be written as integers beyond
    ±(2**53-1), keys that are not
    strings, lone surrogates and any other type.
    """
    try:
        if is_plain(value):
            return _encode(value)
        data = rfc8785.dumps(value)
        # A float such as 1e17 is written as an integer that readers do not agree on.
        _load(data, _quick)
        return data
    except (
        Invalid,
        rfc8785.CanonicalizationError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise Invalid(
            "canonical-value",
            f"the value has no canonical bytes ({type(error).__name__}: {error})",
            expected="finite numbers, integers up to 2**53-1, string keys, Unicode text, bounded depth",
        ) from error


def encode_plain(value: Any) -> bytes:
    """The quick encoder's sorted, compact JSON: equal to `canonical` but for odd floats and keys beyond U+D7FF,
    which the caller has to exclude. Raises TypeError for what JSON has not and integers beyond 2**53-1."""
    return _encode(value)


def decode_plain(data: bytes) -> Any:
    """The quick decoder's value of JSON; ValueError for what is none. It takes the last of several equal keys, and
    any number: `encode_plain` and `is_plain` of the value say whether `data` is its one form."""
    return orjson.loads(data)


def canonical_plain(value: Any) -> bytes:
    """`canonical` for values known to hold no floats and only small integers: one pass less over them."""
    data = _encode(value)
    return data if data.isascii() else canonical(value)


def digest(data: bytes) -> str:
    """`sha256:<hex>` over `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse(data: bytes) -> Any:
    """The JSON value in `data`, strictly: UTF-8, no duplicate keys, no NaN, integers within ±(2**53-1).

    Raises Invalid("json-invalid").
    """
    return _load(data, _strict)[0]


def parse_canonical(data: bytes) -> Any:
    """Like `parse`, and `data` must be the canonical bytes of its own value; else Invalid("not-canonical").

    Equality with the re-serialisation also excludes duplicate keys, so they need no second look.
    """
    with suppress(ValueError, TypeError):
        value = orjson.loads(data)
        if is_plain(value) and _encode(value) == data:
            return value
    value, plain = _load(data, _quick)
    # Without odd floats and with ASCII keys the quick encoder's sorted output is the RFC 8785 form.
    again = _encode(value) if plain and data.isascii() else canonical(value)
    if again != data:
        raise Invalid("not-canonical", "the bytes are not the RFC 8785 form of their own value")
    return value


def is_plain(value: Any) -> bool:
    """Whether the quick encoder already gives the RFC 8785 form: floats that both write alike, safe integers, and
    ASCII keys (RFC 8785 sorts by UTF-16 units, Python by code points)."""
    items = [value]
    left = 1_000_000  # a value that contains itself would never end
    for item in items:
        kind = type(item)
        if kind is dict:
            for key in item:
                if type(key) is not str or not key.isascii():
                    return False
            items += [one for one in item.values() if type(one) is not str]
        elif kind is list or kind is tuple:
            items += [one for one in item if type(one) is not str]
        elif kind is int:
            if not -MAX_INT <= item <= MAX_INT:
                return False
        elif kind is float:
            if not _is_plain_float(item):
                return False
        elif kind is not str and item is not None and kind is not bool:
            return False
        left -= 1
        if not left:
            return False
    return True


def _is_plain_float(value: float) -> bool:
    """Whether Python and ECMAScript write a float alike: no exponent, and not as an integer."""
    return 1e-4 <= abs(value) < 1e15 and not value.is_integer()


class _Reader:
    """A strict decoder that notices odd floats, so that the fast comparison is used only where it holds."""

    def __init__(self, unique: bool) -> None:
        self.floats = False
        self.decoder = json.JSONDecoder(
            parse_float=self._float,
            parse_int=_int,
            parse_constant=_constant,
            object_pairs_hook=_unique if unique else None,
        )

    def _float(self, text: str) -> float:
        value = float(text)
        self.floats = self.floats or not _is_plain_float(value)
        if not math.isfinite(value):
            raise ValueError(f"number {text} is not finite")
        return value


def _int(text: str) -> int:
    if len(text) > 17:
        raise ValueError(f"integer {text[:40]} is beyond 2**53-1")
    value = int(text)
    if not -MAX_INT <= value <= MAX_INT:
        raise ValueError(f"integer {text} is beyond 2**53-1")
    return value


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return value


def _strict() -> _Reader:
    return _Reader(unique=True)


def _quick() -> _Reader:
    return _Reader(unique=False)


def _load(data: bytes, make: Any) -> tuple[Any, bool]:
    reader = make()
    try:
        value = reader.decoder.decode(data.decode("utf-8"))
        if b"\\u" in data:
            _encode(value)  # an escape can name half a surrogate pair, which is no text
        return value, not reader.floats
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid("json-invalid", f"not strict JSON ({error})") from error
