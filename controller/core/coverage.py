"""Whether what a path rule asks for is at least what a slot asks for (design rule 8: nothing around the slot)."""

from __future__ import annotations

from controller.core import globs
from controller.model.documents import Agent, Trust
from controller.model.sshwire import bare_key

Approvals = tuple[tuple[str, int], ...]
"""(role, count), sorted by role."""


def agent_bare_keys(document: Agent) -> list[str]:
    """Every key that an agent's document names, without comments, its own first."""
    return [bare_key(document.spec.public_key), *(bare_key(key.public_key) for key in document.spec.previous_keys)]


def principals_by_key(trust: Trust) -> dict[str, str]:
    """The principal of each bare key."""
    return {
        bare_key(key.public_key): name for name, who in trust.spec.principals.items() for key in who.timed_keys
    }


def approvals_for(trust: Trust, path: str) -> Approvals | None:
    """What the first rule that matches asks for; None where nobody may write."""
    for rule in trust.spec.paths:
        if globs.match(rule.match, path):
            return tuple(sorted(rule.approvals.items()))
    return None


def covers(trust: Trust, given: Approvals, required: Approvals) -> bool:
    """Whether approvals by `given` are at least those by `required`.

    A role stands in for another when all its members are members of that other, or when it is `owners`.
    """
    roles = trust.spec.roles
    for role, count in required:
        members = set(roles[role].members) if role in roles else set()
        counted = max(
            (
                number
                for other, number in given
                if other in (role, "owners") or (other in roles and set(roles[other].members) <= members)
            ),
            default=0,
        )
        if counted < count:
            return False
    return True


def listed(approvals: Approvals) -> str:
    """Approvals in words."""
    return ", ".join(f"{role}: {count}" for role, count in approvals) or "no approvals"
