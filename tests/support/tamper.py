"""What tamperings are made with: a history, and entries and commits altered by the controller's own key."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from controller.ledger.append import EVIDENCE_REF, Prepared, prepare, write
from controller.ledger.canonical import canonical
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign, split
from controller.model import entry as e
from controller.model.history import NewCommit
from tests.support.home import Home

Tamper = Callable[[Home], None]


def a_home_to_tamper_with(folder: Path) -> Home:
    """One completed run with an agent's report, one rolled back, one open."""
    home = Home(folder, agents=("a",))
    home.release("shop-1")
    home.release("shop-2")
    home.batch(home.story.run("dev", "shop-1"))
    for draft in home.story.run("dev", "shop-2", end="rolled_back"):
        home.batch([draft])
    home.batch(home.story.run("dev", "shop-2", sealed=False))
    return home


def codes(home: Home) -> set[str]:
    report = home.verify()
    assert report.verified == (not report.findings)
    assert all(str(finding).count("\n") == 0 for finding in report.findings)
    return {finding.code for finding in report.findings}


def rewrite(home: Home, drafts: Sequence[e.Draft], change: Callable[[dict], dict], message: str = "") -> None:
    """Append drafts with the last commit's changes (and message) altered, signed by the controller's own key."""
    prepared = prepare(home.ledger, drafts, home.controller, home.origin_line)
    last = prepared.commits[-1]
    commit = NewCommit(change(dict(last.changes)), message or last.message, last.at)
    altered = Prepared([*prepared.commits[:-1], commit], prepared.entries, prepared.ledger)
    home.ledger = write(home.repo, altered, home.ledger.commit, home.controller)
    home.tips[EVIDENCE_REF] = home.ledger.commit


def event(home: Home) -> list[e.Draft]:
    return [home.story.accepted(home.story.main, 0)]


def reseal(
    home: Home, new: dict, edit: Callable[[dict], None], payload: Callable[[dict], bytes] = canonical
) -> dict:
    """The entry's statement edited and signed again by the controller's own key; trailers and log left alone."""
    (path,) = [name for name in new if name.endswith(".dsse.json")]
    statement = json.loads(split(new[path]).payload)
    edit(statement)
    return {**new, path: sign(payload(statement), STATEMENT_PAYLOAD, home.controller)}


def edited(edit: Callable[[dict], None]) -> Tamper:
    return lambda home: rewrite(home, event(home), lambda new: reseal(home, new, edit))


def next_entry(home: Home, detail_of: Callable[[e.Entry], dict] | None = None) -> e.Draft:
    """A control entry for the open run."""
    entry = next(iter(home.ledger.open_entries.values()))[-1]
    control = e.Control(verb="paused", request=None, by="controller", reason="why", code="ok")
    run, env = entry.predicate.run, entry.predicate.environment
    return home.story.draft("control", control, run, env, entry.predicate.what)


def edited_run(edit: Callable[[dict], None]) -> Tamper:
    return lambda home: rewrite(home, [next_entry(home)], lambda new: reseal(home, new, edit))


def commit_as(by: str, files: dict) -> Tamper:
    def tamper(home: Home) -> None:
        home.commit(EVIDENCE_REF, files, by)

    return tamper


def record_path(home: Home, ending: str) -> str:
    names = home.git("ls-tree", "-r", "--name-only", EVIDENCE_REF).split("\n")
    return next(name for name in names if name.endswith(ending))


def with_record(ending: str, data: bytes | None) -> Tamper:
    return lambda home: rewrite(home, event(home), lambda new: {**new, record_path(home, ending): data})


def without(*paths: str) -> Callable[[dict], dict]:
    return lambda new: {name: data for name, data in new.items() if name not in paths}


def set_at(path: Sequence[str], value: object) -> Callable[[dict], None]:
    def edit(statement: dict) -> None:
        place = statement["predicate"]
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value

    return edit
