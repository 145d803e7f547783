"""What makes the log visible to others, after each seal: witnesses' cosignatures, time-stamp, public log. Pure.

They come when they come, as events of their own: no silent agent, slow authority or lost log holds up a seal.
"""

from __future__ import annotations

from controller.core.declared import agent_key
from controller.core.desk import Desk
from controller.core.gates import Question
from controller.core.trust import CONTROLLER
from controller.core.world import Cosigned
from controller.ledger.canonical import canonical, digest
from controller.ledger.cosign import attach, lines_of, witnesses
from controller.ledger.cursors import Cursors
from controller.ledger.marks import LogMark
from controller.model.entry import Actor, Published, TimeAnchored, Witness, Witnessed
from controller.model.intent import Intent

QUESTION = "time-stamp"
PUBLISH = "publish"


def witnesses_of(intent: Intent) -> int:
    """How many agents must cosign the log after a seal: the most that an environment asks for; 0 for none."""
    return max((loaded.document.spec.witnesses for loaded in intent.environments.values()), default=0)


def sealed_unwitnessed(cursors: Cursors) -> bool:
    """Whether a run was sealed that no recorded cosignature covers."""
    return _uncovered(cursors, cursors.log.witnessed)


def sealed_unanchored(cursors: Cursors) -> bool:
    """Whether a run was sealed that no recorded time-stamp covers."""
    return _uncovered(cursors, cursors.log.anchored)


def sealed_unpublished(cursors: Cursors) -> bool:
    """Whether a run was sealed that no recorded entry of a public log covers."""
    return _uncovered(cursors, cursors.log.published)


def _uncovered(cursors: Cursors, mark: LogMark | None) -> bool:
    sealed = cursors.log.sealed
    return sealed is not None and (mark is None or mark.size <= sealed.index)


def make_visible(desk: Desk) -> None:
    """Record that a sealed run is witnessed, once enough agents cosigned; ask for its time-stamp and for its
    entry in a public log, and record them."""
    _witness(desk)
    _anchor(desk)
    _publish(desk)


def _witness(desk: Desk) -> None:
    wanted, cursors = witnesses_of(desk.world.intent), desk.world.state.cursors
    sealed = cursors.log.sealed
    if not wanted or sealed is None or not sealed_unwitnessed(cursors):
        return
    covering = [one for one in desk.world.log.cosigned if one.size > sealed.index]
    if len(covering) < wanted:
        return
    # As whoever verifies will judge them: by the agents that main declares, and by certificates valid now.
    covering = [one for one in covering if _counts(desk, one)]
    if len(covering) < wanted:
        return
    size = min(one.size for one in covering)
    detail = Witnessed(
        size=size,
        checkpoints=tuple(note.decode() for note in together(covering)),
        witnesses=tuple(
            Witness(agent=one.agent, size=one.size, at=one.at, certificate=one.certificate) for one in covering
        ),
    )
    who = tuple(Actor(principal=one.agent) for one in covering)
    text = f"log: {size} entries, to {sealed.run}, witnessed by {len(covering)} agents"
    desk.event("witnessed", detail, "WITNESSED", text, who=who)


def _counts(desk: Desk, one: Cosigned) -> bool:
    loaded = desk.world.intent.agents.get(one.agent)
    if loaded is None:
        return False
    certificates = {one.agent: one.certificate} if one.certificate is not None else {}
    return one.agent in witnesses(one.note, {one.agent: agent_key(loaded.document)}, certificates, desk.now)


def together(cosigned: list[Cosigned]) -> list[bytes]:
    """The cosigned checkpoints, one for each size, with every cosignature of that size."""
    notes: dict[int, bytes] = {}
    for one in cosigned:
        known = notes.get(one.size)
        notes[one.size] = one.note if known is None else attach(known, lines_of(one.note)[1:])
    return [notes[size] for size in sorted(notes)]


def time_question(authority: str, url: str, certificates: tuple[str, ...], checkpoint: bytes) -> Question:
    """The question for a checkpoint's time-stamp."""
    payload = {
        "authority": authority,
        "url": url,
        "certificates": list(certificates),
        "checkpoint": checkpoint.decode(),
    }
    return Question(key=digest(canonical({"type": QUESTION, **payload})), type=QUESTION, payload=payload)


def _anchor(desk: Desk) -> None:
    project, candidate = desk.world.intent.project, desk.world.log.candidate
    stamping = project.document.spec.time_stamping if project is not None else None
    if stamping is None or candidate is None:
        return
    pinned = desk.world.trust.document.spec.time_authorities.get(stamping.authority)
    size, note = candidate.size, candidate.note
    certificates = pinned.certificates if pinned is not None else ()
    question = time_question(stamping.authority, stamping.url, certificates, note)
    answer = desk.world.answers.get(question.key)
    if answer is None or answer.get("error"):
        desk.ask(question)
        return
    detail = TimeAnchored(
        run=candidate.run,
        size=size,
        checkpoint=note.decode(),
        authority=stamping.authority,
        token=answer["token"],
        time=answer["time"],
    )
    text = f"log: {size} entries, to {candidate.run}, existed at {answer['time']} by {stamping.authority}"
    desk.event("time-anchored", detail, "ANCHORED", text, who=(Actor(principal=stamping.authority),))


def _publish(desk: Desk) -> None:
    project, candidate = desk.world.intent.project, desk.world.log.publish
    publication = project.document.spec.publication if project is not None else None
    if publication is None or candidate is None:
        return
    pinned = desk.world.trust.document.spec.transparency_logs.get(publication.log)
    size, note = candidate.size, candidate.note
    payload = {
        "log": publication.log,
        "url": publication.url,
        "origin": pinned.origin if pinned is not None else "",
        "keys": list(pinned.keys) if pinned is not None else [],
        "submitters": sorted(desk.world.trust.keys_of_role(CONTROLLER)),
        "checkpoint": note.decode(),
    }
    question = Question(key=digest(canonical({"type": PUBLISH, **payload})), type=PUBLISH, payload=payload)
    answer = desk.world.answers.get(question.key)
    if answer is None or answer.get("error"):
        desk.ask(question)
        return
    detail = Published(
        run=candidate.run,
        size=size,
        checkpoint=note.decode(),
        log=publication.log,
        index=answer["index"],
        body=answer["body"],
        hashes=tuple(answer["hashes"]),
        proof=answer["proof"],
    )
    text = f"log: {size} entries, to {candidate.run}, published as entry {answer['index']} of {publication.log}"
    desk.event("published", detail, "PUBLISHED", text, who=(Actor(principal=publication.log),))
