"""What people do: signed commits on branches, merges, reverts and requests, in any origin they can push to."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controller.adapters.git.people import is_ref_name, merge, swap, write_commit
from controller.adapters.git.repo import GitRepo, full_ref
from controller.core.requests import write_request
from controller.errors import Conflict, Invalid, UsageError
from controller.ledger.links import can_link, sign_link
from controller.model.link import LinkSignature, approve_link
from controller.model.request import Request, Verb
from controller.ports import Signer

RETRIES = 8
"""Requests share a branch: a lost race is tried again on the new tip this often."""
VALID_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Person:
    """Who signs: a name and address for the commit's headers, and the key that proves it."""

    name: str
    email: str
    signer: Signer | None

    @property
    def author(self) -> tuple[str, str]:
        return self.name, self.email


def now() -> datetime:
    """The time of a person's commit, whole seconds as Git keeps them."""
    return datetime.now(UTC).replace(microsecond=0)


def commit_on(
    repo: GitRepo,
    branch: str,
    person: Person,
    changes: Mapping[str, bytes | None],
    message: str,
    *,
    base: str | None = None,
) -> str:
    """A signed commit on `branch` (made from `base`, by default main, when it does not exist); its id."""
    ref = full_ref(branch)
    tip = repo.known(ref)
    parent = tip or base or repo.observe().main
    oid = write_commit(
        repo,
        (parent,) if parent else (),
        changes,
        message=message,
        author=person.author,
        when=now(),
        signer=person.signer,
    )
    swap(repo, ref, tip, oid)
    return oid


def to_review(repo: GitRepo, branch: str) -> str:
    """The full name of a branch on which something may be proposed.

    Raises UsageError("branch-reserved" | "branch-malformed").
    """
    ref = full_ref(branch)
    name = ref.removeprefix("refs/heads/")
    if ref in (repo.main, repo.requests, repo.evidence) or name == "HEAD" or name.startswith("lockgate/"):
        raise UsageError(
            "branch-reserved",
            "what is proposed is reviewed and merged, so it does not go onto a branch of the project itself",
            where="--branch",
            expected="a branch of its own",
            got=branch,
            cure="leave --branch out, or name another",
        )
    if name == ref or name.startswith("-") or not is_ref_name(ref):
        raise UsageError(
            "branch-malformed",
            "Git takes no branch of this name",
            where="--branch",
            expected="a name like promote/prod-shop-1.0.0",
            got=branch or "nothing",
            cure="leave --branch out, or name another",
        )
    return ref


def propose(repo: GitRepo, branch: str, person: Person, changes: Mapping[str, bytes | None], message: str) -> str:
    """A signed commit over main's tip on `branch`, which must be new or merged already; its id.

    Raises Conflict("branch-exists") when the branch holds commits that main does not have, and as `to_review`.
    """
    ref, main = to_review(repo, branch), repo.observe().main
    tip = repo.known(ref)
    if tip is not None and (main is None or not repo.is_ancestor(tip, main)):
        raise Conflict(
            "branch-exists",
            "the branch has commits that are not on main",
            where=branch,
            expected="a new branch, or one that was merged",
            got=tip[:12],
            cure="have it merged, or name another with --branch",
        )
    oid = write_commit(
        repo,
        (main,) if main else (),
        changes,
        message=message,
        author=person.author,
        when=now(),
        signer=person.signer,
    )
    swap(repo, ref, tip, oid)
    return oid


def merge_branch(repo: GitRepo, branch: str, person: Person, *, into: str, message: str) -> str:
    """A signed merge of `branch` into `into`; its id. Raises Invalid("branch-unknown"), Conflict."""
    if person.signer is None:
        raise Invalid(
            "key-missing", "a merge that approves is signed", expected="a key", got="none", cure="give --key"
        )
    repo.observe()
    other = repo.known(full_ref(branch))
    if other is None:
        raise Invalid(
            "branch-unknown",
            "there is no such branch to merge",
            where=branch,
            expected="a branch of the origin",
            got="none",
            cure="push the branch first",
        )
    return merge(repo, into, other, message=message, author=person.author, when=now(), signer=person.signer)


def restore(repo: GitRepo, person: Person, *, to: str, branch: str, message: str) -> str:
    """A signed commit on `branch` after which its tree equals `to`'s: a revert of everything since; its id."""
    ref = full_ref(branch)
    tip = repo.observe().main if ref == repo.main else repo.known(ref)
    if tip is None:
        raise Invalid("branch-unknown", "there is no such branch", where=branch, cure="push the branch first")
    changes = {
        change.path: repo.read(change.new.blob) if change.new is not None else None
        for change in repo.changes(tip, to)
    }
    return commit_on(repo, branch, person, changes, message)


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request says; who signs it comes from its commit."""

    verb: Verb
    environment: str
    reason: str
    run: str | None = None
    ticket: str | None = None
    binds: str | None = None
    code: str | None = None
    expires_after: timedelta = VALID_FOR


def _link(person: Person, ask: Ask) -> LinkSignature | None:
    """The approver's signature over the in-toto link of the step, where their key can make one."""
    signer = person.signer
    if ask.verb != "approve" or ask.binds is None or signer is None:
        return None
    return sign_link(approve_link(ask.binds), signer) if can_link(signer.public_key) else None


def request(repo: GitRepo, person: Person, project: str, ask: Ask) -> tuple[str, str]:
    """Append a signed request to the requests branch; its id and commit. A lost race is tried again."""
    at = now()
    request_id = f"{at:%Y%m%d-%H%M%S}-{ask.verb}-{secrets.token_hex(4)}"
    for _ in range(RETRIES):
        tips = repo.observe()
        made = Request(
            id=request_id,
            project=project,
            verb=ask.verb,
            environment=ask.environment,
            run=ask.run,
            binds=ask.binds,
            code=ask.code,
            evidence=tips.evidence,
            reason=ask.reason,
            ticket=ask.ticket,
            link=_link(person, ask),
            at=at,
            expires=at + ask.expires_after,
        )
        path, data = write_request(made)
        oid = write_commit(
            repo,
            (tips.requests,) if tips.requests else (),
            {path: data},
            message=f"{ask.verb} {ask.environment}: {ask.reason}",
            author=person.author,
            when=at,
            signer=person.signer,
        )
        try:
            swap(repo, repo.requests, tips.requests, oid)
        except Conflict:
            continue
        return request_id, oid
    raise Conflict(
        "ref-moved",
        "the requests branch moved each time the request was to be added",
        where=repo.requests,
        cure="try again",
    )
