"""Request: what an authorised person asks of a running project, as one signed file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.model.base import Name, Part, Text, Time
from controller.model.link import LinkSignature

Verb = Literal[
    "approve",
    "reject",
    "pause",
    "resume",
    "continue",
    "retry",
    "mark-failed",
    "abort",
    "rollback",
    "replay",
    "override",
    "incident",
    "acknowledge",
]


class Request(Part):
    """A request. `binds` is the approvalSubject it approves, or "commit:<id>" for an acknowledgement, and `code`
    then what that commit is refused with; `evidence` is the evidence tip its author saw; `link` goes with an
    approval: its author's signature over the in-toto link of the step (`model.link.approve_link`)."""

    api_version: Literal["lockgate.dev/v1"] = "lockgate.dev/v1"
    kind: Literal["Request"] = "Request"
    id: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{6,62}[a-z0-9]$")]
    project: Name
    verb: Verb
    environment: Name | Literal["*"]
    run: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9.-]{0,200}$")] | None = None
    scope: Annotated[str, Field(pattern="^(step|stage|run)$")] | None = None
    binds: Annotated[str, Field(pattern="^(sha256:[0-9a-f]{64}|commit:[0-9a-f]{40,64})$")] | None = None
    code: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{1,62}$")] | None = None
    evidence: Annotated[str, Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")] | None = None
    reason: Annotated[Text, Field(max_length=4096)]
    ticket: Annotated[Text, Field(max_length=256)] | None = None
    link: LinkSignature | None = None
    at: Time
    expires: Time
