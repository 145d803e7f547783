"""What a push may do to refs by their names alone."""

from __future__ import annotations

import pytest

from controller.core.incoming import RefUpdate, check_names, check_ref, read_updates
from controller.errors import Refused, UsageError
from controller.model.trustroot import RootRefs

REFS = RootRefs()
OID, NONE = "a" * 40, "0" * 40


def code(ref: str, new: str | None = OID) -> str:
    try:
        check_ref(RefUpdate(ref, None, new), REFS)
    except Refused as error:
        return error.code
    return ""


@pytest.mark.parametrize("ref", [REFS.main, REFS.requests, REFS.evidence])
def test_the_three_are_judged_and_never_deleted(ref: str) -> None:
    assert check_ref(RefUpdate(ref, OID, OID), REFS)
    assert code(ref, None).endswith("-rewound")


@pytest.mark.parametrize(
    "ref",
    [
        "refs/tags/main",
        "refs/main",
        "refs/heads/MAIN",
        "refs/heads/main/x",
        "refs/heads/refs/heads/main",
        "refs/tags/lockgate/requests",
        "refs/heads/lockgate",
        "refs/heads/Lockgate",
        "refs/heads/lockgate/evidence/2",
    ],
)
def test_names_that_could_be_taken_for_one_of_the_three(ref: str) -> None:
    assert code(ref) == "ref-shadows"
    assert code(ref, None) == "", "it may go"


@pytest.mark.parametrize("ref", ["refs/heads/maintenance", "refs/heads/lockgate/x", "refs/tags/v1"])
def test_other_names_are_free(ref: str) -> None:
    assert code(ref) == code(ref, None) == ""


def test_replacements_are_refused() -> None:
    assert code(f"refs/replace/{OID}") == "history-incomplete"


def test_all_of_a_push_is_looked_at() -> None:
    lines = [f"{NONE} {OID} refs/tags/main", f"{OID} {NONE} refs/heads/main", f"{NONE} {OID} {REFS.requests}", ""]
    refused, rest = check_names(read_updates(lines), REFS)
    assert [error.code for error in refused] == ["ref-shadows", "main-rewound"]
    assert rest == (RefUpdate(REFS.requests, None, OID),)


@pytest.mark.parametrize("line", ["x", f"{OID} {OID}", f"{OID} {OID} main", f"{OID[:39]} {OID} refs/heads/main"])
def test_what_git_does_not_say_is_an_error(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_updates([line])
    assert caught.value.code == "guard-input"
