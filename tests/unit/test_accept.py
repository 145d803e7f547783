"""Judging main: every attack on it that design/trust.md rules 6, 7, 9 and 10 name, performed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.core.accept import MainState, genesis_state, judge_main, resume_state
from controller.errors import Refused
from controller.model.history import TreeFile
from controller.model.trustroot import TrustRoot
from tests.support.history import START, SimHistory, ssh_key
from tests.support.shop import Shop, signed_trust, slot, trust_bytes, trust_document

PROD = "promotions/prod.yaml"


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.land("dave", "rita", {"policies/strict.yaml": b"deny", "releases/r1.yaml": b"r1"})
    lock = b"locked r1"
    shop.evidence.locks.add(("releases/r1.lock.yaml", hashlib.sha256(lock).hexdigest()))
    shop.lone("controller", {"releases/r1.lock.yaml": lock})
    shop.land("dave", "rita", {PROD: slot("r1")})
    assert shop.state.refused == () and shop.state.accepted == shop.tip
    return shop


def refused(shop: Shop, code: str) -> None:
    """The last step was refused with this code, main stands still, and the words are all there."""
    step = shop.state.steps[-1]
    assert step.refused == code, step
    assert shop.state.accepted != shop.tip
    assert shop.state.refused[-1].commit == shop.tip
    assert step.message and step.where and step.expected and step.got and step.cure
    assert step.approvals == ()


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


# --- locks and the controller's own commits -----------------------------------------------------------------


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


# --- standing still and being cured -------------------------------------------------------------------------


def test_main_stands_still_and_a_reviewers_lone_revert_sets_it_going(shop: Shop) -> None:
    before, accepted = shop.history.trees[shop.tip], shop.tip
    shop.lone(None, {PROD: slot("evil"), "elsewhere/x": b"x"})
    bad = shop.tip
    shop.lone("dina", {"README.md": b"meanwhile"})
    assert shop.state.accepted == accepted and shop.state.steps[-1].refused is None
    restored = {PROD: shop.history.blobs[before[PROD].blob], "elsewhere/x": None}
    shop.lone("rita", restored)
    state = shop.state
    assert state.accepted == shop.tip and state.refused == () and state.pending == ()
    assert state.newly[-1].cured == (bad,)
    assert [step.refused for step in state.newly] == ["unsigned", None, None]
    assert shop.accepted_file("README.md") == b"meanwhile"


def test_a_reviewers_merge_of_somebody_elses_revert_cures(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip][PROD].blob]
    shop.land("dave", "dave", {PROD: slot("evil")})
    refused(shop, "self-approval")
    shop.land("dave", "rita", {PROD: good})
    assert shop.state.accepted == shop.tip and len(shop.state.newly[-1].cured) == 1


def test_an_author_of_the_refused_commit_does_not_cure_it(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip][PROD].blob]
    shop.land("rita", "rita", {PROD: slot("evil")})
    shop.lone("rita", {PROD: good})
    refused(shop, "approval-missing")
    shop.lone("ruth", {"README.md": b"x"})
    refused(shop, "path-denied")


def test_a_header_that_names_every_reviewer_does_not_make_a_commit_incurable(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip][PROD].blob]
    everybody = "x\n\n" + "\n".join(f"Co-authored-by: x <{name}@example.com>" for name in ("rita", "ruth"))
    shop.lone(None, {PROD: slot("evil")}, message=everybody)
    shop.lone("rita", {PROD: good})
    assert shop.state.accepted == shop.tip


def test_a_partial_revert_does_not_set_main_going(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip][PROD].blob]
    shop.lone(None, {PROD: slot("evil"), "policies/strict.yaml": b"allow"})
    shop.lone("rita", {PROD: good})
    assert shop.code() is None and shop.state.accepted != shop.tip
    shop.lone("ruth", {"policies/strict.yaml": b"deny"})
    assert shop.state.accepted == shop.tip


def test_a_developer_cannot_cure_prod(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip][PROD].blob]
    shop.lone(None, {PROD: slot("evil")})
    shop.lone("dave", {PROD: good})
    refused(shop, "approval-missing")
    shop.lone("dave", {"README.md": b"x"})
    assert shop.code() is None and shop.state.accepted != shop.tip
    shop.lone("rita", {"README.md": b"y"})
    assert shop.state.accepted == shop.tip


def test_a_restoring_commit_that_changes_something_else_is_judged_for_that(shop: Shop) -> None:
    good = shop.history.blobs[shop.history.trees[shop.tip][PROD].blob]
    shop.lone(None, {PROD: slot("evil")})
    shop.lone("rita", {PROD: good, "policies/strict.yaml": b"allow"})
    refused(shop, "approval-missing")


def test_a_restored_lock(shop: Shop) -> None:
    shop.lone("dave", {"releases/r1.lock.yaml": b"evil"})
    shop.lone("rita", {"releases/r1.lock.yaml": b"locked r1"})
    assert shop.state.accepted == shop.tip


def test_a_merge_while_main_stands_still_approves_nothing(shop: Shop) -> None:
    shop.lone(None, {"policies/strict.yaml": b"allow"})
    shop.land("dave", "rita", {PROD: slot("r2")})
    step = shop.state.steps[-1]
    assert step.refused is None and step.standing and step.approvals == () and step.locked == ()
    shop.lone("rita", {"policies/strict.yaml": b"deny"})
    assert shop.state.accepted == shop.tip
    assert [step.standing for step in shop.state.newly] == [False, True, True]


def test_a_mode_change_is_a_change(shop: Shop) -> None:
    tree = dict(shop.history.trees[shop.tip])
    tree[PROD] = TreeFile(tree[PROD].blob, 0o120000)
    shop.judge(shop.history.write([shop.tip], by=None, tree=tree))
    shop.lone("rita", {"README.md": b"x"})
    assert shop.state.accepted != shop.tip


def test_a_tree_that_cannot_be_read_is_cured_only_by_an_equal_tree(shop: Shop) -> None:
    tree = shop.history.trees[shop.tip]
    bad = shop.history.write([shop.tip], {PROD: slot("evil")}, by="dave")
    shop.history.broken.add(bad)
    shop.judge(bad)
    assert shop.code() == "tree-malformed"
    shop.lone("rita", {"README.md": b"x"})
    assert shop.state.accepted != shop.tip
    back = shop.history.write([shop.tip], {PROD: shop.history.blobs[tree[PROD].blob]}, by="rita")
    shop.judge(back)
    refused(shop, "approval-missing")


def test_taken_away_by_force_the_refused_commit_is_gone(shop: Shop) -> None:
    accepted = shop.tip
    shop.lone(None, {PROD: slot("evil")})
    shop.judge(accepted)
    assert shop.state.refused == () and shop.state.accepted == accepted


def test_pending_commits_are_judged_once(shop: Shop) -> None:
    shop.lone(None, {"README.md": b"x"})
    for number in range(5):
        shop.lone("dina", {"releases/x.yaml": b"%d" % number})
        assert len(shop.state.steps) == 1 and len(shop.state.pending) == number + 2


def test_an_acknowledged_refusal_goes_on_but_never_over_trust(shop: Shop) -> None:
    shop.lone(None, {"README.md": b"x"})
    shop.terms = replace(shop.terms, acknowledged={shop.tip: shop.state.refused[0].refused or ""})
    assert shop.judge().accepted == shop.tip
    shop.lone(None, {"trust/trust.yaml": trust_bytes(2)})
    shop.terms = replace(shop.terms, acknowledged={shop.tip: "trust-quorum"})
    shop.judge()
    assert shop.state.accepted != shop.tip and shop.state.trust.version == 1


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


def test_times_are_utc() -> None:
    assert datetime(2026, 1, 5, 9, tzinfo=UTC) == START and ssh_key("a") != ssh_key("b")


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
