"""Attacks pushed by stock git at a real origin whose hook is `lockgate guard`: none lands, people's work does."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from controller.adapters.git.repo import GitRepo
from controller.demo.stage import slot_file
from controller.wiring.people import Ask, now, request
from tests.support.flow import HEAD, Flow, environment, flow, strategy
from tests.support.git_servers import ssh_server
from tests.support.guarded import EVIDENCE, MAIN, REQUESTS, Clone, install, settle
from tests.support.real_run import lockgate
from tests.support.site import Site, change_trust, with_controller, without_first_controller
from tests.support.waiting import until

POLICY = f"{HEAD}kind: Policy\nmetadata: {{name: quiet}}\nspec: {{gate: freeze}}\n".encode()
LAX = POLICY.replace(b"spec: {", b"spec: {level: warn, ")
FILES = {
    "policies/quiet.yaml": POLICY.decode(),
    "strategies/dev.yaml": strategy("dev", "    - {percent: 100, minHealthyTime: 200ms, deadline: 1h}\n"),
}
LOCK = "releases/shop-1.0.0.lock.yaml"
SLOT = "promotions/dev.yaml"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """All through the hook: a release is locked, a run in dev has ordered its deployment, a request is judged."""
    folder = tmp_path_factory.mktemp("guarded")
    shop = Flow(folder, {"dev-1": "dev"}, files=FILES)
    site = Site(folder)
    install(site)
    shop.people.close()
    shop.people = GitRepo(str(shop.stage.origin), None)
    shop.image("1.0.0")
    name = shop.release("1.0.0")
    settle(site)
    shop.promote("dev", name)
    settle(site)
    request(shop.people, shop.stage.person("dave"), "shop", Ask("pause", "dev", "look at it"))
    settle(site)
    shop.people.close()
    assert {"lock", "ordered", "request"} <= set(shop.kinds())
    return site


@pytest.fixture
def clone(guarded: Site, tmp_path: Path) -> Clone:
    return Clone.of(guarded, tmp_path / "clone")


def test_a_whole_run(tmp_path: Path) -> None:
    """By a controller and agents of their own, to its seal and the witnesses of that."""
    files = FILES | {"environments/dev.yaml": environment("dev", gates=["quiet"], witnesses=1)}
    with flow(tmp_path, {"dev-1": "dev", "dev-2": "dev"}, files=files) as shop:
        install(Site(tmp_path))
        shop.people.close()
        shop.people = GitRepo(str(shop.stage.origin), None)
        shop.start()
        shop.image("1.0.0")
        name = shop.release("1.0.0")
        shop.locked(name, 100)
        shop.promote("dev", name)
        shop.ends("dev", name, "completed", 100)
        until("the seal is witnessed", lambda: "witnessed" in shop.kinds(), 100)
        shop.stop_controller()
        shop.verify()
        assert "sealed" in shop.kinds()
        assert "push-rejected" not in shop.log()


# --- main --------------------------------------------------------------------------------------------------------


def test_an_unapproved_policy(clone: Clone) -> None:
    lone = clone.commit("alice", {"policies/quiet.yaml": LAX})
    said = clone.refused("approval-missing", f"{lone}:{MAIN}")
    assert f"refs/heads/main commit {lone[:12]} policies/quiet.yaml" in said
    assert "expected 1 of reviewers, got no approval; nothing landed: " in said


def test_a_foxtrot_fast_forward(clone: Clone) -> None:
    side = clone.branch("mine", "alice", {"README.md": b"mine\n"})
    ahead = clone.commit("bob", {"README.md": b"theirs\n"})
    clone.git("update-ref", MAIN, ahead)
    clone.lands(f"{ahead}:{MAIN}")
    clone.refused("main-not-first-parent", f"{clone.merged('alice', ahead, first=side, tree=side)}:{MAIN}")


def test_a_force_push_and_a_deletion(clone: Clone) -> None:
    other = clone.commit("alice", {"README.md": b"another past\n"}, f"{clone.tip(MAIN + '~1')}")
    clone.refused("main-rewound", f"+{other}:{MAIN}")
    clone.refused("main-rewound", f":{MAIN}")


def test_commits_that_nobody_whom_trust_knows_signed(clone: Clone) -> None:
    clone.key("host")
    side = clone.branch("policy", "alice", {"policies/quiet.yaml": LAX})
    clone.refused("unsigned", f"{clone.commit('', {'README.md': b'x'})}:{MAIN}")
    # A host that squashes signs with a key of its own, and a stranger may call himself whatever he likes.
    clone.refused("signer-unknown", f"{clone.merged('host', side)}:{MAIN}")
    shutil.copyfile(clone.stage.keys / "host", clone.stage.keys / "bob")
    clone.refused("signer-unknown", f"{clone.merged('bob', side)}:{MAIN}")


def test_a_change_merged_by_its_author(clone: Clone) -> None:
    side = clone.branch("policy", "bob", {"policies/quiet.yaml": LAX})
    clone.refused("self-approval", f"{clone.merged('bob', side)}:{MAIN}")


def test_locks_are_written_once(clone: Clone) -> None:
    clone.refused("lock-rewritten", f"{clone.commit('alice', {LOCK: b'spec: {}'})}:{MAIN}")
    clone.refused("lock-rewritten", f"{clone.commit('controller', {LOCK: None})}:{MAIN}")
    clone.refused("lock-by-person", f"{clone.commit('alice', {'releases/x.lock.yaml': b'x'})}:{MAIN}")
    other = LOCK.replace("1.0.0", "2.0.0")
    clone.refused("lock-unbacked", f"{clone.commit('controller', {other: b'x'})}:{MAIN}")


def test_the_stolen_key_of_the_controller_reverts_nothing(clone: Clone) -> None:
    message = f"Put dev back\n\nLockgate-Run: dev-1-{clone.tip(MAIN)[:8]}\n"
    clone.refused("revert-unbacked", f"{clone.commit('controller', {SLOT: None}, message=message)}:{MAIN}")
    clone.refused("path-denied", f"{clone.commit('controller', {'README.md': b'x'})}:{MAIN}")


def test_a_stale_side_that_drops_a_policy(clone: Clone) -> None:
    stale = clone.branch("stale", "alice", {"README.md": b"stale\n"})
    side = clone.branch("strict", "alice", {"policies/strict.yaml": POLICY.replace(b"quiet", b"strict")})
    strict = clone.merged("bob", side)
    said = clone.refused("merge-side-dropped", f"{clone.merged('bob', stale, first=strict, tree=stale)}:{MAIN}")
    assert "policies/strict.yaml" in said
    smuggled = clone.commit("bob", {"README.md": b"stale\n", "policies/quiet.yaml": LAX}, strict, stale)
    clone.refused("evil-merge", f"{smuggled}:{MAIN}")


def test_trust_without_its_quorum(clone: Clone) -> None:
    change_trust(clone.stage, lambda text: text.replace("[bob, carol]", "[bob, carol, alice]"), ("olivia",))
    clone.refused("trust-quorum", f"{MAIN}:{MAIN}")


def test_trees_and_commits_that_are_not_what_git_writes(clone: Clone) -> None:
    entry = b"100644 README.md\0" + bytes.fromhex(clone.blob(b"x"))
    twice = clone.git("hash-object", "-w", "-t", "tree", "--literally", "--stdin", stdin=entry * 2)
    lone = clone.commit("alice", {})
    data = clone.git("cat-file", "commit", lone).encode()
    # Its signature is bad now as well, but what cannot be read cannot be judged further.
    ambiguous = clone.raw_commit(b"tree " + twice.encode() + data[data.index(b"\n") :])
    clone.refused("tree-malformed", f"{ambiguous}:{MAIN}")
    clone.refused("commit-malformed", f"{clone.raw_commit(data + bytes([10, 0]) + b'hidden')}:{MAIN}")


# --- evidence ----------------------------------------------------------------------------------------------------


def entry(clone: Clone, kind: str) -> tuple[str, str]:
    """The path and blob of an entry."""
    lines = clone.git("ls-tree", "-r", EVIDENCE).splitlines()
    found = next(line for line in lines if line.endswith(f"-{kind}.dsse.json"))
    return found.partition("\t")[2], found.split()[2]


def test_foreign_commits_on_evidence(clone: Clone) -> None:
    tip, strange = clone.tip(), ("100644", clone.blob(b"{}"))
    path, blob = entry(clone, "gates")
    link = ("120000", clone.blob(b"/etc/passwd"))
    edits = [
        {"state/dev.json": strange},
        {path: None},
        {path: None, path.replace("-gates", "-inputs"): ("100644", blob)},
        {path: link, "state/cursors.json": link},
    ]
    for edit in edits:
        clone.git("update-ref", EVIDENCE, tip)
        clone.refused("foreign-evidence", f"{clone.push(clone.tree(tip, edit), tip)}:{EVIDENCE}")


def test_evidence_under_other_keys(clone: Clone) -> None:
    clone.refused("foreign-evidence", f"{clone.evidence({'state/dev.json': b'{}'}, key='bob')}:{EVIDENCE}")


def test_what_a_stolen_key_of_the_controller_writes_is_judged(clone: Clone) -> None:
    path, blob = entry(clone, "gates")
    data = clone.git("cat-file", "blob", blob).encode()
    tip = clone.tip()
    clone.refused("record-changed", f"{clone.evidence({path: data + b' '}, parent=tip)}:{EVIDENCE}")
    clone.refused("entry-count", f"{clone.evidence({'state/dev.json': b'{}'}, parent=tip)}:{EVIDENCE}")
    again = path.replace("002-", "099-").replace("003-", "099-")
    assert again != path
    clone.refused("index-gap", f"{clone.evidence({again: data}, parent=tip)}:{EVIDENCE}")
    # The key id stays, the signature is somebody else's.
    envelope = json.loads(data)
    envelope["signatures"][0]["sig"] = "A" * 86 + "=="
    swapped = json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode()
    clone.refused("envelope-signature", f"{clone.evidence({again: swapped}, parent=tip)}:{EVIDENCE}")


def test_evidence_is_never_taken_away(clone: Clone) -> None:
    clone.refused("evidence-rewound", f":{EVIDENCE}")
    clone.refused("evidence-rewound", f"+{EVIDENCE}~1:{EVIDENCE}")
    longer = clone.evidence({"state/dev.json": b"{}"}, parent=clone.tip(f"{EVIDENCE}~2"))
    clone.refused("evidence-rewound", f"+{longer}:{EVIDENCE}")
    behind = clone.commit("controller", {}, f"{EVIDENCE}~1", EVIDENCE)
    clone.refused("evidence-rewound", f"{behind}:{EVIDENCE}")


# --- requests ----------------------------------------------------------------------------------------------------


def test_requests_that_would_be_refused(clone: Clone) -> None:
    late = clone.asked("alice", now() - timedelta(hours=2))
    clone.refused("request-expired", f"{late}:{REQUESTS}")
    clone.refused("request-malformed", f"{clone.asked('alice', also={'requests/x.json': b'{}'})}:{REQUESTS}")
    said = clone.refused("action-out-of-scope", f"{clone.asked('alice', environment='prod')}:{REQUESTS}")
    assert "alice may not pause in prod" in said


def test_requests_are_never_taken_away(clone: Clone) -> None:
    clone.refused("requests-rewound", f":{REQUESTS}")
    side = clone.commit("alice", {"README.md": b"x"})
    clone.refused("requests-rewound", f"+{side}:{REQUESTS}")


# --- names, and what everybody may do --------------------------------------------------------------------------


def test_names_that_stand_for_others(clone: Clone) -> None:
    tip = clone.tip(MAIN)
    clone.refused("history-incomplete", f"{tip}:refs/replace/{clone.tip()}")
    for name in ("refs/tags/main", "refs/tags/lockgate/evidence", "refs/main", "refs/heads/Main"):
        clone.refused("ref-shadows", f"{tip}:{name}")


def test_people_push_freely(clone: Clone) -> None:
    work = clone.commit("", {"policies/quiet.yaml": LAX})
    clone.lands(f"{work}:refs/heads/feature/x", f"{work}:refs/tags/v1")
    clone.lands(f"+{clone.tip(MAIN)}:refs/heads/feature/x")
    clone.lands(":refs/heads/feature/x", ":refs/tags/v1")


def test_what_is_within_the_rules_lands(guarded: Site, clone: Clone) -> None:
    site = Clone.copy(guarded.stage, clone.stage.folder / "origin")
    clone.target = str(site.stage.origin)
    side = clone.branch("policy", "alice", {"policies/quiet.yaml": LAX})
    clone.git("update-ref", MAIN, clone.merged("bob", side))
    clone.lands(f"{MAIN}:{MAIN}", f"{clone.asked('alice')}:{REQUESTS}", f"{side}:refs/heads/policy")
    change_trust(clone.stage, lambda text: text.replace("[bob, carol]", "[bob, carol, dave]"))
    clone.lands(f"{MAIN}:{MAIN}")
    other = clone.branch("more", "alice", {"policies/quiet.yaml": POLICY})
    clone.lands(f"{clone.merged('dave', other)}:{MAIN}")
    settle(site)
    report = site.verify()
    assert report.findings == ()
    assert all(one.ref == REQUESTS for one in report.refused), "what only deciding can tell"


def test_a_new_key_of_the_controller_takes_over(guarded: Site, clone: Clone) -> None:
    site = Clone.copy(guarded.stage, clone.stage.folder / "origin")
    clone.target = str(site.stage.origin)
    change_trust(clone.stage, with_controller(clone.stage, "controller-2"))
    change_trust(clone.stage, without_first_controller)
    clone.lands(f"{MAIN}:{MAIN}")
    shutil.copyfile(clone.stage.keys / "controller-2", site.stage.keys / "controller-2")
    (site.stage.keys / "controller-2").chmod(0o600)
    settle(site, "controller-2")
    assert site.verify().findings == ()
    clone.git("fetch", "-q", clone.target, f"+{EVIDENCE}:{EVIDENCE}")
    late = clone.evidence({"state/dev.json": b"{}"}, parent=site.tip())
    clone.refused("foreign-evidence", f"{late}:{EVIDENCE}")


def test_what_came_in_before_the_hook_can_be_cured(guarded: Site, clone: Clone) -> None:
    site = Clone.copy(guarded.stage, clone.stage.folder / "origin")
    clone.target = str(site.stage.origin)
    good = clone.tip(MAIN)
    bad = clone.commit("", {"README.md": b"unsigned"})
    clone.git("push", "-q", clone.target, f"{bad}:refs/heads/aside")
    site.git("update-ref", MAIN, bad)
    settle(site)
    clone.refused("unsigned", f"{clone.commit('', {'README.md': b'more'}, bad)}:{MAIN}")
    cure = clone.commit("alice", {}, bad, tree=clone.git("rev-parse", f"{good}^{{tree}}"))
    clone.lands(f"{cure}:{MAIN}")
    settle(site)
    assert bad in [one.commit for one in site.verify().refused]
    # Somebody rewrites main in the origin itself: what was accepted may be pushed back, and nothing else.
    who = ("-c", "user.name=root", "-c", "user.email=root@example.com")
    site.git("update-ref", MAIN, site.git(*who, "commit-tree", f"{good}^{{tree}}", "-p", f"{good}~1", "-m", "x"))
    clone.refused("main-rewound", f"+{good}:{MAIN}")
    clone.lands(f"+{cure}:{MAIN}")
    settle(site)


def test_over_other_transports(guarded: Site, clone: Clone, tmp_path: Path) -> None:
    lone = clone.commit("alice", {"policies/quiet.yaml": LAX})
    clone.target = f"file://{guarded.stage.origin}"
    clone.refused("approval-missing", f"{lone}:{MAIN}")
    with ssh_server(tmp_path / "sshd", guarded.stage.folder) as server:
        clone.target, clone.environ = server.url(guarded.stage.origin), server.env
        clone.refused("approval-missing", f"{lone}:{MAIN}")
        clone.lands(f"{lone}:refs/heads/by-ssh")


def test_the_environment_of_a_push_has_no_say(guarded: Site, clone: Clone) -> None:
    lone = clone.commit("alice", {"policies/quiet.yaml": LAX})
    clone.environ = {
        "LOCKGATE_INSTALL": str(guarded.stage.origin),
        "LOCKGATE_TRUST_ROOT": "/dev/null",
        "LOCKGATE_GUARD_INSTALL": str(guarded.stage.origin),
        "LOCKGATE_OUTPUT": "json",
        "PYTHONPATH": "/nowhere",
    }
    clone.refused("approval-missing", f"{lone}:{MAIN}")


# --- the hook itself ---------------------------------------------------------------------------------------------


def test_a_hook_that_cannot_judge_refuses(guarded: Site, clone: Clone) -> None:
    site = Clone.copy(guarded.stage, clone.stage.folder / "origin")
    clone.target = str(site.stage.origin)
    good = f"{clone.commit('alice', {'README.md': b'x'})}:{MAIN}"
    root = site.stage.origin / "lockgate" / "trust-root.json"
    kept = root.read_text()
    root.unlink()
    assert "lockgate: guard-failed: " in clone.refused("trust-root-missing", good)
    root.write_text(kept.replace('"project": "shop"', '"project": "shop" nonsense'))
    clone.refused("trust-root-malformed", good)
    other = json.loads(kept) | {"genesis": clone.tip(MAIN)}
    root.write_text(json.dumps(other))
    clone.refused("genesis-mismatch", good)
    root.write_text(kept)
    (site.stage.origin / "lockgate" / "guard.json").write_text('{"root": 3')
    hook = site.stage.origin / "hooks" / "pre-receive"
    script = hook.read_text()
    hook.write_text(script.replace(" -E -P -m controller", "-gone -E -P -m controller"))
    assert "lockgate: guard-failed: " in clone.refused("guard-failed", good)
    hook.write_text(script)
    clone.lands(good)


def test_damage_that_stands_keeps_evidence_shut(guarded: Site, clone: Clone) -> None:
    site = Clone.copy(guarded.stage, clone.stage.folder / "origin")
    clone.target = str(site.stage.origin)
    foreign = site.push(site.tree(site.tip(), {"state/dev.json": ("100644", site.blob(b"{}"))}), site.tip())
    clone.git("fetch", "-q", clone.target, foreign)
    clone.refused("foreign-evidence", f"{clone.evidence({'state/dev.json': b'{}'}, 'bob', foreign)}:{EVIDENCE}")
    settle(site)  # the repair lands through the hook
    assert foreign in [one.commit for one in site.verify().refused]


def test_installing(guarded: Site, clone: Clone, tmp_path: Path) -> None:
    origin, root = clone.stage.origin, clone.stage.trust_root
    hook = origin / "hooks" / "pre-receive"

    def installed(code: int, where: Path = origin, trust_root: Path = root) -> subprocess.CompletedProcess[str]:
        done = lockgate("guard", "--install", where, "--trust-root", trust_root)
        assert done.returncode == code, done.stderr + done.stdout
        return done

    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 0\n")
    assert "lockgate: hook-exists: " in installed(1).stderr
    hook.unlink()
    assert "receive.fsckObjects true" in installed(0).stdout
    first = hook.read_bytes()
    clone.git("config", "receive.fsckObjects", "true")
    assert "receive.fsckObjects" not in installed(0).stdout
    assert hook.read_bytes() == first and hook.stat().st_mode & 0o111 == 0o111
    clone.git("config", "core.hooksPath", "/nowhere")
    assert "lockgate: hook-elsewhere: " in installed(1).stderr
    subprocess.run(["git", "init", "-q", tmp_path / "work"], check=True)
    assert "lockgate: guard-repository: " in installed(2, tmp_path / "work").stderr
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "empty.git"], check=True)
    assert "lockgate: genesis-mismatch: " in installed(1, tmp_path / "empty.git").stderr
    assert "lockgate: trust-root-missing: " in lockgate("guard", "--install", origin).stderr


def test_as_an_update_hook(guarded: Site, clone: Clone) -> None:
    """hooks/update gets one ref at a time, its objects out of quarantine."""
    origin, root = clone.stage.origin, clone.stage.trust_root
    tip, zero = clone.tip(MAIN), "0" * 40

    def judged(*words: str) -> subprocess.CompletedProcess[str]:
        return lockgate("--repo", origin, "guard", "--trust-root", root, *words)

    lone = clone.commit("alice", {"policies/quiet.yaml": LAX})
    assert judged(MAIN, tip, lone).stderr.startswith("lockgate: approval-missing: ")
    assert judged(MAIN, tip, zero).returncode == 1
    assert judged(MAIN, tip, clone.commit("alice", {"README.md": b"x"})).returncode == 0
    assert judged("refs/heads/feature", zero, lone).returncode == 0
    assert judged(MAIN, tip).stderr.startswith("lockgate: guard-input: ")
    assert judged("main", tip, lone).returncode == 2


def test_a_slot_without_its_lock_is_no_business_of_the_hook(clone: Clone) -> None:
    """What only deciding can tell is decided by the controller: the push lands there, and the run is denied."""
    slot = clone.branch("promote", "alice", {SLOT: slot_file("dev", "shop-9.9.9", "too early")})
    assert clone.push_to("--dry-run", f"{clone.merged('bob', slot)}:{MAIN}").returncode == 0
