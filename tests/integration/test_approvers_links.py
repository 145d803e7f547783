"""The approvers' own in-toto links, where the layout demands them: by merge, by plain git, and by a request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.model.entry import Approval
from controller.model.keys import key_id
from controller.model.link import link_name
from controller.wiring.people import commit_on, merge_branch
from tests.integration.test_approval_flow import Shop, opened
from tests.support.flow import environment, strategy
from tests.support.home import PATHS, Home
from tests.support.stock import checkout, in_toto_verify, pem, sealed_folders
from tests.support.waiting import until

STAGE = "    - {percent: 100, minHealthyTime: 200ms, deadline: 60s}\n"
LAYOUT = "trust/layout/prod.json"


def demand(shop: Shop, *words: str, path: str = LAYOUT, branch: str = "demand") -> Path:
    """Both owners sign a layout of prod, and it lands on main."""
    out = shop.stage.folder / f"{branch}.json"
    for owner in ("olivia", "oscar"):
        shop.say("trust", "layout", "--environment", "prod", "--out", str(out), *words, by=owner)
    commit_on(shop.flow.people, branch, shop.stage.person("olivia"), {path: out.read_bytes()}, "Lay out prod")
    merge_branch(shop.flow.people, branch, shop.stage.person("oscar"), into="main", message=f"Merge {branch}")
    return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    files = {
        "strategies/prod.yaml": strategy("prod", STAGE),
        "environments/prod.yaml": environment("prod", approvals={"count": 1, "roles": {"reviewers": 1}}),
    }
    with opened(tmp_path_factory.mktemp("links"), files) as made:
        yield made


def run_of(shop: Shop, release: str) -> str:
    return str(shop.flow.ends("prod", release, "completed")["lastRun"]["run"])


def approvals(shop: Shop, run: str) -> list[dict[str, Any]]:
    found = [entry for entry in shop.flow.entries() if entry.get("run") == run]
    return [entry["detail"] for entry in found if entry["path"].endswith("-approval.dsse.json")]


def stock(shop: Shop, run: str, layout: Path, without: str = "") -> int:
    """What in-toto-verify says of a run in a clean checkout, `without` the link of somebody."""
    folder = sealed_folders(shop.stage.origin)[run]
    place = shop.stage.folder / f"audit-{run}-{layout.stem}-{without}"
    checkout(shop.stage.origin, folder, place)
    if without:
        signer = shop.stage.person(without).signer
        assert signer is not None
        (place / folder / link_name("approve", key_id(signer.public_key))).unlink()
    keys = []
    for owner in ("olivia", "oscar"):
        signer = shop.stage.person(owner).signer
        assert signer is not None
        keys.append(pem(shop.stage.folder / f"{owner}.pem", signer.public_key))
    return in_toto_verify(place, folder, layout, keys).returncode


def test_a_merge_brings_the_link_that_the_layout_demands(shop: Shop) -> None:
    layout = demand(shop, "--approvers", "reviewers")
    release = shop.lock("1.0.0")
    said = shop.say("merge", shop.promote(release), by="bob")
    assert "your in-toto link for prod-1-" in said and "is signed" in said
    run = run_of(shop, release)
    given = approvals(shop, run)
    assert [(one["principal"], one["via"], one["counted"]) for one in given] == [
        ("bob", "merge", True),
        ("bob", "request", True),
    ]
    assert stock(shop, run, layout) == 0
    assert stock(shop, run, layout, without="bob") != 0
    shop.flow.verify()


def test_a_merge_by_plain_git_waits_for_its_link(shop: Shop) -> None:
    """Two links are demanded and one approval: the second one is an approval and a link in one."""
    layout = demand(shop, "--approvers", "reviewers", "--approvals", "2", branch="two")
    release = shop.lock("1.1.0")
    branch = shop.promote(release)
    merge_branch(shop.flow.people, branch, shop.stage.person("bob"), into="main", message=f"Merge {branch}")
    waiting = until("it is said", lambda: shop.phase("awaiting_approval")["waitingFor"])[0]
    assert "2 in-toto links of approvers pending" in waiting and "bob approved by merge" in waiting
    why = shop.say("why", "prod")
    assert "link-pending" in why and "bob signs one: lockgate approve prod" in why

    said = shop.say("approve", "prod", "--reason", "my link", "--wait", "20s", by="bob")
    assert "accepted" in said
    assert "1 in-toto link of approvers pending" in shop.phase("awaiting_approval")["waitingFor"][0]
    said = shop.say("approve", "prod", "--reason", "again", "--wait", "20s", by="bob", fails=True)
    assert "already-approved" in said
    shop.say("approve", "prod", "--reason", "seen", "--wait", "20s", by="carol")
    run = run_of(shop, release)
    assert [one["principal"] for one in approvals(shop, run)] == ["bob", "bob", "carol"]
    assert stock(shop, run, layout) == 0
    for name in ("bob", "carol"):
        assert stock(shop, run, layout, without=name) != 0
    shop.flow.verify()


def test_a_link_still_counts_while_the_run_goes_on(shop: Shop) -> None:
    """Main's layout demands nothing; an auditor's own does."""
    auditors = demand(shop, "--approvers", "reviewers", path="trust/layout/other.json", branch="auditors")
    lax = demand(shop, branch="lax")
    release = shop.lock("1.2.0")
    shop.leave()
    shop.say("merge", shop.promote(release), by="bob")
    run = str(shop.phase("deploying")["run"])
    said = shop.say("approve", "prod", "--reason", "never approved it", "--wait", "20s", by="carol", fails=True)
    assert "action-not-safe" in said
    shop.say("approve", "prod", "--reason", "my link", "--wait", "20s", by="bob")
    shop.fresh()
    assert run_of(shop, release) == run
    assert stock(shop, run, auditors) == 0
    release = shop.lock("1.3.0")
    shop.say("merge", shop.promote(release), by="bob")
    unlinked = run_of(shop, release)
    assert stock(shop, unlinked, lax) == 0
    assert stock(shop, unlinked, auditors) != 0
    shop.flow.verify()


def test_nothing_is_ordered_without_the_links_that_the_layout_demands(tmp_path: Path) -> None:
    """A controller that does not wait for them is found out, as stock in-toto-verify refuses such a run."""
    from controller.adapters.attest.layout import make_layout
    from controller.model.layout import LayoutTerms

    paths = [{"match": "trust/layout.json", "write": "owners"}, *PATHS]
    home = Home(tmp_path, paths=paths)
    home.release("shop-1")
    agents = {name: signer.public_key for name, (_, signer) in home.story.agents.items()}
    keys = {name: (home.people[name].public_key,) for name in ("rita", "ruth")}
    terms = LayoutTerms("shop", {"controller": (home.controller.public_key,)}, agents, approvers=keys)
    layout = make_layout(terms, [home.people["olga"], home.people["otto"]])
    home.batch(home.story.run("dev", "shop-1"))
    home.batch([home.story.accepted(home.commit(home.root.refs.main, {"trust/layout.json": layout}, "olga"))])
    assert home.verify().findings == ()
    home.batch(home.approve(home.story.run("dev", "shop-1"), "rita"))
    assert home.verify().findings == ()
    unlinked = [
        draft.model_copy(update={"detail": draft.detail.model_copy(update={"link": None})})
        if isinstance(draft.detail, Approval)
        else draft
        for draft in home.approve(home.story.run("dev", "shop-1"), "rita")
    ]
    home.batch(unlinked)
    (finding,) = home.verify().findings
    assert finding.code == "order-without-approval"
    assert "1 of the approvers' links" in finding.message
