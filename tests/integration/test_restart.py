"""Evidence that was lost goes on under the owners' signatures and no other way (trust rule 14)."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.git import sshsig
from controller.adapters.git.keys import FileSigner
from controller.cli.app import run
from controller.core.restart import read_restart, restart_bytes
from controller.errors import Refused
from controller.ledger import append, log
from controller.ledger.append import load_log
from controller.model.restart import restart_path, restart_signature_path
from controller.model.trustroot import RootCheckpoint, TrustRoot
from controller.uses import restarting
from controller.uses.audit.restart_audit import MISMATCH, UNSIGNED
from controller.uses.restarting import RESTARTED
from controller.wiring.people import commit_on, merge_branch, now
from tests.support.flow import Flow
from tests.support.ordered import ordered
from tests.support.site import EVIDENCE, Site, quiet

MAIN = "refs/heads/main"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A release is locked, and a run in dev has ordered its deployment; then a second release is locked."""
    folder = tmp_path_factory.mktemp("origin")
    shop, site = ordered(folder)
    (folder / "early").write_text(site.tip())
    shop.image("1.1.0")
    shop.release("1.1.0")
    assert site.settle() == ""
    assert site.git("show", f"{MAIN}:releases/shop-1.1.0.lock.yaml")
    shop.people.close()
    return site


@pytest.fixture
def site(origin: Site, tmp_path: Path) -> Site:
    made = Site.copy(origin.stage, tmp_path)
    (tmp_path / "early").write_text((origin.stage.folder / "early").read_text())
    assert made.settle() == "", "the controller remembers the evidence now"
    return made


def early(site: Site) -> str:
    """The evidence that an old clone holds: the run is open, the second lock not recorded."""
    return (site.stage.folder / "early").read_text()


