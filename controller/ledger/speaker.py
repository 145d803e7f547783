"""Which key an agent's envelope must be signed with: its own, one it is rotating away from, or a certified one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.errors import LockgateError, Refused
from controller.ledger import dsse
from controller.ledger.canonical import parse_canonical
from controller.model.keys import key_id
from controller.model.order import AgentKey
from controller.model.sshcert import certified_key
from controller.model.sshwire import bare_key


def speaks_with(agent: AgentKey, keyid: str) -> bool:
    """Whether a key id is that of a key which the agent's document names as the agent's own."""
    return not agent.authority and key_id(agent.public_key) == keyid


def key_at(agent: AgentKey, name: str, at: datetime, certificate: str | None) -> str | None:
    """The key by which an agent bears witness and signs links at a time, its own or the certified one; None when
    it has none then."""
    if not agent.authority:
        return agent.public_key
    try:
        return certified_key(certificate or "", agent.public_key, name, at)
    except Refused:
        return None


def check_spoken(parts: dsse.Parts, agent: AgentKey, name: str, at: datetime, certificate: str | None) -> None:
    """Check an agent's envelope as of `at`; `certificate` is what its payload carries.

    Raises Refused("envelope-signature") and, for certificates, as `certified_key`.
    """
    key = agent.public_key
    if not speaks_with(agent, parts.keyid):
        key = _other_key(parts.keyid, agent, name, at, certificate)
    dsse.check(parts, {parts.keyid: key})


def _other_key(keyid: str, agent: AgentKey, name: str, at: datetime, certificate: str | None) -> str:
    for former in agent.previous:
        known = bare_key(former.public_key)
        after, before = former.valid_after, former.valid_before
        if key_id(known) == keyid and (after is None or at >= after) and (before is None or at < before):
            return known
    if agent.authority and certificate is not None:
        return certified_key(certificate, agent.public_key, name, at)
    raise Refused(
        "envelope-signature",
        "the envelope is signed by a key that the agent may not sign with at that time",
        where=name,
        expected="the agent's key as agents/ declares it, or one certified by its authority",
        got=keyid[:16],
        cure="declare the agent's key on main, or have the authority certify it again",
    )


def claimed(parts: dsse.Parts) -> Mapping[str, Any]:
    """The payload of an envelope that nothing has checked yet; empty when it does not read."""
    try:
        value = parse_canonical(parts.payload)
    except LockgateError:
        return {}
    return value if isinstance(value, Mapping) else {}
