"""Reading the written form alone: nothing is taken that writing would give back otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError

from controller.ledger.canonical import canonical
from controller.ledger.written import written_validator
from controller.model.wire import CompletedRun, Time, When, Wire

TIME = "2026-01-05T10:00:00.000000Z"
WHEN = {"decided": TIME}


def read(model: type[Wire], value: object) -> Wire:
    found: Wire = written_validator(model).validate_json(canonical(value), by_alias=True, by_name=False)
    return found


def test_what_is_read_is_what_is_written() -> None:
    assert read(When, WHEN).wire() == WHEN


@pytest.mark.parametrize(
    "at",
    [
        "2026-01-05T10:00:00Z",
        "2026-01-05T10:00:00.000000+00:00",
        "2026-01-05 10:00:00.000000Z",
        "2026-01-05t10:00:00.000000z",
        "2026-13-05T10:00:00.000000Z",
        TIME + "\n",
        1767607200,
    ],
)
def test_a_time_has_one_spelling(at: object) -> None:
    with pytest.raises(ValidationError):
        read(When, {**WHEN, "decided": at})


def test_what_says_nothing_is_left_out_and_never_null() -> None:
    assert read(When, {}) == When()
    with pytest.raises(ValidationError):
        read(When, {**WHEN, "requested": None})


def test_nothing_else_is_left_out_and_nothing_is_named_otherwise() -> None:
    manifest = f"sha256:{'0' * 64}"
    done: dict[str, Any] = {"run": "r", "release": "a", "manifestDigest": manifest, "artifacts": {}}
    assert read(CompletedRun, {**done, "pins": []}).wire() == {**done, "pins": []}
    with pytest.raises(ValidationError):
        read(CompletedRun, done)
    with pytest.raises(ValidationError):
        read(CompletedRun, {"manifest_digest" if k == "manifestDigest" else k: v for k, v in done.items()})


def test_members_of_members_are_held_to_it_too() -> None:
    class Around(Wire):
        inner: When
        many: tuple[When, ...] = ()
        named: dict[str, When] = Field(default_factory=dict)

    whole = {"inner": WHEN, "many": [WHEN], "named": {"a": WHEN}}
    assert read(Around, whole).wire() == whole
    others: tuple[dict[str, Any], ...] = (
        {"inner": {"requested": None}},
        {"many": [{"requested": None}]},
        {"named": {"a": {"requested": None}}},
        {"inner": {**WHEN, "decided": "2026-01-05"}},
    )
    for other in others:
        with pytest.raises(ValidationError):
            read(Around, {**whole, **other})


def test_a_type_whose_form_is_not_known_is_no_guess() -> None:
    class Odd(Wire):
        either: int | str
        at: Time

    with pytest.raises(TypeError):
        written_validator(Odd)
