"""Foreign commits on the evidence branch: never believed, removed forward, and recorded (trust rule 14)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.adapters.git.keys import FileSigner
from controller.adapters.git.repo import GitRepo
from controller.demo.processes import LOCKGATE
from controller.model.history import NewCommit
from controller.uses.status import status
from controller.uses.view import evidence_tip, view
from controller.uses.why import blockers
from tests.support.flow import Flow
from tests.support.guarded import REQUESTS, Clone
from tests.support.ordered import ordered, released
from tests.support.site import EVIDENCE, Site, quiet


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A release is locked, and a run in dev has ordered its deployment; no agent will ever answer."""
    shop, site = ordered(tmp_path_factory.mktemp("origin"))
    shop.people.close()
    return site


@pytest.fixture
def site(origin: Site, tmp_path: Path) -> Site:
    return Site.copy(origin.stage, tmp_path)


# --- what somebody pushes ------------------------------------------------------------------------------------

Attack = Callable[[Site, str], None]


def change(**files: bytes | None) -> Attack:
    """Regular files set or removed; `__` in a name stands for a slash, `_` for a dot."""

    def push(site: Site, tip: str) -> None:
        paths = {name.replace("__", "/").replace("_", "."): data for name, data in files.items()}
        changes = {p: ("100644", site.blob(d)) if d is not None else None for p, d in paths.items()}
        site.push(site.tree(tip, changes), tip)

    return push


def entry_of(site: Site, tip: str, kind: str) -> tuple[str, str]:
    """The path and blob of an entry."""
    lines = site.git("ls-tree", "-r", tip).splitlines()
    found = next(line for line in lines if line.endswith(f"-{kind}.dsse.json"))
    return found.partition("\t")[2], found.split()[2]


def moved(site: Site, tip: str) -> None:
    path, blob = entry_of(site, tip, "opened")
    site.push(site.tree(tip, {path: None, path.replace("001-", "009-"): ("100644", blob)}), tip)


def edited(site: Site, tip: str) -> None:
    path, blob = entry_of(site, tip, "gates")
    data = site.git("cat-file", "blob", blob).encode()
    site.push(site.tree(tip, {path: ("100644", site.blob(data.replace(b"payload", b"Payload")))}), tip)


def symlinked(site: Site, tip: str) -> None:
    path, _ = entry_of(site, tip, "opened")
    link = ("120000", site.blob(b"/etc/passwd"))
    site.push(site.tree(tip, {path: link, "state/cursors.json": link, "state/dev.json": link}), tip)


def added(site: Site, tip: str) -> None:
    _, blob = entry_of(site, tip, "genesis")
    site.push(site.tree(tip, {"events/2026/01/01/000099-lock.dsse.json": ("100644", blob)}), tip)


def same_tree(site: Site, tip: str) -> None:
    site.push(f"{tip}^{{tree}}", tip)


def emptied(site: Site, tip: str) -> None:
    site.push(site.git("mktree"), tip)


def file_for_folder(site: Site, tip: str) -> None:
    tree = site.tree(tip, {"runs": None, "events": None})
    site.push(site.tree(tree, {"runs": ("100644", site.blob(b"x")), "events": ("160000", tip)}), tip)


def malformed_tree(site: Site, tip: str) -> None:
    entry = b"100644 x\0" + bytes.fromhex(site.blob(b"x"))
    twice = site.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=entry * 2)
    site.push(twice, tip)


def merge(site: Site, tip: str) -> None:
    site.push(site.tip("refs/heads/main^{tree}"), tip, site.tip("refs/heads/main"))


def by_person(site: Site, tip: str) -> None:
    repo = site.stage.repo()
    fake = {"environment": "dev", "release": "shop-9.9.9"}
    when = repo.commit(tip).committer.at
    new = NewCommit({"state/dev.json": json.dumps(fake).encode()}, "dev: shop-9.9.9 completed\n", when)
    repo.append(EVIDENCE, tip, [new, new], FileSigner(site.stage.keys / "bob"))
    repo.close()


