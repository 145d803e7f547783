"""The story of runs, read from evidence: what `runs`, `timeline`, `step`, `targets` and `evidence` answer.

Everything is read at one evidence commit. Reading trusts what it reads; whether it may be trusted is for
`verify` to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from typing_extensions import TypedDict

from controller.core.run import fold
from controller.errors import Invalid
from controller.ledger.append import run_entries
from controller.ledger.canonical import digest, parse
from controller.ledger.entry import read
from controller.ledger.fold import load_state
from controller.model.entry import Deployed, Entry, Inputs, Ordered, RolledBack, Sealed, Verified, format_time
from controller.ports import Repo
from controller.uses.outside import names_a_log
from controller.uses.view import no_run

EXPECTED = ("opened", "inputs", "gates", "ordered", "deployed", "evaluated", "verified", "sealed")
"""The checkpoints of a run that completes, in order; others are listed when they happened."""


class RunRow(TypedDict):
    """A run. `closed` is null and `sealed` false while it is open."""

    run: str
    environment: str
    release: str
    phase: str
    opened: str
    closed: str | None
    sealed: bool


class StepRow(TypedDict):
    """One entry of a run. `commit` is null when no commit of the branch says it brought it."""

    sequence: int
    kind: str
    result: str
    at: str
    summary: str
    envelope: str
    commit: str | None


class Timeline(TypedDict):
    """A run's entries in sequence."""

    run: str
    phase: str
    steps: list[StepRow]


class TargetRow(TypedDict):
    """One target of a run: its stage (from 1), the last order it got, and what became of it."""

    target: str
    stage: int | None
    action: str | None
    result: str
    code: str
    message: str
    healthy: bool | None
    manifestDigest: str | None
    order: str | None


class EvidenceRow(TypedDict):
    """One checkpoint: sealed (recorded), pending (the run is open) or absent (the run ended without it)."""

    checkpoint: str
    state: Literal["sealed", "pending", "absent"]
    sequence: int | None
    envelope: str | None
    path: str | None


def runs(repo: Repo, tip: str, environment: str | None = None, limit: int | None = None) -> list[RunRow]:
    """Runs in the order they were opened; `limit` keeps the newest."""
    sealed: dict[str, str | None] = {}
    for path, _ in repo.files(tip, f"runs/{environment}" if environment else "runs"):
        folder, _, name = path.rpartition("/")
        if name == "run.json":
            sealed.setdefault(folder, None)
        elif name.endswith("-sealed.dsse.json"):
            sealed[folder] = path
    folders = sorted(sealed, key=_age)
    rows = [_row(repo, tip, folder, sealed[folder]) for folder in (folders[-limit:] if limit else folders)]
    return sorted(rows, key=lambda row: (row["opened"], row["run"]))


def _age(folder: str) -> tuple[str, str, int]:
    """(day, environment, number): the order of opening, as far as names tell."""
    parts = folder.split("/")
    number = parts[-1].rsplit("-", 2)[1]
    return "/".join(parts[-4:-1]), parts[1], int(number) if number.isdigit() else 0


def _row(repo: Repo, tip: str, folder: str, sealed: str | None) -> RunRow:
    head = parse(_content(repo, tip, f"{folder}/run.json"))
    row = RunRow(
        run=head["run"],
        environment=head["environment"],
        release=head["release"],
        phase="",
        opened=head["opened"],
        closed=None,
        sealed=sealed is not None,
    )
    if sealed is None:
        row["phase"] = fold(run_entries(repo, tip, folder)).phase
    else:
        entry = read(_content(repo, tip, sealed), sealed, None)
        row["phase"], row["closed"] = entry.detail.phase, format_time(entry.predicate.at)
    return row


def timeline(repo: Repo, tip: str, run: str) -> Timeline:
    """A run's steps, each with the commit that brought it. Raises Invalid("run-not-found")."""
    entries = entries_of(repo, tip, run)
    commits = commits_of(repo, tip, entries)
    steps = [
        StepRow(
            sequence=entry.predicate.sequence or 0,
            kind=entry.kind,
            result=entry.predicate.result,
            at=format_time(entry.predicate.at),
            summary=entry.predicate.summary,
            envelope=entry.digest,
            commit=commits.get(entry.digest),
        )
        for entry in entries
    ]
    return Timeline(run=run, phase=_phase(entries), steps=steps)


def step(repo: Repo, tip: str, run: str, sequence: int) -> dict[str, Any]:
    """One entry whole: its predicate, path, envelope digest and commit.

    Raises Invalid("run-not-found") and Invalid("step-not-found").
    """
    entries = entries_of(repo, tip, run)
    found = [entry for entry in entries if entry.predicate.sequence == sequence]
    if not found:
        raise Invalid(
            "step-not-found",
            f"{run} has no step {sequence}",
            expected=f"1 to {len(entries)}",
            got=str(sequence),
            cure=f"list them with `lockgate timeline {run}`",
        )
    (entry,) = found
    predicate = entry.predicate.wire()
    commit = commits_of(repo, tip, found).get(entry.digest)
    return {"run": run, "envelope": entry.digest, "commit": commit, "path": entry.path, "predicate": predicate}


