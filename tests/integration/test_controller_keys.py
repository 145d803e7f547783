"""The controller's own key life: a new key takes over in the midst of a run, an old one ends where trust says."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.adapters.git.keys import FileSigner
from controller.adapters.git.people import write_commit
from controller.demo.processes import LOCKGATE
from tests.integration.test_repair import check_repaired, released
from tests.support.flow import Flow, flow, strategy
from tests.support.site import EVIDENCE, Site, change_trust, with_controller, without_first_controller
from tests.support.waiting import until

B = "controller-2"


def forged(site: Site, key: str, at: datetime | None = None, **files: bytes | None) -> str:
    """A commit on evidence by a key, of any date: whoever stole it has the push rights too."""
    repo = site.stage.repo()
    try:
        tip = site.tip()
        changes = {name.replace("__", "/").replace("_", "."): data for name, data in files.items()}
        when = (at or datetime.now(UTC)).replace(microsecond=0)
        who = ("Lockgate", "lockgate@example.com")
        signer = FileSigner(site.stage.keys / key)
        oid = write_commit(repo, (tip,), changes, message="dev: ok", author=who, when=when, signer=signer)
    finally:
        repo.close()
    site.git("update-ref", EVIDENCE, oid, tip)
    return oid


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Evidence by the first key: a release is locked."""
    folder = tmp_path_factory.mktemp("begun")
    shop = Flow(folder, {"dev-1": "dev"})
    site = Site(folder)
    for number in range(4):
        shop.image(f"1.{number}.0")
    shop.release("1.0.0")
    shop.people.close()
    assert site.settle() == ""
    return site


@pytest.fixture
def site(begun: Site, tmp_path: Path) -> Site:
    return Site.copy(begun.stage, tmp_path)


def version(site: Site) -> int:
    return int(json.loads(site.git("show", f"{EVIDENCE}:state/cursors.json"))["trustVersion"])


def checked(site: Site, *repaired: str) -> None:
    """`verify` says yes and lists exactly these commits of evidence as refused."""
    report = site.verify()
    assert report.findings == ()
    assert [one.commit for one in report.refused if one.ref == EVIDENCE] == list(repaired)


# --- taking over ---------------------------------------------------------------------------------------------


def test_the_new_key_accepts_the_version_that_names_it(site: Site) -> None:
    change_trust(site.stage, with_controller(site.stage, B))
    assert site.settle("b", B) == ""
    assert version(site) == 2
    released(site, "1.1.0")
    assert site.settle() == ""  # both keys overlap
    change_trust(site.stage, without_first_controller)
    tip = site.tip()
    assert site.settle() == "signer-not-controller"
    assert site.tip() == tip
    assert site.settle("b", B) == ""
    assert version(site) == 3
    checked(site)


def test_a_key_that_no_owner_named_is_nobodys(site: Site) -> None:
    """A developer's own version 2, without the owners' signatures, makes no controller: nothing by it is believed,
    and main takes it back."""
    edit = with_controller(site.stage, B)
    change_trust(site.stage, edit, signers=(), by="alice")
    good = site.tip()
    assert site.settle("b", B) == "signer-not-controller"
    theft = forged(site, B, state__dev_json=b"{}")
    assert site.settle() == ""
    assert check_repaired(site, good) == [theft]
    checked(site, theft)


# --- ending --------------------------------------------------------------------------------------------------


def claim(site: Site, trust_version: int) -> dict[str, bytes | None]:
    """The cursors as they stand, but of another trust version."""
    cursors = json.loads(site.git("show", f"{EVIDENCE}:state/cursors.json"))
    return {"state__cursors_json": json.dumps(cursors | {"trustVersion": trust_version}).encode()}


