"""RFC 8785 bytes: the fast path equals the reference package, and nothing ambiguous gets through."""

import json
import math

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from controller.errors import Invalid
from controller.ledger.canonical import MAX_INT, canonical, digest, parse, parse_canonical
from controller.ledger.statement import WITH_FLOATS, statement_model
from controller.model.entry import KINDS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_INT, MAX_INT)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not MAX_INT < abs(x) < 1e21)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
@example({"\U0001f600": 1, "\ufb33": 2, "a": 3})
@example({"b": '\x00\x1f\x7f\u2028"\\/', "a": [True, False, None, -0.0, 1e21, 5e-324, 0.1]})
@example({"a": ("x", {"b": -MAX_INT})})
def test_equals_the_reference_and_reads_back(value: object) -> None:
    data = canonical(value)
    assert data == rfc8785.dumps(value)
    assert parse_canonical(data) == parse(data) == json.loads(data)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        MAX_INT + 1,
        -MAX_INT - 1,
        float(MAX_INT + 1),
        -1e17,
        {1: "a"},
        {"a": {None: 1}},
        "\ud800",
        {"\udfff": 1},
        b"bytes",
        {"a": {1, 2}},
        object(),
    ],
)
def test_refuses_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(Invalid) as caught:
        canonical({"deep": [value]})
    assert caught.value.code == "canonical-value"


def test_refuses_endless_and_very_deep_values() -> None:
    loop: list[object] = []
    loop.append(loop)
    deep: object = 0
    for _ in range(100_000):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(Invalid) as caught:
            canonical(value)
        assert caught.value.code == "canonical-value"


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"a":2}}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"9007199254740992",
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"1e999",
        b"\xff",
        b"",
        b"{",
        b"[" * 100_000,
        b'\xef\xbb\xbf{"a":1}',
        b"[1]x",
    ],
)
def test_parse_is_strict(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse(data)
    assert caught.value.code == "json-invalid"


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b"1.0",
        b"1e0",
        b"-0",
        b'"\\u0041"',
        b'"\\u00fc"',
        b"[1]\n",
        b'"\\/"',
        '{"\ufb33":2,"\U0001f600":1}'.encode(),
    ],
)
def test_parse_canonical_takes_only_the_one_form(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_canonical(data)
    assert caught.value.code in ("not-canonical", "json-invalid")


def test_keys_sort_by_utf16_units() -> None:
    # U+1F600 is D83D DE00 in UTF-16 and sorts before U+FB33, the other way round than by code point.
    assert canonical({"\ufb33": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\ufb33":1}'.encode()


def test_digest_names_its_algorithm() -> None:
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_kinds_with_floats_are_those_whose_schemas_have_numbers() -> None:
    found = {kind for kind in KINDS if '"type": "number"' in json.dumps(statement_model(kind).model_json_schema())}
    assert found == WITH_FLOATS
