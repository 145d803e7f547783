"""Every invariant's line names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "invariants.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")
INVARIANTS = range(1, 11)


def test_every_invariant_names_tests_that_exist() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "| # |" not in line]
    numbers = [int(first) for row in rows if (first := row.split("|")[1].strip()).isdigit()]
    assert numbers == list(INVARIANTS)
    for row in rows:
        if row.startswith("| ---"):
            continue
        found = NAMED.search(row)
        assert found is not None, row
        names = {node.name for node in ast.parse((TESTS / found[1]).read_text()).body if hasattr(node, "name")}
        assert found[2] in names, row
