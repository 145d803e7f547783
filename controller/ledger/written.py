"""Reading only the written form of a model: what it takes, writing would give back.

Strict validation still takes other spellings of an instant, does without members that have a default, and takes
null for those that say nothing. Telling that from the written form takes writing the value again, which costs more
than reading it. A validator that knows no defaults, no other spellings and no null says the same by reading alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import SchemaValidator, core_schema

_TIME: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"
_NESTED: Final = frozenset({"definitions", "definition-ref", "dict", "model", "model-fields", "nullable", "tuple"})
_PLAIN: Final = frozenset({"any", "bool", "float", "int", "literal", "none", "str"})


@cache
def written_validator(model: type[BaseModel]) -> SchemaValidator:
    """A strict validator of `model` that takes JSON in its written form alone; call it by alias.

    Numbers are left to the caller: JSON writes one number in many ways. TypeError for a model with types whose
    written form is not known here.
    """
    model.model_rebuild()
    # The models' own validators, which are ready, know the defaults: none of them is to be used within this one.
    return SchemaValidator(_written(model.__pydantic_core_schema__), _use_prebuilt=False)


def _written(schema: Any) -> Any:
    """A core schema without defaults, excluded members, null members, and spellings of a time but one."""
    kind = schema["type"]
    if kind in _PLAIN:
        return schema
    if kind == "default":
        return _written(schema["schema"])
    if kind == "datetime":
        return core_schema.chain_schema(
            [core_schema.str_schema(pattern=_TIME), core_schema.datetime_schema(strict=False)]
        )
    if kind not in _NESTED:
        raise TypeError(f"the written form of a {kind} is not known")
    made = dict(schema)
    if kind == "model":
        made["config"] = {**schema.get("config", {}), "strict": True}
    if kind == "model-fields":
        made["fields"] = {
            name: {**field, "schema": _member(field["schema"])}
            for name, field in schema["fields"].items()
            if not field.get("serialization_exclude")
        }
    for member in ("schema", "values_schema"):
        if member in schema:
            made[member] = _written(schema[member])
    for member in ("definitions", "items_schema"):
        if member in schema:
            made[member] = [_written(one) for one in schema[member]]
    return made


def _member(schema: Any) -> Any:
    """A member's schema: one that may be None is there with a value or not at all, any other is there."""
    inner = schema["schema"] if schema["type"] == "default" else schema
    if inner["type"] == "nullable":
        return core_schema.with_default_schema(_written(inner["schema"]), default=None)
    return _written(schema)
