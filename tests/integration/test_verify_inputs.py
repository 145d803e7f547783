"""What decisions were made from was so: a controller that decides from a false world is found out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git.repo import GitRepo
from controller.core.world import CompletedAt, Facts, World
from controller.model.intent import Loaded
from controller.uses.audit import segments
from controller.uses.audit.findings import Finding
from controller.uses.audit.past import Past
from controller.uses.rules import input_checks
from tests.support.flow import HEAD, environment, strategy
from tests.support.home import MAIN, PATHS, Home
from tests.support.liar import Liar, Lie, freeze

AGENTS = {"dev-1": "dev", "dev-2": "dev", "prod-1": "prod"}
STAGES = "".join(f"    - {{percent: {n}, minHealthyTime: 1s, deadline: 10s}}\n" for n in (50, 100))
WINDOW = {"kind": "allow", "schedule": "0 0 * * *", "duration": "26h", "timeZone": "Europe/Berlin"}
SOAK = f"{HEAD}kind: Policy\nmetadata: {{name: soak}}\nspec: {{gate: soak, level: block, for: 1h}}\n"
FREEZE = "freezes/winter.yaml"
FILES = {
    "environments/dev.yaml": environment("dev", windows=[WINDOW]),
    "environments/prod.yaml": environment("prod", order=20, promotesFrom=["dev"], gates=["soak"]),
    "strategies/dev.yaml": strategy("dev", STAGES),
    "policies/soak.yaml": SOAK,
}
GATES, AGAIN = "gates-01.json", "gates-02.json"


def truth(world: World) -> World:
    return world


def no_freezes(world: World) -> World:
    return replace(world, intent=replace(world.intent, freezes={}))


def later_window(world: World) -> World:
    """Windows that open an hour later than those on main and those pinned."""

    def moved(document: Any) -> Any:
        windows = tuple(w.model_copy(update={"schedule": "0 1 * * *"}) for w in document.spec.windows)
        return document.model_copy(update={"spec": document.spec.model_copy(update={"windows": windows})})

    def loaded(one: Loaded[Any]) -> Loaded[Any]:
        return replace(one, document=moved(one.document))

    places = {name: loaded(one) for name, one in world.intent.environments.items()}
    documents = {run: replace(one, environment=moved(one.environment)) for run, one in world.documents.items()}
    return replace(world, intent=replace(world.intent, environments=places), documents=documents)


def long_ago(world: World) -> World:
    """What completed, completed a day earlier."""
    day = timedelta(days=1)
    earlier = {key: CompletedAt(done.run, done.at - day) for key, done in world.facts.completed.items()}
    return replace(world, facts=replace(world.facts, completed=earlier))


def completed_anyway(world: World) -> World:
    """Everything that is locked completed in dev a day ago."""
    done = CompletedAt("dev-99-00000000", world.now - timedelta(days=1))
    locks = world.intent.locks.values()
    invented = {("dev", lock.document.spec.manifest_digest): done for lock in locks}
    return replace(world, facts=Facts(world.facts.lock_index, invented))


def fewer_agents(world: World) -> World:
    agents = {name: one for name, one in world.intent.agents.items() if name != "dev-2"}
    return replace(world, intent=replace(world.intent, agents=agents))


def other_past(world: World) -> World:
    """The environment runs what it runs since another time."""
    places = {
        name: place.model_copy(update={"since": world.now}) for name, place in world.state.environments.items()
    }
    return replace(world, state=replace(world.state, environments=places))


def older_main(tip: str) -> Lie:
    """Nothing was accepted since a tip that had no freeze."""

    def seen(world: World) -> World:
        return no_freezes(replace(world, observed=world.observed.model_copy(update={"main": tip})))

    return seen


class History:
    """Runs, each decided from one false world; `runs` are their ids by what was false."""

    def __init__(self, folder: Path) -> None:
        self.liar = Liar(folder / "shop", AGENTS, FILES)
        self.runs: dict[str, str] = {}
        self._version = 0

    def run(self, name: str, where: str, lie: Lie, fresh: bool = True) -> None:
        liar = self.liar
        self._version += fresh
        liar.lie = lie
        liar.promote(where, f"1.{self._version}.0")
        liar.settle()
        liar.rest()
        liar.lie = truth
        assert liar.phase(where) == "completed", (name, liar.phase(where))
        self.runs[name] = liar.flow.state(where)["lastRun"]["run"]

    def tell(self) -> None:
        liar = self.liar
        liar.settle()
        self.run("nothing", "dev", truth)
        self.run("soak", "prod", long_ago, fresh=False)
        self.run("window", "dev", later_window)
        self.run("completion", "prod", completed_anyway)
        self.run("past", "dev", other_past)
        self.run("targets", "dev", fewer_agents)
        before = liar.flow.tip("main")
        liar.land(FREEZE, freeze())
        liar.settle()
        self.run("freezes", "dev", no_freezes)
        self.run("main", "dev", older_main(before))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    made = History(tmp_path_factory.mktemp("lies"))
    try:
        made.tell()
        yield made
    finally:
        made.liar.close()


WRONG = "inputs-mismatch"
FOUND = {
    "nothing": set(),
    "soak": {(WRONG, GATES)},
    "window": {(WRONG, "002-inputs.dsse.json"), (WRONG, GATES), (WRONG, AGAIN)},
    "completion": {(WRONG, GATES)},
    "past": {(WRONG, "previous.json")},
    "targets": {("pin-mismatch", "001-opened.dsse.json")},
    "freezes": {(WRONG, GATES), ("stage-regate-denied", AGAIN)},
}


@pytest.mark.parametrize("intact", [True, False], ids=["by proof", "path by path"])
def test_each_lie_is_found_where_it_was_told(
    history: History, monkeypatch: pytest.MonkeyPatch, intact: bool
) -> None:
    if not intact:
        monkeypatch.setattr(GitRepo, "intact", lambda _: False)
    findings = history.liar.verify().findings
    found = {
        name: {(f.code, f.path.rpartition("/")[2]) for f in findings if f"/{run}/" in f.path}
        for name, run in history.runs.items()
    }
    stale = found.pop("main")
    assert found == FOUND
    # Its release is not on that main either.
    assert {code for code, _ in stale} == {"observed-unknown", "pin-mismatch"} and (
        "observed-unknown",
        "003-gates.dsse.json",
    ) in stale
    assert all(any(f"/{run}/" in f.path for run in history.runs.values()) for f in _of_runs(findings))


def test_segments_and_later_beginnings_find_them_too(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = history.liar.verify()
    monkeypatch.setattr(segments, "SEGMENT", 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert history.liar.verify() == everything
    monkeypatch.undo()
    commits = history.liar.flow.git("rev-list", "--first-parent", "--reverse", "lockgate/evidence").split()
    places = {oid: place for place, oid in enumerate(commits)}
    for oid in history.liar.ends()[1::3]:
        later = history.liar.verify(since=oid).findings
        after = [f for f in _of_runs(everything.findings) if places[f.commit] > places[oid]]
        assert _of_runs(later) == after, oid


def test_what_reaches_an_open_run_from_main_is_no_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freeze in mid-run, a widened window, other agents, and a soak that ends."""
    liar = Liar(tmp_path / "shop", AGENTS, FILES)
    past: list[Past] = []
    try:
        liar.settle()
        liar.promote("dev", "1.0.0")
        liar.settle()
        liar.land(FREEZE, freeze(environments="[dev]"))
        scheduled = "schedule: '0 3 * * 0', duration: 1h, timeZone: America/New_York"
        liar.land("freezes/weekly.yaml", freeze("weekly", when=scheduled))
        liar.rest(3)
        liar.land("freezes/broken.yaml", "kind: Freeze\n")
        liar.settle()
        assert liar.phase("dev") == "open"
        assert liar.verify(keep=past.append).findings == ()
        wider = WINDOW | {"schedule": "30 0 * * *", "timeZone": "UTC"}
        liar.land("environments/dev.yaml", environment("dev", windows=[wider]))
        liar.add_agent("dev-0", "dev")
        liar.land(FREEZE, None)
        liar.land("freezes/broken.yaml", None)
        liar.settle(1)
        liar.rest()
        assert liar.phase("dev") == "completed"
        liar.promote("prod", "1.0.0")
        liar.settle()
        assert liar.phase("prod") == "open"
        liar.settle(3600)
        liar.rest()
        assert liar.phase("prod") == "completed"
        liar.promote("dev", "1.1.0")
        liar.settle()
        assert liar.verify().findings == ()
        assert liar.verify(past=past[-1]).findings == ()
        for oid in liar.ends():
            assert not _of_runs(liar.verify(since=oid).findings), oid
        # Other time zone data is no reason to find anything as long as it says the same.
        monkeypatch.setattr(input_checks, "tzdata_version", lambda: "1999a")
        assert liar.verify().findings == ()
        # Where it does not, who is right cannot be said here, and not knowing is no yes.
        monkeypatch.setattr(input_checks, "run_documents", _elsewhere(input_checks.run_documents))
        assert {f.code for f in liar.verify().findings} == {"decision-unchecked"}
        monkeypatch.setattr(input_checks, "tzdata_version", liar.tzdata)
        assert {f.code for f in liar.verify().findings} == {"inputs-mismatch"}
    finally:
        liar.close()


