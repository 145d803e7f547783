"""Judging main: every attack on it that design/trust.md rules 6 and 9 name, performed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from controller.core.accept import MainState
from controller.errors import Refused
from tests.support.history import START
from tests.support.shop import PROD, Shop, opened, refused, signed_trust, slot, trust_bytes


@pytest.fixture
def shop() -> Shop:
    return opened()


# --- what is allowed ----------------------------------------------------------------------------------------


def test_a_reviewed_merge_lands_and_approves(shop: Shop) -> None:
    state = shop.land("dave", "rita", {PROD: slot("r1") + b"# again\n"})
    (step,) = state.newly
    assert (step.kind, step.signer, step.approvals) == ("merge", "rita", ("rita",))
    assert step.authors == {"dave"} and step.signers == {"dave", "rita"}
    assert [(lock.path, lock.release) for lock in step.locked] == [(PROD, "r1")]
    assert state.trust.version == 1


def test_a_lone_commit_lands_where_no_approval_is_needed(shop: Shop) -> None:
    shop.lone("dina", {"promotions/dev.yaml": slot("r1"), "README.md": b"hello"})
    assert shop.state.accepted == shop.tip
    assert shop.state.newly[0].kind == "lone" and shop.state.newly[0].approvals == ()


def test_nothing_new_costs_nothing(shop: Shop) -> None:
    shop.history.calls = 0
    assert shop.judge() == MainState(shop.tip, shop.state.trust)
    assert shop.history.calls == 0


def test_many_commits_in_one_call_equal_one_by_one() -> None:
    one, many = Shop(), Shop()
    for shop in (one, many):
        tip = shop.genesis
        for number in range(5):
            side = shop.history.write([tip], {"policies/p.yaml": b"%d" % number}, by="dave")
            tip = shop.history.merge(tip, side, by="rita")
            tip = shop.history.write([tip], {f"releases/r{number}.yaml": b"x"}, by="dina")
            if shop is one:
                shop.judge(tip)
        shop.judge(tip)
    assert one.state.accepted == many.state.accepted == many.tip
    assert len(many.state.newly) == 10


def test_the_cost_of_a_commit_is_its_own() -> None:
    shop = Shop()
    costs = []
    for number in range(60):
        shop.history.calls = 0
        shop.land("dave", "rita", {f"policies/p{number}.yaml": b"x"})
        costs.append(shop.history.calls)
    assert max(costs[1:]) == min(costs[1:])


# --- signatures and rights ----------------------------------------------------------------------------------


def test_an_unsigned_push(shop: Shop) -> None:
    shop.lone(None, {"README.md": b"x"})
    refused(shop, "unsigned")


def test_a_bad_signature(shop: Shop) -> None:
    shop.lone("rita", {"README.md": b"x"}, signature="bad")
    refused(shop, "signature-bad")


def test_an_unknown_key(shop: Shop) -> None:
    shop.lone("mallory", {"README.md": b"x"})
    refused(shop, "signer-unknown")


def test_a_malformed_commit(shop: Shop) -> None:
    shop.lone("dave", {"README.md": b"x"}, malformed="commit-malformed")
    refused(shop, "commit-malformed")


def test_a_path_without_the_right_and_one_without_a_rule(shop: Shop) -> None:
    shop.lone("ollie", {"releases/r2.yaml": b"x"})
    refused(shop, "path-denied")
    other = Shop()
    other.lone("dave", {"elsewhere/x": b"x"})
    refused(other, "path-denied")


def test_a_developer_alone_changes_prod(shop: Shop) -> None:
    shop.lone("dave", {PROD: slot("evil")})
    refused(shop, "approval-missing")


def test_a_reviewer_alone_changes_prod(shop: Shop) -> None:
    shop.lone("rita", {PROD: slot("evil")})
    refused(shop, "approval-missing")


def test_an_unapproved_policy_pushed(shop: Shop) -> None:
    shop.lone("dave", {"policies/strict.yaml": b"allow"})
    refused(shop, "approval-missing")


def test_an_expired_key_cannot_date_itself_back(shop: Shop) -> None:
    data = trust_bytes(2).replace(
        b"emails:\n      - dave@example.com", b"validBefore: '2026-01-05T10:00:00Z'\n      emails: []"
    )
    assert b"validBefore" in data
    shop.lone("olga", signed_trust(data, 2, "olga", "otto"), at=START + timedelta(hours=2))
    assert shop.state.trust.version == 2
    shop.lone("dave", {"README.md": b"x"}, at=START)
    refused(shop, "key-expired")


def test_a_commit_a_merge_brings_must_be_signed_and_allowed(shop: Shop) -> None:
    side = shop.branch(None, {PROD: slot("evil")})
    shop.merge("rita", shop.branch("dave", {"releases/r2.yaml": b"x"}, base=side))
    refused(shop, "unsigned")
    other = Shop()
    other.land("ollie", "rita", {PROD: slot("evil")})
    refused(other, "path-denied")


def test_a_change_undone_on_the_branch_still_needs_the_right(shop: Shop) -> None:
    side = shop.branch("ollie", {"policies/strict.yaml": b"allow"})
    side = shop.branch("ollie", {"policies/strict.yaml": b"deny"}, base=side)
    shop.merge("rita", side)
    refused(shop, "path-denied")


def test_names_that_imitate_fixed_paths(shop: Shop) -> None:
    wide = Shop(paths=[{"match": "**", "write": "developers"}])
    for path in ("Trust/trust.yaml", "PROMOTIONS/prod.yaml", "promotions/pr\u043ed.yaml", "Lockgate.yaml"):
        wide.judge(wide.history.write([wide.genesis], {path: b"x"}, by="dave"))
        refused(wide, "path-ambiguous")


def test_gitattributes_in_any_directory_is_the_owners(shop: Shop) -> None:
    shop.land("dave", "rita", {"releases/.gitattributes": b"* filter=x"})
    refused(shop, "path-denied")


# --- approvals ----------------------------------------------------------------------------------------------


def test_self_approval_by_the_merge_of_ones_own_branch(shop: Shop) -> None:
    shop.land("rita", "rita", {PROD: slot("evil")})
    refused(shop, "self-approval")
    assert "rita" in shop.state.steps[-1].signers


@pytest.mark.parametrize("how", ["header", "co-author", "name"])
def test_self_approval_of_work_signed_by_a_colleague(shop: Shop, how: str) -> None:
    more = {
        "header": {"author": "Somebody", "email": "RITA@example.com"},
        "co-author": {"message": "Change\n\nCo-Authored-By: R. <rita@example.com>"},
        "name": {"author": "Rita", "email": "else@example.com"},
    }[how]
    shop.merge("rita", shop.branch("dave", {PROD: slot("evil")}, **more))
    refused(shop, "self-approval")


def test_an_approver_outside_the_role(shop: Shop) -> None:
    shop.land("dave", "ollie", {PROD: slot("evil")})
    refused(shop, "approver-not-in-role")
    other = Shop()
    other.land("dave", "olga", {"policies/strict.yaml": b"allow"})
    refused(other, "approver-not-in-role")


def test_an_unsigned_squash_by_the_host_or_one_signed_by_its_key(shop: Shop) -> None:
    shop.lone("host", {PROD: slot("evil")})
    refused(shop, "signer-unknown")


def test_a_role_that_needs_more_than_one_approval() -> None:
    paths = [{"match": PROD, "write": "developers", "approvals": {"reviewers": 2}}]
    shop = Shop(paths=paths)
    shop.land("dave", "rita", {PROD: slot("r1")})
    refused(shop, "approval-missing")
    assert "1 of reviewers" in shop.state.steps[-1].expected


def test_a_merge_from_another_clone_in_trailer_mode() -> None:
    shop = Shop(mergeApproval="trailer")
    shop.land("dave", "rita", {PROD: slot("r1")})
    refused(shop, "approval-missing")
    again = Shop(mergeApproval="trailer")
    side = again.branch("dave", {PROD: slot("r1")})
    again.merge("rita", side, message="Merge\n\nLockgate-Approve: other refs/heads/main")
    refused(again, "approval-missing")
    good = Shop(mergeApproval="trailer")
    side = good.branch("dave", {PROD: slot("r1")})
    good.merge("rita", side, message="Merge\n\nLockgate-Approve: shop refs/heads/main")
    assert good.state.newly[0].approvals == ("rita",)


def test_an_approval_before_the_lock_exists_binds_nothing(shop: Shop) -> None:
    """Release and promotion in one merge: nobody approves digests that did not exist."""
    state = shop.land("dave", "rita", {"releases/r2.yaml": b"r2", PROD: slot("r2")})
    (step,) = state.newly
    assert step.approvals == ("rita",) and step.locked == ()


# --- merges -------------------------------------------------------------------------------------------------


def test_a_stale_side_merge_drops_a_stricter_policy(shop: Shop) -> None:
    side = shop.branch("dave", {"releases/r2.yaml": b"x"})
    shop.land("dina", "ruth", {"policies/strict.yaml": b"deny more"})
    stale = shop.history.trees[side]["policies/strict.yaml"]
    tree = {**shop.history.trees[shop.tip], "policies/strict.yaml": stale}
    tree["releases/r2.yaml"] = shop.history.trees[side]["releases/r2.yaml"]
    shop.judge(shop.history.write([shop.tip, side], by="rita", tree=tree))
    refused(shop, "merge-side-dropped")


def test_a_merge_that_drops_what_the_branch_brought(shop: Shop) -> None:
    side = shop.branch("dave", {"policies/strict.yaml": b"deny more"})
    shop.judge(shop.history.write([shop.tip, side], by="rita", tree=shop.history.trees[shop.tip]))
    refused(shop, "merge-side-dropped")


def test_a_stale_side_hidden_in_an_inner_merge(shop: Shop) -> None:
    """The branch merges main and keeps its own old policy: seen from main, only the branch changed it."""
    side = shop.branch("dave", {"releases/r2.yaml": b"x"})
    shop.land("dina", "ruth", {"policies/strict.yaml": b"deny more"})
    inner = shop.history.write([side, shop.tip], by="dave", tree=shop.history.trees[side])
    shop.merge("rita", inner)
    refused(shop, "merge-side-dropped")


def test_content_smuggled_into_an_inner_merge(shop: Shop) -> None:
    side = shop.branch("dave", {"releases/r2.yaml": b"x"})
    shop.land("dina", "ruth", {"policies/other.yaml": b"x"})
    inner = shop.history.merge(side, shop.tip, by="dave", set_={"trust/layout.json": b"{}"})
    shop.merge("rita", inner)
    refused(shop, "evil-merge")


def test_a_branch_that_took_main_over_is_nobodys_work_but_its_own(shop: Shop) -> None:
    side = shop.branch("dave", {"releases/r2.yaml": b"x"})
    shop.land("dina", "ruth", {"policies/other.yaml": b"x"})
    inner = shop.history.merge(side, shop.tip, by="dave")
    state = shop.merge("rita", inner)
    assert state.accepted == shop.tip and state.newly[0].authors == {"dave"}


def test_an_evil_merge(shop: Shop) -> None:
    side = shop.branch("dave", {"releases/r2.yaml": b"x"})
    shop.merge("rita", side, set_={PROD: slot("evil")})
    refused(shop, "evil-merge")


def test_who_decides_a_conflict_is_its_author(shop: Shop) -> None:
    side = shop.branch("dave", {PROD: slot("r1") + b"# a\n"})
    shop.land("dina", "ruth", {PROD: slot("r1") + b"# b\n"})
    decided = {PROD: slot("r1") + b"# a and b\n"}
    shop.judge(shop.history.merge(shop.tip, side, by="rita", set_=decided))
    refused(shop, "self-approval")
    other = shop.history.first_parents(shop.tip, shop.genesis)[-2].id
    shop.judge(shop.history.merge(other, side, by="ruth", set_=decided))
    refused(shop, "path-denied")


def test_octopus_and_several_bases(shop: Shop) -> None:
    sides = [shop.branch("dave", {f"releases/o{n}.yaml": b"x"}) for n in range(2)]
    shop.judge(shop.history.write([shop.tip, *sides], by="rita"))
    refused(shop, "merge-bases")

    other = Shop()
    one = other.branch("dave", {"releases/a.yaml": b"x"})
    other.lone("dave", {"releases/b.yaml": b"x"})
    crossed = other.history.merge(one, other.tip, by="dave")
    other.merge("rita", one)
    assert other.state.refused == ()
    other.judge(other.history.write([other.tip, crossed], by="rita"))
    refused(other, "merge-bases")


def test_unrelated_histories(shop: Shop) -> None:
    alien = shop.history.write([], {"releases/x.yaml": b"x"}, by="dave")
    shop.judge(shop.history.write([shop.tip, alien], {"releases/x.yaml": b"x"}, by="rita"))
    refused(shop, "merge-bases")


def test_a_foxtrot_fast_forward(shop: Shop) -> None:
    side = shop.branch("dave", {PROD: slot("evil")}, base=shop.genesis)
    with pytest.raises(Refused) as error:
        shop.judge(shop.history.merge(side, shop.tip, by="dave"))
    assert error.value.code == "main-not-first-parent"


def test_a_force_push(shop: Shop) -> None:
    with pytest.raises(Refused) as error:
        shop.judge(shop.history.write([shop.genesis], {"README.md": b"x"}, by="dave"))
    assert error.value.code == "main-rewound"
