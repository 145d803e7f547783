"""Documents for tests: the valid project, edited copies of it, and the cases of tests/fixtures/invalid.

A case is a text file of blocks. `=== edit PATH` holds pairs of `- ` and `+ ` lines: text of the valid file and
what stands there instead. `=== file PATH [MODE]` is a whole file, `=== escaped PATH` one with Python's escapes,
`=== remove PATH` takes one away. `=== expect` lists every diagnostic: PATH:LINE CODE: MESSAGE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.core.parse import parse
from controller.core.validate import assemble
from controller.model.diagnostic import Diagnostic
from controller.model.intent import Intent

FIXTURES = Path(__file__).parent.parent / "fixtures"
VALID = FIXTURES / "valid"
INVALID = FIXTURES / "invalid"


@dataclass
class Case:
    """One invalid project: its files, their modes, and what is expected of `validate`."""

    files: dict[str, bytes]
    modes: dict[str, int] = field(default_factory=dict)
    touched: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


def valid_files() -> dict[str, bytes]:
    """Every file of the valid project by path."""
    return {str(p.relative_to(VALID)): p.read_bytes() for p in sorted(VALID.rglob("*")) if p.is_file()}


def intent_of(
    files: Mapping[str, bytes], modes: Mapping[str, int] | None = None, previous: Intent | None = None
) -> Intent:
    """Parse and assemble; blob ids stand for the bytes as Git's do."""
    parsed = {
        path: (hashlib.sha1(data).hexdigest(), parse(path, data, (modes or {}).get(path, 0o100644)))
        for path, data in files.items()
    }
    return assemble("c" * 40, parsed, previous)


def written(diagnostic: Diagnostic) -> str:
    """A diagnostic as a case expects it."""
    return f"{diagnostic.path}:{diagnostic.line} {diagnostic.code}: {diagnostic.message}"


def read_case(path: Path) -> Case:
    """One file of tests/fixtures/invalid."""
    case = Case(valid_files())
    for block in path.read_text().split("=== ")[1:]:
        head, _, body = block.partition("\n")
        verb, _, rest = head.partition(" ")
        name, _, mode = rest.partition(" ")
        if verb == "expect":
            case.expected = body.splitlines()
            continue
        case.touched.append(name)
        if mode:
            case.modes[name] = int(mode, 8)
        if verb == "file":
            case.files[name] = body.encode()
        elif verb == "escaped":
            case.files[name] = body.rstrip("\n").encode().decode("unicode_escape").encode("latin-1")
        elif verb == "remove":
            del case.files[name]
        else:
            case.files[name] = edited(case.files[name].decode(), body).encode()
    return case


def edited(text: str, body: str) -> str:
    """`text` after the replacements of an edit block; raises when one does not fit."""
    old: list[str] = []
    new: list[str] = []
    pairs: list[tuple[str, str]] = []
    for line in [*body.splitlines(), "- "]:
        if line.startswith("- ") and new:
            pairs.append(("\n".join(old), "\n".join(new)))
            old, new = [], []
        (old if line.startswith("- ") else new).append(line[2:])
    for before, after in pairs:
        if before not in text:
            raise ValueError(f"not in the file: {before}")
        text = text.replace(before, after, 1)
    return text
