"""Decisions made again from what was committed: a gate's or a stage's verdict that comes out otherwise is found.

The functions are the controller's own. What a gate saw is the inputs file beside its entry, how it is configured
is in the policy that the run pinned, and what a stage was judged by is the statements file beside its verdict.
`verify` walks all of history with this, `replay` one run, and both say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from controller.core import run as runs
from controller.core.gates import (
    COST_EXCEEDED,
    DEFAULT_DEADLINE,
    PURE,
    TIMED_OUT,
    Gate,
    aggregate_of,
    answer_from,
    config_of,
    decision_digest,
    gate_names,
    question_for,
    verdict_from,
)
from controller.core.legal import unfounded
from controller.core.rolling import chosen_verdict, verdict_of
from controller.core.run import UNANSWERED, Run
from controller.core.world import RunDocuments
from controller.errors import LockgateError, Refused, Unavailable
from controller.ledger.append import run_entries
from controller.ledger.canonical import canonical, digest, parse_canonical
from controller.model.documents import Document, Environment, Policy, Release, Strategy
from controller.model.entry import Entry, Evaluated, Gates, Opened, Pin, Verdict
from controller.model.order import AgentStatement
from controller.ports import Repo
from controller.uses.rules.main_documents import MainDocuments
from controller.uses.rules.said import said
from controller.uses.rules.subject import Problem

UNCHECKED = "decision-unchecked"
Ask = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Answers a CEL question's payload: `CelWorker.ask` of a worker that nobody asked yet, because each process
that walks a segment starts its own."""
_D = TypeVar("_D", bound=Document)


@dataclass(frozen=True, slots=True)
class Again:
    """One decision made again: the digest on record and the one that comes out now, None when it cannot be made
    here (`undecided` says why). `problems` are what differs."""

    entry: Entry
    recorded: str
    replayed: str | None
    problems: tuple[Problem, ...] = ()
    undecided: str = ""

    @property
    def match(self) -> bool:
        return self.replayed == self.recorded and not self.problems


def stage_digest(detail: Evaluated, statements: str) -> str:
    """The decision digest of a stage's verdict: sha256 over the RFC 8785 bytes of stage, attempt, since when it
    was judged, the digest of the statements, criteria and verdict."""
    wire = detail.wire()
    wire["statements"] = statements
    return digest(canonical(wire))


