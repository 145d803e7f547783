"""Whose work a commit is: its signer, and everybody it names as an author."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from controller.core.trust import TrustState
from controller.errors import Refused
from controller.model.history import Commit

_CO_AUTHOR = re.compile(r"^\s*co-authored-by:\s*(.*?)\s*<([^<>]*)>", re.IGNORECASE | re.MULTILINE)
_TRAILER = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):[ \t]*(.*?)[ \t]*$")


def trailers(message: str) -> dict[str, list[str]]:
    """The trailers of a commit message's last paragraph, by lower-cased key."""
    paragraphs = re.split(r"\n[ \t]*\n", message.strip())
    found: dict[str, list[str]] = {}
    if len(paragraphs) < 2:
        return found
    for line in paragraphs[-1].splitlines():
        trailer = _TRAILER.match(line)
        if trailer:
            found.setdefault(trailer[1].lower(), []).append(trailer[2])
    return found


def approving_message(trust: TrustState, message: str, project: str, ref: str) -> str:
    """A merge's message with the trailer by which it approves in this project and on this ref, where Trust asks
    for it; trailers that are there already are kept in one paragraph with it."""
    if trust.document.spec.merge_approval == "signature":
        return message
    body = message.rstrip()
    lines = re.split(r"\n[ \t]*\n", body)[-1].splitlines() if trailers(body) else []
    gap = "\n" if lines and all(_TRAILER.match(line) for line in lines) else "\n\n"
    return f"{body}{gap}Lockgate-Approve: {project} {ref}\n"


def approves_here(trust: TrustState, commit: Commit, project: str, ref: str) -> bool:
    """Whether a merge is meant as an approval in this project and on this ref, as far as Trust asks for that."""
    if trust.document.spec.merge_approval == "signature":
        return True
    said = trailers(commit.message).get("lockgate-approve", [])
    return f"{project} {ref}" in [" ".join(value.split()) for value in said]


def named_authors(trust: TrustState, commit: Commit) -> frozenset[str]:
    """The principals whom the author header and Co-authored-by lines name, by e-mail or by name.

    Nothing there is proven, so it can only take an approval away, never give one.
    """
    people = [(commit.author.name, commit.author.email), *_CO_AUTHOR.findall(commit.message)]
    found: set[str] = set()
    for name, email in people:
        found |= trust.people_of(email)
        plain = name.strip().casefold()
        if plain in trust.members:
            found.add(plain)
    return frozenset(found)


def signed_at(commit: Commit, parents: Iterable[Commit]) -> datetime:
    """The earliest time at which a commit can have been made: never before its parents.

    The committer date is the signer's word; an expired key cannot date itself back below what it builds on.
    """
    return max([commit.committer.at, *(parent.committer.at for parent in parents)])


def signer_of(trust: TrustState, commit: Commit, at: datetime) -> str:
    """The principal who signed. Raises Refused with the commit's own defect, "unsigned", "signature-bad",
    "signer-unknown" or "key-expired"."""
    where = f"commit {commit.id[:12]}"
    cure = "revert it by a reviewed merge, then bring the change again signed"
    if commit.malformed is not None:
        raise Refused(
            commit.malformed,
            "the commit object is malformed",
            where=where,
            expected="a commit as Git writes it, with one signature",
            got=commit.malformed,
            cure=cure,
        )
    if commit.signature == "none":
        raise Refused(
            "unsigned",
            "the commit carries no signature",
            where=where,
            expected="a signature by a principal of trust/trust.yaml",
            got=f"none (author {commit.author.name})",
            cure=cure,
        )
    if commit.signature == "bad" or commit.key is None:
        raise Refused(
            "signature-bad",
            "the commit's signature does not fit its content",
            where=where,
            expected="a good signature",
            got="a bad one",
            cure=cure,
        )
    name = trust.owner_of(commit.key)
    if name is None:
        raise Refused(
            "signer-unknown",
            "the commit is signed by a key that nobody in Trust holds",
            where=where,
            expected=f"a key of trust version {trust.version}",
            got=commit.key[:60],
            cure=cure,
        )
    if not trust.members[name].key_valid(commit.key, at):
        raise Refused(
            "key-expired",
            f"{name}'s key may not sign at that time",
            where=where,
            expected="a time within validAfter and validBefore",
            got=at.isoformat(),
            cure=cure,
        )
    return name
