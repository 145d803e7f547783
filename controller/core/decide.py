"""One pass's decision: from an observation to the entries that must be recorded. Pure; reads as its contents."""

from __future__ import annotations

from controller.core.advance import advance
from controller.core.asked import judge_requests
from controller.core.desk import Desk
from controller.core.gates import Question
from controller.core.opening import open_runs
from controller.core.replays import record_replays
from controller.core.tags import watch_tags
from controller.core.transparency import make_visible
from controller.core.world import Decision, World
from controller.ledger.canonical import canonical, digest
from controller.model.entry import Actor, LockMade, MainRefused, What
from controller.model.words import counted


def decide(world: World) -> Decision:
    """What `world` demands. Same world, same decision: no clock, no IO, no randomness."""
    desk = Desk(world)
    accept_main(desk)
    lock_releases(desk)
    open_runs(desk)
    judge_requests(desk)
    for environment in sorted(desk.runs):
        advance(desk, environment)
    watch_tags(desk)
    record_replays(desk)
    make_visible(desk)
    return desk.decision()


def accept_main(desk: Desk) -> None:
    """Record that main moved on, or that it stands still and why.

    Accepting clears what stood refused, so commits taken back within this pass come before it.
    """
    for refused in desk.world.cured:
        _refuse(desk, refused)
    accepted = desk.world.accepted
    if accepted is not None:
        text = f"main: accepted {accepted.tip[:8]}, {counted(accepted.commits, 'commit')}"
        desk.event("accepted", accepted, "ACCEPTED", text)
    for refused in desk.world.refused:
        _refuse(desk, refused)


def _refuse(desk: Desk, refused: MainRefused) -> None:
    who = (Actor(principal=refused.signer),) if refused.signer else ()
    text = f"main: {refused.commit[:8]} refused, {refused.code}"
    desk.event("main-refused", refused, "REFUSED", text, who=who, why={"code": refused.code})


def resolve_question(name: str, sha256: str, components: dict[str, str]) -> Question:
    """The question for a release's lock: what its tags mean now, for this release file and these components."""
    payload = {"release": name, "sha256": sha256, "components": components}
    return Question(key=digest(canonical({"type": "resolve", **payload})), type="resolve", payload=payload)


def lock_releases(desk: Desk) -> None:
    """Ask for the digests of every release that has no lock; record the answers as lock events.

    Asking reads registries and changes nothing. The lock's file on main is an effect of the recorded event.
    """
    intent = desk.world.intent
    for name in sorted(set(intent.releases) - set(intent.locks)):
        if name in desk.world.facts.lock_index:
            continue
        loaded = intent.releases[name]
        used = {c: intent.components[c].sha256 for c in loaded.document.spec.components if c in intent.components}
        question = resolve_question(name, loaded.sha256, used)
        answer = desk.world.answers.get(question.key)
        if answer is None or answer.get("error"):
            desk.ask(question)
            continue
        lock = LockMade.model_validate(answer["lock"])
        what = What(release=name, manifest_digest=lock.manifest_digest, digests=lock.components)
        text = f"{name}: locked {counted(len(lock.components), 'component')} as {lock.manifest_digest[7:19]}"
        desk.event("lock", lock, "LOCKED", text, what=what)