class Replay:
    """The open runs as they were when each decision was made. `ask` is None where nobody can be asked."""

    def __init__(self, repo: Repo, ask: Ask | None = None) -> None:
        self._repo = repo
        self._main = MainDocuments(repo)
        self._ask = ask
        self._runs: dict[str, Run] = {}
        self._given_up: set[str] = set()
        self._next: tuple[Entry, Run] | None = None
        """The entry that was looked at last, and its run with it."""

    def illegal(self, entry: Entry) -> str | None:
        """Why an entry's run may not take it as its next; None where it may or the run is not followed."""
        run = self._runs.get(entry.run or "")
        if run is None:
            return None
        try:
            self._next = entry, runs.apply(run, entry)
        except Refused as error:
            return error.what
        return unfounded(run, entry)

    def add(self, entry: Entry) -> None:
        """Remember an entry, after it was checked. A run that this walk did not see opening is not followed."""
        run = entry.run
        if run is None:
            return
        try:
            if isinstance(entry.detail, Opened):
                self._runs[run] = runs.open_run(entry)
            elif run in self._runs:
                known = self._next if self._next is not None and self._next[0] is entry else None
                self._runs[run] = known[1] if known is not None else runs.apply(self._runs[run], entry)
        except LockgateError:
            self.give_up(run)
        if entry.kind == "sealed":
            self._runs.pop(run, None)
            self._given_up.discard(run)

    def give_up(self, run: str) -> None:
        """An entry of the run cannot be read: what follows from it is not known."""
        self._runs.pop(run, None)
        self._given_up.add(run)

    def before(self, commit: str, entry: Entry) -> Run | None:
        """An entry's run as it was before it; None where it cannot be followed."""
        self.resume(commit, entry)
        return self._runs.get(entry.run or "")

    def opened(self, commit: str, run: str, folder: str) -> Run | None:
        """An open run as the entries in the commit's tree left it; for an entry that is none of its own."""
        if run not in self._runs and run not in self._given_up:
            try:
                self._runs[run] = runs.fold(run_entries(self._repo, commit, folder))
            except LockgateError:
                return None
        return self._runs.get(run)

    def resume(self, commit: str, entry: Entry) -> None:
        """Follow a run that opened before this walk began (a later segment), from its entries in the tree."""
        if entry.run is None or entry.run in self._runs or entry.run in self._given_up:
            return
        if isinstance(entry.detail, Opened):
            return  # nothing of it was before
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
        if run is not None and isinstance(entry.detail, Gates):
            yield from self._gates(run, entry, entry.detail, files).problems
        elif run is not None and isinstance(entry.detail, Evaluated):
            yield from self._evaluated(run, entry, entry.detail, files)[0]

    def again(self, entry: Entry, files: Mapping[str, bytes]) -> Again | None:
        """A decision made again; None for an entry that is none, or of a run that is not followed."""
        run = self._runs.get(entry.run or "")
        if run is None:
            return None
        if isinstance(entry.detail, Gates):
            return self._gates(run, entry, entry.detail, files)
        if isinstance(entry.detail, Evaluated):
            detail = entry.detail
            problems, why, again = self._evaluated(run, entry, detail, files)
            recorded = stage_digest(detail, detail.statements)
            replayed = stage_digest(again, again.statements) if again is not None else None
            return Again(entry, recorded, replayed, problems, why)
        return None

    # --- gates -------------------------------------------------------------------------------------------

    def _gates(self, run: Run, entry: Entry, detail: Gates, files: Mapping[str, bytes]) -> Again:
        name = f"inputs/gates-{run.gates_count + 1:02}.json"
        path = f"{entry.path.rpartition('/')[0]}/{name}"
        try:
            seen = parse_canonical(files[name])
        except (KeyError, LockgateError):
            seen = None
        if not isinstance(seen, dict):
            what = "what the gates saw is not committed beside their verdicts"
            return Again(entry, detail.decision, None, (("digest-mismatch", path, what),), what)
        problems: list[Problem] = []
        verdicts: list[Verdict] = []
        undecided = ""
        for verdict in detail.verdicts:
            inputs = seen.get(verdict.gate)
            if not isinstance(inputs, dict) or digest(canonical(inputs)) != verdict.inputs:
                text = f"the inputs of gate {verdict.gate} are not those of its verdict"
                problems.append(("digest-mismatch", path, text))
                continue
            try:
                again = self._again(run, entry, detail, verdict, inputs)
            except Unavailable as error:
                # Nobody here could say whether it comes out again, and not knowing is no yes.
                undecided = undecided or f"gate {verdict.gate} could not be decided again here: {error.what}"
                problems.append((UNCHECKED, entry.path, undecided))
                continue
            except (LockgateError, KeyError, TypeError, ValueError, AttributeError) as error:
                why = error.what if isinstance(error, LockgateError) else type(error).__name__
                text = f"gate {verdict.gate} cannot be decided again: {why}"
                problems.append(("decision-mismatch", entry.path, text))
                continue
            if again is None:
                undecided = undecided or f"gate {verdict.gate} cannot be asked here"
            elif again != verdict:
                problems.append(("decision-mismatch", entry.path, _unlike(again, verdict)))
            verdicts.append(again or verdict)
        problems += [("decision-mismatch", entry.path, text) for text in self._whole(run, detail)]
        replayed = None if undecided else decision_digest(verdicts)
        return Again(entry, detail.decision, replayed, tuple(problems), undecided)

    def _whole(self, run: Run, detail: Gates) -> Iterator[str]:
        """Whether the gates are all those that the pinned documents ask for, and add up to the aggregate."""
        if aggregate_of(detail.verdicts) != detail.aggregate:
            yield f"the verdicts add up to {aggregate_of(detail.verdicts)}, recorded is {detail.aggregate}"
        try:
            asked = self._asked(run)
        except (LockgateError, KeyError, TypeError):
            yield "the run did not pin the documents that ask for gates"
            return
        if [(v.gate, v.policy) for v in detail.verdicts] != asked:
            yield f"the run's documents ask for the gates {', '.join(name for name, _ in asked)}"

    def _asked(self, run: Run) -> list[tuple[str, str | None]]:
        """The gates that the run must decide, each with its policy's digest. Raises KeyError."""
        pins = {pin.path: pin for pin in run.opened.pins}
        environment = self._document(pins[f"environments/{run.environment}.yaml"], Environment)
        policies = {name: pins[f"policies/{name}.yaml"] for name in environment.spec.gate_names}
        kinds = {name: self._document(pin, Policy).spec.gate for name, pin in policies.items()}
        named = gate_names(kinds, run.opened.mode == "rollback")
        return [(gate, policies[name].sha256 if name is not None else None) for gate, name in named]

    def _again(
        self, run: Run, entry: Entry, detail: Gates, verdict: Verdict, inputs: Mapping[str, Any]
    ) -> Verdict | None:
        """The verdict made again; None when that needs somebody who is not here.

        That there was no answer, or that a limit ended the question, is an observation: the record holds it, and
        what follows from it is decided again. So is that the controller was away, which puts the deadline off.
        """
        gate = Gate(verdict.gate, verdict.gate, "block", {}, inputs, None)
        if verdict.policy is not None:
            policy = self._policy(run, verdict.policy).spec
            gate = Gate(
                verdict.gate,
                policy.gate,
                policy.level,
                config_of(policy),
                inputs,
                verdict.policy,
                policy.deadline or DEFAULT_DEADLINE,
            )
        pure = PURE.get(gate.type)
        if pure is not None:
            return verdict_from(gate, inputs, pure(gate.config, inputs))
        same = run.gates is not None and run.gates.stage == detail.stage
        since = run.unanswered.get(gate.name, entry.at) if same else entry.at
        deadline = since + gate.deadline
        given: Mapping[str, Any] | None
        if verdict.code in (UNANSWERED, TIMED_OUT):
            given = {"error": "unavailable", "message": verdict.message}
            silent = f"the {gate.type} gate has not answered yet"
            given = None if verdict.message == silent else given
            deadline = max(deadline, verdict.until or deadline)
        elif gate.type != "cel":
            answer = answer_from(gate, deadline, entry.at, {"error": verdict.code, "message": verdict.message})
            return verdict if verdict_from(gate, inputs, answer) == verdict else None
        elif verdict.code == COST_EXCEEDED:
            given = {"error": verdict.code, "message": verdict.message}
        elif self._ask is None:
            return None
        else:
            given = self._ask(question_for(gate.type, gate.config, inputs).payload)
            if given.get("error") in ("unavailable", COST_EXCEEDED):
                raise Unavailable(UNCHECKED, str(given.get("message", "no answer")))
        return verdict_from(gate, inputs, answer_from(gate, deadline, entry.at, given))

    def _policy(self, run: Run, sha256: str) -> Policy:
        for pin in run.opened.pins:
            if pin.sha256 == sha256 and pin.path.startswith("policies/"):
                return self._document(pin, Policy)
        raise KeyError("the policy is none that the run pinned")

    def _document(self, pin: Pin, model: type[_D]) -> _D:
        document = self._main.document(pin)
        if not isinstance(document, model):
            raise TypeError(f"{pin.path} is not what its folder says")
        return document

    # --- stages ------------------------------------------------------------------------------------------

    def _evaluated(
        self, run: Run, entry: Entry, detail: Evaluated, files: Mapping[str, bytes]
    ) -> tuple[tuple[Problem, ...], str, Evaluated | None]:
        """What differs, why the stage cannot be judged here, and its verdict made again where it can."""
        try:
            documents = self._documents(run)
        except LockgateError as error:
            return (("verdict-mismatch", entry.path, error.what),), error.what, None
        if documents is None:
            what = "the run did not pin the documents that decide a stage"
            return (("verdict-mismatch", entry.path, what),), what, None
        statements: dict[str, list[AgentStatement]] = {}
        lines = b""
        for name, data in files.items():
            if name.startswith("reports/"):
                lines += data
                for line in data.splitlines():
                    statement = said(line).statement
                    statements.setdefault(statement.agent, []).append(statement)
        verdict = verdict_of(run, documents, statements, entry.at)
        chosen = chosen_verdict(verdict)
        problems: tuple[Problem, ...] = ()
        if (chosen, verdict.criteria, run.evaluating_since) != (detail.verdict, detail.criteria, detail.since):
            text = f"the stage's statements give {chosen or 'no verdict yet'}, recorded is {detail.verdict}"
            if chosen == detail.verdict:
                since = run.evaluating_since == detail.since
                text = f"the stage's statements give other {'criteria' if since else 'times'} than recorded"
            problems = (("verdict-mismatch", entry.path, text),)
        again = detail.model_copy(
            update={
                "verdict": chosen or "unknown",
                "criteria": verdict.criteria,
                "since": run.evaluating_since or entry.at,
                "statements": digest(lines),
            }
        )
        return problems, "", again

    def _documents(self, run: Run) -> RunDocuments | None:
        """What judging a stage needs of the run's pinned documents; None when they are not pinned."""
        pins = {pin.path: pin for pin in run.opened.pins}
        place, release = f"environments/{run.environment}.yaml", f"releases/{run.opened.release}.yaml"
        try:
            environment = self._document(pins[place], Environment)
            path = f"strategies/{environment.spec.strategy}.yaml"
            return RunDocuments(
                environment=environment,
                strategy=self._document(pins[path], Strategy),
                policies={},
                policy_pins={},
                components={},
                release=self._document(pins[release], Release),
                agents=(),
                lock=None,
                lock_pin=None,
            )
        except (KeyError, TypeError):
            return None


def _unlike(again: Verdict, recorded: Verdict) -> str:
    """How a gate's answer differs from the one on record."""
    came, was = (f"{one.verdict} {one.code}" for one in (again, recorded))
    if came != was:
        return f"gate {recorded.gate} gives {came}, recorded is {was}"
    ours, theirs = again.wire(), recorded.wire()
    other = [name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)]
    return f"gate {recorded.gate} gives {came} as recorded, but another {', '.join(other)}"
