"""What was decided from, while verifying: made again from what was true then, and compared with what is committed.

The functions are the controller's own. What they are given is the documents that the run pinned, main as of the
entry, the evidence before its pass, the run's earlier entries, and the entry's own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from controller.core.gates import PURE, Gate, seen_by, verdict_from
from controller.core.inputs import TZDATA, gates_of, previous_of, targets_of
from controller.core.pinned import run_documents
from controller.core.run import Run
from controller.core.trust import TrustState
from controller.core.world import CompletedAt, Facts, RunDocuments, World
from controller.errors import LockgateError
from controller.ledger import fold
from controller.ledger.canonical import canonical, digest, parse_canonical
from controller.model.entry import Entry, Gates, Inputs, Opened, Ordered
from controller.ports import Repo
from controller.settings import tzdata_version
from controller.uses.rules.artifact_checks import templates
from controller.uses.rules.main_documents import MainDocuments
from controller.uses.rules.passes import Begun
from controller.uses.rules.subject import Problem

CODE = "inputs-mismatch"
LEFT_OUT = "pin-mismatch"
DENIED = "stage-regate-denied"
STALE = "observed-unknown"
UNCHECKED = "decision-unchecked"
_BY_CLOCK = {"windows": ("open", "changes"), "freezes": ("active", "until")}
"""What time zone data decides of a schedule, by the list that it stands in."""
_KEPT = 256


class Truth:
    """What is known along a walk of what decisions were made from."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._main = MainDocuments(repo)
        self._documents: dict[tuple[str, str], RunDocuments] = {}

    def check(
        self, entry: Entry, run: Run, begun: Begun, trust: TrustState, files: Mapping[str, bytes]
    ) -> Iterator[Problem]:
        """What an `inputs` or `gates` entry says it was made from and was not, and what denied an `ordered` one.
        `run` is its run before it, `begun` where its pass began, `files` what its commit added beside it, by path
        below the run's folder."""
        try:
            world = self._world(entry, run, begun, trust)
            documents = world.documents[run.id]
            if isinstance(entry.detail, Inputs):
                yield from self._inputs(world, run, documents, entry, entry.detail, begun)
            elif isinstance(entry.detail, Gates):
                yield from _gates(world, run, documents, entry, entry.detail, files)
            elif isinstance(entry.detail, Ordered):
                yield from _ordered(world, run, documents, entry, entry.detail)
        except LookupError:
            return  # something that it needs is not pinned, which is found where pins are
        except (LockgateError, TypeError, AttributeError, AssertionError) as error:
            why = error.what if isinstance(error, LockgateError) else f"{type(error).__name__} {error}"
            yield CODE, entry.path, f"what it was made from cannot be made again: {why}"

    def opened(self, entry: Entry, detail: Opened) -> Iterator[Problem]:
        """Which agents of the environment, as main has them, a run leaves out."""
        try:
            intent = self._main.intent(entry.predicate.observed.main or "")
            ours = {agent.path for agent in intent.agents_of(entry.predicate.environment or "")}
        except LockgateError as error:
            yield LEFT_OUT, entry.path, f"main's agents cannot be read: {error.what}"
            return
        missing = sorted(ours - {pin.path for pin in detail.pins})
        if missing:
            yield LEFT_OUT, entry.path, f"the run leaves out {', '.join(missing)} of main"

    def _world(self, entry: Entry, run: Run, begun: Begun, trust: TrustState) -> World:
        """The smallest world that inputs are made from."""
        observed = entry.predicate.observed
        intent = self._main.intent(observed.main or "")
        if isinstance(entry.detail, Inputs):
            run = replace(run, inputs=entry.detail)  # that its lock is main's is found where pins are
        lock = run.inputs.lock.blob if run.inputs is not None else ""
        documents = self._documents.get((run.id, lock))
        if documents is None:
            documents = run_documents(self._main.document, run, intent)
            if len(self._documents) >= _KEPT:
                self._documents.clear()
            self._documents[run.id, lock] = documents
        return World(
            project=begun.state.cursors.project,
            now=entry.at,
            templates=templates(),
            observed=observed,
            intent=intent,
            trust=trust,
            state=begun.state,
            runs={run.environment: run},
            documents={run.id: documents},
            facts=self._facts(begun, documents),
            tzdata=tzdata_version(),
        )

    def _facts(self, begun: Begun, documents: RunDocuments) -> Facts:
        """When the run's release completed where it is promoted from, as of the beginning of the pass."""
        completed: dict[tuple[str, str], CompletedAt] = {}
        if begun.commit is not None and documents.lock is not None:
            manifest = documents.lock.spec.manifest_digest
            for name in documents.environment.spec.promotes_from:
                record = fold.lookup_completed(self._repo, begun.commit, name, manifest)
                if record is not None:
                    completed[name, manifest] = CompletedAt(record.run, record.at)
        return Facts(completed=completed)

    def _inputs(
        self,
        world: World,
        run: Run,
        documents: RunDocuments,
        entry: Entry,
        detail: Inputs,
        begun: Begun,
    ) -> Iterator[Problem]:
        """What the environment ran, and the targets; everything else follows from pinned documents."""
        before = detail.files.get("previous")
        place = begun.state.environments.get(run.environment)
        if (
            before != digest(fold.environment_file(place) if place is not None else canonical({}))
            and before != self._state(begun, run.environment)
            and before != digest(canonical(previous_of(world, run)))
        ):
            path = f"{entry.path.rpartition('/')[0]}/inputs/previous.json"
            yield CODE, path, "the input previous is not what the environment ran when the pass began"
        if detail.targets != targets_of(world, run, documents, detail.manifest_digest):
            yield CODE, entry.path, "the targets are not those that the run is about"

    def _state(self, begun: Begun, environment: str) -> str | None:
        """The digest of an environment's state as it was written."""
        path = fold.environment_path(environment)
        file = self._repo.file(begun.commit, path) if begun.commit is not None else None
        return digest(self._repo.read(file.blob)) if file is not None else None


