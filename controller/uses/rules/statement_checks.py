"""Agents' statements on record: said by the agents that the run pinned, under keys they had at the time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from controller.core.effects import agent_key
from controller.core.parse import parse
from controller.errors import LockgateError
from controller.ledger import dsse
from controller.ledger.speaker import check_spoken, speaks_with
from controller.model.agent import Agent
from controller.model.order import MAX_CLOCK_SKEW, AgentKey
from controller.ports import Repo
from controller.uses.rules.said import said

_SKEW = timedelta(seconds=MAX_CLOCK_SKEW)
Declared = Callable[[str], AgentKey | None]


def statement_problem(
    line: bytes,
    pinned: Callable[[str], AgentKey | None],
    declared: Declared,
    run: str | None,
    since: datetime,
    at: datetime,
) -> str | None:
    """What is wrong with a statement recorded at `at` in a run that opened at `since`; None when it holds.

    A key of the agent's own, as the run pinned it, signs as long as the run is open. One that was declared later,
    one the agent was rotating away from, or a certified one signs for its own time, and what it signed must be of
    this run's time: an expired key cannot date a statement back.
    """
    try:
        read = said(line)
        parts, body, speaker = read.parts, read.statement.body, read.statement.agent
        key = pinned(speaker)
        if key is None:
            return f"a statement is signed by no agent that the run pinned ({speaker})"
        if speaks_with(key, parts.keyid):
            dsse.check(parts, {parts.keyid: key.public_key})
        else:
            later = declared(speaker)
            if later is not None and speaks_with(later, parts.keyid):
                key = later
            check_spoken(parts, key, speaker, body.said_at, body.certificate)
            if not since - _SKEW <= body.said_at <= at + _SKEW:
                return f"a statement of {speaker} is dated {body.said_at.isoformat()}, outside its run"
    except (LockgateError, ValueError) as error:
        return f"a statement does not hold: {error}"
    return f"a statement of {speaker} speaks in {body.run}" if body.run != run else None


def declared_at(repo: Repo, main: str | None) -> Declared:
    """The keys of an agent as a commit of main declares them; None where it declares none."""

    def ask(name: str) -> AgentKey | None:
        path = f"agents/{name}.yaml"
        try:
            file = repo.file(main, path) if main is not None else None
            document = parse(path, repo.read(file.blob), file.mode).document if file is not None else None
        except LockgateError:
            return None
        return agent_key(document) if isinstance(document, Agent) else None

    return ask
