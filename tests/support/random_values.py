"""Other bytes and other JSON values than these, drawn at random."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any


def some_bytes(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Other bytes than these."""
    how = rng.choice(["flip", "insert", "delete", "cut", "repeat"]) if data else "insert"
    at = rng.randrange(len(data)) if data else 0
    if how == "flip":
        return how, data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if how == "insert":
        return how, data[:at] + rng.randbytes(rng.randint(1, 4)) + data[at:]
    if how == "delete":
        return how, data[:at] + data[at + rng.randint(1, 4) :]
    return how, data[:at] if how == "cut" else data + data[-(at + 1) :]


def some_value(rng: random.Random, value: Any, pool: Sequence[Any]) -> Any:
    """Another JSON value of the same sort: of the pool where it has one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + rng.choice([-1, 1, 7])
    if value is None:
        return rng.choice(["x", 1, {}])
    others = [one for one in pool if isinstance(one, str) and one != value and _sort(one) == _sort(value)]
    return rng.choice([*others, None, value + "x"] if isinstance(value, str) else [None])


def _sort(text: str) -> str:
    if text.startswith("sha256:"):
        return "digest"
    if len(text) > 20 and text[4:5] == "-" and text.endswith("Z"):
        return "time"
    return "id" if len(text) in (40, 64) and not set(text) - set("0123456789abcdef") else "word"


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values, containers that may be emptied among them."""
    if isinstance(value, dict):
        return [p for key in sorted(value) for p in leaves(value[key], (*path, key))] + ([path] if path else [])
    if isinstance(value, list):
        return [p for n, one in enumerate(value) for p in leaves(one, (*path, n))] + ([path] if path else [])
    return [path]


def at(value: Any, path: Sequence[Any]) -> Any:
    for part in path:
        value = value[part]
    return value


def some_json(rng: random.Random, value: Any, among: Sequence[tuple[Any, ...]] | None = None) -> tuple[str, Any]:
    """A copy with one value changed, taken away, or (in a list) doubled or moved; where, in words."""
    made = copy.deepcopy(value)
    places = leaves(made) if among is None else among
    pool = [at(made, path) for path in leaves(made)]
    path = rng.choice(places)
    holder, last, old = at(made, path[:-1]), path[-1], at(made, path)
    if isinstance(old, list) and old and rng.random() < 0.6:
        place = rng.randrange(len(old))
        how = rng.choice(["drop", "double", "reverse"])
        if how == "drop":
            del old[place]
        elif how == "double":
            old.insert(place, copy.deepcopy(old[place]))
        else:
            old.reverse()
    elif rng.random() < 0.12:
        del holder[last]
    elif isinstance(old, (dict, list)):
        holder[last] = type(old)() if old else None
    else:
        holder[last] = some_value(rng, old, pool)
    return ".".join(str(part) for part in path if not isinstance(part, int)), made
