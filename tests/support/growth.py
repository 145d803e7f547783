"""Honest histories that grow: what may come next, drawn with dice."""

from __future__ import annotations

import random
from collections.abc import Callable
from weakref import WeakKeyDictionary

from controller.ledger.append import EVIDENCE_REF, prepare, write
from controller.model import entry as e
from tests.support.home import MAIN, REQUESTS, Home
from tests.support.tamper import event

WAITING: WeakKeyDictionary[Home, list[e.Draft]] = WeakKeyDictionary()
"""What is left to append of an open run."""


def a_run(home: Home, dice: random.Random) -> None:
    """The rest of the open run, or a new one, or its beginning."""
    if not rest_of_the_run(home):
        end = dice.choice(["completed", "rolled_back"])
        drafts = home.story.run("dev", dice.choice(sorted(home.story.locks)), end=end)
        count = dice.choice([1, 4, len(drafts)])
        home.batch(drafts[:count])
        WAITING[home] = drafts[count:]


def rest_of_the_run(home: Home) -> bool:
    """Append what is left of the open run; its times leave no room for anything else before."""
    waiting = WAITING.pop(home, [])
    home.batch(waiting)
    return bool(waiting)


def a_release(home: Home, dice: random.Random) -> None:
    rest_of_the_run(home)
    home.release(f"shop-{len(home.story.locks) + 1}")


def a_refused_commit(home: Home, dice: random.Random) -> None:
    """Refused, and put back by somebody else."""
    bad = home.commit(MAIN, {"releases/evil.yaml": b"x"}, "mallory", "Evil")
    home.batch([home.story.refused(bad, "signer-unknown")])


def a_cure(home: Home, dice: random.Random) -> None:
    tip = home.commit(MAIN, {"releases/evil.yaml": None}, "otto", "Take it back")
    cured = tuple(one.commit for one in home.ledger.state.cursors.refused)
    commits = int(home.git("rev-list", "--count", "--first-parent", f"{home.story.main}..{tip}"))
    home.batch([home.story.accepted(tip, commits, cured=cured)])


def a_request(home: Home, dice: random.Random) -> None:
    rest_of_the_run(home)
    name = f"requests/{dice.randrange(10**9)}"
    home.batch([home.story.request(home.commit(REQUESTS, {name: b"x"}, "mallory", "Request"))])


def a_repair(home: Home, dice: random.Random) -> None:
    rest_of_the_run(home)
    good = home.ledger.commit or ""
    foreign = home.commit(EVIDENCE_REF, {"events/x": b"x"}, "mallory", "Foreign")
    detail = e.EvidenceRepaired(removed=(foreign,), restored=good)
    drafts = [home.story.draft("evidence-repaired", detail), *event(home)]
    prepared = prepare(home.ledger, drafts, home.controller, home.origin_line)
    home.ledger = write(home.repo, prepared, foreign, home.controller)
    home.tips[EVIDENCE_REF] = home.ledger.commit


def nothing(home: Home, dice: random.Random) -> None:
    """The history stands still."""


def a_release_while_it_stands(home: Home, dice: random.Random) -> None:
    data = b"apiVersion: lockgate.dev/v1\nkind: Release\nmetadata: {name: later}\n"
    home.commit(MAIN, {"releases/later.yaml": data}, "dave", "A release")


GROWTH: tuple[Callable[[Home, random.Random], None], ...] = (
    a_run,
    a_run,
    a_release,
    a_request,
    a_repair,
    nothing,
)
