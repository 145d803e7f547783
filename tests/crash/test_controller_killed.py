"""The controller, killed at every passage of every crash point of a whole story, one play each.

What is told afterwards must be what an uncrashed play tells: see tests/crash/harness/story.py.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.crashpoints import CONTROLLER_POINTS
from controller.demo.stage import Stage
from tests.crash.harness import project
from tests.crash.harness.forkserver import Forks
from tests.crash.harness.play import PARTS, Play, passages

WRITING = ("pack-before", "pack-unindexed", "pack-after", "swap-before", "swap-locked", "swap-moved", "swap-after")
RECORDING = ("record-before", *WRITING, "record-after", "remember-before", "remember-after", "pass-after")
ORDERING = ("deliver-before", "deliver-after", "cancel-before", "cancel-after")
TAKING = ("acknowledge-before", "acknowledge-after")
MAIN = ("main-before", "main-after")
PASSED = {
    "lock": {*RECORDING, *MAIN},
    "promote": {*RECORDING, *ORDERING, *TAKING},
    "fail": {*RECORDING, *ORDERING, *TAKING, *MAIN},
}
PUSHING = {"push-before", "push-after"}
"""Passed only where the origin is pushed to, which this story's is not."""
TRIES = 3


@dataclass(frozen=True)
class Begun:
    """Before a part: the project as it stands. After an uncrashed play of it: what was told, what was passed."""

    stage: Stage
    told: Any
    passed: dict[str, int]


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, forks: Forks, worker: str) -> dict[str, Begun]:
    """Each part's beginning, played once however many workers there are."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if worker else base) / "uncrashed"
    folder.mkdir(exist_ok=True)
    with (folder / "guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        told = folder / "told.json"
        if not told.exists():
            told.write_text(json.dumps(_play_all(folder, forks)))
        found = json.loads(told.read_bytes())
    return {part.name: Begun(Stage(folder / str(place)), *found[part.name]) for place, part in enumerate(PARTS)}


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> str:
    """The name of this xdist worker, "" without."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", ""))


def _play_all(folder: Path, forks: Forks) -> dict[str, Any]:
    project.build(folder / "0")
    found = {}
    for place, part in enumerate(PARTS):
        stage = project.copy(Stage(folder / str(place)), folder / str(place + 1))
        log = stage.folder / "points"
        told = Play(stage, forks).run(part, {"LOCKGATE_CRASH_LOG": str(log)})
        counts: dict[str, int] = {}
        for point, number in passages(log):
            counts[point] = number
        found[part.name] = (told, counts)
    return found


def test_the_story_passes_every_point(begun: dict[str, Begun]) -> None:
    assert {name: set(part.passed) for name, part in begun.items()} == PASSED
    assert {point for part in begun.values() for point in part.passed} | PUSHING == set(CONTROLLER_POINTS)
    ends = [lines[-1][1] for lines in begun["fail"].told["runs"].values()]
    assert ends == ["COMPLETED", "ROLLED_BACK"]
    assert begun["fail"].told["main"][-1] == "Take dev back to shop-1.0.0"
    print("\ncrash points:", sum(sum(part.passed.values()) for part in begun.values()), "passages enumerated")


@pytest.mark.parametrize(("name", "point"), [(n, p) for n, points in PASSED.items() for p in sorted(points)])
def test_a_controller_killed_here_changes_nothing(
    begun: dict[str, Begun], forks: Forks, tmp_path: Path, name: str, point: str
) -> None:
    """Killed at the 1st, 2nd, … passage of the point, the controller starts again and ends the story as told."""
    beginning = begun[name]
    part = next(p for p in PARTS if p.name == name)
    for number in range(1, beginning.passed[point] + 1):
        for attempt in range(TRIES):
            stage = project.copy(beginning.stage, tmp_path / f"{number}-{attempt}")
            log = stage.folder / "points"
            play = Play(stage, forks)
            told = play.run(part, {"LOCKGATE_CRASH_AT": f"{point}:{number}", "LOCKGATE_CRASH_LOG": str(log)})
            assert told == beginning.told, f"killed at passage {number}"
            if play.crashes:
                assert passages(log)[-1] == (point, number)
                break
            # Statements that came in together this time made one pass of two: fewer passages.
            assert log.read_text().split().count(point) < number
