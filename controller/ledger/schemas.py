"""JSON Schemas (draft 2020-12) of evidence: one a kind, statement, predicate and detail together."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from controller.ledger.statement import statement_model
from controller.model.entry import KINDS
from controller.model.schema import DIALECT, schema_id

_NULL = {"type": "null"}


def evidence_schema(kind: str) -> dict[str, Any]:
    """The schema of the statements of one kind of entry; KeyError for a kind that does not exist."""
    return {
        "$schema": DIALECT,
        "$id": schema_id(f"evidence/{kind}"),
        **written_schema(statement_model(kind)),
        "title": f"Evidence entry: {kind}",
    }


def written_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of what is written of a model: whole, so every field is required but those that may say nothing.
    These are left out then, and never null."""
    tidied: dict[str, Any] = _tidied(model.model_json_schema(by_alias=True, mode="serialization"))
    return tidied


def evidence_schemas() -> dict[str, dict[str, Any]]:
    """Every schema by its path below schemas/."""
    return {f"evidence/{kind}.schema.json": evidence_schema(kind) for kind in KINDS}


def _tidied(node: Any) -> Any:
    """Every field required that is never None, no field null, and no names of generated classes as titles.

    Below `properties` the keys are field names.
    """
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            tidy[key] = {name: _tidied(_said(item)) for name, item in value.items()}
        elif key == "$defs":
            tidy[key] = {name: _tidied(item) for name, item in value.items()}
        elif key not in ("title", "default"):
            tidy[key] = _tidied(value)
    if tidy.get("additionalProperties") is False:
        tidy["required"] = [name for name, item in node.get("properties", {}).items() if _said(item) is item]
    return tidy


def _said(member: dict[str, Any]) -> dict[str, Any]:
    """The schema of a member that is there: without null, which is never written."""
    choices = member.get("anyOf", [])
    if _NULL not in choices:
        return member
    (said,) = (choice for choice in choices if choice != _NULL)
    return {**{key: value for key, value in member.items() if key != "anyOf"}, **said}
