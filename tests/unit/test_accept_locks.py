"""Judging main: locks are written once, and the controller writes nothing but locks and reverts."""

from __future__ import annotations

import hashlib

import pytest

from tests.support.shop import PROD, Shop, opened, refused, slot


@pytest.fixture
def shop() -> Shop:
    return opened()


def test_an_existing_lock_is_edited_or_deleted_by_anybody(shop: Shop) -> None:
    for who in ("dave", "rita", "olga", "controller"):
        for data in (b"evil", None):
            shop.judge(shop.history.write([shop.state.accepted], {"releases/r1.lock.yaml": data}, by=who))
            refused(shop, "lock-rewritten")


def test_a_lock_written_by_a_person_even_where_trust_grants_it() -> None:
    shop = Shop(paths=[{"match": "releases/**", "write": "developers"}])
    shop.land("dave", "rita", {"releases/r9.lock.yaml": b"evil"})
    refused(shop, "lock-by-person")


def test_a_lock_deleted_and_added_again_on_a_branch(shop: Shop) -> None:
    side = shop.branch("dave", {"releases/r1.lock.yaml": None})
    side = shop.branch("dave", {"releases/r1.lock.yaml": b"evil"}, base=side)
    shop.merge("rita", side)
    refused(shop, "lock-rewritten")


def test_a_lock_without_evidence_or_without_a_release(shop: Shop) -> None:
    shop.lone("controller", {"releases/r1.yaml": b"other"})
    refused(shop, "path-denied")
    lock = b"locked"
    shop.judge(shop.history.write([shop.state.accepted], {"releases/r7.lock.yaml": lock}, by="controller"))
    refused(shop, "lock-unbacked")
    shop.evidence.locks.add(("releases/r7.lock.yaml", hashlib.sha256(lock).hexdigest()))
    shop.judge()
    refused(shop, "lock-unbacked")
    assert shop.state.steps[-1].got == "no accepted release file"


def test_a_lock_over_a_release_that_was_refused() -> None:
    shop = Shop()
    shop.lone(None, {"releases/r2.yaml": b"evil"})
    refused(shop, "unsigned")
    shop.evidence.locks.add(("releases/r2.lock.yaml", hashlib.sha256(b"lock").hexdigest()))
    shop.lone("controller", {"releases/r2.lock.yaml": b"lock"})
    refused(shop, "lock-unbacked")


def test_a_lock_that_is_a_link(shop: Shop) -> None:
    shop.land("dave", "rita", {"releases/r2.yaml": b"x"})
    shop.evidence.locks.add(("releases/r2.lock.yaml", hashlib.sha256(b"lock").hexdigest()))
    shop.lone("controller", {"releases/r2.lock.yaml": b"lock"}, mode=0o120000)
    refused(shop, "lock-unbacked")


def test_the_controller_reverts_only_with_a_recorded_rollback(shop: Shop) -> None:
    old = shop.history.trees[shop.tip][PROD]
    shop.land("dave", "rita", {PROD: slot("r2")})
    back = {PROD: slot("r1")}
    message = "prod: back to r1\n\nLockgate-Run: prod-2-abcdef01"
    shop.lone("controller", back, message=message)
    refused(shop, "revert-unbacked")
    shop.evidence.reverts.add(("prod-2-abcdef01", PROD, old.blob))
    assert shop.judge().accepted == shop.tip
    assert shop.state.newly[-1].kind == "controller"


def test_the_controllers_revert_to_other_content_or_without_a_run(shop: Shop) -> None:
    old = shop.history.trees[shop.tip][PROD]
    shop.evidence.reverts.add(("prod-2-abcdef01", PROD, old.blob))
    shop.land("dave", "rita", {PROD: slot("r2")})
    good = shop.tip
    for files, message in (
        ({PROD: slot("r1")}, "no trailer"),
        ({PROD: slot("r1")}, "x\n\nLockgate-Run: prod-2-abcdef01\nLockgate-Run: prod-3-abcdef01"),
        ({PROD: slot("r3")}, "x\n\nLockgate-Run: prod-2-abcdef01"),
        ({PROD: None}, "x\n\nLockgate-Run: prod-2-abcdef01"),
    ):
        shop.judge(shop.history.write([good], files, by="controller", message=message))
        refused(shop, "revert-unbacked")


def test_the_controller_neither_merges_nor_writes_anything_else(shop: Shop) -> None:
    shop.land("dave", "controller", {"releases/r2.yaml": b"x"})
    refused(shop, "path-denied")
    shop.judge(shop.history.write([shop.state.accepted], {"policies/strict.yaml": b"x"}, by="controller"))
    refused(shop, "path-denied")
