"""Derived files written member by member have the bytes of the whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from controller.ledger.canonical import canonical
from controller.ledger.cursors import Cursors, ReplayAsked
from controller.ledger.fold import EnvironmentState, LastRun, TargetState
from controller.ledger.marks import LogMarks, SealMark
from controller.ledger.members import MemberWriter
from controller.model.wire import Wire

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


def test_each_value_has_the_bytes_of_the_whole() -> None:
    writer = MemberWriter(Cursors)
    value = Cursors()
    steps: list[dict[str, object]] = [
        {},
        {"index": 1, "at": AT, "project": "größer", "main": "a" * 40},
        {"index": 2, "at": AT + timedelta(seconds=1), "runs": {"dev": 1, "prod": 70_000}},
        {"log": LogMarks(sealed=SealMark(run="dev-1", index=3))},
        {"replays": (ReplayAsked(commit="c", run="r", by="olga", reason="\u2028 why"),), "main": None},
        {"replays": (), "index": 2**53 - 1},
    ]
    for step in steps:
        value = value.model_copy(update=step)
        assert writer.write(value) == canonical(value.wire())
        assert writer.write(value) == canonical(value.wire())
    assert writer.write(Cursors()) == canonical(Cursors().wire())


def test_members_of_another_value_are_not_kept() -> None:
    writer = MemberWriter(EnvironmentState)
    states: list[Wire] = [
        EnvironmentState(environment="dev"),
        EnvironmentState(
            environment="dev", targets={"a": TargetState(manifest_digest=None, run="1", healthy=None)}
        ),
        EnvironmentState(environment="dev", last_run=LastRun(run="1", phase="open", release="one", slot=None)),
        EnvironmentState(environment="prod", since=AT),
    ]
    for state in [*states, *reversed(states)]:
        assert writer.write(state) == canonical(state.wire())
