"""A member that is added later says nothing by default: then evidence without it is as it would be written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from tests.support.golden import CHANGED, MEMBERS, always_written, models


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_what_may_be_none_is_so_by_default_and_only_as_a_member(model: type[BaseModel]) -> None:
    model.model_rebuild()
    schema = model.__pydantic_core_schema__
    for part in ([*schema.get("definitions", ())] if schema["type"] == "definitions" else []) + [schema]:
        for name, field in _fields(part).items():
            inner = field["schema"]
            if inner["type"] == "default":
                default = inner.get("default", ...)
                inner = inner["schema"]
                if inner["type"] == "nullable":
                    assert default is None, f"{model.__name__}.{name} is not None by default"
            else:
                assert inner["type"] != "nullable", f"{model.__name__}.{name} has no default"
            inside = inner["schema"] if inner["type"] == "nullable" else inner
            assert not _holds_null(inside), f"{model.__name__}.{name} holds null where it cannot be left out"


def test_nothing_new_is_always_written() -> None:
    """What older evidence lacks may be missing in newer evidence too."""
    assert always_written() == json.loads(MEMBERS.read_text()), CHANGED


def _fields(schema: Any) -> dict[str, Any]:
    while schema["type"] in ("definitions", "model") or schema["type"].startswith("function-"):
        schema = schema["schema"]
    return dict(schema["fields"]) if schema["type"] == "model-fields" else {}


def _holds_null(schema: Any) -> bool:
    """Whether a list or dict inside may hold null."""
    if schema["type"] == "nullable":
        return True
    parts = [schema[name] for name in ("schema", "values_schema") if isinstance(schema.get(name), dict)]
    parts += [one for one in schema.get("items_schema", ()) if isinstance(one, dict)]
    if schema["type"] in ("model", "model-fields"):
        return False  # looked at on its own
    return any(_holds_null(part) for part in parts)
