"""Evidence made under other rules: newer ones stop who does not know them, and older ones never come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.ledger import entry, rules
from controller.ledger.append import EVIDENCE_REF
from controller.ledger.canonical import canonical
from controller.ledger.fold import CURSORS
from controller.ledger.rules import RULES
from tests.support.guarded import install
from tests.support.home import MAIN, Home
from tests.support.ordered import ordered, released
from tests.support.real_run import lockgate
from tests.support.site import Site
from tests.support.tamper import a_home_to_tamper_with, event, reseal, rewrite, set_at

Under = Callable[[int], None]


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch) -> Under:
    """From here on this program decides and writes by these rules, and knows them."""

    def become(version: int) -> None:
        monkeypatch.setattr(entry, "RULES", version)
        monkeypatch.setattr(rules, "RULES", version)

    return become


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return a_home_to_tamper_with(tmp_path)


def of_the_future(home: Home) -> None:
    """An entry and a state with members that this program has never heard of."""

    def change(new: dict[str, bytes]) -> dict[str, bytes]:
        cursors = canonical(json.loads(new[CURSORS]) | {"mood": "good"})
        return {**reseal(home, new, set_at(["mood"], "good")), CURSORS: cursors}

    rewrite(home, event(home), change)


def test_each_entry_and_the_state_name_the_rules(home: Home) -> None:
    assert home.ledger.state.cursors.rules == RULES
    assert {one.predicate.rules for many in home.ledger.open_entries.values() for one in many} == {RULES}


def test_newer_rules_are_one_finding(home: Home, under: Under) -> None:
    known = home.ledger.commit
    under(RULES + 1)
    home.batch(home.story.run("dev", "shop-1"))
    first = home.git("rev-list", "--reverse", f"{known}..{EVIDENCE_REF}").split()[0]
    of_the_future(home)
    home.commit(MAIN, {"releases/evil.yaml": b"x"}, "mallory", "Evil")
    under(RULES)
    report = home.verify()
    (finding,) = report.findings
    assert (finding.code, finding.commit, finding.rule) == ("rules-unknown", first, "evidence 14")
    assert finding.path.endswith(".dsse.json")
    assert (
        f"rules {RULES + 1}" in finding.message and "use a version of Lockgate that knows them" in finding.message
    )
    assert not report.verified and report.commits > report.entries


def test_what_newer_rules_write_need_not_be_readable(home: Home, under: Under) -> None:
    under(RULES + 1)
    of_the_future(home)
    under(RULES)
    (finding,) = home.verify().findings
    assert (finding.code, finding.commit) == ("rules-unknown", home.ledger.commit)
    assert finding.path.endswith("-accepted.dsse.json")


def test_older_rules_never_come_back(home: Home, under: Under) -> None:
    under(RULES + 1)
    home.batch(event(home))
    under(RULES)
    home.batch(event(home))
    under(RULES + 1)
    assert [(f.code, f.commit) for f in home.verify().findings] == [("rules-rollback", home.ledger.commit)]


def test_evidence_goes_on_under_newer_rules(home: Home, under: Under) -> None:
    under(RULES + 1)
    home.batch(home.story.run("dev", "shop-1"))
    assert home.verify().verified


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A release is locked, and a run in dev has ordered its deployment; then another release lands."""
    shop, site = ordered(tmp_path_factory.mktemp("origin"))
    shop.image("1.1.0")
    shop.release("1.1.0")
    shop.people.close()
    return site


@pytest.fixture
def site(origin: Site, tmp_path: Path) -> Site:
    return Site.copy(origin.stage, tmp_path)


def test_a_controller_adds_nothing_to_what_it_does_not_know(site: Site, under: Under) -> None:
    assert site.settle() == ""
    before = site.tip()
    released(site, "1.2.0")
    under(RULES + 1)
    assert site.settle() == ""
    under(RULES)
    tip = site.tip()
    assert tip != before
    released(site, "1.3.0")
    for state in ("state", "another"):
        made = site.controller(state)
        try:
            assert made.loop.pass_once() is None
            assert (made.health.now.state, made.health.now.code) == ("stalled", "rules-unknown")
            assert "use a version of Lockgate that knows them" in made.health.now.message
        finally:
            made.close()
        assert site.settle(state) == "rules-unknown"
    assert site.tip() == tip
    for words in (["status"], ["why", "dev"]):
        done = lockgate("--repo", site.stage.origin, *words)
        assert (done.returncode, done.stderr.partition(":")[2].split(":")[0].strip()) == (2, "rules-unknown")
    under(RULES + 1)
    assert site.settle() == ""
    assert site.verify().verified


def test_what_newer_rules_repaired_is_no_finding_of_its_own(site: Site, under: Under) -> None:
    assert site.settle() == ""
    tip = site.tip()
    site.push(site.tree(tip, {"junk": ("100644", site.blob(b"junk"))}), tip)
    released(site, "1.2.0")
    under(RULES + 1)
    assert site.settle() == ""
    assert site.verify().verified
    under(RULES)
    assert [finding.code for finding in site.verify().findings] == ["rules-unknown"]


def test_the_origin_takes_nothing_that_its_guard_cannot_judge(site: Site, under: Under) -> None:
    install(site)
    before = site.tip()
    under(RULES + 1)
    made = site.controller()
    try:
        error = made.loop.run_until_quiet()
    finally:
        made.close()
    assert error is not None and "rules-unknown" in str(error)
    assert site.tip() == before


def test_somebody_who_names_newer_rules_stops_nobody(site: Site) -> None:
    tip = site.tip()
    cursors = json.loads(site.git("show", f"{tip}:{CURSORS}")) | {"rules": RULES + 1}
    site.push(site.tree(tip, {CURSORS: ("100644", site.blob(canonical(cursors)))}), tip)
    assert site.settle() == ""
    assert site.verify().verified