def targets(repo: Repo, tip: str, run: str) -> list[TargetRow]:
    """The run's targets in the order of its plan, with the newest that is known of each."""
    rows: dict[str, TargetRow] = {}
    for entry in entries_of(repo, tip, run):
        detail = entry.detail
        if isinstance(detail, Inputs):
            stages = {name: place + 1 for place, stage in enumerate(detail.stages) for name in stage.targets}
            for name in [*stages, *detail.targets]:
                rows.setdefault(name, _target(name, stages.get(name)))
        elif isinstance(detail, Ordered):
            for line in detail.orders:
                row = rows.setdefault(line.target, _target(line.target, detail.stage + 1))
                row |= {"action": detail.action, "result": "ordered", "order": line.id, "code": "", "message": ""}
        elif isinstance(detail, (Deployed, RolledBack, Verified)):
            for result in detail.results:
                row = rows.setdefault(result.target, _target(result.target, None))
                row |= {"result": result.result, "code": result.code, "message": result.message}
                row |= {"healthy": result.healthy, "order": result.order}
                if result.manifest_digest is not None:
                    row["manifestDigest"] = result.manifest_digest
    return list(rows.values())


def _target(name: str, stage: int | None) -> TargetRow:
    return TargetRow(
        target=name,
        stage=stage,
        action=None,
        result="untouched",
        code="",
        message="",
        healthy=None,
        manifestDigest=None,
        order=None,
    )


def evidence(repo: Repo, tip: str, run: str) -> list[EvidenceRow]:
    """The run's checkpoints: every entry there is, and the expected ones that are not (yet)."""
    entries = entries_of(repo, tip, run)
    ended = isinstance(entries[-1].detail, Sealed)
    rows = [
        EvidenceRow(
            checkpoint=entry.kind,
            state="sealed",
            sequence=entry.predicate.sequence,
            envelope=entry.digest,
            path=entry.path,
        )
        for entry in entries
    ]
    have = {entry.kind for entry in entries}
    missing: Iterable[str] = [kind for kind in EXPECTED if kind not in have]
    if ended and entries[-1].detail.phase == "completed":
        missing = entries[-1].detail.absent
    rows += [
        EvidenceRow(
            checkpoint=kind, state="absent" if ended else "pending", sequence=None, envelope=None, path=None
        )
        for kind in missing
    ]
    return rows + _visible(repo, tip, entries[-1] if ended else None)


def _visible(repo: Repo, tip: str, seal: Entry | None) -> list[EvidenceRow]:
    """What others said of the log that holds the seal: cosignatures where there are any, the time-stamp, and the
    entry of a public log where the project names one."""
    recorded = load_state(repo, tip)
    marks = recorded.cursors.log
    rows = []
    every = (("witnessed", marks.witnessed), ("time-anchored", marks.anchored), ("published", marks.published))
    for kind, mark in every:
        file = None
        if mark is not None and seal is not None and mark.size > seal.predicate.index:
            file = repo.file(tip, mark.event)
        if mark is not None and file is not None:
            envelope = digest(repo.read(file.blob))
            rows.append(
                EvidenceRow(checkpoint=kind, state="sealed", sequence=None, envelope=envelope, path=mark.event)
            )
        elif kind == "time-anchored":
            state: Literal["absent", "pending"] = "absent" if seal is not None else "pending"
            rows.append(EvidenceRow(checkpoint=kind, state=state, sequence=None, envelope=None, path=None))
        elif kind == "published" and names_a_log(repo, recorded):
            rows.append(EvidenceRow(checkpoint=kind, state="pending", sequence=None, envelope=None, path=None))
    return rows


def entries_of(repo: Repo, tip: str, run: str) -> tuple[Entry, ...]:
    """A run's entries in sequence. Raises Invalid("run-not-found")."""
    environment = run.rsplit("-", 2)[0]
    for path, _ in repo.files(tip, f"runs/{environment}"):
        if path.endswith(f"/{run}/run.json"):
            return run_entries(repo, tip, path.rpartition("/")[0])
    raise no_run(run)


def commits_of(repo: Repo, tip: str, entries: Iterable[Entry]) -> dict[str, str]:
    """The commit that brought each entry, by envelope digest.

    The branch holds one commit an entry, so entry n is the n-th commit, and later by as many commits as were
    foreign before it; the trailer decides.
    """
    chain = repo.chain(tip)
    found: dict[str, str] = {}
    skew = 0
    for entry in sorted(entries, key=lambda item: item.predicate.index):
        for place in range(entry.predicate.index + skew, len(chain)):
            if f"\nLockgate-Digest: {entry.digest}" in repo.commit(chain[place]).message:
                found[entry.digest] = chain[place]
                skew = place - entry.predicate.index
                break
    return found


def _phase(entries: tuple[Entry, ...]) -> str:
    last = entries[-1].detail
    return last.phase if isinstance(last, Sealed) else fold(entries).phase


def _content(repo: Repo, tip: str, path: str) -> bytes:
    file = repo.file(tip, path)
    if file is None:
        raise Invalid("run-not-found", "a record of the run is missing", where=path, cure="run `lockgate verify`")
    return repo.read(file.blob)
