"""Judging main: trust changes by its owners' quorum alone, and everything starts from the pinned root."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.core.accept import genesis_state, judge_main, resume_state
from controller.errors import Refused
from controller.model.trustroot import TrustRoot
from tests.support.history import SimHistory, ssh_key
from tests.support.shop import PROD, Shop, opened, refused, signed_trust, slot, trust_bytes, trust_document


@pytest.fixture
def shop() -> Shop:
    return opened()


# --- trust changes ------------------------------------------------------------------------------------------


def test_a_quorum_changes_trust_from_the_next_commit_on(shop: Shop) -> None:
    data = trust_bytes(2, paths=[{"match": "**", "write": "operators"}])
    shop.lone("olga", signed_trust(data, 2, "olga", "otto"))
    assert shop.state.trust.version == 2 and shop.state.newly[0].trust_version == 1
    shop.lone("dave", {"README.md": b"x"})
    refused(shop, "path-denied")


def test_trust_without_the_quorum(shop: Shop) -> None:
    for signers in ((), ("olga",), ("olga", "rita"), ("olga", "mallory")):
        data = trust_bytes(2)
        files = signed_trust(data, 2, *signers)
        shop.judge(shop.history.write([shop.state.accepted], files, by="olga"))
        refused(shop, "trust-quorum")


def test_one_owners_signature_under_two_names(shop: Shop) -> None:
    data = trust_bytes(2)
    files = signed_trust(data, 2, "olga")
    files["trust/2/otto.sig"] = files["trust/2/olga.sig"]
    shop.lone("olga", files)
    refused(shop, "trust-quorum")


def test_an_older_trust_never_comes_back(shop: Shop) -> None:
    first = shop.history.blobs[shop.history.trees[shop.genesis]["trust/trust.yaml"].blob]
    shop.lone("olga", signed_trust(trust_bytes(2), 2, "olga", "otto"))
    accepted = shop.tip
    for data, version in ((first, 2), (first, 3), (trust_bytes(4), 3), (trust_bytes(2) + b"#", 3)):
        shop.judge(shop.history.write([accepted], signed_trust(data, version, "olga", "otto"), by="olga"))
        assert shop.code() in ("trust-rollback", "trust-quorum")
        assert shop.state.trust.version == 2


def test_a_quorum_on_trust_approves_nothing_else(shop: Shop) -> None:
    paths = [
        {"match": "trust/**", "write": "owners", "approvals": {"owners": 2}},
        {"match": PROD, "write": "owners", "approvals": {"owners": 1}},
    ]
    other = Shop(paths=paths)
    files = {**signed_trust(trust_bytes(2), 2, "olga", "otto"), PROD: slot("evil")}
    other.lone("olga", files)
    refused(other, "approval-missing")
    data = trust_bytes(2)
    shop.lone("olga", {**signed_trust(data, 2, "olga", "otto"), "trust/layout.json": b"{}"})
    refused(shop, "approval-missing")


def test_trust_removed_or_a_link(shop: Shop) -> None:
    shop.lone("olga", {"trust/trust.yaml": None})
    refused(shop, "trust-quorum")
    data = trust_bytes(2)
    files = signed_trust(data, 2, "olga", "otto")
    shop.judge(shop.history.write([shop.state.accepted], files, by="olga", mode=0o120000))
    refused(shop, "trust-quorum")


def test_trust_over_a_refused_trust_must_be_restored_first(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip]["trust/trust.yaml"].blob]
    shop.lone("dave", {"trust/trust.yaml": trust_bytes(2)})
    refused(shop, "trust-quorum")
    shop.lone("olga", signed_trust(trust_bytes(2) + b"# signed\n", 2, "olga", "otto"))
    refused(shop, "trust-not-restored")
    files = {path: None for path in shop.history.trees[shop.tip] if path.startswith("trust/2/")}
    shop.lone("otto", {"trust/trust.yaml": good, **files})
    assert shop.state.accepted == shop.tip and shop.state.trust.version == 1


def test_a_developers_lone_trust_change_even_fully_signed(shop: Shop) -> None:
    shop.lone("dave", signed_trust(trust_bytes(2), 2, "olga", "otto"))
    refused(shop, "path-denied")


# --- starting -----------------------------------------------------------------------------------------------


def test_a_genesis_holds_trust_and_project_alone() -> None:
    history = SimHistory()
    for files in (
        {"trust/trust.yaml": trust_bytes(), "lockgate.yaml": b"", PROD: slot("r1")},
        {"lockgate.yaml": b""},
    ):
        genesis = history.write([], files, by="olga")
        with pytest.raises(Refused) as error:
            genesis_state(history, TrustRoot(project="shop", genesis=genesis))
        assert error.value.code == "genesis-mismatch"


def test_the_same_trust_under_another_root(shop: Shop) -> None:
    other = shop.history.write([], {"trust/trust.yaml": trust_bytes()}, by="olga", message="Another")
    state = genesis_state(shop.history, TrustRoot(project="shop", genesis=other))
    with pytest.raises(Refused) as error:
        judge_main(shop.history, state, shop.tip, shop.evidence, shop.terms)
    assert error.value.code == "main-rewound"


def test_resuming_at_the_recorded_tip(shop: Shop) -> None:
    assert resume_state(shop.history, shop.tip, 1).trust == shop.state.trust
    with pytest.raises(Refused) as error:
        resume_state(shop.history, shop.tip, 2)
    assert error.value.code == "trust-rollback"


@pytest.mark.parametrize(
    ("key", "seen", "code"),
    [
        ({"validBefore": "2026-01-10T00:00:00Z"}, datetime(2026, 1, 9, tzinfo=UTC), None),
        ({"validBefore": "2026-01-10T00:00:00Z"}, datetime(2026, 1, 10, tzinfo=UTC), "key-expired"),
        ({"validAfter": "2026-01-10T00:00:00Z"}, datetime(2026, 1, 11, tzinfo=UTC), "key-expired"),
    ],
)
def test_the_time_that_counts_is_when_a_commit_was_seen(
    key: dict[str, str], seen: datetime, code: str | None
) -> None:
    """The commits say of themselves that they are of the 5th: an expired key cannot date them back, nor one that
    was not valid yet be waited out."""
    document = trust_document()
    document["spec"]["principals"]["dave"]["keys"] = [{"publicKey": ssh_key("dave"), **key}]
    shop = Shop(principals=document["spec"]["principals"])
    shop.terms = replace(shop.terms, observed=lambda _: seen)
    shop.lone("dave", {"README.md": b"hello\n"})
    assert shop.code() == code
    brought = Shop(principals=document["spec"]["principals"])
    brought.terms = replace(brought.terms, observed=lambda _: seen)
    brought.land("dave", "dina", {"README.md": b"hello\n"})
    assert brought.code() == code
