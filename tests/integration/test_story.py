"""What the reading commands answer about runs, from a real evidence branch."""

from pathlib import Path

import pytest

from controller.errors import Invalid
from controller.ledger.append import EVIDENCE_REF, prepare, write
from controller.model import entry as e
from controller.uses import story
from tests.support.home import Home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"), agents=("a",))
    home.release("shop-1")
    home.release("shop-2")
    home.batch(home.story.run("dev", "shop-1"))
    home.batch(home.story.run("dev", "shop-2", end="rolled_back"))
    home.batch(home.story.run("staging", "shop-1"))
    home.batch(home.story.run("dev", "shop-2", sealed=False)[:5])
    return home


def run_of(home: Home, number: int, environment: str = "dev") -> str:
    rows = story.runs(home.repo, home.ledger.commit or "", environment)
    return rows[number - 1]["run"]


def test_runs_open_and_closed(home: Home) -> None:
    tip = home.ledger.commit or ""
    rows = story.runs(home.repo, tip)
    assert [(row["environment"], row["release"], row["phase"], row["sealed"]) for row in rows] == [
        ("dev", "shop-1", "completed", True),
        ("dev", "shop-2", "rolled_back", True),
        ("staging", "shop-1", "completed", True),
        ("dev", "shop-2", rows[3]["phase"], False),
    ]
    assert rows[3]["closed"] is None
    assert all(row["closed"] and row["opened"] < row["closed"] for row in rows[:3])
    assert [row["run"] for row in story.runs(home.repo, tip, "staging")] == [rows[2]["run"]]
    assert [row["run"] for row in story.runs(home.repo, tip, "dev", limit=1)] == [rows[3]["run"]]
    assert story.runs(home.repo, tip, "nowhere") == []


def test_timeline_names_the_commit_of_each_step(home: Home) -> None:
    tip = home.ledger.commit or ""
    answer = story.timeline(home.repo, tip, run_of(home, 2))
    assert answer["phase"] == "rolled_back"
    kinds = [step["kind"] for step in answer["steps"]]
    first, end = ["opened", "inputs", "gates", "ordered", "deployed", "evaluated"], ["rolled-back", "sealed"]
    assert kinds == [*first, "control", "ordered", *end]
    for step in answer["steps"]:
        message = home.git("log", "-1", "--format=%B", step["commit"] or "")
        assert f"Lockgate-Digest: {step['envelope']}" in message
        assert message.startswith(step["summary"])


def test_commits_are_found_behind_a_repaired_foreign_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.release("shop-1")
    good = home.ledger.commit or ""
    foreign = home.commit(EVIDENCE_REF, {"events/x": b"x"}, "mallory", "Foreign")
    draft = home.story.draft("evidence-repaired", e.EvidenceRepaired(removed=(foreign,), restored=good))
    prepared = prepare(home.ledger, [draft], home.controller, home.origin_line)
    home.ledger = write(home.repo, prepared, foreign, home.controller)
    home.batch(home.story.run("dev", "shop-1"))
    steps = story.timeline(home.repo, home.ledger.commit or "", run_of(home, 1))["steps"]
    assert [step["commit"] for step in steps] == [entry.commit for entry in home.ledger.recorded]


def test_one_step_whole(home: Home) -> None:
    tip, run = home.ledger.commit or "", run_of(home, 1)
    answer = story.step(home.repo, tip, run, 5)
    assert answer["predicate"]["kind"] == "deployed"
    assert answer["predicate"]["detail"]["results"][0]["target"] in ("a", "b")
    assert "configuration" not in answer["predicate"]
    assert story.step(home.repo, tip, run, 6)["predicate"]["passedTests"] == ["healthy"]
    for call in (
        lambda: story.step(home.repo, tip, run, 99),
        lambda: story.step(home.repo, tip, "dev-9-aaaaaaaa", 1),
    ):
        with pytest.raises(Invalid) as caught:
            call()
        assert caught.value.code in ("step-not-found", "run-not-found")


def test_targets_know_their_last_result(home: Home) -> None:
    tip = home.ledger.commit or ""
    rows = story.targets(home.repo, tip, run_of(home, 2))
    found = {(row["target"], row["stage"], row["result"], row["order"].rpartition("/")[2]) for row in rows}
    assert found == {("a", 1, "succeeded", "rollback")}


def test_evidence_tells_sealed_from_pending_and_absent(home: Home) -> None:
    tip = home.ledger.commit or ""
    done = story.evidence(home.repo, tip, run_of(home, 1))
    kinds = [*story.EXPECTED[:6], "ordered", *story.EXPECTED[6:]]
    assert [row["checkpoint"] for row in done] == [*kinds, "time-anchored"]
    assert [row["state"] for row in done] == ["sealed"] * len(kinds) + ["absent"]
    back = {row["checkpoint"]: row["state"] for row in story.evidence(home.repo, tip, run_of(home, 2))}
    assert back["verified"] == "absent"
    assert back["sealed"] == "sealed"
    still = {row["checkpoint"]: row["state"] for row in story.evidence(home.repo, tip, run_of(home, 3))}
    assert (still["deployed"], still["evaluated"], still["sealed"]) == ("sealed", "pending", "pending")
    with pytest.raises(Invalid) as caught:
        story.evidence(home.repo, tip, "dev-1-00000000")
    assert caught.value.code == "run-not-found"
