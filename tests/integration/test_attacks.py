"""Which test performs each attack of the trust page's list: none may be missing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ATTACKS = {
    "order by unlisted key": "integration/test_agent_process.py::test_orders_of_others_are_refused",
    "same trust, new root": "unit/test_accept_trust.py::test_the_same_trust_under_another_root",
    "an agent under another root": "integration/test_agent_process.py::"
    "test_an_agent_of_another_root_takes_nothing",
    "developer moves a prod agent to dev": "integration/test_moved_agent.py::"
    "test_a_developer_moves_an_agent_of_prod_to_dev",
    "foxtrot fast-forward": "integration/test_guard.py::test_a_foxtrot_fast_forward",
    "force push with an emptied state": "integration/test_repair.py::"
    "test_a_branch_cut_before_a_lock_on_main_is_told_without_memory",
    "unapproved policy pushed": "integration/test_guard.py::test_an_unapproved_policy",
    "release and promotion in one merge": "unit/test_accept.py::"
    "test_an_approval_before_the_lock_exists_binds_nothing",
    "stolen controller key orders an unapproved digest": "integration/test_thief_at_agents.py::"
    "test_a_stolen_key_deploys_nothing_that_nobody_approved",
    "existing lock edited": "integration/test_guard.py::test_locks_are_written_once",
    "controller reverts without a failed run": "integration/test_guard.py::"
    "test_the_stolen_key_of_the_controller_reverts_nothing",
    "freeze during a pause, then resume": "scenarios/resume_is_refused_during_a_freeze.txt",
    "stale-side merge drops a stricter policy": "integration/test_guard.py::test_a_stale_side_that_drops_a_policy",
    "host-signed squash as approval": "unit/test_accept.py::"
    "test_an_unsigned_squash_by_the_host_or_one_signed_by_its_key",
    "merge from another clone": "unit/test_accept.py::test_a_merge_from_another_clone_in_trailer_mode",
    "unsigned commit on evidence": "integration/test_repair.py::test_foreign_commits_are_removed_forward",
    "evidence deleted": "integration/test_repair.py::test_evidence_deleted",
    "judged requests taken away": "integration/test_repair.py::test_requests_that_were_judged_are_taken_away",
    "a second genesis": "integration/test_verify_answers.py::test_a_branch_begins_once",
    "entries dated ahead": "integration/test_verify_answers.py::test_entries_that_are_ahead_of_the_auditors_clock",
    "a used restart once more": "integration/test_restart.py::test_a_restart_is_used_once",
    "an old restart": "integration/test_restart.py::test_a_restart_ends_after_its_days",
    "longer forked log": "integration/test_log_at_agents.py::test_another_history_than_before_is_refused",
    "controller restored from an old clone": "integration/test_transparency.py::"
    "test_a_controller_restored_from_an_old_clone",
    "two agents shown two logs": "integration/test_log_at_agents.py::test_two_agents_shown_two_logs",
    "late request": "integration/test_guard.py::test_requests_that_would_be_refused",
    "dev operator aborts prod": "unit/test_requests.py::test_an_action_out_of_scope",
    "restored agent gets an old order": "integration/test_http_hub.py::"
    "test_deliveries_that_were_not_made_for_this_poll_are_refused",
    "clock a day ahead": "integration/test_clock_skew.py::"
    "test_a_controller_whose_clock_is_a_day_ahead_records_nothing",
    "one key for two agents": "unit/test_agent_keys.py",
    "trust n+1 without n's quorum": "integration/test_guard.py::test_trust_without_its_quorum",
    "slot back to n-3": "scenarios/a_downgrade_is_refused.txt",
    "duplicate tree entry": "integration/test_guard.py::test_trees_and_commits_that_are_not_what_git_writes",
    "evidence moved, edited, symlinked": "property/test_mutations.py::test_every_mutation_is_found",
    "shallow clone": "integration/test_verify.py::test_a_shallow_clone_is_refused",
    "CEL bomb": "scenarios/a_gate_is_too_costly.txt",
    "key swapped under a known key id": "integration/test_verify.py::test_tampering_is_found",
    "reviewer's key under the controller's name": "integration/test_guard.py::test_evidence_under_other_keys",
    "rewritten by the controller's own key": "property/test_mutations.py::test_every_mutation_is_found",
    "approval transplanted to another subject": "integration/test_verify_orders.py::"
    "test_an_order_needs_the_approvals_that_were_asked_for",
    "approval that ran out": "integration/test_verify_orders.py::"
    "test_an_approval_that_ran_out_before_the_order_is_none",
    "back-dating key": "integration/test_controller_keys.py::test_an_ended_key_cannot_date_its_way_back",
    "whole run replayed under another number": "integration/test_verify_answers.py::"
    "test_a_whole_run_is_told_again_under_another_number",
    "an abort turned down without a reason": "integration/test_verify_answers.py::"
    "test_an_abort_that_is_turned_down_without_a_reason",
    "a request granted and not carried out": "integration/test_verify_answers.py::"
    "test_a_request_that_is_granted_and_not_carried_out",
    "a good commit of main kept out": "integration/test_verify_answers.py::"
    "test_a_good_commit_of_main_that_is_turned_down",
    "a path that is no text": "integration/test_hostile_words.py::"
    "test_a_path_that_is_no_text_is_refused_like_any_other",
    "words that steer a terminal": "integration/test_hostile_words.py::test_reasons_are_one_line_each",
    "a byte changed in what was verified before": "integration/test_verify_cache.py::"
    "test_a_byte_that_rots_in_the_verified_past_is_found",
    "completed without a verification": "integration/test_verify.py::test_tampering_is_found",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_has_its_test(attack: str) -> None:
    name, _, function = ATTACKS[attack].partition("::")
    path = TESTS / name
    assert path.is_file()
    if function:
        defined = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        assert function in defined
