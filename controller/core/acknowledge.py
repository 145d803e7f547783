"""Refused commits of main that owners let stand: the one way over them without a revert (trust rule 6).

Main is above environments, so no action rule gives or takes this right: it is the owners', and as many of them
must ask as must sign a trust version. Each signs a request of their own that binds the commit and the code it was
refused with.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from controller.core.pathrules import LOCK
from controller.core.requests import RequestVerdict, bound_commit
from controller.core.steps import Step, Terms
from controller.core.trust import OWNERS, TrustState
from controller.model.entry import Acknowledgement, MainRefused
from controller.model.request import Request

EVERYWHERE = "*"
"""The environment of an acknowledgement: main is all of theirs."""


def never(paths: Iterable[str]) -> str | None:
    """Why a refused commit that changes these paths can never be let stand, or None when it can.

    A commit that names no path changed nothing that could stand, or could not be read.
    """
    named = sorted(paths)
    if not named:
        return "it names no change that could be let stand"
    for path in named:
        if path.startswith("trust/"):
            return f"it changes {path}, which only the owners' signed next version may"
        if LOCK.fullmatch(path):
            return f"it changes {path}, and evidence alone says what a lock holds"
    return None


def let_stand(step: Step, terms: Terms) -> bool:
    """Whether owners let a refused step stand, for the very reason that it is refused for."""
    if step.refused is None or terms.acknowledged.get(step.commit) != step.refused or step.opaque:
        return False
    return never(change.path for change in step.changes) is None


def standing(refused: Iterable[MainRefused], commit: str | None, code: str | None) -> MainRefused | None:
    """The refused commit that main stands still at, by id and code."""
    return next((one for one in refused if (one.commit, one.code) == (commit, code)), None)


def given_by(commit: str, request: Request, principal: str) -> Acknowledgement:
    """What a request (`commit` is its own) says as its signer's word."""
    return Acknowledgement(
        commit=bound_commit(request.binds) or "",
        code=request.code or "",
        request=commit,
        principal=principal,
        reason=request.reason,
        expires=request.expires,
    )


def acknowledgement_of(commit: str, verdict: RequestVerdict) -> Acknowledgement | None:
    """The acknowledgement that an accepted request gives; None for every other one."""
    request = verdict.request
    if not verdict.accepted or request is None or request.verb != "acknowledge" or verdict.principal is None:
        return None
    return given_by(commit, request, verdict.principal)


def counted(
    given: Iterable[Acknowledgement], commit: str, code: str, trust: TrustState, at: datetime
) -> tuple[Acknowledgement, ...]:
    """The acknowledgements that count for a commit at an instant: of owners, not expired, each person's first."""
    found: dict[str, Acknowledgement] = {}
    for one in given:
        about = (one.commit, one.code) == (commit, code)
        if about and one.expires > at and trust.holds(one.principal, OWNERS):
            found.setdefault(one.principal, one)
    return tuple(found.values())


def enough(given: Iterable[Acknowledgement], trust: TrustState) -> bool:
    """Whether these counted acknowledgements reach the owners' threshold."""
    return len({one.principal for one in given}) >= trust.threshold(OWNERS)
