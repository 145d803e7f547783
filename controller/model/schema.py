"""JSON Schemas (draft 2020-12) of the documents, generated from the models."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from controller.model.base import NAME_DESCRIPTION, NAME_MAX, NAME_PATTERN, Part
from controller.model.documents import KINDS, schema_stem

BASE = "https://lockgate.dev/schemas/v1/"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_id(stem: str) -> str:
    """The address of a published schema."""
    return f"{BASE}{stem}.schema.json"


class Described(GenerateJsonSchema):
    """Describes the fields of documents by the docstrings below them.

    pydantic's own `use_attribute_docstrings` would read the source of every model at each start of a command;
    here it is read when a schema is wanted.
    """

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """See GenerateJsonSchema."""
        made = super().model_schema(schema)
        for alias, text in _described(schema["cls"]).items():
            made["properties"][alias]["description"] = text
        return made


@cache
def _described(model: type[BaseModel]) -> dict[str, str]:
    """Field, as it is written in files -> the docstring below it, in the class that declares it."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        declaring = next(one for one in model.__mro__ if name in inspect.get_annotations(one))
        if field.description is None and issubclass(declaring, Part) and name in (said := _docstrings(declaring)):
            found[field.alias or name] = said[name]
    return found


@cache
def _docstrings(model: type) -> dict[str, str]:
    (body,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(said.value.value)
        for field, said in pairwise(body.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }


@cache
def document_schema(kind: str) -> dict[str, Any]:
    """The schema of one kind. Raises KeyError for an unknown kind. The result is shared: do not change it."""
    raw = KINDS[kind].model_json_schema(by_alias=True, schema_generator=Described)
    tidy = tidied(raw)
    return {"$schema": DIALECT, "$id": schema_id(schema_stem(kind)), "title": kind, **tidy}


def tidied(node: Any) -> Any:
    """A generated schema as it is published.

    An optional field is left out rather than null, so null is no type of it; names of generated classes are
    no titles; keys of a map are constrained by `propertyNames`.
    """
    if isinstance(node, list):
        return [tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value for key, value in node.items() if not (key == "title" and isinstance(value, str))}
    if "default" in node and not isinstance(node["default"], str | bool | int | float | list):
        del node["default"]
    if "properties" in node:
        # Below `properties` keys are field names, one of which may be "title" or "default".
        node = {key: value for key, value in node.items() if key != "properties"} | {
            "properties": {field: tidied(value) for field, value in node["properties"].items()}
        }
    node = {key: value if key in ("properties", "default") else tidied(value) for key, value in node.items()}
    return _keys_by_name(_without_null(node))


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    choices = node.get("anyOf")
    if not isinstance(choices, list) or {"type": "null"} not in choices:
        return node
    rest = [choice for choice in choices if choice != {"type": "null"}]
    others = {key: value for key, value in node.items() if key != "anyOf"}
    return {**rest[0], **others} if len(rest) == 1 else {**others, "anyOf": rest}


def _keys_by_name(node: dict[str, Any]) -> dict[str, Any]:
    patterns = node.get("patternProperties")
    if not patterns:
        return node
    ((pattern, value),) = patterns.items()
    names: dict[str, Any] = {"pattern": pattern}
    if pattern == NAME_PATTERN:
        names |= {"maxLength": NAME_MAX, "description": NAME_DESCRIPTION}
    others = {key: kept for key, kept in node.items() if key not in ("patternProperties", "additionalProperties")}
    return {**others, "propertyNames": names, "additionalProperties": value}
