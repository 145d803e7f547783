"""Judging a merge by the objects on the way to one path comes to what the whole repository says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from controller.adapters.git import sshsig
from controller.adapters.git.objects import parse_commit
from controller.adapters.git.people import swap, write_commit
from controller.adapters.git.repo import GitRepo
from controller.core.authority import Unbacked
from controller.core.carried import Carried
from controller.core.judge import Ground, judge_step
from controller.core.merges import History
from controller.core.steps import Step, Terms
from controller.core.trust import TrustState
from controller.demo.stage import Stage, slot_file
from controller.errors import Refused
from controller.uses.approving import Bundle
from controller.uses.view import trust_at
from controller.wiring.people import commit_on, merge_branch

SLOT = "promotions/prod.yaml"


class Shop:
    """A repository whose lines of history begin at main and stay beside it."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)
        self.stage.build(agents=["prod-eu-1"])
        self.repo: GitRepo = self.stage.repo()
        self.main = self.repo.observe().main or ""
        self.trust: TrustState = trust_at(self.repo, self.main)
        self.lines = 0

    def line(self, at: str = "") -> str:
        """A new branch."""
        self.lines += 1
        name = f"line-{self.lines}"
        swap(self.repo, f"refs/heads/{name}", None, at or self.main)
        return name

    def work(
        self, line: str, who: str = "alice", path: str = "README.md", text: str = "", message: str = "w"
    ) -> str:
        self.lines += 1
        data = slot_file("prod", text or "shop-1", "why") if path == SLOT else f"{self.lines}\n".encode()
        return commit_on(self.repo, line, self.stage.person(who), {path: data}, message)

    def merge(self, line: str, other: str, who: str = "bob") -> str:
        return merge_branch(self.repo, other, self.stage.person(who), into=line, message="Merge")

    def forge(self, who: str, parents: tuple[str, ...], release: str | None) -> str:
        """A merge that says itself what the slot holds."""
        person = self.stage.person(who)
        data = slot_file("prod", release, "why") if release is not None else None
        when = self.repo.commit(parents[0]).committer.at + timedelta(seconds=1)
        return write_commit(
            self.repo, parents, {SLOT: data}, message="M", author=person.author, when=when, signer=person.signer
        )

    def judged(self, history: History, oid: str) -> Step:
        terms = Terms("shop", "refs/heads/main", sshsig.verify)
        ground = Ground(history, Unbacked(), terms, self.trust, None, oid)
        return judge_step(ground, history.commit(oid))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("carried"))
    yield made
    made.repo.close()


def behind(s: Shop) -> str:
    main, side = s.line(), s.line()
    s.work(side, path=SLOT)
    for _ in range(4):
        other = s.line(s.repo.known(f"refs/heads/{main}") or "")
        s.work(other)
        s.merge(main, other, "dave")
    return s.merge(main, side)


def kept_up(s: Shop) -> str:
    """The branch took main in twice before it was merged."""
    main, side = s.line(), s.line()
    for _ in range(2):
        s.work(side, path="README.md", text="x")
        s.work(main, "dave", path="releases/shop-9.yaml")
        s.merge(side, main, "alice")
    s.work(side, path=SLOT)
    return s.merge(main, side)


def by_two(s: Shop) -> str:
    main, side = s.line(), s.line()
    s.work(side, path=SLOT)
    s.work(side, "dave", message="w\n\nCo-authored-by: Bob <bob@example.com>")
    return s.merge(main, side)


def own_work_below(s: Shop) -> str:
    """bob's commit is two merges down the branch."""
    main, side, deep = s.line(), s.line(), s.line()
    s.work(deep, "bob")
    s.merge(side, deep, "alice")
    s.work(side, path=SLOT)
    return s.merge(main, side)


def evil(s: Shop) -> str:
    main, side = s.line(), s.line()
    s.work(main, "dave")
    tips = s.repo.known(f"refs/heads/{main}"), s.work(side)
    return s.forge("bob", tips, "shop-6")  # type: ignore[arg-type]


def dropped(s: Shop) -> str:
    main, side = s.line(), s.line()
    first = s.line()
    s.work(first, path=SLOT)
    s.merge(main, first)
    tips = s.repo.known(f"refs/heads/{main}"), s.work(side)
    return s.forge("carol", tips, None)  # type: ignore[arg-type]


def alone(s: Shop) -> str:
    return s.work(s.line(), path=SLOT)


def plain(s: Shop) -> str:
    main, side = s.line(), s.line()
    s.work(side, path=SLOT)
    return s.merge(main, side)


def stranger(s: Shop) -> str:
    main, side = s.line(), s.line()
    s.work(side, path=SLOT)
    return s.merge(main, side, "olga")


CASES: dict[Callable[[Shop], str], str | None] = {
    plain: None,
    behind: None,
    kept_up: None,
    by_two: "self-approval",
    own_work_below: "self-approval",
    evil: "evil-merge",
    dropped: "merge-side-dropped",
    alone: "approval-missing",
    stranger: "approver-not-in-role",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_verdict_is_that_of_the_whole_repository(shop: Shop, case: Callable[[Shop], str]) -> None:
    oid = case(shop)
    bundle = Bundle(shop.repo)
    bundle.step(oid, SLOT)
    for path in (SLOT, "releases/shop-1.lock.yaml"):
        for parent in shop.repo.commit(oid).parents[:1]:
            bundle.path(parent, path)
    slot = shop.repo.file(oid, SLOT)
    if slot is not None:
        bundle.blob(slot.blob)
    sent = bundle.approving()
    carried, whole = shop.judged(Carried(sent, parse_commit, (SLOT,)), oid), shop.judged(shop.repo, oid)
    assert (carried.refused, whole.refused) == (CASES[case], CASES[case]), (carried.message, whole.message)
    assert (carried.signer, carried.kind, carried.approvals) == (whole.signer, whole.kind, whole.approvals)
    assert carried.authors == whole.authors
    for place in range(len(sent.commits)):
        fewer = sent.model_copy(update={"commits": [*sent.commits[:place], *sent.commits[place + 1 :]]})
        try:
            step = shop.judged(Carried(fewer, parse_commit, (SLOT,)), oid)
        except Refused as error:
            assert error.code == "order-unapproved"
        else:
            assert step.refused is not None
