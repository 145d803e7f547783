"""The controller, killed at every passage of every crash point of a whole story, one play each.

What is told afterwards must be what an uncrashed play tells: see tests/crash/harness/story.py. How many passes
the same statements make depends on who was quicker, so a few of the enumerated passages may not exist in another
play. They are counted, named at the end of the run, and there may not be many.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller.crashpoints import CONTROLLER_POINTS
from controller.demo.stage import Stage
from tests.crash.harness import project
from tests.crash.harness.forkserver import Forks
from tests.crash.harness.play import PARTS, Play, passages
from tests.support.components import used

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
"""Passed only where the origin is pushed to: see the end of this file."""
TRIES = 3
UNREACHED = 0.1
"""The share of all enumerated passages that may turn out not to exist in any of the tries."""


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
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """One folder for all xdist workers."""
    base = tmp_path_factory.getbasetemp()
    made = (base.parent if hasattr(request.config, "workerinput") else base) / "uncrashed"
    made.mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="session")
def begun(folder: Path, forks: Forks) -> dict[str, Begun]:
    """Each part's beginning, played once however many workers there are."""
    with (folder / "guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        told = folder / "told.json"
        if not told.exists():
            told.write_text(json.dumps(_play_all(folder, forks)))
        found = json.loads(told.read_bytes())
    return {part.name: Begun(Stage(folder / str(place)), *found[part.name]) for place, part in enumerate(PARTS)}


class Unreached:
    """The enumerated passages that no try came to, over all workers."""

    def __init__(self, file: Path, enumerated: int) -> None:
        self._file, self._enumerated = file, enumerated

    def add(self, name: str) -> None:
        """Count one; too many fail the test that comes upon the last straw."""
        with self._file.open("a") as file:
            file.write(name + "\n")
        names = self.names()
        assert len(names) <= UNREACHED * self._enumerated, f"never reached: {', '.join(names)}"

    def names(self) -> list[str]:
        return sorted(self._file.read_text().splitlines()) if self._file.exists() else []


@pytest.fixture(scope="session")
def unreached(folder: Path, begun: dict[str, Begun]) -> Iterator[Unreached]:
    """Says at the end how much was enumerated and what of it was not met."""
    counts = [part.passed for part in begun.values()]
    enumerated = sum(sum(passed.values()) for passed in counts)
    points = len({point for passed in counts for point in passed})
    made = Unreached(folder / "unreached", enumerated)
    yield made
    names = made.names()
    said = f"{enumerated} passages of {points} points, each killed in a play of its own"
    used("crash points", said + (f"; not met again: {', '.join(names)}" if names else ""))


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


@pytest.mark.parametrize(("name", "point"), [(n, p) for n, points in PASSED.items() for p in sorted(points)])
def test_a_controller_killed_here_changes_nothing(
    begun: dict[str, Begun], unreached: Unreached, forks: Forks, tmp_path: Path, name: str, point: str
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
        else:
            unreached.add(f"{name} {point}:{number}")


HOOK = """#!/bin/sh
cat >> received
"""


@pytest.mark.parametrize(("point", "number"), [("push-before", 2), ("push-after", 2)])
def test_a_controller_killed_around_a_push(
    begun: dict[str, Begun], forks: Forks, tmp_path: Path, point: str, number: int
) -> None:
    """An origin with a hook is pushed to: the killed push was received once or not at all, and nothing twice."""
    stage = project.copy(begun["promote"].stage, tmp_path / "hooked")
    hook = stage.origin / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o755)
    log = stage.folder / "points"
    play = Play(stage, forks)
    part = next(p for p in PARTS if p.name == "promote")
    told = play.run(part, {"LOCKGATE_CRASH_AT": f"{point}:{number}", "LOCKGATE_CRASH_LOG": str(log)})
    assert told == begun["promote"].told
    assert play.crashes == 1 and passages(log)[-1] == (point, number)
    received = [line.split() for line in (stage.origin / "received").read_text().splitlines()]
    moves = [(old, new) for old, new, ref in received if ref.endswith("lockgate/evidence")]
    assert all(new == old for (_, new), (old, _) in pairwise(moves)), "a push on something else than the last"
