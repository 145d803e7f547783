"""Why a value is not a document: the JSON Schema's errors, in words, each with a place and a cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from controller.core.compose import Pointer
from controller.core.finding import Finding, shown
from controller.model.base import ecma, parse_time
from controller.model.schema import document_schema

_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value) is not None


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    # ECMA-262, which JSON Schema names, has no "before a last newline" meaning of $.
    if isinstance(value, str) and ecma(pattern).search(value) is None:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator: Any = cast(Any, extend)(Draft202012Validator, {"pattern": _pattern})


@cache
def validator(kind: str) -> Any:
    """The kind's schema, compiled."""
    return _Validator(document_schema(kind), format_checker=_formats)


def explain(kind: str, value: Any) -> list[Finding]:
    """Everything the kind's schema holds against the value; empty when nothing."""
    found: dict[Finding, None] = {}
    for error in validator(kind).iter_errors(value):
        for finding in _words(error):
            found[finding] = None
    return list(found)


def _quoted(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"


_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}.get(
        type(value), "nothing"
    )


def _words(error: ValidationError, under: Pointer = ()) -> Iterator[Finding]:
    at = (*under, *error.relative_path)
    keyword = str(error.validator)
    limit: Any = error.validator_value
    value: Any = error.instance
    schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    where = shown(at)
    if "propertyNames" in error.relative_schema_path:
        yield _key(at, str(value), schema)
    elif keyword in ("anyOf", "oneOf"):
        yield from _alternatives(error, at)
    elif keyword == "additionalProperties":
        known = sorted(schema.get("properties", ()))
        for field in sorted(set(value) - set(known)):
            yield _unknown(at, field, known)
    elif keyword == "required":
        for field in limit:
            if field not in value:
                yield Finding(at, "missing-field", f"{where} has no `{field}`", f"add `{field}`")
    elif keyword == "type":
        wanted = _TYPES[limit]
        yield Finding(
            at,
            "wrong-type",
            f"{where} is {_type_of(value)}, not {wanted}",
            f"write {wanted}" + ("; quote it" if limit == "string" else ""),
        )
    elif keyword in ("enum", "const"):
        allowed = limit if keyword == "enum" else [limit]
        words = ", ".join(str(item) for item in allowed)
        yield Finding(
            at,
            "not-allowed",
            f"{where} is {_quoted(value)}, not {'one of ' if len(allowed) > 1 else ''}{words}",
            _close(value, allowed) or f"write {words if len(allowed) == 1 else 'one of them'}",
        )
    else:
        yield _scalar(at, where, keyword, limit, value, schema)


def _scalar(at: Pointer, where: str, keyword: str, limit: Any, value: Any, schema: Mapping[str, Any]) -> Finding:
    if keyword in ("pattern", "format"):
        expected = _expected(schema)
        return Finding(
            at, "bad-format", f"{where} is {_quoted(value)}, which is not {expected}", f"write {expected}"
        )
    if keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        words = {
            "minimum": "at least",
            "maximum": "at most",
            "exclusiveMinimum": "more than",
            "exclusiveMaximum": "less than",
        }[keyword]
        return Finding(
            at,
            "out-of-range",
            f"{where} is {value}, not {words} {limit}",
            f"write a number that is {words} {limit}",
        )
    if keyword in ("minItems", "minProperties", "minLength"):
        return Finding(at, "empty-value", f"{where} is empty", "give a value or leave the field out")
    if keyword == "maxLength":
        return Finding(at, "too-long", f"{where} has more than {limit} characters", "shorten it")
    return Finding(at, "invalid", f"{where} is not what the schema asks for", "see `lockgate schema`")


def _expected(schema: Mapping[str, Any]) -> str:
    description = str(schema.get("description", "")).rstrip(".")
    if not description:
        return f"text that matches {schema.get('pattern')}"
    return description[:1].lower() + description[1:]


def _key(at: Pointer, key: str, schema: Mapping[str, Any]) -> Finding:
    expected = _expected(schema)
    return Finding((*at, key), "bad-name", f"the key {_quoted(key)} in {shown(at)} is not {expected}", "rename it")


def _alternatives(error: ValidationError, at: Pointer) -> Iterator[Finding]:
    branches: list[Mapping[str, Any]] = list(cast(Any, error.validator_value))
    if all(set(branch) <= {"required", "not"} for branch in branches):
        # Fields can only be chosen in a mapping; that it is none is said by its type.
        if isinstance(error.instance, dict):
            yield _choose(error, at, branches)
        return
    by_branch: dict[int, list[ValidationError]] = {}
    for inner in error.context or ():
        by_branch.setdefault(int(inner.schema_path[0]), []).append(inner)
    fitting = [errors for errors in by_branch.values() if not _other_type(errors)]
    if not fitting:
        wanted = " or ".join(dict.fromkeys(_branch_type(error, branch) for branch in branches))
        yield Finding(
            at, "wrong-type", f"{shown(at)} is {_type_of(error.instance)}, not {wanted}", f"write {wanted}"
        )
        return
    for inner in min(fitting, key=lambda errors: (errors[0].validator == "const", len(errors))):
        yield from _words(inner, at)


def _other_type(errors: Iterable[ValidationError]) -> bool:
    return any(inner.validator == "type" and len(inner.relative_path) == 0 for inner in errors)


def _branch_type(error: ValidationError, branch: Mapping[str, Any]) -> str:
    if "const" in branch:
        return f"`{branch['const']}`"
    return _TYPES.get(str(branch.get("type", "object")), "a value")


def _choose(error: ValidationError, at: Pointer, branches: list[Mapping[str, Any]]) -> Finding:
    options = [" and ".join(branch["required"]) for branch in branches]
    value: Any = error.instance
    how = "exactly one" if error.validator == "oneOf" else "at least one"
    given = [field for branch in branches for field in branch["required"] if field in value]
    got = ", ".join(dict.fromkeys(given)) or "none"
    pairs = any(len(branch["required"]) > 1 for branch in branches)
    listed = ", or ".join(options) if pairs else f"{', '.join(options[:-1])} and {options[-1]}"
    return Finding(at, "choose-one", f"{shown(at)} needs {how} of {listed}; it has {got}", f"give {how} of them")


def _unknown(at: Pointer, field: str, known: list[str]) -> Finding:
    near = difflib.get_close_matches(field, known, 1, 0.6)
    cure = f"did you mean `{near[0]}`?" if near else f"remove it; the fields are {', '.join(known)}"
    return Finding((*at, field), "unknown-field", f"`{field}` is not a field of {shown(at)}", cure)


def _close(value: Any, allowed: Iterable[Any]) -> str:
    near = difflib.get_close_matches(str(value), [str(item) for item in allowed], 1, 0.7)
    return f"did you mean `{near[0]}`?" if near else ""
