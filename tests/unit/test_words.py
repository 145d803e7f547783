"""Numbers in sentences."""

from __future__ import annotations

import pytest

from controller.model.words import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 targets"), (1, "1 target"), (2, "2 targets"), (21, "21 targets")]
)
def test_a_number_and_what_is_counted(number: int, said: str) -> None:
    assert counted(number, "target") == said
