"""What holds for every change of a path on main, and how its refusal reads."""

from __future__ import annotations

import re
from collections.abc import Mapping

from controller.core.trust import TrustState
from controller.errors import Refused
from controller.model.history import Change, Commit
from controller.model.places import DOCUMENT_DIRECTORIES, PROJECT_PATH, RESERVED

LOCK = re.compile(r"(releases|versions)/[^/]+\.lock\.yaml")
CURE = "take it back by a reviewed revert, then bring the change again as the rules ask"
_DIRECTORIES = frozenset({*DOCUMENT_DIRECTORIES, *RESERVED, "trust"})


def check_path(commit: Commit, change: Change) -> None:
    """What no person may do whatever Trust grants: write locks, or imitate a fixed path's spelling."""
    path = change.path
    if LOCK.fullmatch(path):
        if change.old is not None:
            raise rewritten(commit, change)
        raise refuse(
            "lock-by-person",
            f"{path} is written by the controller alone",
            commit,
            path,
            "the controller's signature",
            "a person's",
            "take it out; the controller resolves the release",
        )
    first, _, rest = path.partition("/")
    folded = first.casefold()
    imitates = folded != first and (folded in _DIRECTORIES or folded == PROJECT_PATH)
    below = first in _DIRECTORIES and (not path.isascii() or not path.isprintable())
    if imitates or below or (first in _DIRECTORIES and not rest):
        raise refuse(
            "path-ambiguous",
            f"{path!r} could be taken for another path",
            commit,
            path,
            "printable ASCII below the fixed directories, spelled exactly",
            repr(path),
            "rename it",
        )


def rewritten(commit: Commit, change: Change) -> Refused:
    return refuse(
        "lock-rewritten",
        f"{change.path} exists and is never written again",
        commit,
        change.path,
        "the lock as it was written",
        "removed" if change.new is None else "other content",
        "restore it; make another release for other digests",
    )


def check_write(trust: TrustState, commit: Commit, author: str, path: str) -> None:
    if trust.may_write(author, path):
        return
    rule = trust.rule_for(path)
    raise refuse(
        "path-denied",
        f"{author} may not write {path}",
        commit,
        path,
        f"{' or '.join(rule.write)} (rule {rule.match})" if rule else "a path rule that matches; none does",
        f"{author} ({', '.join(sorted(trust.roles_of(author))) or 'no role'})",
        CURE,
    )


def counts(required: Mapping[str, int]) -> str:
    return ", ".join(f"{number} of {role}" for role, number in sorted(required.items()))


def refuse(code: str, what: str, commit: Commit, path: str, expected: str, got: str, cure: str) -> Refused:
    where = f"commit {commit.id[:12]}" + (f" {path}" if path else "")
    return Refused(code, what, where=where, expected=expected, got=got, cure=cure)
