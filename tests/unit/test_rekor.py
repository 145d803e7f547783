"""Entries of a Rekor v2 log: what is submitted, what is believed of the answer, and everything that is not."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controller.adapters.git.keys import KeySigner
from controller.adapters.rekor import RekorSubmitter
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.ledger.rekor import Logged, check_logged, open_note
from tests.support.agents import SystemClock
from tests.support.rekor import Answer, RekorLog, b64, serving

NOTE = "shop/abababababababab\n1\nAAAA\n\n— shop/abababababababab AAAA\n"
SIGNERS: dict[str, KeySigner] = {
    "ed25519": KeySigner(ed25519.Ed25519PrivateKey.generate()),
    "p256": KeySigner(ec.generate_private_key(ec.SECP256R1())),
    "p384": KeySigner(ec.generate_private_key(ec.SECP384R1())),
    "p521": KeySigner(ec.generate_private_key(ec.SECP521R1())),
    "rsa": KeySigner(rsa.generate_private_key(65537, 2048)),
}


class Bare:
    """A signer that makes no prehashed signatures: as ssh-agent's and tokens' are."""

    def __init__(self, signer: KeySigner) -> None:
        self.public_key = signer.public_key
        self.sign_raw = signer.sign_raw
        self.sign_ssh = signer.sign_ssh


def ask(
    log: RekorLog, signer: Any, handle: Callable[[str, str, bytes], Answer] | None = None, **changes: Any
) -> Any:
    """One question, put to a log over HTTP."""
    with serving(handle or log.handle) as server:
        payload = {
            "log": "example",
            "url": f"{server.url}/",
            "origin": log.origin,
            "keys": [log.pem],
            "submitters": [signer.public_key],
            "checkpoint": NOTE,
            **changes,
        }
        return RekorSubmitter(signer, SystemClock(), timeout=changes.get("timeout", 20.0)).ask(payload)


def holds(answer: dict[str, Any], log: RekorLog, signer: KeySigner, message: str = NOTE) -> int:
    hashes = tuple(base64.b64decode(item) for item in answer["hashes"])
    logged = Logged(answer["index"], base64.b64decode(answer["body"]), hashes, answer["proof"])
    return check_logged(logged, message.encode(), [signer.public_key], log.origin, [log.pem])


@pytest.mark.parametrize("kind", SIGNERS)
def test_every_key_that_rekor_takes_submits(kind: str) -> None:
    log, signer = RekorLog(entries=5), SIGNERS[kind]
    answer = ask(log, signer)
    assert (answer["index"], holds(answer, log, signer)) == (5, 6)
    # Nothing but a digest, a signature and a public key goes out.
    (request,) = log.requests
    assert NOTE not in json.dumps(request)
    assert set(request["hashedRekordRequestV002"]) == {"digest", "signature"}


@pytest.mark.parametrize("entries", [0, 1, 2, 3, 7, 8, 200])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_proofs_of_every_shape_lead_to_the_log_s_checkpoint(kind: str, entries: int) -> None:
    log = RekorLog(kind=kind, entries=entries)
    assert holds(ask(log, SIGNERS["p256"]), log, SIGNERS["p256"]) == entries + 1


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_what_was_submitted_before_is_found_there(kind: str) -> None:
    """A controller that died before it recorded the answer submits the same bytes again."""
    log, signer = RekorLog(entries=9), SIGNERS[kind]
    first = ask(log, signer)
    log.bodies += [b"later", b"entries"]
    again = ask(log, signer)
    assert (again["index"], again["body"]) == (first["index"], first["body"])
    assert holds(again, log, signer) == 12
    assert len(log.bodies) == 12


def entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[RekorLog, Answer], Answer]:
    def tamper(log: RekorLog, answer: Answer) -> Answer:
        value = json.loads(answer[2])
        change(value)
        return answer[0], {}, json.dumps(value).encode()

    return tamper


def body(change: Callable[[dict[str, Any]], Any]) -> Callable[[RekorLog, Answer], Answer]:
    """A log that holds another entry than was asked for, and proves that one."""

    def tamper(log: RekorLog, _answer: Answer) -> Answer:
        value = json.loads(log.bodies[-1])
        change(value)
        log.bodies[-1] = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        return 201, {}, json.dumps(log.entry(len(log.bodies) - 1)).encode()

    return tamper


def spec(value: dict[str, Any]) -> dict[str, Any]:
    return dict.__getitem__(value["spec"], "hashedRekordV002")


def other_key(log: RekorLog, answer: Answer) -> Answer:
    log.key = ed25519.Ed25519PrivateKey.generate()
    return answer[0], {}, json.dumps(log.entry(len(log.bodies) - 1)).encode()


def proof(value: dict[str, Any]) -> dict[str, Any]:
    return dict.__getitem__(value, "inclusionProof")


LIES: dict[str, Callable[[RekorLog, Answer], Answer]] = {
    "no-json": lambda _log, _answer: (201, {}, b"<html>"),
    "a-list": lambda _log, _answer: (201, {}, b"[]"),
    "no-proof": entry(lambda v: v.pop("inclusionProof")),
    "no-checkpoint": entry(lambda v: proof(v).pop("checkpoint")),
    "another-index": entry(lambda v: v.update(logIndex="2")),
    "index-beyond": entry(lambda v: v.update(logIndex="900")),
    "negative-index": entry(lambda v: v.update(logIndex="-1")),
    "a-hash-less": entry(lambda v: proof(v)["hashes"].pop()),
    "a-hash-more": entry(lambda v: proof(v)["hashes"].append(b64(bytes(32)))),
    "a-hash-changed": entry(lambda v: proof(v)["hashes"].__setitem__(0, b64(bytes(32)))),
    "a-short-hash": entry(lambda v: proof(v)["hashes"].__setitem__(0, b64(bytes(31)))),
    "endless-hashes": entry(lambda v: proof(v).update(hashes=[b64(bytes(32))] * 64)),
    "unsigned-checkpoint": entry(lambda v: proof(v)["checkpoint"].update(envelope="rekor.example.com\n6\nAAAA\n")),
    "changed-checkpoint": entry(
        lambda v: proof(v)["checkpoint"].update(
            envelope=proof(v)["checkpoint"]["envelope"].replace("rekor.example.com\n6\n", "rekor.example.com\n7\n")
        )
    ),
    "another-log-s-key": other_key,
    "another-digest": body(lambda v: spec(v)["data"].update(digest=b64(bytes(32)))),
    "another-signature": body(lambda v: spec(v)["signature"].update(content=b64(bytes(70)))),
    "another-s-key": body(lambda v: spec(v)["signature"]["verifier"]["publicKey"].update(rawBytes=b64(bytes(91)))),
    "another-kind": body(lambda v: v.update(kind="dsse")),
    "another-version": body(lambda v: v.update(apiVersion="0.0.1")),
    "more-in-it": body(lambda v: v.update(more="than was asked for")),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_does_not_prove_itself_is_refused(lie: str) -> None:
    log = RekorLog(entries=5)

    def handle(method: str, path: str, data: bytes) -> Answer:
        return LIES[lie](log, log.handle(method, path, data))

    pem = log.pem
    with pytest.raises(Refused, match="rekor-entry-invalid"):
        ask(log, SIGNERS["p256"], handle, keys=[pem])


@pytest.mark.parametrize("status", [400, 404, 405, 302])
def test_a_log_that_takes_no_entry_is_named(status: int) -> None:
    said = b'{"code": 12, "message": "This log has been frozen"}'
    with pytest.raises(Refused, match="rekor-refused") as caught:
        ask(RekorLog(), SIGNERS["p256"], lambda *_: (status, {}, said))
    assert "frozen" in caught.value.got


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_log_in_trouble_is_asked_later(status: int) -> None:
    with pytest.raises(Unavailable, match="rekor-unreachable"):
        ask(RekorLog(), SIGNERS["p256"], lambda *_: (status, {}, b""))


def test_a_log_that_hangs_or_floods_is_left() -> None:
    ended = threading.Event()

    def hang(*_: object) -> Answer:
        ended.wait(30)
        return 201, {}, b""

    try:
        with pytest.raises(Unavailable, match="rekor-unreachable"):
            ask(RekorLog(), SIGNERS["p256"], hang, timeout=0.3)
    finally:
        ended.set()
    with pytest.raises(Unavailable, match="rekor-unreachable"):
        ask(RekorLog(), SIGNERS["p256"], lambda *_: (201, {}, bytes(2 << 20)))
    with pytest.raises(Unavailable, match="rekor-unreachable"):
        ask(RekorLog(), SIGNERS["p256"], url="http://127.0.0.1:1")


def test_nothing_is_submitted_that_could_not_be_verified() -> None:
    log, signer = RekorLog(), SIGNERS["p256"]
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (signer, {"keys": []}, "rekor-log-key-malformed"),
        (signer, {"keys": ["no key"]}, "rekor-log-key-malformed"),
        (signer, {"submitters": [SIGNERS["rsa"].public_key]}, "rekor-key-unfit"),
        (Bare(SIGNERS["ed25519"]), {}, "rekor-key-unfit"),
        (KeySigner(rsa.generate_private_key(65537, 2056)), {}, "rekor-key-unfit"),
    ]
    for by, changes, code in refused:
        with pytest.raises(Invalid, match=code):
            ask(log, by, **changes)
    assert not log.requests
    assert ask(log, Bare(signer))["index"] == 0


def test_a_log_that_lies_about_what_it_has_is_refused() -> None:
    log = RekorLog(entries=4)
    for headers in ({}, {"x-log-index": "2"}, {"x-log-index": "77"}, {"x-log-index": "-1"}):

        def handle(method: str, path: str, data: bytes, headers: dict[str, str] = headers) -> Answer:
            return (409, headers, b"{}") if method == "POST" else log.handle(method, path, data)

        with pytest.raises(LockgateError, match=r"rekor-(entry-invalid|refused)"):
            ask(log, SIGNERS["p256"], handle)


def test_notes_with_extension_lines_and_witnesses_open() -> None:
    log = RekorLog(entries=3)
    assert open_note(log.checkpoint("an extension\n"), log.origin, [RekorLog().pem, log.pem])[0] == 3
    with pytest.raises(Refused, match="rekor-entry-invalid"):
        open_note(log.checkpoint(), "another.example.com", [log.pem])
