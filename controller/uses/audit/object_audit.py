"""Whether what commits of main add can be read, whatever any other rule looked into."""

from __future__ import annotations

from collections.abc import Iterable

from controller.errors import Invalid, Refused
from controller.ports import Repo
from controller.uses.audit.findings import Finding, rule_of


def unreadable(repo: Repo, commits: Iterable[str]) -> list[Finding]:
    """Every object that these first-parent commits of main add can be read and is what its id says, also what no
    rule looked into."""
    findings = []
    read: set[str] = set()

    def look(commit: str, parent: str | None) -> None:
        path = ""
        try:
            for change in repo.changes(parent, commit):
                path = change.path
                if change.new is not None and change.new.blob not in read and change.new.mode != 0o160000:
                    read.add(change.new.blob)
                    repo.read(change.new.blob)
                path = ""
        except (Refused, Invalid) as error:
            findings.append(
                Finding(error.code, commit, path, rule_of(error.code), f"{error.what} ({error.where})")
            )

    for oid in commits:
        try:
            parents = repo.commit(oid).parents
            look(oid, parents[0] if parents else None)
            if len(parents) == 2:
                for brought in repo.brought(*parents):
                    look(brought.id, brought.parents[0] if brought.parents else None)
        except (Refused, Invalid) as error:
            findings.append(Finding(error.code, oid, "", rule_of(error.code), error.what))
    return findings