def _of_runs(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.path.startswith("runs/")]


def _elsewhere(run_documents: Any) -> Any:
    """Berlin keeps the time of Tokyo: what a country's new law would do to its windows."""

    def moved(*given: Any) -> Any:
        documents = run_documents(*given)
        spec = documents.environment.spec
        windows = tuple(w.model_copy(update={"time_zone": "Asia/Tokyo"}) for w in spec.windows)
        place = documents.environment.model_copy(update={"spec": spec.model_copy(update={"windows": windows})})
        return replace(documents, environment=place)

    return moved


def test_a_gate_is_decided_at_the_time_of_its_entry(tmp_path: Path) -> None:
    """A few seconds earlier or later are well within what clocks may differ."""
    home = Home(tmp_path)
    home.release("shop-1")
    home.batch(home.story.run("dev", "shop-1"))
    assert home.verify().findings == ()
    drafts = home.story.run("dev", "shop-1")
    at = home.story.at
    home.story.at = drafts[2].at + timedelta(seconds=20)
    detail, files = home.story.decided("shop-1", drafts[1].detail.targets)
    home.story.at = at
    home.batch([*drafts[:2], drafts[2].model_copy(update={"detail": detail, "files": files}), *drafts[3:]])
    (finding,) = home.verify().findings
    assert (finding.code, finding.path.rpartition("/")[2]) == (WRONG, GATES)
    assert "now" in finding.message


