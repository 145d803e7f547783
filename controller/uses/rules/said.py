"""Agents' statements on record, each read once: several rules ask about the same one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from controller.ledger import dsse
from controller.ledger.canonical import digest, parse_canonical
from controller.model.order import AgentStatement, Sample, body_of


@dataclass(frozen=True, slots=True)
class Said:
    """A recorded statement, and the envelope it came in, its signature not checked."""

    parts: dsse.Parts
    statement: AgentStatement


@lru_cache(256)
def said(line: bytes) -> Said:
    """What a recorded line says. Raises Refused or Invalid for no canonical envelope, ValueError for other content
    than a report or sample in its own form."""
    parts = dsse.split(line)
    body = body_of(parse_canonical(parts.payload))
    if isinstance(body, Sample):
        return Said(parts, AgentStatement(str(body.agent), "sample", digest(line), line, body))
    return Said(parts, AgentStatement(str(body.target), "report", digest(line), line, body))
