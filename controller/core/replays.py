"""Replays that people asked for: made beside the pass, recorded as events with what they came to."""

from __future__ import annotations

import re
from typing import Any

from controller.core.desk import Desk
from controller.core.gates import Question
from controller.ledger.canonical import canonical, digest
from controller.ledger.cursors import ReplayAsked
from controller.ledger.fold import State
from controller.model.entry import Actor, Replayed, ReplayedDecision, What
from controller.model.request import Request

DONE = "replayed"
_RUN = re.compile(r"(?P<environment>.+)-(?P<number>[1-9][0-9]{0,9})-[0-9a-f]{8}")


def refusal(state: State, request: Request) -> tuple[str, str] | None:
    """Why a replay cannot be made: (code, message); None when it can."""
    found = _RUN.fullmatch(request.run or "")
    if found is None or found["environment"] != request.environment:
        return "run-not-found", f"{request.run or 'nothing'} names no run of {request.environment}"
    if int(found["number"]) > state.cursors.runs.get(request.environment, 0):
        return "run-not-found", f"{request.environment} has no run {found['number']}"
    if any(asked.run == request.run for asked in state.cursors.replays):
        return "replay-pending", f"a replay of {request.run} is under way"
    return None


def replay_question(asked: ReplayAsked) -> Question:
    """What the shell decides again; the request is in the key, so that each is answered once."""
    payload: dict[str, Any] = {"run": asked.run, "request": asked.commit}
    return Question(key=digest(canonical({"type": "replay", **payload})), type="replay", payload=payload)


def record_replays(desk: Desk) -> None:
    """Ask for every accepted replay that is not on record yet; record the answers."""
    for asked in desk.world.state.cursors.replays:
        question = replay_question(asked)
        answer = desk.world.answers.get(question.key)
        if answer is None or answer.get("error") == "unavailable":
            desk.ask(question)
            continue
        code = str(answer.get("error") or DONE)
        decisions = tuple(ReplayedDecision.model_validate(one) for one in answer.get("decisions", ()))
        matching = sum(1 for one in decisions if one.match)
        if code == DONE and any(one.replayed is None for one in decisions):
            code = "replay-undecided"
        good = code == DONE and matching == len(decisions)
        detail = Replayed(
            run=asked.run,
            request=asked.commit,
            by=asked.by,
            reason=asked.reason,
            code=code,
            decisions=decisions,
            total=len(decisions),
            matching=matching,
            match=good,
        )
        text = f"replay of {asked.run}: {matching} of {len(decisions)} decisions come out again"
        desk.event(
            "replayed",
            detail,
            "MATCH" if good else "MISMATCH" if code == DONE else "UNDECIDED",
            text if code in (DONE, "replay-undecided") else f"replay of {asked.run}: {code}",
            what=What(environment=asked.run.rsplit("-", 2)[0]),
            who=(Actor(principal=asked.by),),
            why={"reason": asked.reason, "code": code},
        )