@pytest.mark.parametrize("claims", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("fresh", [False, True], ids=["remembered", "forgotten"])
def test_a_removed_key_writes_nothing_any_more(site: Site, claims: int | None, fresh: bool) -> None:
    """Whatever trust version its commit says it was made under."""
    change_trust(site.stage, with_controller(site.stage, B))
    assert site.settle() == ""
    change_trust(site.stage, without_first_controller)
    assert site.settle("b", B) == ""
    good = site.tip()
    files = claim(site, claims) if claims is not None else {}
    theft = [forged(site, "controller", **files), forged(site, "controller")]
    assert site.settle("c" if fresh else "b", B) == ""
    assert check_repaired(site, good) == theft
    checked(site, *theft)


@pytest.mark.parametrize("fresh", [False, True], ids=["remembered", "forgotten"])
def test_an_ended_key_cannot_date_its_way_back(site: Site, fresh: bool) -> None:
    """The commit's own date lies before the key's end, but what stands before it does not."""
    end = datetime.now(UTC).replace(microsecond=0)
    change_trust(site.stage, with_controller(site.stage, B, end.isoformat().replace("+00:00", "Z")))
    assert site.settle("b", B) == ""
    good = site.tip()
    theft = [forged(site, "controller", end - timedelta(seconds=n)) for n in (1, 3600)]
    assert site.settle("c" if fresh else "b", B) == ""
    assert check_repaired(site, good) == theft
    checked(site, *theft)


def test_a_key_in_force_that_builds_on_foreign_commits_stops_the_controller(site: Site) -> None:
    """No controller does that: the key is stolen, and people decide what stands."""
    change_trust(site.stage, with_controller(site.stage, B))
    assert site.settle("b", B) == ""
    good = site.tip()
    site.push(f"{good}^{{tree}}", good)
    forged(site, "controller")
    assert site.settle("b", B) == "foreign-evidence"
    site.git("update-ref", EVIDENCE, good)
    assert site.settle("b", B) == ""
    checked(site)


# --- two at once ---------------------------------------------------------------------------------------------


def test_two_controllers_with_two_keys_write_one_history(site: Site) -> None:
    change_trust(site.stage, with_controller(site.stage, B))
    both = [site.controller("a", "controller"), site.controller("b", B)]
    threads = [threading.Thread(target=one.run) for one in both]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 4):
            name = released(site, f"1.{number}.0")
            until(f"{name} is locked", lambda n=name: _on_main(site, f"releases/{n}.lock.yaml"), 60)
        theft = until("a foreign commit lands between theirs", lambda: _pushed(site), 60)
        until("the foreign commit is removed", lambda: site.tip() != theft, 60)
    finally:
        for one in both:
            one.stop()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert {one.health.now.code for one in both} == {""}
    locks = site.git("log", "--format=%s", EVIDENCE, "--grep", "^Lockgate-Kind: lock$").splitlines()
    assert len(locks) == len(set(locks)) == 4
    checked(site, theft)


def _pushed(site: Site) -> str:
    tip = site.tip()
    try:
        return site.push(f"{tip}^{{tree}}", tip)
    except subprocess.CalledProcessError:
        return ""


def _on_main(site: Site, path: str) -> bool:
    return path in site.git("ls-tree", "-r", "--name-only", "main", "releases/").splitlines()


# --- a run across the change, with agents ----------------------------------------------------------------------


def test_a_new_key_finishes_the_run_that_the_old_one_began(tmp_path: Path) -> None:
    """Both agents know the first key; one is away until the second key has taken over. Stock git agrees."""
    files = {"strategies/dev.yaml": strategy("dev", "    - {percent: 100, minHealthyTime: 200ms, deadline: 5m}\n")}
    with flow(tmp_path, {"dev-1": "dev", "dev-2": "dev"}, files=files) as shop:
        site = Site(tmp_path)
        shop.start()
        shop.deploy("dev", "1.0.0")
        away = shop.processes.agents["dev-2"]
        away.terminate()
        away.wait(15)
        shop.image("1.1.0")
        name = shop.release("1.1.0")
        shop.locked(name)
        shop.promote("dev", name)
        until("the first key has ordered", lambda: shop.kinds()[-1] == "ordered")
        end = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
        change_trust(shop.stage, with_controller(shop.stage, B, end.isoformat().replace("+00:00", "Z")))
        until("version 2 is in force", lambda: version(site) == 2)
        shop.stop_controller()
        _start(shop, B)
        shop.processes.start_agent("dev-2", "dev")
        shop.ends("dev", name, "completed")
        change_trust(shop.stage, without_first_controller)
        until("version 3 is in force", lambda: version(site) == 3)
        shop.deploy("dev", "1.2.0")
        good = shop.tip()
        theft = forged(site, "controller", state__dev_json=b"{}")
        until("it is removed again", lambda: shop.kinds()[-1] == "evidence-repaired")
        assert check_repaired(site, good) == [theft]
        shop.deploy("dev", "1.3.0")
        shop.check_dense()
        checked(site, theft)
        _stock_git_agrees(shop, site, theft)


def _start(shop: Flow, key: str) -> None:
    shop.processes.start_controller(poll="1s", options=("--signing-key", str(shop.stage.keys / key)))


def _stock_git_agrees(shop: Flow, site: Site, theft: str) -> None:
    """`git verify-commit` with the controller's allowed signers holds for every commit but the stolen key's."""
    stage = shop.stage
    command = [*LOCKGATE, "--repo", str(stage.origin), "trust", "allowed-signers", "--role", "controller"]
    done = subprocess.run(
        [*command, "--trust-root", str(stage.trust_root)], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and sum("valid-before=" in line for line in lines) == 1
    signers = stage.folder / "signers"
    signers.write_text(done.stdout)
    own = [oid for oid in site.git("rev-list", EVIDENCE).split() if oid != theft]
    site.git("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", *own)
