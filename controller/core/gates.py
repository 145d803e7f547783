"""Gates: each a pure function from its committed inputs to an answer; the core aggregates.

A gate sees nothing but its policy's configuration and `inputs`, plain JSON that is committed beside the
entry. `now` is one of the inputs. So a verdict replays bit for bit. A gate whose answer comes from outside
the core (CEL in its worker, a plugin) is a question; until it is answered the verdict is WAIT, and after the
gate's deadline FAIL: unknown never means allow. The deadline stands still while the controller is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from controller.core.absence import Absence, put_off
from controller.core.run import UNANSWERED
from controller.ledger.canonical import canonical, digest
from controller.ledger.canonical import parse as parse_json
from controller.model.entry import Gates, Verdict, format_time
from controller.model.policy import PolicySpec
from controller.model.words import counted

Result = Literal["PASS", "WARN", "WAIT", "FAIL"]

DEFAULT_DEADLINE = timedelta(minutes=10)
TIMED_OUT = "gate-timeout"
"""The code of a gate that got no answer until its deadline."""
COST_EXCEEDED = "cost-exceeded"
"""The code of a rule that was ended by the limits of its worker: an observation, which depends on the machine."""
BUILT_IN = ("release-active", "promotes-from", "freeze", "window", "schedule", "targets", "secrets")
"""The gates of every run, whatever its environment asks for; a rollback is promoted from nowhere."""
_RANK: Mapping[str, int] = {"PASS": 0, "WARN": 1, "WAIT": 2, "FAIL": 3}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gate says. `until` is when asking again makes sense, `unblock` what a person can do."""

    verdict: Result
    code: str
    message: str
    until: datetime | None = None
    unblock: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate to be decided: its name, type and level, the configuration that its policy gives it (none
    to the built-in ones), the inputs it sees, and the digest of its policy's file."""

    name: str
    type: str
    level: Literal["block", "warn"]
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    policy: str | None
    deadline: timedelta = DEFAULT_DEADLINE


@dataclass(frozen=True, slots=True)
class Question:
    """Something the shell must ask before a gate can answer; `key` names question and inputs."""

    key: str
    type: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Decided:
    """The gates' entry to record, its inputs file, the questions that are open and when to look again."""

    detail: Gates
    inputs: bytes
    questions: tuple[Question, ...]
    next_look: datetime | None


def decide_gates(
    gates: Sequence[Gate],
    stage: int,
    asked: Mapping[str, datetime],
    now: datetime,
    answers: Mapping[str, Mapping[str, Any]],
    absences: Sequence[Absence] = (),
) -> Decided:
    """Decide every gate at `now`; `asked` is since when a gate's question has been waiting for its answer.

    A gate's deadline counts from there, without the absences, and from now where it is asked for the first time:
    a run that waited long for something else, or a controller that restarted, still gets to ask.
    """
    verdicts: list[Verdict] = []
    questions: list[Question] = []
    seen: dict[str, Any] = {}
    for gate in gates:
        # What is decided from is what is committed: a number may have another type once it was written.
        inputs = parse_json(canonical(seen_by(gate, now)))
        since = asked.get(gate.name, now)
        deadline = put_off(since + gate.deadline, since, absences)
        answer = _ask(gate, inputs, deadline, now, answers, questions)
        verdicts.append(verdict_from(gate, inputs, answer))
        seen[gate.name] = inputs
    aggregate = aggregate_of(verdicts)
    detail = Gates(stage=stage, aggregate=aggregate, verdicts=tuple(verdicts), decision=decision_digest(verdicts))
    waits = [v.until for v in verdicts if v.verdict == "WAIT" and v.until is not None]
    return Decided(detail, canonical(seen), tuple(questions), min(waits, default=None))


def seen_by(gate: Gate, now: datetime) -> dict[str, Any]:
    """What a gate is decided from at `now`: its inputs, and the instant where it depends on that."""
    return {**gate.inputs, "now": format_time(now)} if gate.type in TIMED else dict(gate.inputs)


def aggregate_of(verdicts: Sequence[Verdict]) -> Result:
    """The worst of the verdicts; PASS without any."""
    return max((v.verdict for v in verdicts), key=_RANK.__getitem__, default="PASS")


