"""`trust layout`: owners make and sign the in-toto layout; approvers sign the link of their step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.attest.layout import signed_by
from controller.demo.stage import release_file
from controller.ledger.links import envelope_of, sign_link
from controller.model.link import LAYOUT_PATH, approve_link, link_name
from controller.wiring.people import commit_on, merge_branch
from tests.integration.test_trust_change import Shop
from tests.support.stock import payload_of

OWNERS = ("olivia", "oscar")


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.controller()
    yield made
    made.repo.close()


def layout_at(shop: Shop, ref: str, path: str = LAYOUT_PATH) -> dict[str, object]:
    return dict(payload_of(shop.git("show", f"{ref}:{path}").encode()))


def steps(layout: dict[str, object]) -> dict[str, tuple[int, int]]:
    """Step → (how many may sign, how many must)."""
    found = layout["steps"]
    assert isinstance(found, list)
    return {step["name"]: (len(step["pubkeys"]), step["threshold"]) for step in found}


def test_a_new_project_has_a_layout_that_its_owners_signed(shop: Shop) -> None:
    keys = {shop.person(name).signer.public_key: name for name in OWNERS}  # type: ignore[union-attr]
    data = shop.git("show", f"main:{LAYOUT_PATH}").encode()
    assert signed_by(data, keys) == list(OWNERS)
    assert steps(layout_at(shop, "main"))["deploy"] == (3, 1)
    shop.verifies()


def test_owners_make_it_again_one_after_the_other(shop: Shop) -> None:
    asked = ("trust", "layout", "--agents", "2", "--approvers", "reviewers", "--key")
    first = shop.ask("trust-layout", *asked, shop.key("olivia"))
    assert (first["path"], first["branch"]) == (LAYOUT_PATH, "trust-layout")
    assert (first["signedBy"], first["needed"]) == (["olivia"], 2)
    second = shop.ask("trust-layout", "trust", "layout", "--countersign", "--key", shop.key("oscar"))
    assert second["signedBy"] == list(OWNERS)
    again = shop.ask("trust-layout", *asked, shop.key("olivia"))
    assert again["signedBy"] == list(OWNERS)
    found = steps(layout_at(shop, "trust-layout"))
    assert (found["deploy"], found["approve"], found["seal"]) == ((3, 2), (2, 1), (1, 1))

    one = shop.ask("trust-layout", "trust", "layout", "--environment", "prod", "--key", shop.key("oscar"))
    assert one["path"] == "trust/layout/prod.json" and one["signedBy"] == ["oscar"]
    assert steps(layout_at(shop, "trust-layout", one["path"]))["deploy"] == (1, 1)


def test_it_is_written_to_a_file_as_well(shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "audit" / "layout.json"
    words = ("trust", "layout", "--expires", "2027-01-01T00:00:00+02:00", "--out", str(out), "--key")
    made = shop.ask("trust-layout", *words, shop.key("olivia"))
    assert (made["path"], made["commit"], made["signedBy"]) == (str(out), None, ["olivia"])
    assert shop.ask("trust-layout", *words, shop.key("oscar"))["signedBy"] == list(OWNERS)
    assert payload_of(out.read_bytes())["expires"] == "2026-12-31T22:00:00Z"

    # Two owners: one brings the file that both signed, the other merges it.
    commit_on(shop.repo, "layout", shop.person("olivia"), {LAYOUT_PATH: out.read_bytes()}, "Renew the layout")
    assert shop.ask("merge", "merge", "layout", "--key", shop.key("oscar"))["accepted"] is True
    shop.controller()
    shop.verifies()


def test_what_cannot_be_is_said(shop: Shop, tmp_path: Path) -> None:
    key = ("--key", shop.key("olivia"))
    shop.fails("not-an-owner", "trust", "layout", "--key", shop.key("alice"))
    shop.fails("layout-threshold", "trust", "layout", "--agents", "4", *key)
    shop.fails("layout-threshold", "trust", "layout", "--approvers", "reviewers", "--approvals", "3", *key)
    shop.fails("role-unknown", "trust", "layout", "--approvers", "nobody", *key)
    shop.fails("environment-unknown", "trust", "layout", "--environment", "moon", *key)
    shop.fails("time-malformed", "trust", "layout", "--expires", "tomorrow", *key)
    shop.fails("layout-missing", "trust", "layout", "--countersign", "--out", str(tmp_path / "none"), *key)
    (tmp_path / "bad.json").write_text("{}")
    shop.fails("layout-malformed", "trust", "layout", "--countersign", "--out", str(tmp_path / "bad.json"), *key)


def test_an_approval_brings_its_authors_link(shop: Shop) -> None:
    repo, release = shop.repo, {"releases/shop-1.0.0.yaml": release_file("shop-1.0.0", "1.0.0")}
    commit_on(repo, "release", shop.person("alice"), release, "Release")
    merge_branch(repo, "release", shop.person("bob"), into="main", message="Merge branch 'release'")
    shop.controller()
    reason = ["--reason", "because", "--key"]
    made = shop.ask("promote", "promote", "staging", "shop-1.0.0", *reason, shop.key("alice"))
    shop.ask("merge", "merge", made["branch"], "--key", shop.key("bob"))
    shop.controller()
    shop.ask("request", "approve", "staging", *reason, shop.key("carol"))
    shop.controller()
    shop.ask("request", "abort", "staging", *reason, shop.key("olga"))
    shop.controller()
    listed = shop.git("ls-tree", "-r", "--name-only", "lockgate/evidence", "runs/staging").splitlines()
    entries = [path for path in listed if path.endswith("-approval.dsse.json")]
    found = [payload_of(shop.git("show", f"lockgate/evidence:{path}").encode())["predicate"] for path in entries]
    carol = shop.person("carol").signer
    assert carol is not None
    (link,) = [one["detail"]["link"] for one in found if one["detail"]["principal"] == "carol"]
    payload = approve_link(found[0]["detail"]["subject"])
    assert link == sign_link(payload, carol).model_dump()
    (path,) = [path for path in listed if path.endswith(link_name("approve", link["keyid"]))]
    stored = shop.git("show", f"lockgate/evidence:{path}")
    assert json.loads(stored) == json.loads(envelope_of(payload, sign_link(payload, carol)))
    assert not any("/links/verify." in name for name in listed)
    shop.verifies()
