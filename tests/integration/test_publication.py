"""Checkpoints in a public log: real controller processes, a Rekor v2 log over HTTP, and verification offline."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.adapters.git.keys import KeySigner
from controller.adapters.rekor import RekorSubmitter
from controller.core.parse import parse
from controller.ledger.log import CHECKPOINT, checkpoint_of, read_checkpoint
from controller.ledger.rekor import Logged, check_logged
from controller.model import entry as e
from tests.integration.test_transparency import PROJECT, TRUST, events, lockgate
from tests.support.agents import SystemClock
from tests.support.flow import Flow, flow, until
from tests.support.home import Home
from tests.support.rekor import Answer, RekorLog, Server, serving

AGENTS = {"dev-1": "dev"}


def files(log: RekorLog, url: str) -> dict[str, str]:
    """A project whose checkpoints are published in a log that owners pinned."""
    pinned = {"transparencyLogs": {"public": {"origin": log.origin, "keys": [log.pem]}}}
    lines = yaml.safe_dump(pinned, sort_keys=False).splitlines()
    publication = {"publication": {"log": "public", "url": url}}
    return {
        "trust/trust.yaml.j2": TRUST + "".join(f"  {line}\n" for line in lines),
        "lockgate.yaml": f"{PROJECT}spec: {json.dumps(publication)}\n",
    }


def holds(shop: Flow, log: RekorLog, event: dict[str, Any]) -> None:
    detail = event["detail"]
    hashes = tuple(base64.b64decode(item) for item in detail["hashes"])
    logged = Logged(detail["index"], base64.b64decode(detail["body"]), hashes, detail["proof"])
    key = " ".join((shop.stage.keys / "controller.pub").read_text().split()[:2])
    check_logged(logged, detail["checkpoint"].encode(), [key], log.origin, [log.pem])


def test_a_sealed_run_is_published_and_verified_offline(tmp_path: Path) -> None:
    """The log hangs, refuses, then works; seals never wait, and after a restart it is asked again."""
    log, release, mode = RekorLog(entries=3), threading.Event(), ["hang"]

    def handle(method: str, path: str, data: bytes) -> Answer:
        if mode[0] == "hang":
            release.wait(60)
        return log.handle(method, path, data) if mode[0] == "good" else (405, {}, b'{"message": "frozen"}')

    with serving(handle) as server, flow(tmp_path, AGENTS, files=files(log, server.url)) as shop:
        shop.start()
        shop.deploy("dev", "1.0.0")
        run = shop.state("dev")["lastRun"]["run"]
        until("it is asked", lambda: server.asked)
        state = ("--state-dir", str(shop.stage.state))
        until("it says so", lambda: "no answer since" in lockgate(shop, "status", *state))
        mode[0] = "frozen"
        release.set()
        said = until("it says why", lambda: _naming("frozen", lockgate(shop, "status", *state)), 40)
        assert f"{run} is not submitted to the public log public" in said
        assert "frozen" in lockgate(shop, "why", "dev", *state)
        assert f"{run} is not submitted" in lockgate(shop, "status")
        assert "not submitted to the public log" in lockgate(shop, "evidence", run)
        shop.deploy("dev", "1.1.0")
        assert not events(shop, "published")
        shop.verify()
        shop.stop_controller()
        mode[0] = "good"
        shop.processes.start_controller(poll="1s")
        event = until("the newest seal is published", lambda: events(shop, "published"), 60)[0]
        _settled(shop, log, event, server)


def _naming(word: str, text: str) -> str:
    return text if word in text else ""


def _settled(shop: Flow, log: RekorLog, event: dict[str, Any], server: Server) -> None:
    """One entry covers every seal before it, and calls for no further one."""
    holds(shop, log, event)
    seals = [entry for entry in shop.entries() if entry["kind"] == "sealed"]
    assert event["detail"]["run"] == seals[-1]["run"]
    assert event["detail"]["size"] > seals[-1]["index"]
    assert (event["detail"]["log"], event["detail"]["index"]) == ("public", 3)
    assert "not submitted" not in lockgate(shop, "status")
    assert "published.dsse.json" in lockgate(shop, "evidence", seals[0]["run"])
    assert len(log.bodies) == 4
    server.close()
    shop.verify()
    assert PRIVATE not in json.dumps(log.requests)


PRIVATE = "shop"
"""Neither the project's name nor anything else of a checkpoint's text is told to the log."""


# --- what verification says ------------------------------------------------------------------------------


@pytest.fixture
def log() -> RekorLog:
    return RekorLog(entries=6)


@pytest.fixture
def home(tmp_path: Path, log: RekorLog) -> Home:
    """A project that pins a log, with one completed run."""
    made = Home(tmp_path, agents=("a",), transparencyLogs={"public": {"origin": log.origin, "keys": [log.pem]}})
    made.release("shop-1")
    made.batch(made.story.run("dev", "shop-1"))
    return made


def checkpoint(home: Home) -> bytes:
    file = home.repo.file(home.ledger.commit or "", CHECKPOINT)
    assert file is not None
    return home.repo.read(file.blob)


def publish(
    home: Home,
    log: RekorLog,
    note: bytes,
    by: KeySigner | None = None,
    submitted: bytes = b"",
    name: str = "public",
    **changes: Any,
) -> None:
    """Record a log's entry about a checkpoint, or about other bytes passed off as one."""
    signer = by or home.controller
    with serving(log.handle) as server:
        question = {
            "log": "public",
            "url": server.url,
            "origin": log.origin,
            "keys": [log.pem],
            "submitters": [signer.public_key],
            "checkpoint": (submitted or note).decode(),
        }
        answer = RekorSubmitter(signer, SystemClock()).ask(question)
    values = {
        "run": "dev-1-00000000",
        "size": read_checkpoint(note).size,
        "checkpoint": note.decode(),
        "log": name,
        **answer,
        "hashes": tuple(answer["hashes"]),
    }
    home.batch([home.story.draft("published", e.Published(**{**values, **changes}))])