@pytest.mark.parametrize("begins", ["2024-01-01T00:00:00Z", "2123-01-01T00:00:00Z"], ids=["in force", "not yet"])
def test_gates_on_record_do_not_cover_what_became_stricter_since(tmp_path: Path, begins: str) -> None:
    """A run waited, a freeze came, and the first stage was ordered on the gates from before."""
    people = {"match": "freezes/**", "write": "developers"}
    home = Home(tmp_path, paths=[*PATHS, people])
    home.release("shop-1")
    drafts = home.story.run("dev", "shop-1", sealed=False)[:4]
    home.batch(drafts[:3])
    text = freeze(when=f"from: {begins}, until: 2124-01-01T00:00:00Z")
    home.batch([home.accepting(home.commit(MAIN, {FREEZE: text.encode()}, "dave"))])
    observed = drafts[3].observed.model_copy(update={"main": home.story.main})
    later = drafts[3].detail.deadline + (home.story.at - drafts[3].at)
    detail = drafts[3].detail.model_copy(update={"deadline": later})
    home.batch([drafts[3].model_copy(update={"at": home.story.at, "observed": observed, "detail": detail})])
    found = {(one.code, one.path.rpartition("/")[2]) for one in home.verify().findings}
    assert found == ({("stage-regate-denied", "004-ordered.dsse.json")} if begins < "2026" else set())