def as_repair(site: Site, tip: str) -> None:
    """One who says that a repair was made."""
    path = "events/2026/01/01/000099-evidence-repaired.dsse.json"
    tree = site.tree(tip, {path: ("100644", entry_of(site, tip, "genesis")[1])})
    site.push(tree, tip, message="Repair\n\nLockgate-Entry: 99\nLockgate-Kind: evidence-repaired")


def flood(site: Site, tip: str, commits: int = 300) -> None:
    """More than a repair names, each with a checkpoint of its own."""
    stream = ""
    for number in range(commits):
        stream += f"commit {EVIDENCE}\ncommitter M <m@example.com> {1800000000 + number} +0000\ndata 1\nx\n"
        stream += f"from {tip}\n" if number == 0 else ""
        stream += f"M 644 inline log/checkpoint\ndata {len(str(number))}\n{number}\n"
    site.git("fast-import", "--quiet", "--force", stdin=stream.encode())


ATTACKS: dict[str, Attack] = {
    "unsigned commit on evidence": change(README=b"owned\n"),
    "derived state to a fake release": change(state__dev_json=b'{"environment":"dev","release":"shop-9.9.9"}'),
    "cursors to nonsense": change(state__cursors_json=b"[]"),
    "cursors of another project": change(state__cursors_json=b'{"project":"evil","genesis":"x","trustVersion":9}'),
    "checkpoint edited": change(log__checkpoint=b"x"),
    "entries deleted": change(runs=None, events=None),
    "evidence moved": moved,
    "evidence edited": edited,
    "evidence symlinked": symlinked,
    "entry added": added,
    "identical tree": same_tree,
    "empty tree": emptied,
    "a file where a folder was": file_for_folder,
    "duplicate tree entry": malformed_tree,
    "merge of main": merge,
    "two commits signed by a reviewer": by_person,
    "a repair that nobody made": as_repair,
    "three hundred commits": flood,
}


def check_repaired(site: Site, good: str) -> list[str]:
    """One repair stands on what was pushed after `good`, its tree is that of `good`; the removed commits."""
    line = site.line(good)
    place = next(n for n, oid in enumerate(line) if repairs(site, oid))
    removed, repair = line[:place], line[place]
    paths = site.changed(good, repair)
    entry = next(path for path in paths if path.endswith("-evidence-repaired.dsse.json"))
    assert {path for path in paths if not path.startswith("log/")} == {entry, "state/cursors.json"}
    return removed


def repairs(site: Site, commit: str) -> bool:
    text = site.git("cat-file", "commit", commit)
    return "\ngpgsig " in text and "\nLockgate-Kind: evidence-repaired" in text


@pytest.mark.parametrize("how", list(ATTACKS))
def test_foreign_commits_are_removed_forward(site: Site, how: str) -> None:
    """By a controller that runs, and by one with an empty state directory."""
    removed: list[str] = []
    running = site.controller()
    try:
        assert quiet(running) == ""
        for repairing in (lambda: quiet(running), lambda: site.settle("fresh")):
            good = site.tip()
            ATTACKS[how](site, good)
            assert repairing() == ""
            removed += check_repaired(site, good)
            state = running.reconciler.ledger.state.environments["dev"]
            assert state.release is None and running.reconciler.ledger.state.cursors.project == "shop"
    finally:
        running.close()
    released(site, "1.1.0")
    assert site.settle() == ""
    report = site.verify()
    assert report.findings == ()
    said = [r.commit for r in report.refused if r.ref == EVIDENCE]
    assert sorted(said) == sorted(removed) and len(removed) == len(set(removed)) >= 2


