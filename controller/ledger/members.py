"""Writing a model again after a step: members that are the same objects as the last time keep their bytes."""

from __future__ import annotations

from functools import lru_cache

from controller.ledger.canonical import canonical_plain
from controller.model.wire import Wire


class MemberWriter:
    """Writes the successive values of one derived file; the bytes are those of `canonical_plain(value.wire())`.

    Values are frozen, so that a member which is the same object has the same bytes.
    """

    def __init__(self, model: type[Wire]) -> None:
        named = ((field.serialization_alias or name, name) for name, field in model.model_fields.items())
        self._names = sorted(named)
        self._kept: dict[str, tuple[object, bytes]] = {}

    def write(self, value: Wire) -> bytes:
        """The canonical bytes of a value of the model."""
        values, kept = value.__dict__, self._kept
        stale = {name for _, name in self._names if name not in kept or kept[name][0] is not values[name]}
        wire = value.__pydantic_serializer__.to_python(
            value, mode="json", by_alias=True, include=stale, exclude_none=True
        )
        kept = kept | {
            name: (
                values[name],
                b'"%b":%b' % (alias.encode(), canonical_plain(wire[alias])) if alias in wire else b"",
            )
            for alias, name in self._names
            if name in stale
        }
        self._kept = kept  # as a whole, so that others who write at the same time find one value's members
        return b"{%b}" % b",".join([data for _, name in self._names if (data := kept[name][1])])


@lru_cache(64)
def writer_of(path: str, model: type[Wire]) -> MemberWriter:
    """What writes the derived file at a path."""
    return MemberWriter(model)
