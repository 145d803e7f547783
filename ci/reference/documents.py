"""docs/reference/documents.md: every kind of document and its fields, from the published schemas."""

from __future__ import annotations

from ci.reference import schemas
from ci.reference.markdown import page as whole
from controller.model.documents import KINDS, path_of, schema_stem
from controller.model.schema import document_schema

INTRO = """The YAML files below a project's repository. Every file has `apiVersion: lockgate.dev/v1`, `kind`,
`metadata` and `spec`; a field that is not listed here is an error, and so is a value of another type. The
JSON Schemas are in `schemas/`, and `lockgate schema KIND` prints them."""


def page() -> str:
    """The page."""
    shared = document_schema("Component")["$defs"]["Metadata"]
    return whole(
        "Documents",
        INTRO,
        f"## metadata\n\n{shared['description']}\n\n{schemas.fields(shared)}",
        *(_kind(kind) for kind in KINDS),
    )


def _kind(kind: str) -> str:
    schema = document_schema(kind)
    parts = dict(schema["$defs"])
    spec = parts.pop(schema["properties"]["spec"]["$ref"].rpartition("/")[2])
    parts.pop("Metadata", None)
    where = path_of(kind, "NAME")
    head = f"## {kind}\n\n{schema.get('description', '')}\n\nFile `{where}`, schema `{schema_stem(kind)}`."
    return "\n\n".join(
        part.strip("\n")
        for part in (
            head,
            f"### {kind}: spec",
            schemas.fields(spec),
            *schemas.definitions({"$defs": parts}, "####"),
        )
        if part
    )
