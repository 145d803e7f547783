"""Whatever the bytes are, parsing answers; and schema and model agree on whatever YAML can say."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from controller.core.compose import compose
from controller.core.explain import explain
from controller.core.parse import Parsed, parse
from controller.model.documents import KINDS, path_kind
from tests.support.documents import intent_of, valid_files

VALID = valid_files()
PATHS = sorted(VALID)
VALUES = {path: compose(data).value for path, data in VALID.items()}
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
TOKENS = st.sampled_from(
    ["a", "spec", ": ", "- ", "? ", "\n", "\n  ", "[", "]", "{", "}", ",", "&a ", "*a", "!t ", "!!int ", "'", '"']
) | st.sampled_from(
    ["|\n", ">\n", "#", "---\n", "...\n", "%YAML 1.1\n", "~", "1e999", "0x", "\t", "\x00", "é", "\ufeff", "<<"]
)
SCALARS = (
    st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e15, 1e15, allow_nan=False)
    | st.sampled_from(
        ["", "none", "agents", "1h", "0s", "1h\n", "95%", "prod", "a\n", "A", "²m", "2026-02-30T00:00:00Z"]
    )
    | st.text(max_size=8)
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def answered(parsed: Parsed) -> None:
    assert (parsed.document is None) or not parsed.diagnostics
    assert parsed.document is not None or parsed.diagnostics
    for diagnostic in parsed.diagnostics:
        assert diagnostic.line >= 0
        assert diagnostic.code and diagnostic.message and diagnostic.cure


@QUICK
@given(st.sampled_from(PATHS), st.binary(max_size=400))
def test_any_bytes(path: str, data: bytes) -> None:
    answered(parse(path, data))


@QUICK
@given(st.sampled_from(PATHS), st.lists(TOKENS, max_size=60))
def test_anything_like_yaml(path: str, tokens: list[str]) -> None:
    answered(parse(path, "".join(tokens).encode()))


@QUICK
@given(st.sampled_from(PATHS), st.data())
def test_a_valid_file_with_damaged_bytes(path: str, data: st.DataObject) -> None:
    text = bytearray(VALID[path])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=4))
    answered(parse(path, bytes(text)))


@QUICK
@given(st.text(max_size=30), st.binary(max_size=60), st.sampled_from([0o100644, 0o120000, 0o160000, 0o40000]))
def test_any_path_and_mode(path: str, data: bytes, mode: int) -> None:
    parsed = parse(path, data, mode)
    assert parsed.document is None or not parsed.diagnostics
    intent_of({**VALID, path: data}, {path: mode})


@settings(QUICK, max_examples=600)
@given(st.sampled_from(PATHS), st.data())
def test_schema_and_model_agree_on_mutated_values(path: str, data: st.DataObject) -> None:
    value = copy.deepcopy(VALUES[path])
    for _ in range(data.draw(st.integers(1, 3))):
        mutate(value, data)
    kind = path_kind(path)
    assert kind is not None
    try:
        KINDS[kind].model_validate(value)
        accepted = True
    except ValidationError:
        accepted = False
    assert (explain(kind, value) == []) is accepted
    answered_or_valid = parse(path, yaml.safe_dump(value, allow_unicode=True).encode())
    answered(answered_or_valid)


def mutate(value: Any, data: st.DataObject) -> None:
    """Replace, remove, add or rename something somewhere."""
    container = value
    while True:
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inner = container[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 5)):
            container = inner
            continue
        break
    action = data.draw(st.sampled_from(["replace", "remove", "add", "rename"]))
    if action == "remove":
        del container[key]
    elif action == "replace" or isinstance(container, list):
        container[key] = data.draw(ANY)
    elif action == "add":
        container[data.draw(st.sampled_from(["name", "spec", "kind", "for", "x"]) | st.text(max_size=4))] = (
            data.draw(ANY)
        )
    else:
        container[data.draw(st.text(max_size=6))] = container.pop(key)
