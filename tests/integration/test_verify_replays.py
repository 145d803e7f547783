"""Recorded replays under verification: what nobody asked for, or what comes out otherwise, is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git.repo import GitRepo
from controller.ledger.entry import read
from controller.model.entry import Replayed
from controller.uses.rules.replay_record_checks import replay_on_record
from tests.support.real_run import Recorded


@pytest.fixture
def event(recorded: Recorded) -> Any:
    """(repository, commit, path, detail) of the one replay on record."""
    repo = GitRepo.read_only(Path(recorded.origin))
    tip = repo.observe().evidence or ""
    ((path, file),) = [item for item in repo.files(tip, "events") if item[0].endswith("-replayed.dsse.json")]
    detail = read(repo.read(file.blob), path, None).detail
    assert isinstance(detail, Replayed)
    yield repo, tip, path, detail
    repo.close()


def codes(event: Any, **changes: Any) -> set[str]:
    repo, commit, path, detail = event
    return {code for code, _, _ in replay_on_record(repo, None, commit, path, detail.model_copy(update=changes))}


def test_the_honest_one_holds(event: Any) -> None:
    assert codes(event) == set()


def test_nobody_asked_for_another_run_or_in_another_name(event: Any) -> None:
    for changes in ({"run": "dev-2-00000000"}, {"by": "mallory"}, {"reason": "other"}, {"request": "0" * 40}):
        assert codes(event, **changes) == {"replay-unasked"}


def test_results_that_do_not_come_out_are_found(event: Any) -> None:
    decisions = event[3].decisions
    last = decisions[-1]
    other = "sha256:" + "0" * 64
    for changes in (
        {"decisions": (*decisions[:-1], last.model_copy(update={"replayed": other}))},
        {"decisions": (*decisions[:-1], last.model_copy(update={"recorded": other}))},
        {"decisions": decisions[:-1]},
        {"matching": 0},
        {"match": False},
        {"code": "run-not-found"},
        {"code": "replay-undecided"},
    ):
        assert codes(event, **changes) == {"replay-mismatch"}, changes


def test_it_is_judged_by_the_tree_before_it(event: Any) -> None:
    repo, commit, path, detail = event
    genesis = repo.chain(commit)[0]
    assert [code for code, _, _ in replay_on_record(repo, None, genesis, path, detail)] == ["replay-unasked"]
