"""Where the evidence branch stands, in short: the one derived file that every entry changes."""

from __future__ import annotations

from pydantic import Field, ValidationError

from controller.errors import Refused
from controller.ledger.marks import LogMarks
from controller.ledger.rules import claimed, newer, unknown_evidence
from controller.model.entry import (
    Acknowledgement,
    MainAcknowledged,
    MainRefused,
    SlotChange,
    TagMoved,
    Time,
    Wire,
)

LET_STAND = 16
"""How many refused commits that owners let stand are remembered, so that status can tell of them."""


class ReplayAsked(Wire):
    """An accepted request to decide a run again; `commit` is the request's."""

    commit: str
    run: str
    by: str
    reason: str


class Cursors(Wire):
    """Where the branch stands: `index` is the next entry's, `rules` the last one's. `refused` are the commits
    main stands still at, `pending` the slot changes no run was opened for yet, `moved` the newest moved tags
    of what can run again, `replays` the accepted ones that are not on record yet, `log` how far the log is
    witnessed and time-stamped. `acknowledging` are owners' requests to let refused commits stand,
    `acknowledged` the commits that enough of them let stand and main has not gone over yet, `let_stand` the
    newest of those that it has. `restarts` is the number of the branch's newest restart."""

    index: int = 0
    rules: int = 0
    project: str = ""
    genesis: str = ""
    main: str | None = None
    requests: str | None = None
    trust_version: int = 0
    at: Time | None = None
    runs: dict[str, int] = Field(default_factory=dict)
    refused: tuple[MainRefused, ...] = ()
    pending: tuple[SlotChange, ...] = ()
    moved: tuple[TagMoved, ...] = ()
    replays: tuple[ReplayAsked, ...] = ()
    acknowledging: tuple[Acknowledgement, ...] = ()
    acknowledged: tuple[MainAcknowledged, ...] = ()
    let_stand: tuple[MainAcknowledged, ...] = ()
    restarts: int = 0
    log: LogMarks = LogMarks()


def read_cursors(data: bytes, where: str) -> Cursors:
    """The cursors from their file's bytes. Raises Refused("state-mismatch"), and Stalled("rules-unknown") whatever
    else they say."""
    try:
        cursors = Cursors.model_validate_json(data)
    except ValidationError as error:
        rules = claimed(data).get("rules")
        if newer(rules):
            raise unknown_evidence(rules, where) from error
        raise Refused("state-mismatch", "a derived file is not in its form", where=where) from error
    if newer(cursors.rules):
        raise unknown_evidence(cursors.rules, where)
    return cursors


def gone_over(cursors: Cursors, commits: tuple[str, ...]) -> dict[str, object]:
    """What changes when main went over commits that were let stand: they wait no longer, and are remembered."""
    gone = tuple(one for one in cursors.acknowledged if one.commit in commits)
    left = tuple(one for one in cursors.acknowledged if one.commit not in commits)
    return {"acknowledged": left, "let_stand": (*cursors.let_stand, *gone)[-LET_STAND:]}
