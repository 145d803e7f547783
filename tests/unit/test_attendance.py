"""What counts as an absence, and what it does to a deadline, over failures and restarts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.core.absence import Absence, put_off
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
    assert put_off(at(100), START, absences) == at(late)


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
    here.rests(at(10))
    for second in (10, 20, 50):
        here.begins(at(second))
        here.failed()
        here.rests(at(second + 30))
    here.begins(at(60))
    assert here.absences(at(60), None) == (span(10, 60),)
    here.there(at(60), START)
    assert here.absences(at(64), None) == (span(10, 60),)


def test_a_pass_that_hung_was_no_attendance(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    here.begins(at(1))
    assert here.absences(at(1) + SLOW, None) == ()
    assert here.absences(at(21), None) == (Absence(at(1), at(21) + REJOIN),)
    here.there(at(30), START)
    assert here.absences(at(30), None) == (Absence(at(1), at(30) + REJOIN),)


def test_a_pass_that_comes_too_late_was_kept_from_coming(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    here.rests(at(30))
    here.begins(at(30) + SLOW)
    here.there(at(36), START)
    assert here.absences(at(36), None) == ()
    here.begins(at(50))  # it did not even come to rest
    here.there(at(51), START)
    assert here.absences(at(51), None) == (Absence(at(36), at(51) + REJOIN),)


def test_a_restart_forgets_no_outage_before_it(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), START)
    here.begins(at(1))
    here.failed()
    here.rests(at(60))
    here.begins(at(60))
    here.there(at(60), START)
    again = started(folder)
    known = again.absences(at(70), at(5))
    assert known == (span(1, 60), Absence(at(60), at(70) + REJOIN))
    again.there(at(70), START)
    assert started(folder).absences(at(75), None)[:2] == known


def test_what_no_open_run_met_is_forgotten(folder: Path) -> None:
    here = started(folder)
    here.there(at(0), None)
    here.begins(at(1))
    here.failed()
    here.rests(at(60))
    here.begins(at(60))
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
