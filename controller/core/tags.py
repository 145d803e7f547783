"""Tags watched after their lock: whether the tags of what runs now still mean the digests that were locked.

A moved tag changes nothing that runs, or ever will run, from the lock. It is worth a record because somebody
published other content under a name that was already released. Pure: the questions are asked by the shell.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from controller.core.desk import Desk
from controller.core.gates import Question
from controller.ledger.canonical import canonical, digest
from controller.model.entry import TagMoved, What

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tags_question(release: str, lock: str, slot: int) -> Question:
    """Whether a release's tags moved since its lock (the file's `lock` digest), asked once in a time slot."""
    payload: dict[str, Any] = {"release": release, "lock": lock, "slot": slot}
    return Question(key=digest(canonical({"type": "tags", **payload})), type="tags", payload=payload)


def watch_tags(desk: Desk) -> None:
    """Ask, once in every `check_tags`, about each release that some environment runs; record what moved.

    The slot is in the question's key, so a restart within it asks nothing new. A slow answer still counts in the
    slot after its own. The same fact - this component of this release, found at this digest - is recorded once.
    """
    period, intent = desk.world.check_tags, desk.world.intent
    if period <= timedelta(0):
        return
    places = desk.world.state.environments
    running = {here.release for name, here in places.items() if here.release and name in intent.environments}
    watched = sorted(
        name
        for name in running & set(intent.locks) & set(intent.releases)
        if any(one.tag for one in intent.locks[name].document.spec.components.values())
    )
    if not watched:
        return
    slot = (desk.now - EPOCH) // period
    desk.look_at(EPOCH + (slot + 1) * period)
    for name in watched:
        lock = intent.locks[name].sha256
        now, before = tags_question(name, lock, slot), tags_question(name, lock, slot - 1)
        answer = desk.world.answers.get(now.key)
        if answer is None or answer.get("error"):
            desk.ask(now)
            answer = desk.world.answers.get(before.key, {})
        for found in answer.get("moved", ()):
            _record(desk, TagMoved.model_validate({**found, "release": name}))


def _record(desk: Desk, moved: TagMoved) -> None:
    known = desk.world.state.cursors.moved
    if any((m.release, m.component, m.found) == (moved.release, moved.component, moved.found) for m in known):
        return
    change = "moved" if moved.found is not None else "is gone"
    text = f"{moved.release}: tag {moved.tag} of {moved.component} {change} after its lock"
    what = What(release=moved.release, digests={moved.component: moved.locked})
    desk.event("tag-moved", moved, "WARN", text, what=what, why={"locked": moved.locked, "found": moved.found})