def decision_digest(verdicts: Sequence[Verdict]) -> str:
    """sha256 over the RFC 8785 bytes of the gates' inputs digests, policy digests and verdicts, by gate name."""
    return digest(
        canonical(
            {
                "inputs": {v.gate: v.inputs for v in verdicts},
                "policies": {v.gate: v.policy for v in verdicts},
                "verdicts": [
                    {"gate": v.gate, "verdict": v.verdict, "code": v.code, "message": v.message}
                    for v in sorted(verdicts, key=lambda v: v.gate)
                ],
            }
        )
    )


def gate_names(policies: Mapping[str, str], rollback: bool) -> list[tuple[str, str | None]]:
    """The gates a run must have, in order, each with its policy's name (None: built in).

    `policies` maps the policies that the environment names, in its order, to their gate types.
    """
    built_in = [name for name in BUILT_IN if not (rollback and name == "promotes-from")]
    # A policy may be called like a built-in gate; no document's name has a slash.
    asked = [
        (f"policies/{name}" if name in built_in else name, name)
        for name, kind in policies.items()
        if not (rollback and kind == "soak")
    ]
    return [*((name, None) for name in built_in), *asked]


def config_of(policy: PolicySpec) -> dict[str, Any]:
    """A policy's gate configuration: its own, the rule's parts, and the duration in seconds as `for`."""
    config: dict[str, Any] = dict(policy.config)
    if policy.rule is not None:
        config |= {"rule": policy.rule, "variables": dict(policy.variables), "message": policy.message or ""}
    if policy.duration is not None:
        config["for"] = policy.duration.total_seconds()
    return config


