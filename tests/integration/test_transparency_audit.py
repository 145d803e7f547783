"""What verification says of recorded cosignatures, time-stamps and times: each trick with them is found."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git.keys import KeySigner
from controller.adapters.git.sshsig import generate_key
from controller.adapters.tsa import TimeStamper
from controller.core.clocks import check_clock
from controller.errors import Stalled
from controller.ledger.cosign import attach, cosign, cosigners
from controller.ledger.log import CHECKPOINT, checkpoint_of, read_checkpoint
from controller.model import entry as e
from tests.integration.test_agent_certificates import authority as sign_authority
from tests.integration.test_agent_certificates import certify
from tests.support.agents import SystemClock
from tests.support.growth import a_repair
from tests.support.home import Home
from tests.support.tsa import Authority, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "stranger")


@pytest.fixture
def home(tmp_path: Path, authority: Authority) -> Home:
    """A project of today, with one completed run and an agent `a`."""
    made = Home(tmp_path, agents=("a",), timeAuthorities={"example": {"certificates": [authority.certificate]}})
    made.story.at = datetime.now(UTC) - timedelta(seconds=60)
    made.release("shop-1")
    made.batch(made.story.run("dev", "shop-1"))
    return made


def checkpoint(home: Home) -> bytes:
    file = home.repo.file(home.ledger.commit or "", CHECKPOINT)
    assert file is not None
    return home.repo.read(file.blob)


def newest(home: Home) -> str:
    """The newest sealed run."""
    mark = home.ledger.state.cursors.log.sealed
    assert mark is not None
    return mark.run


def agent(home: Home) -> KeySigner:
    signer = home.story.agents["a"][1]
    assert isinstance(signer, KeySigner)
    return signer


def witness(home: Home, note: bytes, signer: KeySigner, **changes: Any) -> None:
    """Record a checkpoint with a cosignature in the name of `a`."""
    line = cosign(note, home.origin_line, "a", signer, changes.pop("signed", datetime.now(UTC)))
    note, size = attach(note, [line]), read_checkpoint(note).size
    at = cosigners(note, {"a": signer.public_key})["a"]
    values = {
        "size": size,
        "checkpoints": (note.decode(),),
        "witnesses": (e.Witness(agent="a", size=size, at=at),),
    }
    home.batch([home.story.draft("witnessed", e.Witnessed(**{**values, **changes}))])


def anchor(home: Home, note: bytes, by: Authority, stamped: bytes = b"", **changes: Any) -> None:
    """Record a time-stamp of a checkpoint, or of other bytes passed off as one."""
    with serving(by.reply) as server:
        answer = TimeStamper(SystemClock()).ask(
            {
                "authority": "x",
                "url": server.url,
                "certificates": [by.certificate],
                "checkpoint": (stamped or note).decode(),
            }
        )
    values = {
        "run": newest(home),
        "size": read_checkpoint(note).size,
        "checkpoint": note.decode(),
        "authority": "example",
        "token": answer["token"],
        "time": answer["time"],
    }
    home.batch([home.story.draft("time-anchored", e.TimeAnchored(**{**values, **changes}))])


def codes(home: Home) -> set[str]:
    return {finding.code for finding in home.verify().findings}


def test_honest_witnesses_and_time_stamps_hold(home: Home, authority: Authority) -> None:
    assert home.verify().time_anchor == "not time-anchored"
    note = checkpoint(home)
    witness(home, note, agent(home))
    anchor(home, note, authority)
    report = home.verify()
    assert report.findings == ()
    assert report.time_anchor.startswith(f"time-anchored to {read_checkpoint(note).size} entries at ")


def test_a_time_stamp_speaks_of_a_log_from_before_where_the_walk_begins(home: Home, authority: Authority) -> None:
    a_repair(home, random.Random(0))
    home.batch(home.story.run("dev", "shop-1"))
    note, since = checkpoint(home), home.ledger.commit
    anchor(home, note, authority)
    report = home.verify(since=since)
    assert (report.findings, report.entries) == ((), 1)


@pytest.mark.parametrize(
    ("span", "found"),
    [
        ((-3600, 3600), set()),
        ((-3600, -60), {"witness-invalid"}),
        ((60, 3600), {"witness-invalid"}),
        (None, {"witness-invalid"}),
    ],
    ids=["valid", "expired", "not-yet", "none"],
)
def test_a_certified_witness_needs_its_certificate(
    home: Home, tmp_path: Path, span: tuple[int, int] | None, found: set[str]
) -> None:
    ca, key, shape = sign_authority(tmp_path), generate_key(tmp_path / "key"), "%Y%m%d%H%M%SZ"
    now = datetime.now(UTC)
    certificate = None
    if span is not None:
        after, before = (now + timedelta(seconds=seconds) for seconds in span)
        certificate = certify(tmp_path, tmp_path / "key", "b", span=f"{after:{shape}}:{before:{shape}}")
    spec = f"{{environment: dev, publicKey: '{ca}', certAuthority: true}}"
    text = f"apiVersion: lockgate.dev/v1\nkind: Agent\nmetadata: {{name: b}}\nspec: {spec}\n"
    tip = home.commit(home.root.refs.main, {"agents/b.yaml": text.encode()}, "dave", "Add an agent")
    home.batch([home.story.accepted(tip)])
    note = checkpoint(home)
    size, line = read_checkpoint(note).size, cosign(note, home.origin_line, "b", key, now)
    one = e.Witness(agent="b", size=size, at=now.replace(microsecond=0), certificate=certificate)
    noted = e.Witnessed(size=size, checkpoints=(attach(note, [line]).decode(),), witnesses=(one,))
    home.batch([home.story.draft("witnessed", noted)])
    assert codes(home) == found


def another_log(home: Home) -> bytes:
    """A checkpoint that the controller signed, of a log that is not this one."""
    return checkpoint_of(home.origin_line, 3, bytes(32), home.controller)


def ahead_of_itself(home: Home) -> bytes:
    return checkpoint_of(home.origin_line, home.ledger.log.size + 9, home.ledger.log.root, home.controller)


def by_mallory(home: Home) -> bytes:
    size, root = home.ledger.log.size, home.ledger.log.root
    return checkpoint_of(home.origin_line, size, root, home.people["mallory"])


WITNESSED: dict[str, tuple[Callable[[Home], None], str]] = {
    "another-key": (lambda home: witness(home, checkpoint(home), home.people["mallory"]), "witness-invalid"),
    "another-log": (lambda home: witness(home, another_log(home), agent(home)), "log-inconsistent"),
    "of-the-future": (lambda home: witness(home, ahead_of_itself(home), agent(home)), "log-inconsistent"),
    "not-the-controllers": (lambda home: witness(home, by_mallory(home), agent(home)), "checkpoint-signature"),
    "unsigned": (
        lambda home: witness(home, checkpoint(home), agent(home), checkpoints=(checkpoint(home).decode(),)),
        "witness-invalid",
    ),
    "named-twice": (
        lambda home: witness(
            home, checkpoint(home), agent(home), witnesses=(e.Witness(agent="b", size=1, at=datetime.now(UTC)),)
        ),
        "witness-invalid",
    ),
    "too-small": (lambda home: witness(home, checkpoint(home), agent(home), size=99), "witness-invalid"),
    "tomorrow": (
        lambda home: witness(home, checkpoint(home), agent(home), signed=datetime.now(UTC) + timedelta(days=1)),
        "clock-skew",
    ),
    "yesterday": (
        lambda home: witness(home, checkpoint(home), agent(home), signed=datetime.now(UTC) - timedelta(days=1)),
        "clock-skew",
    ),
}


@pytest.mark.parametrize("trick", WITNESSED)
def test_a_false_witness_is_found(home: Home, trick: str) -> None:
    tamper, code = WITNESSED[trick]
    tamper(home)
    assert codes(home) == {code}


def test_a_false_time_stamp_is_found(home: Home, authority: Authority, stranger: Authority) -> None:
    note = checkpoint(home)
    tricks: list[tuple[Callable[[], None], str]] = [
        (lambda: anchor(home, note, stranger), "time-anchor-invalid"),
        (lambda: anchor(home, note, authority, stamped=b"something else"), "time-anchor-invalid"),
        (lambda: anchor(home, note, authority, authority="unknown"), "time-anchor-invalid"),
        (lambda: anchor(home, note, authority, token=base64.b64encode(b"0").decode()), "time-anchor-invalid"),
        (lambda: anchor(home, note, authority, token="!"), "time-anchor-invalid"),
        (lambda: anchor(home, note, authority, size=3), "time-anchor-invalid"),
        (lambda: anchor(home, note, authority, run="dev-9-00000000"), "time-anchor-invalid"),
        (
            lambda: anchor(home, note, authority, time=datetime.now(UTC) - timedelta(hours=1)),
            "time-anchor-invalid",
        ),
        (lambda: anchor(home, another_log(home), authority), "log-inconsistent"),
    ]
    for place, (tamper, code) in enumerate(tricks, start=1):
        tamper()
        found = home.verify().findings
        assert len(found) == place, found
        assert found[-1].code == code


def test_entries_dated_a_day_ahead_are_found_by_the_time_stamp(home: Home, authority: Authority) -> None:
    home.story.at = datetime.now(UTC) + timedelta(days=1)
    home.batch([home.story.accepted(home.story.main, 0)])
    assert codes(home) == set()
    anchor(home, checkpoint(home), authority)
    assert codes(home) == {"clock-skew"}


@pytest.mark.parametrize(
    "off", [timedelta(days=1), -timedelta(days=1)], ids=["after-its-entry", "before-its-order"]
)
def test_reports_that_do_not_fit_their_entry_are_found(home: Home, off: timedelta) -> None:
    home.story.skew = off
    home.batch(home.story.run("dev", "shop-1"))
    found = home.verify().findings
    assert {(finding.code, finding.rule) for finding in found} == {("clock-skew", "evidence 15")}


def test_a_controller_whose_clock_most_agents_deny_stops() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    day = 86400.0

    def stops(skews: dict[str, float], heard: int, last: datetime | None = None) -> bool:
        try:
            check_clock(now, last, skews, heard)
        except Stalled as error:
            assert error.code == "clock-skew"
            return True
        return False

    assert stops({"a": -day, "b": -day - 5, "c": 900.0}, 3)
    assert stops({"a": day, "b": day}, 2)
    assert not stops({"a": -day}, 1)  # whose clock is it?
    assert not stops({"a": -day, "b": day}, 2)
    assert not stops({"a": -day, "b": -day}, 5)
    assert not stops({}, 0, now + timedelta(seconds=299))
    assert stops({}, 0, now + timedelta(days=1))
