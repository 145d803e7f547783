"""Judging what people ask for on the requests branch: one commit, one file, one verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from controller.core.attribution import signer_of
from controller.core.trust import OWNERS, TrustState
from controller.errors import Invalid, Refused
from controller.ledger.canonical import canonical
from controller.ledger.links import holds
from controller.model.history import Change, Commit
from controller.model.link import approve_link
from controller.model.request import Request

_SIZE = 1 << 16
_PATH = re.compile(r"requests/([0-9]{4})/(0[1-9]|1[0-2])/([a-z0-9-]+)\.json")
_SKEW = timedelta(minutes=5)
COMMIT = "commit:"
"""Before the commit's id in what an acknowledgement binds."""


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """The one answer to a request commit. `role` is the role by which an accepted one was granted.

    `request` is set whenever the file reads, also when it is refused; `principal` whenever the signature is
    somebody's.
    """

    request: Request | None
    accepted: bool
    code: str
    message: str
    principal: str | None = None
    role: str | None = None
    key: str | None = None


def judge_request(
    commit: Commit,
    changes: Sequence[Change],
    data: bytes | None,
    trust: TrustState,
    project: str,
    now: datetime,
    seen: Set[str] = frozenset(),
) -> RequestVerdict:
    """Judge one commit of the requests branch.

    `changes` are its differences to its first parent, `data` the added file's bytes (None when there is not
    exactly one change), `seen` the ids of requests judged before. Never raises: a foreign or malformed commit
    is a refusal and breaks nothing. Codes: the signature's, "request-malformed", "request-foreign",
    "request-expired", "request-duplicate", "action-out-of-scope"; "request-accepted".
    """
    principal: str | None = None
    request: Request | None = None
    try:
        principal = signer_of(trust, commit, max(now, commit.committer.at))
        signer_of(trust, commit, commit.committer.at)
        request = _only_file(commit, changes, data)
        _check_link(request, commit)
        role = _granted(request, trust, principal, project, now, seen)
    except (Refused, Invalid) as error:
        return RequestVerdict(request, False, error.code, _words(error), principal, None, commit.key)
    what = f"{principal} may {request.verb} {request.environment} as {role}"
    return RequestVerdict(request, True, "request-accepted", what, principal, role, commit.key)


def _words(error: Refused | Invalid) -> str:
    if not error.expected and not error.got:
        return error.what
    return f"{error.what}; expected {error.expected or '-'}, got {error.got or '-'}"


def _malformed(what: str, expected: str, got: str) -> Invalid:
    return Invalid("request-malformed", what, expected=expected, got=got, cure="ask again with `lockgate`")


def _only_file(commit: Commit, changes: Sequence[Change], data: bytes | None) -> Request:
    if len(commit.parents) > 1:
        raise _malformed("a request is no merge", "one parent", f"{len(commit.parents)} parents")
    if len(changes) != 1 or data is None:
        raise _malformed("a request commit adds one file", "1 change", f"{len(changes)} changes")
    (change,) = changes
    if change.old is not None or change.new is None or change.new.mode != 0o100644:
        raise _malformed("a request commit only adds", "a new regular file", f"a change of {change.path}")
    place = _PATH.fullmatch(change.path)
    if place is None:
        raise _malformed("the file is in no place of requests", "requests/<yyyy>/<mm>/<id>.json", change.path)
    request = read_request(data)
    if request.id != place[3] or request.at.strftime("%Y/%m") != f"{place[1]}/{place[2]}":
        raise _malformed("path and content disagree", request_path(request), change.path)
    return request


def _check_link(request: Request, commit: Commit) -> None:
    """A link that comes along is the approver's own, over what the request approves."""
    if request.link is None:
        return
    approves = request.verb == "approve" and request.binds is not None
    if not approves or not holds(approve_link(request.binds or ""), request.link, commit.key):
        raise _malformed("the link does not hold", "the signer's, over what is approved", request.link.keyid[:16])


def read_request(data: bytes) -> Request:
    """A request from its bytes: strict JSON, no key twice. Raises Invalid("request-malformed")."""
    try:
        if len(data) > _SIZE:
            raise ValueError(f"{len(data)} bytes")
        return Request.model_validate(json.loads(data, object_pairs_hook=_once, parse_constant=_never))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _malformed(f"{place}: {first['msg']}", "a Request", repr(first.get("input"))[:80]) from error
    except (ValueError, RecursionError) as error:
        raise _malformed("the file is no JSON object", "strict JSON", str(error)[:80]) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _never(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _granted(
    request: Request,
    trust: TrustState,
    principal: str,
    project: str,
    now: datetime,
    seen: Set[str],
) -> str:
    if request.project != project:
        raise Refused(
            "request-foreign", "the request is for another project", expected=project, got=request.project
        )
    if request.id in seen:
        raise Refused("request-duplicate", "a request of this id was judged before", got=request.id)
    if now >= request.expires or request.expires <= request.at:
        raise Refused(
            "request-expired",
            "the request's time is over",
            expected=f"before {request.expires.isoformat()}",
            got=now.isoformat(),
        )
    if request.at > now + _SKEW:
        raise Refused(
            "request-expired",
            "the request is dated ahead",
            expected=f"at most {(now + _SKEW).isoformat()}",
            got=request.at.isoformat(),
        )
    role = trust.allows(request.verb, request.environment, principal)
    if request.verb == "acknowledge":
        # About main, which is above environments: the owners', whatever action rules say.
        role = OWNERS if trust.holds(principal, OWNERS) and request.environment == "*" else None
        if bound_commit(request.binds) is None or request.code is None or request.evidence is None:
            what = "an acknowledgement names the commit, its code and the evidence that was seen"
            raise _malformed(what, "binds, code and evidence", request.binds or "none")
    if role is None:
        raise Refused(
            "action-out-of-scope",
            f"{principal} may not {request.verb} in {request.environment}",
            expected=f"an action rule of trust version {trust.version} that allows it",
            got=", ".join(sorted(trust.roles_of(principal))) or "no role",
        )
    return role


def bound_commit(binds: str | None) -> str | None:
    """The commit that an acknowledgement's `binds` names; None when it names none."""
    return binds.removeprefix(COMMIT) if binds is not None and binds.startswith(COMMIT) else None


def request_path(request: Request) -> str:
    """Where a request's file belongs; the month is that of `at` in UTC."""
    return f"requests/{request.at:%Y}/{request.at:%m}/{request.id}.json"


def write_request(request: Request) -> tuple[str, bytes]:
    """The path and the bytes (RFC 8785 JSON) of a request's file."""
    return request_path(request), canonical(request.model_dump(mode="json", by_alias=True, exclude_none=True))
