"""Folding: what entries add up to, and that derived files are exactly the difference."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git.keys import KeySigner
from controller.errors import Refused
from controller.ledger.append import Ledger, Prepared, genesis_draft, prepare
from controller.ledger.fold import State, apply, completed_path, derived_files, lock_path
from controller.model import entry as e
from controller.model.lock import manifest_digest
from tests.support.evidence import START, Story, git, sha

SIGNER = KeySigner(ed25519.Ed25519PrivateKey.generate())


def manifest(n: int) -> str:
    return manifest_digest({name: sha(f"shop-{n}/{name}") for name in ("api", "web", "worker")})


def begin(*drafts: e.Draft, story: Story) -> Prepared:
    first = genesis_draft("shop", story.genesis, {"main": "main"}, START)
    return prepare(Ledger(), [first, *drafts], SIGNER, "shop/x")


def more(ledger: Ledger, *drafts: e.Draft) -> Ledger:
    return prepare(ledger, drafts, SIGNER, "shop/x").ledger


def test_a_completed_promotion_becomes_what_runs() -> None:
    story = Story()
    state = begin(story.lock("shop-1"), *story.run("dev", "shop-1"), story=story).ledger.state
    here = state.environments["dev"]
    assert (here.release, here.manifest_digest, here.run) == (
        "shop-1",
        manifest(1),
        "dev-1-" + git("genesis")[:8],
    )
    assert here.digests == story.components["shop-1"]
    assert here.since == story.at
    assert [item.release for item in here.history] == ["shop-1"]
    assert here.last_run is not None
    assert here.last_run.phase == "completed"
    assert {name: (t.manifest_digest, t.healthy) for name, t in here.targets.items()} == {
        "a": (manifest(1), True),
        "b": (manifest(1), True),
    }
    assert state.open == {}
    assert state.completed["dev", manifest(1)].release == "shop-1"
    assert state.locks["shop-1"].index == 1
    assert state.cursors.index == 11
    assert state.cursors.runs == {"dev": 1}


def test_a_rolled_back_run_leaves_what_ran() -> None:
    story = Story()
    first = begin(story.lock("shop-1"), *story.run("dev", "shop-1"), story=story).ledger
    after = more(first, story.lock("shop-2"), *story.run("dev", "shop-2", end="rolled_back")).state
    here, before = after.environments["dev"], first.state.environments["dev"]
    assert (here.release, here.run, here.history) == (before.release, before.run, before.history)
    assert here.last_run is not None
    assert (here.last_run.phase, here.last_run.release) == ("rolled_back", "shop-2")
    assert ("dev", manifest(2)) not in after.completed


def test_history_is_a_stack_of_ten_and_rollback_pops() -> None:
    story = Story()
    ledger = begin(story=story).ledger
    for n in range(1, 13):
        ledger = more(ledger, story.lock(f"shop-{n}"), *story.run("dev", f"shop-{n}"))
    history = ledger.state.environments["dev"].history
    assert [item.release for item in history] == [f"shop-{n}" for n in range(3, 13)]
    back = more(ledger, *story.run("dev", "shop-9", mode="rollback")).state.environments["dev"]
    assert [item.release for item in back.history] == [f"shop-{n}" for n in range(3, 10)]
    assert (back.release, back.run) == ("shop-9", "dev-13-" + git("genesis")[:8])
    gone = more(ledger, *story.run("dev", "shop-1", mode="rollback")).state.environments["dev"]
    assert gone.history[-1].release == "shop-1"


def test_only_a_reported_success_says_what_a_target_runs_and_silence_that_it_is_not_known() -> None:
    story = Story()
    ledger = begin(story.lock("shop-1"), *story.run("dev", "shop-1"), story=story).ledger
    run = story.run("dev", "shop-1", sealed=False)
    result = run[4].detail.results[0]
    changed = sha("other")
    results = (
        result.model_copy(update={"manifest_digest": changed, "result": "failed", "healthy": False}),
        result.model_copy(update={"manifest_digest": changed, "target": "b", "order": "r/0/1/b/check"}),
        result.model_copy(update={"manifest_digest": None, "target": "new", "result": "unreported"}),
    )
    run[4] = run[4].model_copy(update={"detail": run[4].detail.model_copy(update={"results": results})})
    targets = more(ledger, *run[:5]).state.environments["dev"].targets
    assert targets.keys() == {"a", "b", "new"}
    assert (targets["new"].manifest_digest, targets["new"].healthy) == (None, None)
    assert (targets["a"].manifest_digest, targets["a"].healthy) == (manifest(1), False)
    assert (targets["b"].manifest_digest, targets["b"].healthy) == (manifest(1), True)


def test_refused_commits_stand_until_main_moves() -> None:
    story = Story()
    ledger = begin(story.refused(git("bad")), story.request(git("request")), story=story).ledger
    assert [item.commit for item in ledger.state.cursors.refused] == [git("bad")]
    assert ledger.state.cursors.main == git("genesis")
    assert ledger.state.cursors.requests == git("request")
    after = more(ledger, story.accepted(git("cure"))).state.cursors
    assert (after.refused, after.main, after.requests) == ((), git("cure"), git("request"))


def slot(env: str, commit: str) -> e.SlotChange:
    pin = e.Pin(path=f"promotions/{env}.yaml", blob=git(commit), sha256=sha(commit))
    values = {name: None for name, item in e.SlotChange.model_fields.items() if item.is_required()}
    values |= {"environment": env, "commit": git(commit), "pin": pin, "release": "shop-1", "reason": "why"}
    values |= {"authors": (), "approvers": (), "at": START}
    return e.SlotChange(**values)


def test_slot_changes_are_pending_until_a_run_opens_for_them() -> None:
    story = Story()
    changes = (slot("dev", "one"), slot("dev", "two"), slot("prod", "two"), slot("dev", "three"))
    ledger = begin(story.lock("shop-1"), story.accepted(git("three"), 3, changes), story=story).ledger
    assert ledger.state.cursors.pending == changes
    after = more(ledger, *story.run("dev", "shop-1", commit=git("two")))
    assert after.state.cursors.pending == (changes[2], changes[3])


def test_an_entry_for_a_run_that_is_not_open_is_refused() -> None:
    story = Story()
    done = begin(story.lock("shop-1"), *story.run("dev", "shop-1"), story=story)
    with pytest.raises(Refused) as caught:
        apply(done.ledger.state, done.entries[-1])
    assert caught.value.code == "run-not-open"
    with pytest.raises(Refused) as caught:
        more(done.ledger, story.run("dev", "shop-1")[1])
    assert caught.value.code == "run-not-open"
    drafts = story.run("dev", "shop-1", sealed=False)
    with pytest.raises(Refused) as caught:
        more(done.ledger, *drafts, drafts[0])
    assert caught.value.code == "run-open"


def test_derived_files_are_the_difference() -> None:
    story = Story()
    done = begin(story.lock("shop-1"), *story.run("dev", "shop-1"), story.lock("shop-2"), story=story)
    state = State()
    seen: list[set[str]] = []
    for entry in done.entries:
        after = apply(state, entry)
        seen.append(set(derived_files(state, after)))
        state = after
    cursors = "state/cursors.json"
    assert all(cursors in paths for paths in seen)
    assert seen[0] == {cursors}
    assert seen[1] == {cursors, lock_path("shop-1")}
    assert seen[2] == {cursors, "state/dev.json", "open/dev"}
    assert seen[4] == {cursors}  # a gates entry changes nothing else
    assert seen[10] == {cursors, "state/dev.json", "open/dev", completed_path("dev", manifest(1))}
    assert derived_files(State(), state)["state/dev.json"] == done.commits[10].changes["state/dev.json"]
    assert done.commits[10].changes["open/dev"] is None


def test_time_never_goes_back() -> None:
    story = Story()
    ledger = begin(story.lock("shop-1"), story=story).ledger
    late = story.lock("shop-2")
    early = late.model_copy(update={"at": START - timedelta(days=1)})
    entry = prepare(ledger, [early], SIGNER, "shop/x").entries[0]
    assert entry.predicate.at == ledger.state.cursors.at
