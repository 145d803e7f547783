"""Requests: one commit, one file, one verdict; and every way to be refused."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from controller.adapters.git.keys import KeySigner
from controller.core.requests import RequestVerdict, judge_request, read_request, write_request
from controller.core.trust import TrustState
from controller.errors import Invalid
from controller.ledger.links import sign_link
from controller.model.history import Commit
from controller.model.link import LinkSignature, approve_link
from controller.model.request import Request
from tests.support.history import SimHistory
from tests.support.shop import trust_bytes, trust_document

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TRUST = TrustState.parse(trust_bytes())


def request(**fields: Any) -> Request:
    given_ = {
        "id": "pause-0001",
        "project": "shop",
        "verb": "pause",
        "environment": "prod",
        "reason": "smoke in the data centre",
        "at": NOW,
        "expires": NOW + timedelta(hours=1),
    }
    return Request(**{**given_, **fields})


def judge(
    asked: Request | None,
    *,
    by: str | None = "ollie",
    files: dict[str, bytes | None] | None = None,
    now: datetime = NOW,
    seen: frozenset[str] = frozenset(),
    **more: Any,
) -> RequestVerdict:
    history = SimHistory()
    base = history.write([], {"README": b"x"}, by="ollie", at=NOW)
    if files is None:
        assert asked is not None
        files = dict([write_request(asked)])
    oid = history.write([base], files, by=by, at=NOW, **more)
    changes = history.changes(base, oid)
    data = history.read(changes[0].new.blob) if len(changes) == 1 and changes[0].new else None
    return judge_request(history.commit(oid), changes, data, TRUST, "shop", now, seen)


def test_an_approvals_link_is_its_authors_own() -> None:
    people = {name: KeySigner(ed25519.Ed25519PrivateKey.generate()) for name in ("rita", "ruth")}
    keys = {name: signer.public_key for name, signer in people.items()}
    trust = TrustState.parse(yaml.safe_dump(trust_document(keys=keys)).encode())
    subject, other = ("sha256:" + digit * 64 for digit in "ab")

    def verdict(link: LinkSignature, **fields: Any) -> tuple[bool, str]:
        history = SimHistory()
        base = history.write([], {"README": b"x"}, by="ollie", at=NOW)
        asked = request(**{"id": "approve-0001", "verb": "approve", "binds": subject, "link": link} | fields)
        oid = history.write([base], dict([write_request(asked)]), by="rita", at=NOW)
        changes = history.changes(base, oid)
        commit = replace(history.commit(oid), key=keys["rita"])
        assert changes[0].new is not None
        data = history.read(changes[0].new.blob)
        judged = judge_request(commit, changes, data, trust, "shop", NOW)
        return judged.accepted, judged.code

    own = sign_link(approve_link(subject), people["rita"])
    assert verdict(own) == (True, "request-accepted")
    assert verdict(sign_link(approve_link(subject), people["ruth"])) == (False, "request-malformed")
    assert verdict(sign_link(approve_link(other), people["rita"])) == (False, "request-malformed")
    assert verdict(own, verb="reject") == (False, "request-malformed")


def test_an_operator_pauses_prod() -> None:
    verdict = judge(request())
    assert verdict.accepted and verdict.code == "request-accepted"
    assert verdict.principal == "ollie" and verdict.role == "operators"
    assert verdict.request == request()


def test_writing_and_reading() -> None:
    path, data = write_request(request(binds="sha256:" + "a" * 64, ticket="CHG-1"))
    assert path == "requests/2026/01/pause-0001.json"
    assert read_request(data) == request(binds="sha256:" + "a" * 64, ticket="CHG-1")
    assert json.loads(data)["apiVersion"] == "lockgate.dev/v1"


@pytest.mark.parametrize(
    ("by", "fields"),
    [
        ("dave", {"verb": "abort", "environment": "prod"}),
        ("ollie", {"verb": "approve"}),
        ("ollie", {"environment": "dev"}),
        ("rita", {"verb": "rollback"}),
        (
            "ollie",
            {
                "verb": "acknowledge",
                "environment": "*",
                "binds": "commit:" + "a" * 40,
                "code": "path-denied",
                "evidence": "b" * 40,
            },
        ),
        ("controller", {}),
    ],
)
def test_an_action_out_of_scope(by: str, fields: dict[str, Any]) -> None:
    verdict = judge(request(**fields), by=by)
    assert not verdict.accepted and verdict.code == "action-out-of-scope"
    assert verdict.principal == by and verdict.request is not None


def test_owners_acknowledge() -> None:
    whole = {"binds": "commit:" + "a" * 40, "code": "path-denied", "evidence": "b" * 40}
    asked = request(verb="acknowledge", environment="*", **whole)
    assert judge(asked, by="olga").accepted
    for name in whole:
        assert judge(asked.model_copy(update={name: None}), by="olga").code == "request-malformed"
    assert judge(asked.model_copy(update={"environment": "prod"}), by="olga").code == "action-out-of-scope"


def test_late_early_and_upside_down() -> None:
    assert judge(request(), now=NOW + timedelta(hours=1)).code == "request-expired"
    assert judge(request(expires=NOW)).code == "request-expired"
    ahead = request(at=NOW + timedelta(days=1), expires=NOW + timedelta(days=2))
    assert judge(ahead).code == "request-expired"


def test_another_project_and_a_duplicate() -> None:
    assert judge(request(project="other")).code == "request-foreign"
    assert judge(request(), seen=frozenset({"pause-0001"})).code == "request-duplicate"


def test_signatures() -> None:
    assert judge(request(), by=None).code == "unsigned"
    assert judge(request(), by="mallory").code == "signer-unknown"
    assert judge(request(), signature="bad").code == "signature-bad"
    assert judge(request(), malformed="commit-malformed").code == "commit-malformed"


def test_a_key_that_has_expired_since() -> None:
    data = trust_bytes().replace(b"emails:\n      - ollie@example.com", b"validBefore: '2026-01-05T12:30:00Z'")
    history = SimHistory()
    base = history.write([], {}, by="ollie", at=NOW)
    path, body = write_request(request(expires=NOW + timedelta(days=9)))
    oid = history.write([base], {path: body}, by="ollie", at=NOW)
    for minutes, code in ((10, "request-accepted"), (40, "key-expired")):
        now = NOW + timedelta(minutes=minutes)
        trust = TrustState.parse(data)
        verdict = judge_request(history.commit(oid), history.changes(base, oid), body, trust, "shop", now)
        assert verdict.code == code


def test_shapes_that_are_no_request() -> None:
    path, data = write_request(request())
    misplaced = "requests/2026/02/pause-0001.json"
    for files in (
        {},
        {path: data, "requests/2026/01/other-001.json": data},
        {misplaced: data},
        {"requests/2026/01/other-001.json": data},
        {"requests/pause-0001.json": data},
        {path: b"{"},
        {path: b"[]"},
        {path: data.replace(b'"verb"', b'"verb":"approve","verb"')},
        {path: data.replace(b"pause", b"explode", 1)},
        {path: data[:-1] + b',"more":1}'},
        {path: b"[" * 60_000},
        {path: b" " * 70_000},
        {path: b'{"at": NaN}'},
        {"README": None},
        {"README": b"changed"},
    ):
        verdict = judge(None, files=files)
        assert not verdict.accepted and verdict.code == "request-malformed", files
        assert verdict.message and verdict.principal == "ollie"
    assert judge(request(), mode=0o120000).code == "request-malformed"


def test_a_merge_is_no_request() -> None:
    history = SimHistory()
    base = history.write([], {}, by="ollie", at=NOW)
    path, data = write_request(request())
    oid = history.write([base], {path: data}, by="ollie", at=NOW)
    commit: Commit = replace(history.commit(oid), parents=(base, base))
    verdict = judge_request(commit, history.changes(base, oid), data, TRUST, "shop", NOW)
    assert verdict.code == "request-malformed"


@given(st.binary(max_size=300))
def test_no_bytes_crash_it(data: bytes) -> None:
    with pytest.raises(Invalid):
        read_request(data)
    assert not judge(None, files={"requests/2026/01/pause-0001.json": data}).accepted
