"""What errors say when names and values in them are an attacker's."""

from __future__ import annotations

import pytest

from controller.errors import LockgateError, Refused, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("promotions/prod.yaml", "promotions/prod.yaml"),
        ("Zoë → 中", "Zoë → 中"),
        ("a\n✓ verified", "a\\n✓ verified"),
        ("\x1b]0;x\x07\x9b2J", "\\x1b]0;x\\x07\\x9b2J"),
        ("\u202edoog", "\\u202edoog"),
        (b"\xff.yaml".decode("utf-8", "surrogateescape"), "\\udcff.yaml"),
    ],
)
def test_a_name_is_one_printable_piece(text: str, shown: str) -> None:
    assert printable(text) == shown
    error: LockgateError = Refused("path-denied", text, where=text, expected=text, got=text, cure=text)
    assert str(error) == f"path-denied: {shown}, {shown}; expected {shown}, got {shown}; {shown}"
    assert str(error).isprintable()