def question_for(gate_type: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Question:
    """The question a gate of this type asks; the same configuration and inputs give the same key."""
    payload = {"config": dict(config), "inputs": dict(inputs)}
    return Question(key=digest(canonical({"type": gate_type, **payload})), type=gate_type, payload=payload)


def _ask(
    gate: Gate,
    inputs: Mapping[str, Any],
    deadline: datetime,
    now: datetime,
    answers: Mapping[str, Mapping[str, Any]],
    questions: list[Question],
) -> Answer:
    pure = PURE.get(gate.type)
    if pure is not None:
        return pure(gate.config, inputs)
    question = question_for(gate.type, gate.config, inputs)
    answer = answer_from(gate, deadline, now, answers.get(question.key))
    if answer.code == UNANSWERED:
        questions.append(question)
    return answer


def answer_from(gate: Gate, deadline: datetime, now: datetime, given: Mapping[str, Any] | None) -> Answer:
    """What a gate says at `now` that somebody else answers, until `deadline`; `given` is the answer, if any."""
    if given is not None and given.get("error") != "unavailable":
        return interpret(gate.config, given)
    if now >= deadline:
        return Answer("FAIL", TIMED_OUT, f"no answer from the {gate.type} gate within {gate.deadline}")
    why = str(given["message"]) if given else f"the {gate.type} gate has not answered yet"
    return Answer("WAIT", UNANSWERED, why, until=deadline)


def verdict_from(gate: Gate, inputs: Mapping[str, Any], answer: Answer) -> Verdict:
    """The verdict to record for a gate's answer; a warning where its level blocks nothing."""
    verdict = "WARN" if answer.verdict == "FAIL" and gate.level == "warn" else answer.verdict
    return Verdict(
        gate=gate.name,
        type=gate.type,
        level=gate.level,
        verdict=verdict,
        code=answer.code,
        message=answer.message,
        until=answer.until,
        unblock=answer.unblock,
        inputs=digest(canonical(inputs)),
        policy=gate.policy,
    )


def interpret(config: Mapping[str, Any], given: Mapping[str, Any]) -> Answer:
    """A worker's or plugin's answer as a verdict. An error is a FAIL of its own code, never a pass."""
    if given.get("error"):
        return Answer("FAIL", str(given["error"]), str(given.get("message", "")), unblock="mend the policy's rule")
    if given.get("value") is True:
        return Answer("PASS", "rule-true", "the rule holds")
    template = str(config.get("message") or "the rule does not hold")
    for name, value in (given.get("variables") or {}).items():
        template = template.replace("{" + name + "}", str(value))
    return Answer("FAIL", "rule-false", template, unblock="promote a release that the policy allows")


# --- the built-in gates ----------------------------------------------------------------------------------


def _time(text: Any) -> datetime:
    return datetime.fromisoformat(str(text))


def _release_active(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    state = inputs["state"]
    if state in ("blocked", "archived"):
        return Answer(
            "FAIL",
            f"release-{state}",
            f"{inputs['release']} is {state}: {inputs['reason'] or 'no reason given'}",
            unblock="promote another release, or set the release active again",
        )
    return Answer("PASS", "release-active", f"{inputs['release']} is {state}")


def _promotes_from(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    missing = [name for name, done in sorted(inputs["completed"].items()) if done is None]
    if missing:
        where = ", ".join(missing)
        return Answer(
            "FAIL",
            "not-completed-before",
            f"{inputs['release']} has not completed in {where}",
            unblock=f"promote {inputs['release']} to {where} first",
        )
    return Answer("PASS", "completed-before", "completed in every environment it is promoted from")


def _freeze(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    active = [f for f in inputs["freezes"] if f["active"]]
    if active:
        first = active[0]
        ends = [_time(f["until"]) for f in active if f["until"]]
        return Answer(
            "WAIT",
            "frozen",
            f"freeze {first['name']}: {first['reason']}",
            until=max(ends, default=None),
            unblock=f"wait for the end of freeze {first['name']}, or have it changed by review",
        )
    return Answer("PASS", "not-frozen", "no freeze is in force")


def _windows(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    deny = [w for w in inputs["windows"] if w["kind"] == "deny" and w["open"]]
    allow = [w for w in inputs["windows"] if w["kind"] == "allow"]
    if deny:
        until = max(_time(w["changes"]) for w in deny)
        return Answer("WAIT", "window-denied", "a deny window is open", until=until, unblock="wait for its end")
    if allow and not any(w["open"] for w in allow):
        openings = [_time(w["changes"]) for w in allow if w["changes"]]
        until_open = min(openings, default=None)
        return Answer("WAIT", "window-closed", "no allow window is open", until=until_open, unblock="wait for it")
    return Answer("PASS", "window-open", "inside the windows" if allow else "no windows are declared")


def _schedule(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    start = inputs["notBefore"]
    if start is not None and _time(inputs["now"]) < _time(start):
        return Answer(
            "WAIT", "not-before", f"scheduled for {start}", until=_time(start), unblock="wait for the time"
        )
    return Answer("PASS", "due", "due")


def _targets(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    if not inputs["targets"]:
        return Answer("FAIL", "no-targets", "the environment has no agents", unblock="declare an agent for it")
    return Answer("PASS", "targets", counted(len(inputs["targets"]), "target"))


def _secrets(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    """Secrets that nobody can hand over are missing, and a missing input denies."""
    if inputs["references"]:
        names = ", ".join(f"{one['name']} ({one['provider']})" for one in inputs["references"])
        text = f"this controller has no provider for the secrets {names}"
        return Answer(
            "FAIL",
            "secrets-missing",
            text,
            unblock="remove the references, or give the service its secrets itself",
        )
    return Answer("PASS", "secrets-present", "no secrets are referenced")


def _soak(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    need = timedelta(seconds=float(config["for"]))
    done = [_time(at) for at in inputs["completed"].values() if at is not None]
    if not done:
        return Answer(
            "FAIL", "never-ran", "the release has completed nowhere before", unblock="promote it there first"
        )
    ready = max(done) + need
    if _time(inputs["now"]) < ready:
        return Answer("WAIT", "soaking", f"soaking until {format_time(ready)}", until=ready, unblock="wait for it")
    return Answer("PASS", "soaked", f"ran for at least {need}")


def _approval(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answer:
    return Answer("PASS", "approvals-apply", "the environment's approvals are asked for after the gates")


PURE: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Answer]] = {
    "release-active": _release_active,
    "promotes-from": _promotes_from,
    "freeze": _freeze,
    "window": _windows,
    "schedule": _schedule,
    "targets": _targets,
    "secrets": _secrets,
    "soak": _soak,
    "approval": _approval,
}

TIMED = frozenset({"schedule", "soak"})
"""Gate types whose answer depends on the instant itself; the others get what `now` means for them."""
