"""Decisions made again from what was committed: a gate's or a stage's verdict that comes out otherwise is found.

The functions are the controller's own. What a gate saw is the inputs file beside its entry, how it is configured
is in the policy that the run pinned, and what a stage was judged by is the statements file beside its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from controller.core import run as runs
from controller.core.gates import PURE, Answer, Gate, config_of, interpret, question_for, verdict_from
from controller.core.parse import parse
from controller.core.rolling import chosen_verdict, verdict_of
from controller.core.run import UNANSWERED, Run
from controller.core.world import RunDocuments
from controller.errors import LockgateError
from controller.ledger import dsse
from controller.ledger.append import run_entries
from controller.ledger.canonical import canonical, digest, parse_canonical
from controller.model.documents import Document, Environment, Policy, Release, Strategy
from controller.model.entry import Entry, Evaluated, Gates, Opened, Verdict
from controller.model.order import AgentStatement, Sample, body_of
from controller.ports import Repo

Problem = tuple[str, str, str]
Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Answers a CEL question's payload: `CelWorker.ask` of a worker that nobody asked yet, because each process
that walks a segment starts its own."""
_UNDECIDED = frozenset({UNANSWERED, "gate-timeout"})
_D = TypeVar("_D", bound=Document)


class Replay:
    """The open runs as they were when each decision was made. `ask` is None where nobody can be asked."""

    def __init__(self, repo: Repo, ask: Ask | None = None) -> None:
        self._repo = repo
        self._ask = ask
        self._runs: dict[str, Run] = {}

    def add(self, entry: Entry) -> None:
        """Remember an entry, after it was checked. A run that this walk did not see opening is not followed."""
        run = entry.run
        if run is None:
            return
        try:
            if isinstance(entry.detail, Opened):
                self._runs[run] = runs.open_run(entry)
            elif run in self._runs:
                self._runs[run] = runs.apply(self._runs[run], entry)
        except LockgateError:
            self._runs.pop(run, None)
        if entry.kind == "sealed":
            self._runs.pop(run, None)

    def resume(self, commit: str, entry: Entry) -> None:
        """Follow a run that opened before this walk began (a later segment), from its entries in the tree."""
        if entry.run is None or entry.run in self._runs:
            return
        try:
            found = run_entries(self._repo, commit, entry.path.rpartition("/")[0])
            before = [one for one in found if (one.predicate.sequence or 0) < (entry.predicate.sequence or 0)]
            if before:
                self._runs[entry.run] = runs.fold(before)
        except LockgateError:
            return

    def check(self, entry: Entry, files: Mapping[str, bytes]) -> Iterator[Problem]:
        """What does not come out again of one entry; `files` are those its commit added beside it, by path
        below the run's folder."""
        run = self._runs.get(entry.run or "")
        if run is None:
            return
        if isinstance(entry.detail, Gates):
            yield from self._gates(run, entry, entry.detail, files)
        elif isinstance(entry.detail, Evaluated):
            yield from self._evaluated(run, entry, entry.detail, files)

    # --- gates -------------------------------------------------------------------------------------------

    def _gates(self, run: Run, entry: Entry, detail: Gates, files: Mapping[str, bytes]) -> Iterator[Problem]:
        name = f"inputs/gates-{run.gates_count + 1:02}.json"
        path = f"{entry.path.rpartition('/')[0]}/{name}"
        try:
            seen = parse_canonical(files[name])
        except (KeyError, LockgateError):
            seen = None
        if not isinstance(seen, dict):
            yield "digest-mismatch", path, "what the gates saw is not committed beside their verdicts"
            return
        for verdict in detail.verdicts:
            inputs = seen.get(verdict.gate)
            if not isinstance(inputs, dict) or digest(canonical(inputs)) != verdict.inputs:
                yield "digest-mismatch", path, f"the inputs of gate {verdict.gate} are not those of its verdict"
                continue
            try:
                again = self._again(run, verdict, inputs)
            except (LockgateError, KeyError, TypeError, ValueError, AttributeError) as error:
                why = error.what if isinstance(error, LockgateError) else type(error).__name__
                yield "decision-mismatch", entry.path, f"gate {verdict.gate} cannot be decided again: {why}"
                continue
            if again is not None and again != verdict:
                text = f"gate {verdict.gate} gives {again.verdict} {again.code}, recorded is {verdict.verdict}"
                yield "decision-mismatch", entry.path, f"{text} {verdict.code}"

    def _again(self, run: Run, verdict: Verdict, inputs: Mapping[str, Any]) -> Verdict | None:
        """The verdict made again; None when that needs somebody who is not here."""
        gate = Gate(verdict.gate, verdict.gate, "block", {}, inputs, None)
        if verdict.policy is not None:
            policy = self._policy(run, verdict.policy).spec
            gate = Gate(verdict.gate, policy.gate, policy.level, config_of(policy), inputs, verdict.policy)
        pure = PURE.get(gate.type)
        if pure is not None:
            return verdict_from(gate, inputs, pure(gate.config, inputs))
        if self._ask is None or gate.type != "cel" or verdict.code in _UNDECIDED:
            return None
        given = self._ask(question_for(gate.type, gate.config, inputs).payload)
        if given.get("error") == "unavailable":
            return None
        answer: Answer = interpret(gate.config, given)
        return verdict_from(gate, inputs, answer)

    def _policy(self, run: Run, sha256: str) -> Policy:
        for pin in run.opened.pins:
            if pin.sha256 == sha256 and pin.path.startswith("policies/"):
                return self._document(pin.path, pin.blob, Policy)
        raise KeyError("the policy is none that the run pinned")

    def _document(self, path: str, blob: str, model: type[_D]) -> _D:
        document = parse(path, self._repo.read(blob)).document
        if not isinstance(document, model):
            raise TypeError(f"{path} is not what its folder says")
        return document

    # --- stages ------------------------------------------------------------------------------------------

    def _evaluated(
        self, run: Run, entry: Entry, detail: Evaluated, files: Mapping[str, bytes]
    ) -> Iterator[Problem]:
        documents = self._documents(run)
        if documents is None:
            return
        statements: dict[str, list[AgentStatement]] = {}
        for name, data in files.items():
            if name.startswith("reports/"):
                for line in data.splitlines():
                    said = _statement(line)
                    statements.setdefault(said.agent, []).append(said)
        verdict = verdict_of(run, documents, statements, entry.at)
        chosen = chosen_verdict(verdict)
        if (chosen, verdict.criteria, run.evaluating_since) != (detail.verdict, detail.criteria, detail.since):
            text = f"the stage's statements give {chosen or 'no verdict yet'}, recorded is {detail.verdict}"
            yield "verdict-mismatch", entry.path, text

    def _documents(self, run: Run) -> RunDocuments | None:
        """What judging a stage needs of the run's pinned documents; None when they are not pinned."""
        pins = {pin.path: pin.blob for pin in run.opened.pins}
        place, release = f"environments/{run.environment}.yaml", f"releases/{run.opened.release}.yaml"
        try:
            environment = self._document(place, pins[place], Environment)
            path = f"strategies/{environment.spec.strategy}.yaml"
            return RunDocuments(
                environment=environment,
                strategy=self._document(path, pins[path], Strategy),
                policies={},
                policy_pins={},
                components={},
                release=self._document(release, pins[release], Release),
                agents=(),
                lock=None,
                lock_pin=None,
            )
        except (KeyError, TypeError):
            return None


def _statement(line: bytes) -> AgentStatement:
    body = body_of(parse_canonical(dsse.split(line).payload))
    kind = "sample" if isinstance(body, Sample) else "report"
    speaker = getattr(body, "agent", None) or getattr(body, "target", "")
    return AgentStatement(str(speaker), kind, digest(line), line, body)  # type: ignore[arg-type]