def codes(home: Home) -> set[str]:
    return {finding.code for finding in home.verify().findings}


def test_an_honest_entry_holds(home: Home, log: RekorLog) -> None:
    publish(home, log, checkpoint(home))
    assert home.verify().findings == ()


def another_log(home: Home) -> bytes:
    """A checkpoint that the controller signed, of a log that is not this one."""
    return checkpoint_of(home.origin_line, 3, bytes(32), home.controller)


def by_mallory(home: Home) -> bytes:
    return checkpoint_of(home.origin_line, home.ledger.log.size, home.ledger.log.root, home.people["mallory"])


LIES: dict[str, tuple[Callable[[Home, RekorLog], None], str]] = {
    "of-another-log": (lambda home, log: publish(home, log, another_log(home)), "log-inconsistent"),
    "not-the-controllers": (lambda home, log: publish(home, log, by_mallory(home)), "checkpoint-signature"),
    "submitted-by-another": (
        lambda home, log: publish(home, log, checkpoint(home), by=home.people["mallory"]),
        "rekor-entry-invalid",
    ),
    "about-other-bytes": (
        lambda home, log: publish(home, log, checkpoint(home), submitted=b"other\n"),
        "rekor-entry-invalid",
    ),
    "in-a-log-that-nobody-pinned": (
        lambda home, log: publish(home, log, checkpoint(home), name="private"),
        "rekor-entry-invalid",
    ),
    "in-a-log-of-its-own": (
        lambda home, log: publish(home, RekorLog(log.origin), checkpoint(home)),
        "rekor-entry-invalid",
    ),
    "another-index": (lambda home, log: publish(home, log, checkpoint(home), index=2), "rekor-entry-invalid"),
    "too-large": (lambda home, log: publish(home, log, checkpoint(home), size=99), "rekor-entry-invalid"),
    "no-base64": (lambda home, log: publish(home, log, checkpoint(home), body="?"), "rekor-entry-invalid"),
    "no-entry": (
        lambda home, log: publish(home, log, checkpoint(home), body=base64.b64encode(b"{}").decode()),
        "rekor-entry-invalid",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_false_entry_is_found(home: Home, log: RekorLog, lie: str) -> None:
    tamper, code = LIES[lie]
    tamper(home, log)
    assert codes(home) == {code}


def test_a_log_s_address_is_checked() -> None:
    for url, valid in (("https://log.example.com", True), ("file:///etc", False), ("https://a b", False)):
        text = f"{PROJECT}spec: {json.dumps({'publication': {'log': 'public', 'url': url}})}\n"
        assert bool(parse("lockgate.yaml", text.encode()).document) is valid
