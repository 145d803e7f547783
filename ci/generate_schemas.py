"""Write schemas/ from the models, or check that it is up to date (--check).

Each source gives {file below schemas/: schema}; a new family of schemas is one more function in SOURCES.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controller.ledger.schemas import evidence_schemas
from controller.model.documents import KINDS, schema_stem
from controller.model.schema import document_schema
from controller.uses.answers import answer_schemas

ROOT = Path(__file__).resolve().parent.parent / "schemas"
Source = Callable[[], Mapping[str, dict[str, Any]]]


def documents() -> dict[str, dict[str, Any]]:
    """One schema for each kind of document."""
    return {f"{schema_stem(kind)}.schema.json": document_schema(kind) for kind in KINDS}


SOURCES: dict[str, Source] = {".": documents, "evidence": evidence_schemas, "cli": answer_schemas}
"""Folder below schemas/ -> what belongs there; files of that folder that no source names are stale."""


def wanted() -> dict[Path, bytes]:
    """Every schema file and its bytes."""
    files: dict[Path, bytes] = {}
    for source in SOURCES.values():
        for name, schema in source().items():
            files[ROOT / name] = (json.dumps(schema, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def main(arguments: list[str]) -> int:
    """0 when schemas/ is (now) what the models say; with --check nothing is written and 1 names the drift."""
    files = wanted()
    present = {path for folder in SOURCES for path in (ROOT / folder).glob("*.schema.json")}
    drift = sorted(
        {path for path, data in files.items() if not path.exists() or path.read_bytes() != data}
        | (present - files.keys())
    )
    if "--check" in arguments:
        for path in drift:
            sys.stderr.write(f"schema-drift: {path.relative_to(ROOT.parent)}; run python -m ci.generate_schemas\n")
        return 1 if drift else 0
    for path in drift:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[path])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
