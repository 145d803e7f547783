"""Checkpoints in a public log: real controller processes, a Rekor v2 log over HTTP, and verification offline."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.adapters.git.keys import KeySigner
from controller.adapters.rekor import RekorSubmitter
from controller.core.parse import parse
from controller.core.world import Chosen
from controller.ledger.log import checkpoint_of, read_checkpoint
from controller.ledger.rekor import Logged, check_logged
from controller.model import entry as e
from controller.reconcile.logbook import LogBook
from controller.reconcile.visible import Visible
from controller.uses.view import intent_at
from tests.integration.test_transparency import PROJECT, TRUST, events, lockgate
from tests.integration.test_transparency_audit import checkpoint, newest
from tests.support.agents import SystemClock
from tests.support.flow import Flow, flow
from tests.support.home import Home
from tests.support.rekor import Answer, RekorLog, serving
from tests.support.waiting import until

AGENTS = {"dev-1": "dev"}


def files(log: RekorLog, url: str, log_key: Path) -> dict[str, str]:
    """A project whose checkpoints are published in a log that owners pinned; a second key of the controller's."""
    pinned = {"transparencyLogs": {"public": {"origin": log.origin, "keys": [log.pem]}}}
    lines = yaml.safe_dump(pinned, sort_keys=False).splitlines()
    trust = TRUST + "".join(f"  {line}\n" for line in lines)
    public = " ".join(log_key.with_suffix(".pub").read_text().split()[:2])
    principal = f"    logger:\n      keys: ['{public}']\n      emails: [logger@example.com]\n"
    trust = trust.replace("  roles:\n", f"{principal}  roles:\n", 1)
    publication = {"publication": {"log": "public", "url": url}}
    return {
        "trust/trust.yaml.j2": trust.replace("controller: [controller]", "controller: [controller, logger]"),
        "lockgate.yaml": f"{PROJECT}spec: {json.dumps(publication)}\n",
    }


class Moody:
    """A log that hangs, loses an answer, is frozen or good, as it is told."""

    def __init__(self) -> None:
        self.log = RekorLog(entries=3)
        self.mood = "hanging"
        self.released = threading.Event()

    def handle(self, method: str, path: str, data: bytes) -> Answer:
        if self.mood == "hanging":
            self.released.wait(60)
        if self.mood == "frozen":
            return 405, {}, b'{"message": "This log has been frozen"}'
        answer = self.log.handle(method, path, data)
        if self.mood == "forgetful":
            self.mood = "good"
            return 503, {}, b""
        return answer

    def becomes(self, mood: str) -> None:
        self.mood = mood
        self.released.set()


@pytest.mark.timeout(300)
def test_sealed_runs_are_published_and_verified_offline(tmp_path: Path) -> None:
    """Seals never wait for the log; whatever happens to it, each is published in the end."""
    key, moody = tmp_path / "log-key", Moody()
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", str(key)], check=True)
    with (
        serving(moody.handle) as server,
        flow(tmp_path, AGENTS, files=files(moody.log, server.url, key)) as shop,
    ):
        shop.start()
        shop.deploy("dev", "1.0.0")
        run = shop.state("dev")["lastRun"]["run"]
        until("it is asked", lambda: server.asked)
        state = ("--state-dir", str(shop.stage.state))
        until("it says so", lambda: "no answer since" in lockgate(shop, "status", *state))
        for said in (lockgate(shop, "status"), lockgate(shop, "why", "dev", *state)):
            assert f"{run} is not submitted to the public log public" in said
        assert "not submitted to the public log" in lockgate(shop, "evidence", run)
        assert not events(shop, "published")
        moody.becomes("forgetful")
        event = until("the seal is published", lambda: events(shop, "published"), 60)[0]
        holds(shop, moody.log, event, shop.stage.keys / "controller")
        _settled(shop, event, run)
        # It took the entry, lost its answer, and was asked for it again.
        assert (moody.mood, len(moody.log.bodies)) == ("good", 4)
        moody.becomes("frozen")
        shop.deploy("dev", "1.1.0")
        until("it says why", lambda: "log has been frozen" in lockgate(shop, "why", "dev", *state), 40)
        shop.stop_controller()
        moody.becomes("good")
        shop.processes.start_controller(poll="1s", options=("--log-key", str(key)))
        until("the next seal is published", lambda: len(events(shop, "published")) == 2, 60)
        event = events(shop, "published")[1]
        holds(shop, moody.log, event, key)
        _settled(shop, event, shop.state("dev")["lastRun"]["run"])
        assert "shop" not in json.dumps(moody.log.requests)
        shop.stop_controller()
        server.close()
        shop.verify()
        _packed(shop, tmp_path / "pack.tar", run)


def _settled(shop: Flow, event: dict[str, Any], run: str) -> None:
    """The entry covers the seal, and what is said agrees."""
    seal = next(entry for entry in shop.entries() if entry["kind"] == "sealed" and entry["run"] == run)
    detail = event["detail"]
    assert (detail["run"], detail["log"]) == (run, "public")
    assert detail["size"] > seal["index"]
    said = lockgate(shop, "evidence", run)
    assert "not submitted" not in said + lockgate(shop, "status")
    assert "published.dsse.json" in said


def holds(shop: Flow, log: RekorLog, event: dict[str, Any], key: Path) -> None:
    """The recorded entry proves itself to whoever has the log's key and the submitter's."""
    detail = event["detail"]
    hashes = tuple(base64.b64decode(item) for item in detail["hashes"])
    logged = Logged(detail["index"], base64.b64decode(detail["body"]), hashes, detail["proof"])
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    check_logged(logged, detail["checkpoint"].encode(), [public], log.origin, [log.pem])


def _packed(shop: Flow, pack: Path, run: str) -> None:
    """The auditor's bundle holds with what the log answered."""
    lockgate(shop, "export", run, "--out", str(pack), "--bundle")
    lockgate(shop, "verify", "--bundle", str(pack), "--trust-root", str(shop.stage.trust_root))


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
        "run": newest(home),
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
    "of-another-run": (
        lambda home, log: publish(home, log, checkpoint(home), run="dev-9-00000000"),
        "rekor-entry-invalid",
    ),
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


def test_what_was_chosen_stays_while_it_is_asked_for_and_ends_with_its_log(home: Home) -> None:
    text = f"{PROJECT}spec: {json.dumps({'publication': {'log': 'public', 'url': 'https://log.example.com'}})}\n"
    intent = intent_at(home.repo, home.documents({"lockgate.yaml": text.encode()}))
    visible = Visible(home.repo, LogBook(home.root, home.controller))

    def chosen() -> Chosen | None:
        visible.show(home.ledger)
        return visible.facts(home.ledger, intent).publish

    first = chosen()
    assert first is not None and (first.size, first.run) == (home.ledger.log.size, newest(home))
    home.release("shop-2")
    home.batch(home.story.run("dev", "shop-2"))
    assert newest(home) != first.run
    assert chosen() == first
    visible.restart()
    again = chosen()
    assert again is not None and (again.size, again.run) == (home.ledger.log.size, newest(home))


def test_a_log_s_address_is_checked() -> None:
    for url, valid in (("https://log.example.com", True), ("file:///etc", False), ("https://a b", False)):
        text = f"{PROJECT}spec: {json.dumps({'publication': {'log': 'public', 'url': url}})}\n"
        assert bool(parse("lockgate.yaml", text.encode()).document) is valid
