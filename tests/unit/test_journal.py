"""The agent's journal: durable lines, torn tails, answers that never change."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.agent.journal import Journal
from controller.errors import Invalid, Unavailable
from controller.ledger.canonical import canonical, digest

AT = datetime(2026, 2, 19, 2, 0, tzinfo=UTC)
ENVELOPE = {"payload": "b3JkZXI=", "payloadType": "x", "signatures": []}
REPORT = {"payload": "cmVwb3J0", "payloadType": "y", "signatures": []}


def filled(path: Path) -> Journal:
    journal = Journal(path)
    journal.receive("run/1/1/web-1/deploy", ENVELOPE, AT + timedelta(minutes=5), AT)
    journal.advance("run/1/1/web-1/deploy", "pulled", AT)
    return journal


def test_an_order_is_remembered_over_a_restart(tmp_path: Path) -> None:
    filled(tmp_path / "j").close()
    journal = Journal(tmp_path / "j")
    (line,) = journal.unfinished()
    assert (line.order, line.state, line.envelope) == ("run/1/1/web-1/deploy", "pulled", ENVELOPE)
    assert journal.unacknowledged() == []
    journal.report(line.order, REPORT, AT)
    journal.close()
    journal = Journal(tmp_path / "j")
    assert journal.unfinished() == []
    assert journal.unacknowledged() == [REPORT]
    assert journal.reports == 1
    journal.acknowledge(digest(canonical(REPORT)), AT)
    journal.acknowledge("sha256:unknown", AT)
    assert journal.unacknowledged() == []
    assert Journal(tmp_path / "j").unacknowledged() == []


def test_steps_never_go_back_and_runs_of_migrations_are_kept(tmp_path: Path) -> None:
    journal = filled(tmp_path / "j")
    name = journal.unfinished()[0].order
    journal.advance(name, "switched", AT)
    journal.advance(name, "pulled", AT)
    journal.ran(name, "migrate", AT)
    journal.close()
    line = Journal(tmp_path / "j").unfinished()[0]
    assert (line.state, line.ran) == ("switched", {"migrate"})
    states = [json.loads(text).get("state") for text in (tmp_path / "j").read_text().splitlines()]
    assert states == ["received", "pulled", "switched", None]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "j"
    filled(path).close()
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)] + last[:-cut])
    journal = Journal(path)
    assert journal.unfinished()[0].state == "received"
    journal.advance("run/1/1/web-1/deploy", "pulled", AT)
    journal.close()
    assert path.read_bytes() == whole


def test_a_last_line_of_zeros_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 100 + b"\n")
    Journal(path).close()
    assert path.read_bytes() == whole


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "j"
    filled(path).close()
    path.write_bytes(b"{broken\n" + path.read_bytes())
    with pytest.raises(Invalid) as caught:
        Journal(path)
    assert caught.value.code == "journal-corrupt"
    assert caught.value.where == f"{path}:1"


def test_old_acknowledged_orders_are_forgotten_and_the_count_of_reports_is_not(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = filled(path)
    journal.report("run/1/1/web-1/deploy", REPORT, AT)
    journal.receive("run/2/1/web-1/deploy", ENVELOPE, AT + timedelta(days=9), AT)
    journal.report("run/2/1/web-1/deploy", {**REPORT, "payload": "Mg=="}, AT)
    journal.close()
    kept = Journal(path, forget_before=AT + timedelta(days=8))
    assert kept.line("run/1/1/web-1/deploy") is not None
    kept.acknowledge(digest(canonical(REPORT)), AT)
    kept.close()
    small = Journal(path, forget_before=AT + timedelta(days=8))
    assert small.line("run/1/1/web-1/deploy") is None
    assert small.line("run/2/1/web-1/deploy") is not None
    assert small.reports == 2
    small.close()
    assert Journal(path).reports == 2


def test_a_full_disk_leaves_the_journal_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    journal = filled(path)
    whole = path.read_bytes()
    write = os.write

    def half(fd: int, data: bytes) -> int:
        return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(Unavailable) as caught:
        journal.report("run/1/1/web-1/deploy", REPORT, AT)
    monkeypatch.undo()
    assert caught.value.code == "journal-full"
    assert path.read_bytes() == whole
    assert journal.unfinished()
    journal.report("run/1/1/web-1/deploy", REPORT, AT)
    assert not Journal(path).unfinished()
