"""Deterministic replay: a run's gates and stages decided again from committed inputs, and how often that held.

What is needed is in the evidence tree and in the blobs that the run pinned: a bare clone is enough, on any day and
in any place. Nothing is trusted and nothing is proven about signatures here: that is `verify`, which decides again
by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from typing_extensions import TypedDict

from controller.errors import LockgateError
from controller.ledger.append import run_entries
from controller.ledger.entry import read
from controller.model.entry import Entry, Replayed, format_time
from controller.ports import Repo
from controller.uses.rules.replay_checks import Again, Ask, Replay
from controller.uses.view import no_run, run_folder_of


class DecisionRow(TypedDict):
    """One decision: its entry's sequence, the digest on record, and the one that comes out now, null when it
    cannot be made here; `message` says what differs."""

    sequence: int
    kind: str
    recorded: str
    replayed: str | None
    match: bool
    message: str


class ReplayAnswer(TypedDict):
    """A run decided again; `match` is true when every decision came out as recorded."""

    run: str
    decisions: list[DecisionRow]
    match: bool


class ReplayRow(TypedDict):
    """One completed replay: made now, or recorded by the controller when somebody asked (`by`, `reason`)."""

    run: str
    source: Literal["now", "recorded"]
    at: str | None
    by: str | None
    reason: str | None
    decisions: int
    matching: int
    result: Literal["match", "mismatch", "undecided"]


class Figures(TypedDict):
    """How deterministic decisions were, over completed replays; `rate` is matching by total, null without any.

    `undecided` replays met a decision that could not be made; they are not completed and count nowhere else.
    """

    total: int
    matching: int
    mismatching: int
    rate: float | None
    undecided: int
    decisions: int


class FiguresAnswer(TypedDict):
    """Replays and the figures they add up to."""

    replays: list[ReplayRow]
    figures: Figures


def known_run(repo: Repo, tip: str | None, run: str) -> str:
    """The evidence commit that holds the run. Raises Invalid("run-not-found")."""
    if tip is None or run_folder_of(repo, tip, run) is None:
        raise no_run(run)
    return tip


def replay_run(repo: Repo, tip: str, run: str, ask: Ask | None = None) -> ReplayAnswer:
    """Every gates and stage decision of a run made again, as of an evidence commit.

    Raises Invalid("run-not-found"), Refused("object-corrupt") for a record that cannot be read.
    """
    folder = run_folder_of(repo, known_run(repo, tip, run), run) or ""
    rows = [_decision(again) for again in _again(repo, tip, folder, ask)]
    return ReplayAnswer(run=run, decisions=rows, match=all(row["match"] for row in rows))


def _again(repo: Repo, tip: str, folder: str, ask: Ask | None) -> Iterator[Again]:
    replay = Replay(repo, ask)
    files = {path.removeprefix(f"{folder}/"): file for path, file in repo.files(tip, folder)}
    for entry in run_entries(repo, tip, folder):
        wanted = f"reports/{entry.predicate.sequence or 0:03d}-"
        beside = {
            name: repo.read(file.blob)
            for name, file in files.items()
            if name.startswith(wanted) or (entry.kind == "gates" and name.startswith("inputs/gates-"))
        }
        try:
            again = replay.again(entry, beside)
        except LockgateError as error:
            again = Again(entry, entry.digest, None, ((error.code, entry.path, error.what),), error.what)
        if again is not None:
            yield again
        replay.add(entry)


def _decision(again: Again) -> DecisionRow:
    return DecisionRow(
        sequence=again.entry.predicate.sequence or 0,
        kind=again.entry.kind,
        recorded=again.recorded,
        replayed=again.replayed,
        match=again.match,
        message="; ".join(dict.fromkeys(message for _, _, message in again.problems)) or again.undecided,
    )


def undecided(answer: ReplayAnswer) -> bool:
    """Whether nothing differs, but some decision could not be made here."""
    rows = answer["decisions"]
    return not answer["match"] and all(row["match"] or row["replayed"] is None for row in rows)


def row_of(answer: ReplayAnswer) -> ReplayRow:
    """A replay made now, as the figures list it."""
    matching = sum(1 for one in answer["decisions"] if one["match"])
    return ReplayRow(
        run=answer["run"],
        source="now",
        at=None,
        by=None,
        reason=None,
        decisions=len(answer["decisions"]),
        matching=matching,
        result="match" if answer["match"] else "undecided" if undecided(answer) else "mismatch",
    )


def recorded(repo: Repo, tip: str, run: str | None = None) -> list[ReplayRow]:
    """The replays on record, oldest first; of one run when it is named."""
    rows = [_recorded(entry, entry.detail) for entry in _events(repo, tip)]
    return [row for row in rows if run is None or row["run"] == run]


def _events(repo: Repo, tip: str) -> Iterator[Entry]:
    found = [item for item in repo.files(tip, "events") if item[0].endswith("-replayed.dsse.json")]
    for path, file in sorted(found, key=lambda item: item[0].rpartition("/")[2]):
        entry = read(repo.read(file.blob), path, None)
        if isinstance(entry.detail, Replayed):
            yield entry


def _recorded(entry: Entry, detail: Replayed) -> ReplayRow:
    result: Mapping[bool, Literal["match", "mismatch"]] = {True: "match", False: "mismatch"}
    return ReplayRow(
        run=detail.run,
        source="recorded",
        at=format_time(entry.at),
        by=detail.by,
        reason=detail.reason,
        decisions=detail.total,
        matching=detail.matching,
        result=result[detail.match] if detail.code == "replayed" else "undecided",
    )


def figures(rows: Iterable[ReplayRow]) -> FiguresAnswer:
    """The determinism figures over these replays."""
    replays = list(rows)
    done = [row for row in replays if row["result"] != "undecided"]
    matching = sum(1 for row in done if row["result"] == "match")
    return FiguresAnswer(
        replays=replays,
        figures=Figures(
            total=len(done),
            matching=matching,
            mismatching=len(done) - matching,
            rate=matching / len(done) if done else None,
            undecided=len(replays) - len(done),
            decisions=sum(row["decisions"] for row in done),
        ),
    )
