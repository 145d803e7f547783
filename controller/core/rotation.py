"""Changing a key in the text of a Trust or Agent document, and nothing else of it: comments and layout stay.

The place is found in the parsed tree, the change is made in the text, and the result is parsed again and
compared with what was meant, so that a spelling this module does not know is an error and never a wrong key.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import yaml

from controller.core.parse import parse
from controller.core.trust import TrustState
from controller.errors import Invalid
from controller.model.base import format_time
from controller.model.documents import TRUST_PATH, Agent
from controller.model.trust import TimedKey

_Edit = tuple[int, int, str]
"""Where the old text begins and ends, and the new text."""


def rotate_principal(data: bytes, name: str, key: str, until: datetime | None) -> bytes:
    """The next version of a Trust document, in which a principal signs with `key` too.

    The keys the principal had may sign until `until`; None takes them away at once. Raises
    Invalid("principal-unknown" | "rotation-unclear" | "trust-malformed"), Refused("key-reused").
    """
    before = TrustState.parse(data)
    if name not in before.members:
        raise Invalid(
            "principal-unknown",
            "nobody of this name has keys",
            where=TRUST_PATH,
            expected=", ".join(sorted(before.members)),
            got=name,
            cure="name one of these, or an agent that agents/ declares",
        )
    text = data.decode()
    spec = _at(_tree(text), "spec", TRUST_PATH)
    version = _at(spec, "version", TRUST_PATH)
    keys = _at(_at(_at(spec, "principals", TRUST_PATH), name, TRUST_PATH), "keys", TRUST_PATH)
    principal = before.document.spec.principals[name]
    old = [TimedKey(public_key=k) if isinstance(k, str) else k for k in principal.keys]
    kept = [_ending(one, until) for one in old] if until is not None else []
    edits = _keys_edits(text, keys, kept, key)
    edits.append((version.start_mark.index, version.end_mark.index, str(before.version + 1)))
    changed = _apply(text, edits)
    after = TrustState.parse(changed)
    found = [
        TimedKey(public_key=k) if isinstance(k, str) else k for k in after.document.spec.principals[name].keys
    ]
    meant = before.document.spec.model_copy(update={"version": before.version + 1, "principals": {}})
    others = {other: who for other, who in before.document.spec.principals.items() if other != name}
    same = after.document.spec.model_copy(update={"principals": {}}) == meant and others == {
        other: who for other, who in after.document.spec.principals.items() if other != name
    }
    if not same or found != [*kept, TimedKey(public_key=key)]:
        raise _unclear(TRUST_PATH)
    return changed


def rotate_agent(path: str, data: bytes, key: str, until: datetime | None) -> bytes:
    """An Agent document in which the agent signs with `key`, and until `until` also with the key it had.

    Raises Invalid("rotation-unclear" | "agent-malformed").
    """
    before = _agent(path, data)
    text = data.decode()
    spec = _at(_tree(text), "spec", path)
    node = _at(spec, "publicKey", path)
    edits: list[_Edit] = [(node.start_mark.index, node.end_mark.index, _quoted(key))]
    kept: tuple[TimedKey, ...] = ()
    if until is not None:
        gone = TimedKey(public_key=before.spec.public_key, valid_before=until)
        kept = (gone, *(_ending(one, until) for one in before.spec.previous_keys))
    listed = "[" + ", ".join(_item(one) for one in kept) + "]"
    former = next((pair for pair in spec.value if pair[0].value == "previousKeys"), None)
    if former is not None:
        # From the colon on: a list may stand below its key, at the same margin.
        edits.append((former[0].end_mark.index, _end(text, former[1]), f": {listed}"))
    elif kept and spec.flow_style:
        edits.append((node.end_mark.index, node.end_mark.index, f", previousKeys: {listed}"))
    elif kept:
        margin = " " * spec.start_mark.column
        edits.append(_line_after(text, node.end_mark.index, f"{margin}previousKeys: {listed}"))
    changed = _apply(text, edits)
    meant = before.spec.model_copy(update={"public_key": key, "previous_keys": kept})
    if _agent(path, changed).spec != meant:
        raise _unclear(path)
    return changed


def _agent(path: str, data: bytes) -> Agent:
    parsed = parse(path, data)
    if not isinstance(parsed.document, Agent):
        first = parsed.diagnostics[0].message if parsed.diagnostics else "another kind"
        raise Invalid(
            "agent-malformed",
            "the file does not read as an Agent document",
            where=path,
            got=first[:200],
            cure="run `lockgate validate`",
        )
    return parsed.document


def _ending(key: TimedKey, until: datetime) -> TimedKey:
    """The key with its end at `until`, or before that where it ends earlier."""
    end = until if key.valid_before is None else min(until, key.valid_before)
    return key.model_copy(update={"valid_before": end})


def _keys_edits(text: str, node: Any, kept: Sequence[TimedKey], key: str) -> list[_Edit]:
    items = [_item(one) for one in kept] + [_quoted(key)]
    if node.flow_style:
        return [(node.start_mark.index, node.end_mark.index, "[" + ", ".join(items) + "]")]
    places = [(item.start_mark.index, _end(text, item)) for item in node.value]
    if kept:
        edits = [(*place, item) for place, item in zip(places, items, strict=False)]
        margin = " " * node.start_mark.column
        return [*edits, _line_after(text, places[-1][1], f"{margin}- {items[-1]}")]
    # Compromised: the new key takes the first one's place, the others go with their lines.
    edits = [(*places[0], items[0])]
    for begin, end in places[1:]:
        line = text.rfind("\n", 0, begin)
        following = text.find("\n", end)
        edits.append((line, following if following >= 0 else len(text), ""))
    return edits


def _end(text: str, node: Any) -> int:
    """Where a node's own text ends: a block collection's mark stands after the blanks that follow it."""
    begin, end = int(node.start_mark.index), int(node.end_mark.index)
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return end
    last = node.value[-1]
    return max(begin, _end(text, last[1] if isinstance(last, tuple) else last))


def _line_after(text: str, at: int, line: str) -> _Edit:
    """A new line after the one that holds `at`."""
    end = text.find("\n", at)
    if end < 0:
        return len(text), len(text), f"\n{line}"
    return end, end, f"\n{line}"


def _item(key: TimedKey) -> str:
    if key.valid_after is None and key.valid_before is None:
        return _quoted(key.public_key)
    fields = [f"publicKey: {_quoted(key.public_key)}"]
    if key.valid_after is not None:
        fields.append(f"validAfter: {_quoted(format_time(key.valid_after))}")
    if key.valid_before is not None:
        fields.append(f"validBefore: {_quoted(format_time(key.valid_before))}")
    return "{" + ", ".join(fields) + "}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _apply(text: str, edits: list[_Edit]) -> bytes:
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    return text.encode()


def _tree(text: str) -> Any:
    # The document was parsed before, within the bounds on size and depth; this loader counts in characters.
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _find(node: Any, name: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def _at(node: Any, name: str, path: str) -> Any:
    found = _find(node, name)
    if found is None:
        raise _unclear(path)
    return found


def _unclear(path: str) -> Invalid:
    return Invalid(
        "rotation-unclear",
        "the document is written in a way in which its keys cannot be changed safely",
        where=path,
        expected="keys written out as a list, publicKey as one line",
        got="another spelling, such as an anchor",
        cure="change the keys by hand",
    )
