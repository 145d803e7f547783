"""JSON Schemas as tables of fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ci.reference.markdown import cell, code, table

_FORMS = {"pattern": "matches", "minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}


def fields(schema: dict[str, Any]) -> str:
    """The table of an object's fields; empty when it has none."""
    if not schema.get("properties"):
        return ""
    required = set(schema.get("required", ()))
    return table(
        ("field", "type", "required", "default", "description"),
        (
            (
                code(name),
                type_of(field),
                "yes" if name in required else "",
                code(json.dumps(field["default"], ensure_ascii=False)) if "default" in field else "",
                _about(field),
            )
            for name, field in schema["properties"].items()
        ),
    )


def definitions(schema: dict[str, Any], level: str) -> Iterator[str]:
    """One section for each object that the schema defines."""
    for name, part in sorted(schema.get("$defs", {}).items()):
        if "properties" in part:
            yield f"{level} {name}\n\n{part.get('description', '')}\n\n{fields(part)}{_choices(part)}"


def type_of(field: dict[str, Any]) -> str:
    """A field's type in words: `string`, `list of [Stage]`, `one of "a", "b"`."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(type_of(choice) for choice in field[key])
    if field.get("type") == "null":
        return "null"
    if "const" in field:
        return code(json.dumps(field["const"]))
    if "enum" in field:
        return "one of " + ", ".join(code(json.dumps(value)) for value in field["enum"])
    if field.get("type") == "array":
        some = "non-empty list" if field.get("minItems") else "list"
        return f"{some} of {type_of(field['items'])}" if field.get("items") else some
    if field.get("type") == "object":
        return f"map to {type_of(field['additionalProperties'])}" if _is_map(field) else "object"
    return str(field.get("type", "any"))


def _is_map(field: dict[str, Any]) -> bool:
    return isinstance(field.get("additionalProperties"), dict)


def _about(field: dict[str, Any]) -> str:
    inner = field.get("items", field) if isinstance(field.get("items", field), dict) else field
    inner = next((choice for choice in field.get("anyOf", ()) if "pattern" in choice), inner)
    said = field.get("description") or inner.get("description", "")
    limits = [f"{sign} {inner[key]}" for key, sign in _FORMS.items() if key in inner and key != "pattern"]
    if not said and "pattern" in inner:
        limits.append(f"matches {code(inner['pattern'])}")
    return " ".join(filter(None, [cell(said), ", ".join(cell(limit) for limit in limits)]))


def _choices(part: dict[str, Any]) -> str:
    for key, words in {"oneOf": "Exactly one of", "anyOf": "At least one of"}.items():
        names = [name for choice in part.get(key, ()) for name in choice.get("required", ())]
        if names:
            return f"\n{words} {', '.join(code(name) for name in names)}.\n"
    return ""
