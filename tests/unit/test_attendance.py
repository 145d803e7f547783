"""What counts as an absence, and what it does to a deadline, over failures and restarts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.core.absence import Absence, merged, put_off
from controller.reconcile.attendance import REJOIN, SLOW, Attendance, Presence

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def span(since: float, until: float) -> Absence:
    return Absence(at(since), at(until))


@pytest.mark.parametrize(
    ("absences", "late"),
    [
        ([], 100),
        ([span(10, 30)], 120),
        ([span(-50, 30)], 130),  # what was before the time began to run does not count
        ([span(110, 500)], 100),  # it had passed by then
        ([span(90, 200), span(205, 300)], 305),  # it had not, put off as it was
        ([span(10, 60), span(40, 80)], 170),  # what two share counts once
        ([span(10, 60), span(20, 30)], 150),
    ],
)
def test_a_deadline_stands_still_while_nobody_looks(absences: list[Absence], late: float) -> None:
    assert put_off(at(100), START, merged(absences)) == at(late)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def started(folder: Path) -> Attendance:
    return Attendance(Presence(folder))


def test_a_first_start_goes_by_the_last_entry(folder: Path) -> None:
    assert started(folder).absences(at(50), None) == ()
    assert started(folder).absences(at(50), at(20)) == (Absence(at(20), at(50) + REJOIN),)


def test_an_outage_is_from_the_first_failure_to_the_next_pass(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), None)
    for second in (10, 20, 50):
        here.failed(at(second))
    assert here.absences(at(60), None) == (span(10, 60),)
    here.there(at(60), START)
    assert here.absences(at(99), None) == (span(10, 60),)


def test_a_look_that_hung_was_an_outage(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    here.looked(at(100), at(100) + SLOW)
    assert here.absences(at(110), None) == ()
    here.looked(at(120), at(140))
    assert here.absences(at(140), None) == (span(120, 140),)


def test_an_origin_that_is_always_slow_lets_deadlines_pass_all_the_same(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    now = START
    for _ in range(20):
        begun, now = now, now + timedelta(seconds=6)
        here.looked(begun, now)
        deadline = put_off(at(60), START, here.absences(now, None))
        if now >= deadline:
            break
        here.there(now + timedelta(seconds=1), START)
        now = min(now + timedelta(seconds=9), deadline)
    assert now >= deadline


def test_a_gap_in_its_life_is_an_absence_and_agents_get_time_to_find_it_again(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    for second in (1, 2, 3):
        here.beat(at(second))
    here.beat(at(3) + SLOW)
    assert here.absences(at(3) + SLOW, None) == ()
    here.beat(at(40))
    stop = Absence(at(3) + SLOW, at(40) + REJOIN)
    assert here.absences(at(41), None) == (stop,)
    # A pass may come before the next beat does: what it decides knows of the gap already.
    assert here.absences(at(60), None) == (Absence(stop.since, at(60) + REJOIN),)


def test_a_clock_that_was_ahead_for_a_while_leaves_no_absence_behind(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    here.beat(at(1))
    here.beat(at(86_400))
    here.there(at(86_400), START)
    here.beat(at(3))
    assert here.absences(at(4), None) == ()
    here.there(at(4), START)
    assert started(folder).absences(at(5), None) == (Absence(at(4), at(5) + REJOIN),)


def test_one_that_only_passes_by_was_never_absent(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    again = started(folder)
    again.passes_by()
    assert again.absences(at(900), at(1)) == ()


def test_a_restart_forgets_no_outage_before_it(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    here.failed(at(10))
    here.there(at(50), START)
    here.there(at(60), START)
    again = started(folder)
    known = again.absences(at(70), at(5))
    assert known == (span(10, 50), Absence(at(60), at(70) + REJOIN))
    again.there(at(70), START)
    assert started(folder).absences(at(90), None)[:2] == (*known[:1], Absence(at(60), at(90) + REJOIN))


def test_what_no_open_run_met_is_forgotten(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), None)
    here.failed(at(10))
    here.there(at(60), at(61))
    assert here.absences(at(70), None) == ()
    assert started(folder).absences(at(70), None) == (Absence(at(60), at(70) + REJOIN),)


@pytest.mark.parametrize("kept", ["", "[[1, 2]]", "{}", '[["2026-01-05T09:00:00", "2026-01-05T09:00:01"]]', "\0"])
def test_a_torn_file_is_no_knowledge(folder: Path, kept: str) -> None:
    (folder / "last-pass").write_text(kept)
    assert Presence(folder).absences() == ()


def test_a_disk_that_cannot_be_written_is_done_without(folder: Path) -> None:
    Presence(folder / "absent").remember_pass(START, ())
    assert Presence(folder / "absent").last_pass() is None
