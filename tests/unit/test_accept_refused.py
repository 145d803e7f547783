"""Judging main: it stands still before what was refused, until a reviewer takes it back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.model.history import TreeFile
from tests.support.shop import PROD, Shop, opened, refused, slot, trust_bytes


@pytest.fixture
def shop() -> Shop:
    return opened()


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
