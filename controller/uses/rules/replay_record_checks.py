"""What must hold for a recorded replay: somebody was entitled to ask, and it says what comes out again."""

from __future__ import annotations

from collections.abc import Iterator

from controller.errors import LockgateError
from controller.ledger import fold
from controller.model.entry import Replayed, ReplayedDecision
from controller.ports import Repo
from controller.uses.replay import replay_run
from controller.uses.rules.replay_checks import Ask
from controller.uses.rules.subject import Problem


def replay_on_record(repo: Repo, ask: Ask | None, commit: str, path: str, detail: Replayed) -> Iterator[Problem]:
    """Check one `replayed` event at its commit, against the tree before it."""
    parents = repo.commit(commit).parents
    if not parents:
        yield "replay-unasked", path, "nobody asked for this replay"
        return
    try:
        cursors = fold.load_state(repo, parents[0]).cursors
        asked = {(one.commit, one.run, one.by, one.reason) for one in cursors.replays}
        if (detail.request, detail.run, detail.by, detail.reason) not in asked:
            yield "replay-unasked", path, f"no accepted request asks for a replay of {detail.run}"
            return
        again = replay_run(repo, parents[0], detail.run, ask)["decisions"]
    except LockgateError as error:
        if error.code != detail.code:
            yield "replay-mismatch", path, f"the replay cannot be made again: {error.what}"
        return
    if detail.code not in ("replayed", "replay-undecided"):
        yield "replay-mismatch", path, f"the replay can be made, recorded is {detail.code}"
        return
    said = {one.sequence: one for one in detail.decisions}
    # A run that was open may have gone on between the replay and its record.
    for row in again[: len(detail.decisions)]:
        one = said.get(row["sequence"])
        if one is None or one.recorded != row["recorded"]:
            yield "replay-mismatch", path, f"step {row['sequence']} is not what the run's record says"
        elif row["replayed"] is not None and one.replayed is not None and _said(one) != _found(row):
            yield "replay-mismatch", path, f"step {row['sequence']} does not come out as the replay says"
    good = sum(1 for one in detail.decisions if one.match)
    sums = (len(detail.decisions), good, detail.code == "replayed" and good == len(detail.decisions))
    if (detail.total, detail.matching, detail.match) != sums or len(again) < len(detail.decisions):
        yield "replay-mismatch", path, "the replay's sums are not those of its decisions"


def _said(one: ReplayedDecision) -> tuple[str | None, bool]:
    return one.replayed, one.match


def _found(row: object) -> tuple[str | None, bool]:
    assert isinstance(row, dict)
    return row["replayed"], row["match"]
