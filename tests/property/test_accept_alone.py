"""Whatever a developer without a reviewer's key does to main, the accepted prod slot stays what it was."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.errors import Refused
from tests.support.history import TreeFile
from tests.support.shop import Shop, slot, trust_bytes

PROD = "promotions/prod.yaml"
GOOD = slot("good")
PATHS = (
    PROD,
    "releases/r.yaml",
    "policies/p.yaml",
    "README.md",
    "trust/trust.yaml",
    "releases/r.lock.yaml",
    "x/y",
)
CONTENT = (GOOD, slot("evil"), b"other", None, trust_bytes(2))
# dave signs; or nobody, a stranger, or a forged signature. Author headers may say anything.
SIGNERS = st.sampled_from(["dave", "dave", "dave", None, "mallory", "forged"])
AUTHORS = st.sampled_from(["dave", "rita", "olga", "controller"])
FILES = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(CONTENT), max_size=3)
STEP = st.tuples(
    st.sampled_from(["lone", "side", "merge", "merge-tree", "foxtrot", "rewind", "octopus"]),
    SIGNERS,
    AUTHORS,
    FILES,
    st.integers(0, 50),
    st.integers(0, 50),
)


def write(
    shop: Shop, parents: list[str], by: str | None, author: str, files: dict[str, bytes | None], **more: Any
) -> str:
    forged = by == "forged"
    return shop.history.write(
        parents,
        files,
        by="rita" if forged else by,
        signature="bad" if forged else None,
        author=author,
        message="Change\n\nLockgate-Approve: shop refs/heads/main\nLockgate-Run: prod-1-aaaaaaaa",
        **more,
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=1, max_size=8))
def test_a_developer_alone_never_changes_accepted_prod(steps: list[Any]) -> None:
    shop = Shop()
    shop.land("dave", "rita", {PROD: GOOD, "policies/p.yaml": b"deny", "releases/r.yaml": b"r"})
    commits = list(shop.history.commits)
    started = shop.state
    for kind, by, author, files, one, two in steps:
        first, second = commits[one % len(commits)], commits[two % len(commits)]
        tip = shop.tip
        if kind == "lone":
            tip = write(shop, [tip], by, author, files)
        elif kind == "side":
            commits.append(write(shop, [first], by, author, files))
            continue
        elif kind == "merge":
            bases = shop.history.merge_bases(tip, second)
            if len(bases) != 1:
                continue
            merged: dict[str, TreeFile] = shop.history.trees[
                shop.history.merge(tip, second, by="dave", message="probe")
            ]
            tip = write(shop, [tip, second], by, author, files, tree=merged)
        elif kind == "merge-tree":
            tip = write(shop, [tip, second], by, author, files, tree=shop.history.trees[first])
        elif kind == "foxtrot":
            tip = write(shop, [second, tip], by, author, files)
        elif kind == "rewind":
            tip = first
        else:
            tip = write(shop, [tip, first, second], by, author, files)
        commits.append(tip)
        try:
            shop.judge(tip)
        except Refused as error:
            assert error.code in ("main-rewound", "main-not-first-parent")
            shop.tip = shop.state.pending[-1].commit if shop.state.pending else shop.state.accepted
            continue
        assert shop.accepted_file(PROD) == GOOD
        assert shop.accepted_file("policies/p.yaml") == b"deny"
        assert shop.state.trust == started.trust
        assert shop.accepted_file("trust/trust.yaml") == trust_bytes()
        for step in shop.state.newly:
            assert step.approvals in ((), ("dave",))