def test_a_flood_is_verified_side_by_side(site: Site) -> None:
    """Enough foreign commits for several processes of `verify`: where the branch is cut makes no difference."""
    good = site.tip()
    flood(site, good, 1000)
    assert site.settle() == ""
    assert len(check_repaired(site, good)) == 1000
    command = [*LOCKGATE, "--repo", str(site.stage.origin), "-o", "json", "verify"]
    command += ["--trust-root", str(site.stage.trust_root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["verified"] and answer["refused"] == 1000


def test_a_commit_that_lands_while_a_push_is_prepared(site: Site) -> None:
    """The swap is lost, the pass is thrown away, and the next one removes what won it."""
    running = site.controller()
    try:
        assert quiet(running) == ""
        released(site, "1.1.0")
        good = site.tip()
        signer = running.reconciler.parts.signer
        pushed: list[str] = []

        class Late:
            """The controller's key, that lets somebody push between deciding and swapping, twice."""

            public_key = signer.public_key
            sign_raw = staticmethod(signer.sign_raw)

            @staticmethod
            def sign_ssh(data: bytes, namespace: str) -> str:
                if len(pushed) < 2:
                    tip = site.tip()
                    pushed.append(site.push(f"{tip}^{{tree}}", tip))
                return signer.sign_ssh(data, namespace)

        object.__setattr__(running.reconciler.parts, "signer", Late())
        outcomes = [running.loop.pass_once() for _ in range(3)]
        assert all(outcome is not None for outcome in outcomes)
        assert quiet(running) == ""
        assert check_repaired(site, good) == pushed
    finally:
        running.close()
    assert site.verify().findings == ()


def test_what_short_commands_read_meanwhile(site: Site) -> None:
    """No controller runs: status and why show the last good state, and that somebody else wrote."""
    good = site.tip()
    ATTACKS["derived state to a fake release"](site, good)
    repo = GitRepo.read_only(str(site.stage.origin))
    try:
        found = view(repo)
        assert evidence_tip(repo) == good
        assert found.tips.evidence == good and found.state.environments["dev"].release is None
        now = repo.commit(good).committer.at
        said = [b for b in blockers(found, "dev", now) if b.code == "foreign-evidence"]
        assert len(said) == 1 and "the commit is not signed" in said[0].message
        assert any("not the controller's" in line for line in status(found, now, "dev")[0]["waitingFor"])
    finally:
        repo.close()


def test_before_the_controller_began(tmp_path: Path) -> None:
    """Somebody made the branch first: there is nothing to restore, and nothing is written over it."""
    shop = Flow(tmp_path, {"dev-1": "dev"})
    shop.people.close()
    site = Site(tmp_path)
    first = site.push(site.git("mktree"))
    assert site.settle() == "foreign-evidence"
    assert site.tip() == first
    site.git("update-ref", "-d", EVIDENCE)
    assert site.settle() == ""
    assert site.verify().verified


# --- what is not repaired ------------------------------------------------------------------------------------


def batches(site: Site) -> list[str]:
    """The last commit of each push: those that change the checkpoint."""
    return site.git("rev-list", "--reverse", EVIDENCE, "--", "log/checkpoint").split()


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("on_top", [False, True], ids=["rewound", "longer forked log"])
def test_a_rewound_branch_stands_still(site: Site, restart: bool, on_top: bool) -> None:
    """A genuine old commit pushed back, also with a longer line of other commits on it, and with the recorded tip
    behind a second parent."""
    running = site.controller()
    try:
        assert quiet(running) == ""
        tip, old = site.tip(), batches(site)[-2]
        if restart:
            running.close()
            running = site.controller()
        site.git("update-ref", EVIDENCE, old)
        if on_top:
            for _ in range(20):
                at = site.tip()
                site.push(f"{at}^{{tree}}", at)
            site.push(f"{tip}^{{tree}}", site.tip(), tip)
        forged = site.tip()
        assert quiet(running) == "evidence-rewound"
        assert site.tip() == forged
        site.git("update-ref", EVIDENCE, tip)
        assert quiet(running) == ""
        assert site.tip() == tip
    finally:
        running.close()
    assert site.verify().verified


def test_a_branch_cut_within_a_push_is_told_without_memory(site: Site) -> None:
    """Only the last commit of a push carries the checkpoint: another one cannot have been a tip."""
    ends = batches(site)
    within = next(oid for oid in site.git("rev-list", EVIDENCE).split() if oid not in ends)
    for foreign in (False, True):
        site.git("update-ref", EVIDENCE, within)
        if foreign:
            site.push(f"{within}^{{tree}}", within)
        assert site.settle(f"fresh-{foreign}") == "evidence-rewound"


def test_a_branch_cut_before_a_lock_on_main_is_told_without_memory(site: Site) -> None:
    """The controller records before it acts, so its lock on main proves that evidence once held the entry."""
    lock = site.git("rev-list", EVIDENCE, "--grep", "^Lockgate-Kind: lock$").split()[0]
    before = [oid for oid in batches(site) if site.git("merge-base", oid, lock) != lock]
    site.git("update-ref", EVIDENCE, before[-1])
    assert [site.settle("fresh") for _ in range(2)] == ["evidence-rewound"] * 2
    assert site.tip() == before[-1]


def test_a_branch_before_the_pinned_checkpoint_is_told_without_memory(site: Site) -> None:
    checkpoint = site.git("show", f"{EVIDENCE}:log/checkpoint").splitlines()
    root = json.loads(site.stage.trust_root.read_text())
    root["checkpoint"] = {"size": int(checkpoint[1]), "root": checkpoint[2]}
    site.stage.trust_root.write_text(json.dumps(root))
    assert site.settle("fresh") == ""
    site.git("update-ref", EVIDENCE, batches(site)[-2])
    assert site.settle("fresher") == "evidence-rewound"


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "forgotten"])
def test_evidence_deleted(site: Site, remembered: bool) -> None:
    """Gone, and gone with a branch of somebody else in its place."""
    tip = site.tip()
    if remembered:
        assert site.settle() == ""
    site.git("update-ref", "-d", EVIDENCE)
    assert site.settle() == "evidence-missing"
    site.push(site.git("mktree"))
    assert site.settle() == ("evidence-rewound" if remembered else "evidence-missing")
    site.git("update-ref", EVIDENCE, tip)
    assert site.settle() == ""
    assert site.verify().verified


@pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "forgotten"])
def test_requests_that_were_judged_are_taken_away(site: Site, tmp_path: Path, remembered: bool) -> None:
    """With the whole branch, or only the newest: until they are back nobody knows what else was asked for."""
    clone = Clone.copy(site.stage, tmp_path / "asked")
    assert isinstance(clone, Clone)
    first = clone.asked("alice")
    clone.git("update-ref", REQUESTS, first)
    assert clone.settle() == ""
    later = clone.commit("alice", {"requests/x": b"x"}, first)
    clone.git("update-ref", REQUESTS, later)
    assert clone.settle() == ""
    state = "state" if remembered else "fresh"
    for attack in (["-d", REQUESTS], [REQUESTS, first], [REQUESTS, clone.commit("alice", {}, first)]):
        clone.git("update-ref", *attack)
        assert clone.settle(state) == "requests-rewound"
        assert "requests-rewound" in {finding.code for finding in clone.verify().findings}
    clone.git("update-ref", REQUESTS, later)
    assert clone.settle(state) == ""
    assert clone.verify().findings == ()


def test_the_states_memory_may_be_lost_between_attacks(site: Site) -> None:
    good = site.tip()
    ATTACKS["merge of main"](site, good)
    assert site.settle() == ""
    shutil.rmtree(site.stage.folder / "state")
    again = site.tip()
    ATTACKS["entries deleted"](site, again)
    assert site.settle() == ""
    assert check_repaired(site, again)
    assert site.verify().findings == ()
