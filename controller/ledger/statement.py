"""The signed form of each kind: an in-toto Statement v1 whose predicate carries the kind's own detail.

One set of models reads entries strictly, writes them, and yields the published schemas.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model

from controller.model.entry import (
    KINDS,
    TEST_RESULT,
    Actor,
    Observed,
    Predicate,
    What,
    When,
    Wire,
    predicate_type,
)

WITH_FLOATS = frozenset({"evaluated"})
"""Kinds whose details have floats, besides what `why` and `how` of any entry may hold."""
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
HexSha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SubjectDigest(Wire):
    sha256: HexSha256


class Subject(Wire):
    name: Annotated[str, Field(min_length=1)]
    digest: SubjectDigest


class Descriptor(Wire):
    """An in-toto ResourceDescriptor, as far as it is used here."""

    name: Annotated[str, Field(min_length=1)]
    digest: SubjectDigest


class Statement(Wire):
    """in-toto Statement v1 (https://in-toto.io/Statement/v1)."""

    model_config = ConfigDict(title="Statement")

    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[Subject, ...], Field(min_length=1)]
    predicate_type: str
    predicate: Any


@cache
def _build_shared() -> None:
    """Build what every kind's model holds once: pydantic would build it again inside each of them."""
    for part in (Actor, Observed, What, When, SubjectDigest, Subject):
        part.model_rebuild()


@cache
def statement_model(kind: str) -> type[Statement]:
    """The statement model of one kind of entry; KeyError for a kind that does not exist."""
    detail = KINDS[kind]
    _build_shared()
    fields: dict[str, Any] = {"kind": (Literal[kind], ...), "detail": (detail, ...)}
    if predicate_type(kind) == TEST_RESULT:
        fields["result"] = (Literal["PASSED", "FAILED", "WARNED"], ...)
        fields["configuration"] = (tuple[Descriptor, ...], ...)
        fields["passed_tests"] = (tuple[str, ...], ...)
        fields["failed_tests"] = (tuple[str, ...], ...)
    else:
        fields["configuration"] = fields["passed_tests"] = fields["failed_tests"] = (
            Annotated[None, Field(exclude=True)],
            None,
        )
    name = "".join(part.capitalize() for part in kind.split("-"))
    predicate = create_model(f"{name}Predicate", __base__=Predicate, **fields)
    members: dict[str, Any] = {
        "predicate_type": (Literal[predicate_type(kind)], ...),
        "predicate": (predicate, ...),
    }
    return create_model(f"{name}Statement", __base__=Statement, **members)
