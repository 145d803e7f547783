"""Playing a part of the story with a real controller that is killed on the way and started again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adapters.git.repo import GitRepo
from controller.demo.processes import free_port
from controller.demo.stage import Stage
from tests.crash.harness import project
from tests.crash.harness.forkserver import Forked, Forks
from tests.crash.harness.story import told
from tests.support.light_agent import LightAgent

PATIENCE = 30.0


class Watch:
    """What a part waits for, read from the origin."""

    def __init__(self, stage: Stage) -> None:
        self._repo = GitRepo.read_only(stage.origin)
        self._seen: Any = None

    def close(self) -> None:
        self._repo.close()

    def moved(self) -> bool:
        """Whether any branch moved since the last call."""
        tips = self._repo.observe()
        before, self._seen = self._seen, tips
        return bool(tips != before)

    def settled(self) -> bool:
        """Whether main is accepted as it stands."""
        return bool(self._json("state/cursors.json").get("main") == self._seen.main)

    def locked(self, release: str) -> bool:
        return self._repo.file(self._seen.main, f"releases/{release}.lock.yaml") is not None

    def phase(self) -> tuple[str | None, str | None]:
        """The last run's release and phase."""
        last = self._json("state/dev.json").get("lastRun") or {}
        return last.get("release"), last.get("phase")

    def ordered(self) -> bool:
        """Whether any run has ordered anything."""
        tip = self._seen.evidence
        return tip is not None and any("-ordered." in path for path, _ in self._repo.files(tip, "runs"))

    def slot(self) -> str:
        file = self._repo.file(self._seen.main, "promotions/dev.yaml")
        return self._repo.read(file.blob).decode() if file is not None else ""

    def _json(self, path: str) -> dict[str, Any]:
        file = self._repo.file(self._seen.evidence, path) if self._seen.evidence else None
        return json.loads(self._repo.read(file.blob)) if file is not None else {}


@dataclass(frozen=True)
class Part:
    """One part of the story: what people do (at the beginning, and each time the condition before it is met),
    and when it is over."""

    name: str
    acts: tuple[Callable[[Stage], None], ...]
    until: tuple[Callable[[Watch], bool], ...]


def _ended(release: str, phase: str) -> Callable[[Watch], bool]:
    return lambda watch: watch.phase() == (release, phase) and watch.settled()


PARTS = (
    Part(
        "lock",
        (lambda stage: project.release(stage, project.GOOD),),
        (lambda watch: watch.locked(project.GOOD) and watch.settled(),),
    ),
    Part(
        "promote",
        (lambda stage: project.promote(stage, project.GOOD),),
        (_ended(project.GOOD, "completed"),),
    ),
    Part(
        "fail",
        (lambda stage: project.release(stage, project.BAD), lambda stage: project.promote(stage, project.BAD)),
        (
            lambda watch: watch.locked(project.BAD) and watch.settled(),
            lambda watch: _ended(project.BAD, "rolled_back")(watch) and project.GOOD in watch.slot(),
        ),
    ),
)
"""Together: a release is locked and completes; another is locked, fails, is rolled back, its slot reverted."""


class Play:
    """One play of one part in `stage`, with agents in threads and controllers from `forks`."""

    def __init__(self, stage: Stage, forks: Forks, agents: tuple[str, ...] = project.AGENTS) -> None:
        self.stage, self._forks, self._names = stage, forks, agents
        self._address = f"127.0.0.1:{free_port()}"
        self.controller: Forked | None = None
        self.crashes = 0
        self.agents: list[LightAgent] = []

    def start(self, environ: Mapping[str, str], state: str = "state", address: str = "") -> Forked:
        """Start a controller."""
        stage = self.stage
        settings = {
            "repo": str(stage.origin),
            "trust_root": str(stage.trust_root),
            "signing_key": str(stage.keys / "controller"),
            "state_dir": str(stage.folder / state),
            "listen": address or self._address,
            "images": str(stage.images),
        }
        return self._forks.start(settings, environ, stage.folder / "controller.log")

    def run(self, part: Part, environ: Mapping[str, str]) -> dict[str, Any]:
        """Play `part`; a controller that is killed starts again without `environ`. Returns what was told."""
        watch = Watch(self.stage)
        try:
            self.dial()
            for number, (act, until) in enumerate(zip(part.acts, part.until, strict=True)):
                act(self.stage)
                if not number:
                    self.controller = self.start(environ)
                self._until(watch, until)
            self._until_forgotten()
            self._stop_agents()
            self._finish()
            return told(self.stage, self._names)
        finally:
            self.stop()
            watch.close()

    def dial(self) -> None:
        """Start the agents."""
        for name in self._names:
            agent = LightAgent(
                self.stage.agents / name,
                name=name,
                environment="dev",
                key=self.stage.keys / name,
                trust_root=self.stage.trust_root,
                url=f"http://{self._address}",
                flawed={project.BAD},
            )
            self.agents.append(agent)
            agent.start()

    def stop(self) -> None:
        """End what still runs."""
        if self.controller is not None:
            self.controller.end()
        self._stop_agents()

    def _stop_agents(self) -> None:
        for agent in self.agents:
            agent.stop()
        self.agents = []

    def _until(self, watch: Watch, ready: Callable[[Watch], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (watch.moved() and ready(watch)):
            self._survive()
            assert time.monotonic() < deadline, self._story()
            time.sleep(0.004)

    def _until_forgotten(self) -> None:
        """Until every report is acknowledged: then nothing is under way any more."""
        deadline = time.monotonic() + PATIENCE
        while any(agent.journal.unacknowledged() or agent.journal.unfinished() for agent in self.agents):
            self._survive()
            assert time.monotonic() < deadline, self._story()
            time.sleep(0.004)

    def _finish(self) -> None:
        """End the controller as an operator does; it ends its pass, and may be killed even there."""
        assert self.controller is not None
        while (status := self.controller.end(signal.SIGTERM)) != 0:
            assert status == -signal.SIGKILL, self._story()
            health = self.stage.state / "health.json"
            health.unlink(missing_ok=True)
            self._survive()
            deadline = time.monotonic() + PATIENCE
            while not health.exists() or json.loads(health.read_bytes())["state"] != "running":
                assert time.monotonic() < deadline, self._story()
                time.sleep(0.004)

    def _survive(self) -> None:
        assert self.controller is not None
        if self.controller.ended():
            assert self.controller.status == -signal.SIGKILL, self._story()
            self.crashes += 1
            self.controller = self.start({})

    def _story(self) -> str:
        log = (self.stage.folder / "controller.log").read_text()[-3000:]
        return f"not in time.\n{log}\n" + "\n".join(f"{a.name}: {a.said[-5:]}" for a in self.agents)


def passages(log: Path) -> list[tuple[str, int]]:
    """Every passage of every point in a log, as (point, n)."""
    counts: dict[str, int] = {}
    found = []
    for name in log.read_text().split():
        counts[name] = counts.get(name, 0) + 1
        found.append((name, counts[name]))
    return found
