"""Approvals: bound to their subject, by distinct people in their roles, never by authors, not for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.core.approvals import ANY, Given, Tally, approval_subject, stricter, tally
from controller.core.attribution import approving_message, trailers
from controller.core.keys import key_id
from controller.core.trust import TrustState
from controller.model.environment import Approvals
from tests.support.history import ssh_key
from tests.support.shop import trust_bytes, trust_document

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
TRUST = TrustState.parse(trust_bytes())
PARTS: dict[str, Any] = {
    "project": "shop",
    "promotion_commit": "a" * 40,
    "slot_blob": "b" * 40,
    "lock_sha256": "sha256:" + "c" * 64,
    "environment_blob": "d" * 40,
    "strategy_blob": "e" * 40,
    "policy_blobs": ["1" * 40, "2" * 40],
    "trust_version": 1,
    "targets": ["web-1", "web-2"],
}
SUBJECT = approval_subject(**PARTS)


def by(name: str, **fields: Any) -> Given:
    given = {"principal": name, "key_id": key_id(ssh_key(name)), "via": "request", "subject": SUBJECT, "at": NOW}
    return Given(**{**given, **fields})


def count(required: Approvals, *given: Given, authors: set[str] | None = None, now: datetime = NOW) -> Tally:
    return tally(required, given, subject=SUBJECT, authors=authors or {"dave"}, trust=TRUST, now=now)


def test_the_subject_changes_with_every_part() -> None:
    assert SUBJECT.startswith("sha256:") and len(SUBJECT) == 71
    changed = {
        "project": "other",
        "promotion_commit": "f" * 40,
        "slot_blob": "f" * 40,
        "lock_sha256": "sha256:" + "f" * 64,
        "environment_blob": "f" * 40,
        "strategy_blob": "f" * 40,
        "policy_blobs": ["1" * 40],
        "trust_version": 2,
        "targets": ["web-1", "web-2", "web-3"],
    }
    subjects = {approval_subject(**{**PARTS, name: value}) for name, value in changed.items()}
    assert len(subjects) == len(changed) and SUBJECT not in subjects
    swapped = {**PARTS, "targets": ["web-2", "web-1"], "policy_blobs": ["2" * 40, "1" * 40]}
    assert approval_subject(**swapped) == SUBJECT


def test_nothing_required_is_satisfied() -> None:
    assert count(Approvals()).satisfied


def test_one_reviewer() -> None:
    required = Approvals(roles={"reviewers": 1})
    before = count(required)
    assert (
        not before.satisfied
        and before.missing == {"reviewers": 1}
        and before.able["reviewers"] == ("rita", "ruth")
    )
    after = count(required, by("rita"))
    assert after.satisfied and after.missing == {} and [g.principal for g in after.counted] == ["rita"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (by("rita", subject="sha256:" + "0" * 64), "approval-void"),
        (by("rita", expires=NOW), "approval-expired"),
        (by("ollie"), "approver-not-in-role"),
        (by("rita", key_id="0" * 64), "approver-not-principal"),
        (by("mallory"), "approver-not-principal"),
    ],
)
def test_approvals_that_do_not_count(given: Given, code: str) -> None:
    result = count(Approvals(roles={"reviewers": 1}), given)
    assert not result.satisfied and [other.code for other in result.not_counted] == [code]
    assert result.not_counted[0].message


def test_separation_of_duties() -> None:
    required = Approvals(roles={"reviewers": 1})
    result = count(required, by("rita"), authors={"rita"})
    assert [other.code for other in result.not_counted] == ["self-approval"]
    assert set().union(*result.able.values()) == {"ruth"}
    open_ = Approvals(roles={"reviewers": 1}, separation_of_duties=False)
    assert count(open_, by("rita"), authors={"rita"}).satisfied


def test_one_person_twice_is_one_person() -> None:
    required = Approvals(count=2, roles={"reviewers": 2})
    result = count(required, by("rita", via="merge"), by("rita", at=NOW + timedelta(minutes=1)))
    assert not result.satisfied and result.missing == {"reviewers": 1}
    assert [other.code for other in result.not_counted] == ["approval-repeated"]
    assert count(required, by("rita"), by("ruth")).satisfied


def test_two_keys_of_one_person_are_one_person() -> None:
    text = trust_bytes().decode().replace(f"- {ssh_key('rita')}", f"- {ssh_key('rita')}\n      - {ssh_key('r2')}")
    trust = TrustState.parse(text.encode())
    given = [by("rita"), by("rita", key_id=key_id(ssh_key("r2")))]
    required = Approvals(count=2, roles={"reviewers": 1})
    result = tally(required, given, subject=SUBJECT, authors=set(), trust=trust, now=NOW)
    assert not result.satisfied and len(result.counted) == 1


def test_every_role_of_a_matrix_and_one_place_a_person() -> None:
    required = Approvals(count=2, roles={"reviewers": 1, "developers": 1})
    assert not count(required, by("rita")).satisfied
    assert count(required, by("rita"), by("ruth")).satisfied
    assert count(required, by("rita"), by("dina")).satisfied
    assert count(required, by("dina"), by("ruth")).satisfied


def test_a_count_above_the_roles_is_filled_by_those_roles() -> None:
    required = Approvals(count=2, roles={"reviewers": 1})
    assert count(required, by("rita")).missing == {ANY: 1}
    assert not count(required, by("rita"), by("ollie")).satisfied
    assert count(required, by("rita"), by("ruth")).satisfied


def test_a_bare_count_takes_those_who_may_approve_anything() -> None:
    assert count(Approvals(count=1), by("rita")).satisfied
    assert count(Approvals(count=1), by("olga")).satisfied
    assert not count(Approvals(count=1), by("ollie")).satisfied


def test_expiry_of_the_environment_and_of_the_approval() -> None:
    required = Approvals(roles={"reviewers": 1}, expires_after=timedelta(hours=48))
    given = by("rita", expires=NOW + timedelta(hours=72))
    assert count(required, given).next_expiry == NOW + timedelta(hours=48)
    assert not count(required, given, now=NOW + timedelta(hours=48)).satisfied
    again = by("rita", at=NOW + timedelta(hours=47))
    renewed = count(required, given, again, now=NOW + timedelta(hours=47))
    assert renewed.next_expiry == NOW + timedelta(hours=95)
    assert count(required, given, again, now=NOW + timedelta(hours=49)).satisfied


def test_a_key_taken_out_of_trust_voids_its_approval() -> None:
    trust = TrustState.parse(trust_bytes(keys={"rita": ssh_key("new")}))
    required = Approvals(roles={"reviewers": 1})
    result = tally(required, [by("rita")], subject=SUBJECT, authors=set(), trust=trust, now=NOW)
    assert [other.code for other in result.not_counted] == ["approver-not-principal"]


def test_a_key_whose_time_is_over_approves_nothing_any_more() -> None:
    principals = trust_document(1)["spec"]["principals"]
    principals["rita"]["validBefore"] = "2026-01-05T13:00:00Z"
    trust = TrustState.parse(trust_bytes(principals=principals))
    counts = [
        tally(Approvals(count=1), [by("rita")], subject=SUBJECT, authors=set(), trust=trust, now=NOW + after)
        for after in (timedelta(minutes=59), timedelta(hours=1))
    ]
    assert [one.satisfied for one in counts] == [True, False]
    assert [one.code for one in counts[1].not_counted] == ["key-expired"]


def test_of_two_demands_the_stricter_of_each() -> None:
    pinned = Approvals(
        count=2, roles={"reviewers": 2}, separation_of_duties=False, expires_after=timedelta(hours=1)
    )
    live = Approvals(count=3, roles={"owners": 1}, expires_after=timedelta(hours=2))
    assert stricter(pinned, None) == pinned == stricter(pinned, Approvals(separation_of_duties=False))
    assert stricter(pinned, live) == Approvals(
        count=3, roles={"owners": 1, "reviewers": 2}, separation_of_duties=True, expires_after=timedelta(hours=1)
    )
    assert stricter(Approvals(), live) == live


def test_who_may_give_what_is_missing_by_role() -> None:
    result = count(Approvals(count=2, roles={"reviewers": 1, "owners": 1}), by("rita"))
    assert result.missing == {"owners": 1}
    assert "ruth" not in result.able["owners"]


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("Merge", "Merge\n\nLockgate-Approve: shop refs/heads/main\n"),
        ("Merge\n\nWhy.\n", "Merge\n\nWhy.\n\nLockgate-Approve: shop refs/heads/main\n"),
        ("Merge\n\nTicket: 7\n", "Merge\n\nTicket: 7\nLockgate-Approve: shop refs/heads/main\n"),
    ],
)
def test_a_merge_says_where_it_approves(said: str, written: str) -> None:
    trust = TrustState.parse(trust_bytes(mergeApproval="trailer"))
    message = approving_message(trust, said, "shop", "refs/heads/main")
    assert message == written
    assert trailers(message)["lockgate-approve"] == ["shop refs/heads/main"]
    assert approving_message(TRUST, said, "shop", "refs/heads/main") == said
