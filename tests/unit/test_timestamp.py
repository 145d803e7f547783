"""Time-stamps of a real authority: what holds, and everything that does not."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.tsa import TimeStamper
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.ledger.timestamp import check_token
from tests.support.agents import SystemClock
from tests.support.tsa import Authority, Server, serving

NOTE = "shop/abababababababab\n1\nAAAA\n\n— shop/abababababababab AAAA\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "one")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa") / "stranger")


@pytest.fixture
def server(authority: Authority) -> Iterator[Server]:
    with serving(authority.reply) as made:
        yield made


class Clock(SystemClock):
    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = timedelta(seconds=ahead)

    def now(self) -> datetime:
        return super().now() + self.ahead


def payload(url: str, authority: Authority, **changes: Any) -> dict[str, Any]:
    return {
        "authority": "example",
        "url": url,
        "certificates": [authority.certificate],
        "checkpoint": NOTE,
        **changes,
    }


def refusal(call: Any) -> str:
    with pytest.raises(LockgateError) as caught:
        call()
    return caught.value.code


def test_a_token_is_taken_and_checked_again_offline(server: Server, authority: Authority) -> None:
    answer = TimeStamper(SystemClock()).ask(payload(server.url, authority))
    token = base64.b64decode(answer["token"])
    time = check_token(token, NOTE.encode(), [authority.certificate])
    assert abs(datetime.now(UTC) - time) < timedelta(seconds=60)
    assert answer["time"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S"))
    reply, data = authority.folder / "checkpoint.tsr", authority.folder / "checkpoint"
    reply.write_bytes(token)
    data.write_text(NOTE)
    import subprocess

    command = ["openssl", "ts", "-verify", "-data", str(data), "-in", str(reply)]
    done = subprocess.run([*command, "-CAfile", str(authority.folder / "ca.pem")], capture_output=True, text=True)
    assert "Verification: OK" in done.stdout + done.stderr


def test_what_does_not_hold(server: Server, authority: Authority, stranger: Authority) -> None:
    token = base64.b64decode(TimeStamper(SystemClock()).ask(payload(server.url, authority))["token"])
    pinned = [authority.certificate]
    assert refusal(lambda: check_token(token, NOTE.encode() + b"x", pinned)) == "time-anchor-invalid"
    assert refusal(lambda: check_token(token, NOTE.encode(), [stranger.certificate])) == "time-anchor-invalid"
    assert refusal(lambda: check_token(token, NOTE.encode(), [])) == "time-anchor-invalid"
    assert refusal(lambda: check_token(token, NOTE.encode(), ["no PEM"])) == "time-certificate-malformed"
    for data in (b"", b"\x30", token[:-9], token[:40]):
        assert refusal(lambda data=data: check_token(data, NOTE.encode(), pinned)) == "time-anchor-invalid"
    found = token.find(b"Z", token.find(b"2026"[:2])) if b"20" in token else 0
    for place in {len(token) // 2, len(token) - 20, found}:
        forged = token[:place] + bytes([token[place] ^ 1]) + token[place + 1 :]
        assert refusal(lambda forged=forged: check_token(forged, NOTE.encode(), pinned)) == "time-anchor-invalid"


def test_answers_to_something_else_are_refused(authority: Authority, stranger: Authority, tmp_path: Path) -> None:
    first: list[bytes] = []

    def replay(query: bytes) -> bytes:
        first.append(authority.reply(query))
        return first[0]

    with serving(replay) as server:
        stamper = TimeStamper(SystemClock())
        stamper.ask(payload(server.url, authority))
        assert refusal(lambda: stamper.ask(payload(server.url, authority))) == "time-anchor-invalid"
    with serving(stranger.reply) as server:
        assert refusal(lambda: stamper.ask(payload(server.url, authority))) == "time-anchor-invalid"
    expired = Authority(tmp_path / "expired")
    expired.expire()
    with serving(expired.reply) as server:
        assert refusal(lambda: stamper.ask(payload(server.url, expired))) == "time-anchor-invalid"


def test_a_clock_that_is_not_the_authoritys_is_said(server: Server, authority: Authority) -> None:
    for ahead in (86400.0, -86400.0):
        assert (
            refusal(lambda ahead=ahead: TimeStamper(Clock(ahead)).ask(payload(server.url, authority)))
            == "clock-skew"
        )


def test_an_authority_that_fails_hangs_or_floods(authority: Authority) -> None:
    release = threading.Event()

    def hang(_query: bytes) -> bytes:
        release.wait(30)
        return b""

    def fail(_query: bytes) -> bytes:
        raise OSError

    for answer in (hang, fail, lambda _query: bytes(4 << 20)):
        with serving(answer) as server:
            with pytest.raises((Unavailable, Refused)) as caught:
                TimeStamper(SystemClock(), timeout=0.5).ask(payload(server.url, authority))
            assert caught.value.code == "tsa-unreachable"
            release.set()
    gone = payload("http://127.0.0.1:9/tsa", authority)
    assert refusal(lambda: TimeStamper(SystemClock(), timeout=0.5).ask(gone)) == "tsa-unreachable"


def test_a_certificate_that_does_not_read_is_invalid(server: Server, authority: Authority) -> None:
    with pytest.raises(Invalid):
        TimeStamper(SystemClock()).ask(payload(server.url, authority, certificates=["x"]))
