"""docs/reference/evidence.md: kinds of entries, their predicate types and details, from controller.model.entry."""

from __future__ import annotations

import inspect

from ci.reference import schemas
from ci.reference.markdown import cell, code, table
from ci.reference.markdown import page as whole
from controller.ledger.schemas import written_schema
from controller.model import entry

INTRO = """Every entry on the evidence branch is a DSSE envelope around an in-toto Statement whose predicate has
the common fields below and the `detail` of its kind. Times are RFC 3339 in UTC with microseconds, digests
`sha256:<hex>`, Git object ids bare hex. A member that is not required is left out where it says nothing; none is
null. Source: `controller/model/entry.py` and the details it names."""


def page() -> str:
    """The page."""
    rows = [
        (f"[{kind}](#{kind})", "run" if kind in entry.RUN_KINDS else "event", code(entry.predicate_type(kind)))
        for kind in entry.KINDS
    ]
    common = written_schema(entry.Predicate)
    parts: dict[str, str] = {}
    sections = []
    for kind, model in entry.KINDS.items():
        schema = written_schema(model)
        sections.append(f"## {kind}\n\n{_about(model)}\n\n{schemas.fields(schema)}")
        parts |= _parts(schema)
    parts |= _parts(common)
    return whole(
        "Evidence",
        INTRO,
        "## Kinds\n\n" + table(("kind", "of", "predicate type"), rows),
        "## Common fields\n\n" + schemas.fields(common),
        *sections,
        "## Parts",
        *(parts[name] for name in sorted(parts)),
    )


def _about(model: type[entry.Wire]) -> str:
    # A model without a docstring shows its base class's, which says nothing about it.
    own = model.__doc__ if model.__doc__ != entry.Wire.__doc__ else None
    return cell(inspect.cleandoc(own or ""))


def _parts(schema: dict[str, object]) -> dict[str, str]:
    return {text.split("\n", 1)[0]: text for text in schemas.definitions(schema, "###")}
