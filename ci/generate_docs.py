"""Write docs/reference/ from models, commands and sources, or check that it is up to date (--check)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ci.reference import commands, documents, errors, evidence, transitions

ROOT = Path(__file__).resolve().parent.parent
PAGES: dict[str, Callable[[], str]] = {
    "documents.md": documents.page,
    "commands.md": commands.page,
    "errors.md": errors.page,
    "transitions.md": transitions.page,
    "evidence.md": evidence.page,
}
"""File below docs/reference/ -> what it says."""


def main(arguments: list[str]) -> int:
    """0 when every page is (now) what the sources say; with --check nothing is written and 1 names the drift."""
    drift = 0
    for name, page in PAGES.items():
        path, text = ROOT / "docs" / "reference" / name, page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            drift = 1
            sys.stderr.write(f"docs-drift: {path.relative_to(ROOT)}; run python -m ci.generate_docs\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return drift


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