def says(site: Site, *words: str) -> tuple[int, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = run(["--repo", str(site.stage.origin), "-o", "json", *words])
    text = out.getvalue()
    return code, json.loads(text) if code == 0 else text


def restart(site: Site, who: str, *words: str) -> tuple[int, Any]:
    key, root = str(site.stage.keys / who), str(site.stage.trust_root)
    return says(site, "trust", "restart", *words, "--key", key, "--trust-root", root)


def proposed(site: Site, lost: str) -> dict[str, Any]:
    """olivia proposes, oscar signs too; what oscar is told."""
    code, value = restart(site, "olivia", "--reason", "the disk of the host died", "--lost", lost)
    assert code == 0, value
    assert value["signed"] == ["olivia"] and value["needed"] == 2
    code, value = restart(site, "oscar", "--countersign")
    assert code == 0 and value["signed"] == ["olivia", "oscar"], value
    return dict(value)


def merged(site: Site, branch: str, by: str = "oscar") -> None:
    code, value = says(site, "merge", branch, "--key", str(site.stage.keys / by))
    assert code == 0, value


def details(site: Site, kind: str) -> list[dict[str, Any]]:
    """Of the entries of a kind, the details."""
    flow = Flow.__new__(Flow)
    flow.stage = site.stage
    return [entry["detail"] for entry in flow.entries() if entry["kind"] == kind]


def listed(site: Site) -> list[str]:
    """What verification, which is clean, lists of restarts."""
    report = site.verify()
    assert report.verified, report.findings
    return [one.message for one in report.refused if one.code == RESTARTED]


def test_evidence_that_is_gone_begins_anew_when_owners_say_so(site: Site) -> None:
    lost = site.tip()
    site.git("update-ref", "-d", EVIDENCE)
    assert site.settle() == "evidence-missing"
    value = proposed(site, lost)
    assert value["evidence"] is None and value["locks"] == [
        "releases/shop-1.0.0.lock.yaml",
        "releases/shop-1.1.0.lock.yaml",
    ]
    assert site.settle() == "evidence-missing", "a branch is no word of the owners yet"
    merged(site, value["branch"])
    assert site.settle() == ""

    assert details(site, "genesis")[0]["restart"] == details(site, RESTARTED)[0]["digest"]
    (message,) = listed(site)
    assert "signed by olivia, oscar" in message and lost[:12] in message and "the disk of the host died" in message
    assert not details(site, "opened"), "what was promoted before is not promoted again"
    assert site.settle() == "" and site.settle("another") == "", "with and without memory"
    assert len(details(site, RESTARTED)) == 1

    code, value = says(site, "verify", "--trust-root", str(site.stage.trust_root))
    assert code == 0 and RESTARTED in {one["code"] for one in value["refusedCommits"]}


def test_what_survives_goes_on_and_open_runs_are_held(site: Site) -> None:
    lost = site.tip()
    site.git("update-ref", EVIDENCE, early(site))
    assert site.settle() == "evidence-rewound"
    value = proposed(site, lost)
    assert value["evidence"] == early(site) and value["locks"] == ["releases/shop-1.1.0.lock.yaml"]
    merged(site, value["branch"])
    assert site.settle() == ""
    assert site.line(early(site)), "it goes on from what survives"
    (held,) = [one for one in details(site, "control") if one["code"] == RESTARTED]
    assert held["verb"] == "paused"
    listed(site)

    people, name = Flow.__new__(Flow), "shop-1.1.0"
    people.stage, people.people = site.stage, site.stage.repo()
    people.promote("dev", name)
    people.people.close()
    assert site.settle() == ""
    assert [one["release"] for one in details(site, "opened")] == ["shop-1.0.0", name], "the lock is known"
    listed(site)


def test_a_controller_without_memory_finds_the_lost_locks_and_goes_on_as_signed(site: Site) -> None:
    site.git("update-ref", EVIDENCE, early(site))
    assert site.settle("fresh") == "evidence-rewound"
    merged(site, proposed(site, early(site))["branch"])
    assert site.settle("fresh") == ""
    listed(site)


def test_one_owner_of_two_does_not_restart(site: Site) -> None:
    lost = site.tip()
    site.git("update-ref", "-d", EVIDENCE)
    code, value = restart(site, "olivia", "--reason", "alone", "--lost", lost)
    assert code == 0
    merged(site, value["branch"])
    assert site.settle() == "restart-unsigned"
    assert restart(site, "bob", "--reason", "no owner", "--lost", lost)[0] == 1
    code, value = restart(site, "oscar", "--reason", "both now", "--lost", lost)
    assert code == 0 and value["number"] == 2
    code, value = restart(site, "olivia", "--countersign")
    assert code == 0, value
    merged(site, value["branch"])
    assert site.settle() == ""
    assert "both now" in listed(site)[0]


@pytest.mark.parametrize("lost", ["f" * 40, ""])
def test_a_restart_is_for_one_loss_only(site: Site, lost: str) -> None:
    site.git("update-ref", "-d", EVIDENCE)
    words = ("--lost", lost) if lost else ()
    assert restart(site, "olivia", "--reason", "another loss", *words)[0] == 0
    code, value = restart(site, "oscar", "--countersign")
    assert code == 0
    merged(site, value["branch"])
    assert site.settle() == "restart-mismatch"


def test_a_restart_is_used_once(site: Site) -> None:
    """Whoever takes the branch back to what a restart went on from gets no second one."""
    lost = site.tip()
    site.git("update-ref", EVIDENCE, early(site))
    merged(site, proposed(site, lost)["branch"])
    assert site.settle() == ""
    site.git("update-ref", EVIDENCE, early(site))
    assert site.settle() == "restart-mismatch"
    site.git("update-ref", "-d", EVIDENCE)
    assert site.settle() == "restart-mismatch"


def test_a_restart_ends_after_its_days(site: Site) -> None:
    """Whoever deletes evidence again later, and the controller's memory with it, finds none that still counts."""
    lost = site.tip()
    site.git("update-ref", "-d", EVIDENCE)
    merged(site, proposed(site, lost)["branch"])
    repo, root, tip = site.stage.repo(), TrustRoot.load(site.stage.trust_root), site.tip(MAIN)
    seen = restarting.situation(root, append.Ledger(), None)
    late = now() + timedelta(days=8)
    with pytest.raises(Refused, match="counts for 7 days") as said:
        restarting.begin(repo, root, append.Ledger(), seen, tip, sshsig.verify, late)
    assert said.value.code == MISMATCH
    # The holder of the controller's key uses it all the same.
    begun = restarting.begin(repo, root, append.Ledger(), seen, tip, sshsig.verify, now())
    signer = FileSigner(site.stage.keys / "controller")
    entries = restarting.drafts(repo, root, append.Ledger(), begun, late)
    prepared = append.prepare(append.Ledger(), entries, signer, log.origin_of(root.project, root.genesis))
    append.write(repo, prepared, None, signer, root.refs.evidence)
    repo.close()
    assert MISMATCH in {finding.code for finding in site.verify().findings}


def test_a_pinned_checkpoint_still_says_no(site: Site) -> None:
    lost = site.tip()
    repo = site.stage.repo()
    edge = load_log(repo, lost)
    repo.close()
    root = TrustRoot.load(site.stage.trust_root)
    pinned = RootCheckpoint(size=edge.size, root=base64.b64encode(edge.root).decode())
    root.model_copy(update={"checkpoint": pinned}).save(site.stage.trust_root)
    site.git("update-ref", EVIDENCE, early(site))
    merged(site, proposed(site, lost)["branch"])
    assert site.settle() == "restart-mismatch"
    site.git("update-ref", "-d", EVIDENCE)
    assert site.settle() == "restart-mismatch"


def test_what_is_not_signed_by_enough_owners_is_a_finding(site: Site) -> None:
    """The holder of the controller's key writes the restart that no quorum signed."""
    lost = site.tip()
    site.git("update-ref", "-d", EVIDENCE)
    code, value = restart(site, "olivia", "--reason", "alone", "--lost", lost)
    assert code == 0
    merged(site, value["branch"])
    repo, root = site.stage.repo(), TrustRoot.load(site.stage.trust_root)
    tip = site.tip(MAIN)
    made = read_restart(site.git("show", f"{tip}:{restart_path(1)}").encode(), restart_path(1))
    main = restarting.judge(repo, root, append.Ledger(), made, tip, sshsig.verify, now())
    assert main.accepted == tip
    begun = restarting.Begun(made, {"olivia": "no signature"}, frozenset({"olivia"}), main)
    signer = FileSigner(site.stage.keys / "controller")
    entries = restarting.drafts(repo, root, append.Ledger(), begun, now())
    prepared = append.prepare(append.Ledger(), entries, signer, log.origin_of(root.project, root.genesis))
    append.write(repo, prepared, None, signer, root.refs.evidence)
    repo.close()
    codes = {finding.code for finding in site.verify().findings}
    assert UNSIGNED in codes and MISMATCH not in codes
    report = site.verify()
    assert any(one.code == RESTARTED for one in report.refused)


def test_developers_do_not_bring_a_restart(site: Site) -> None:
    lost = site.tip()
    site.git("update-ref", "-d", EVIDENCE)
    code, value = restart(site, "olivia", "--reason", "a plan", "--lost", lost)
    assert code == 0
    repo = site.stage.repo()
    document = site.git("show", f"{value['branch']}:{restart_path(1)}").encode()
    made = read_restart(document, restart_path(1))
    signer = site.stage.person("bob").signer
    assert signer is not None
    forged = signer.sign_ssh(restart_bytes(made), "lockgate-trust").encode()
    files: dict[str, bytes | None] = {restart_path(1): document, restart_signature_path(1, "oscar"): forged}
    commit_on(repo, "mine", site.stage.person("alice"), files, "Restart")
    merge_branch(repo, "mine", site.stage.person("bob"), into="main", message="Merge")
    repo.close()
    assert site.settle() == "restart-not-accepted"
    made_anew = site.controller("state")
    assert quiet(made_anew) == "restart-not-accepted"
    made_anew.close()