def decided_now(entry: Entry, run: Run) -> bool:
    """Whether an order needs no gates of its own: they were decided in its pass, or the stage began before."""
    detail = entry.detail
    if not isinstance(detail, Ordered):
        return False
    return detail.action != "deploy" or detail.stage == run.stage or run.gates_at == entry.at


def stale(entry: Entry, accepted: str | None) -> Iterator[Problem]:
    """An entry of a run is made from the main that was accepted last before it: not from one without a freeze."""
    main = entry.predicate.observed.main
    if entry.predicate.run is not None and main != accepted:
        text = f"it was made from main {(main or 'nothing')[:12]}, and {(accepted or 'nothing')[:12]} was accepted"
        yield STALE, entry.path, text


def _gates(
    world: World,
    run: Run,
    documents: RunDocuments,
    entry: Entry,
    detail: Gates,
    files: Mapping[str, bytes],
) -> Iterator[Problem]:
    name = f"inputs/gates-{run.gates_count + 1:02}.json"
    committed = files.get(name)
    gates = gates_of(world, run, documents)
    if committed is None or committed == canonical({gate.name: seen_by(gate, entry.at) for gate in gates}):
        return  # one that is missing is found where the gates are decided again
    path = f"{entry.path.rpartition('/')[0]}/{name}"
    try:
        said = parse_canonical(committed)
    except LockgateError:
        return
    by = _tzdata(said)
    if by is not None and by != world.tzdata:
        gates = gates_of(replace(world, tzdata=by), run, documents)
    passed = {verdict.gate for verdict in detail.verdicts if verdict.verdict in ("PASS", "WARN")}
    named = {verdict.gate: verdict.inputs for verdict in detail.verdicts}
    for gate in gates:
        true = parse_canonical(canonical(seen_by(gate, entry.at)))
        given = said.get(gate.name) if isinstance(said, dict) else None
        if given == true or not isinstance(given, dict) or digest(canonical(given)) != named.get(gate.name):
            continue  # inputs that are not those of their verdict are found where it is made again
        if by is not None and by != world.tzdata and _apart_from_clock(given) == _apart_from_clock(true):
            text = f"gate {gate.name} read schedules by time zone data {by}; {world.tzdata} here says otherwise"
            yield UNCHECKED, path, text
            continue
        denied = detail.stage > 0 and gate.name in passed and _denies(gate, true)
        other = ", ".join(sorted(key for key in given.keys() | true.keys() if given.get(key) != true.get(key)))
        text = f"gate {gate.name} was decided from {other} that were not so then"
        yield DENIED if denied else CODE, path, text


def _ordered(world: World, run: Run, documents: RunDocuments, entry: Entry, detail: Ordered) -> Iterator[Problem]:
    """What the gates that need nobody's answer say when a stage is ordered: those on record may be older."""
    for gate in gates_of(world, run, documents):
        pure = PURE.get(gate.type)
        seen = parse_canonical(canonical(seen_by(gate, entry.at)))
        said = verdict_from(gate, seen, pure(gate.config, seen)) if pure is not None else None
        if said is not None and said.verdict in ("WAIT", "FAIL"):
            text = f"stage {detail.stage + 1} was ordered while gate {gate.name} denied it: {said.message}"
            yield DENIED, entry.path, text


def _denies(gate: Gate, inputs: Mapping[str, Any]) -> bool:
    pure = PURE.get(gate.type)
    return pure is not None and pure(gate.config, inputs).verdict in ("WAIT", "FAIL")


def _tzdata(said: Any) -> str | None:
    """The time zone data that committed inputs name."""
    for inputs in said.values() if isinstance(said, dict) else ():
        named = inputs.get(TZDATA) if isinstance(inputs, dict) else None
        if isinstance(named, str):
            return named
    return None


def _apart_from_clock(inputs: Mapping[str, Any]) -> Any:
    """A gate's inputs without what time zone data decides."""
    kept = dict(inputs)
    for name, members in _BY_CLOCK.items():
        if isinstance(kept.get(name), list):
            kept[name] = [
                {k: v for k, v in one.items() if k not in members} if isinstance(one, dict) else one
                for one in kept[name]
            ]
    return kept
