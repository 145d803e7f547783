"""Two controllers on one origin with one key: one history, and the other completes what one began."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.demo.processes import free_port
from tests.crash.harness import project
from tests.crash.harness.forkserver import Forked, Forks
from tests.crash.harness.play import PATIENCE, Play, Watch
from tests.crash.harness.story import told


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture
def play(tmp_path: Path, forks: Forks) -> Iterator[Play]:
    made = Play(project.build(tmp_path / "project"), forks)
    yield made
    made.stop()


def test_two_controllers_write_one_history(play: Play) -> None:
    """Both see every merge at once and decide the same; agents are connected to one of them only."""
    stage, rival = play.stage, None
    watch = Watch(stage)
    try:
        project.release(stage, project.GOOD)
        play.controller = play.start({})
        rival = play.start({}, "rival-state", f"127.0.0.1:{free_port()}")
        both = [play.controller, rival]
        _wait(watch, both, lambda: watch.locked(project.GOOD) and watch.settled())
        play.dial()
        for release, phase in ((project.GOOD, "completed"), (project.BAD, "rolled_back")):
            if release != project.GOOD:
                project.release(stage, release)
                _wait(watch, both, lambda r=release: watch.locked(r) and watch.settled())
            project.promote(stage, release)
            _wait(watch, both, lambda r=release, p=phase: watch.phase() == (r, p) and watch.settled())
        _wait(watch, both, lambda: project.GOOD in watch.slot() and watch.settled())
        _wait(watch, both, lambda: not any(agent.journal.unacknowledged() for agent in play.agents))
        for folder in ("state", "rival-state"):
            health = stage.folder / folder / "health.json"
            _wait(watch, both, lambda h=health: json.loads(h.read_bytes())["state"] == "running")
        assert [controller.end(signal.SIGTERM) for controller in both] == [0, 0]
        story = _checked(play)
        locks = [event for event in story["events"] if event[0] == "lock"]
        assert [lock[2] for lock in locks] == [project.GOOD, project.BAD]
        assert [subject for subject in story["main"] if subject.startswith(("Lock", "Take"))] == [
            f"Lock {project.GOOD}",
            f"Lock {project.BAD}",
            f"Take dev back to {project.GOOD}",
        ]
    finally:
        watch.close()
        if rival is not None:
            rival.end()


def test_the_other_goes_on_when_one_is_killed(play: Play) -> None:
    """The controller that agents talk to is killed once it offered the second stage's order; another takes its
    address over while a third process has watched all along."""
    stage, rival = play.stage, None
    watch = Watch(stage)
    try:
        play.dial()
        project.release(stage, project.GOOD)
        rival = play.start({}, "rival-state", f"127.0.0.1:{free_port()}")
        _wait(watch, [rival], lambda: watch.locked(project.GOOD) and watch.settled())
        play.controller = play.start({"LOCKGATE_CRASH_AT": "deliver-after:2"})
        project.promote(stage, project.GOOD)
        # Nobody but the first can reach the agents, whoever recorded the order.
        _wait(watch, [rival], lambda: play.controller is not None and play.controller.ended())
        assert play.controller is not None and play.controller.status == -signal.SIGKILL
        play.controller = play.start({}, "third-state")
        _wait(watch, [rival], lambda: watch.phase() == (project.GOOD, "completed") and watch.settled())
        _wait(watch, [rival], lambda: not any(agent.journal.unacknowledged() for agent in play.agents))
        assert [controller.end(signal.SIGTERM) for controller in (play.controller, rival)] == [0, 0]
        runs = _checked(play)["runs"]
        assert [lines[-1][1] for lines in runs.values()] == ["COMPLETED"]
    finally:
        watch.close()
        if rival is not None:
            rival.end()


@pytest.mark.parametrize("point", ["swap-locked", "swap-moved", "record-after"])
def test_the_rival_goes_on_recording(play: Play, point: str) -> None:
    """The controller that wrote last (or was about to, holding the branch's lock) is killed: the one beside it
    locks the next release and opens the next run, though no agent knows its address."""
    stage, rival = play.stage, None
    watch = Watch(stage)
    try:
        project.release(stage, project.GOOD)
        play.controller = play.start({})
        rival = play.start({}, "rival-state", f"127.0.0.1:{free_port()}")
        _wait(watch, [play.controller, rival], lambda: watch.locked(project.GOOD) and watch.settled())
        assert play.controller.end(signal.SIGTERM) == 0
        # The rival stands still, so that the other is the one that writes, and dies of it.
        rival.send(signal.SIGSTOP)
        project.release(stage, project.BAD)
        first = play.start({"LOCKGATE_CRASH_AT": point})
        _wait(watch, [rival], first.ended)
        assert first.status == -signal.SIGKILL
        rival.send(signal.SIGCONT)
        _wait(watch, [rival], lambda: watch.locked(project.BAD) and watch.settled())
        project.promote(stage, project.GOOD)
        _wait(watch, [rival], lambda: watch.ordered() and watch.settled())
        play.controller = play.start({}, "third-state")
        play.dial()
        _wait(watch, [play.controller, rival], lambda: watch.phase() == (project.GOOD, "completed"))
        _wait(watch, [rival], lambda: not any(agent.journal.unacknowledged() for agent in play.agents))
        assert [controller.end(signal.SIGTERM) for controller in (play.controller, rival)] == [0, 0]
        story = _checked(play)
        assert [e[2] for e in story["events"] if e[0] == "lock"] == [project.GOOD, project.BAD]
        assert [lines[-1][1] for lines in story["runs"].values()] == ["COMPLETED"]
    finally:
        watch.close()
        if rival is not None:
            rival.end()


def _checked(play: Play) -> dict[str, Any]:
    """What was told (verified, dense, each order once), and that no run holds anything twice."""
    for agent in play.agents:
        agent.stop()
    play.agents = []
    story = told(play.stage, project.AGENTS)
    for name, lines in story["runs"].items():
        facts = [json.dumps(line) for line in lines if line[0] != "gates"]
        assert len(facts) == len(set(facts)), f"{name} holds something twice"
    return story


def _wait(watch: Watch, controllers: list[Forked], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    watch.moved()
    while not ready():
        assert not any(controller.ended() for controller in controllers)
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
        watch.moved()
