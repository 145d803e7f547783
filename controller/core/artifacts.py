"""Artifacts: the compose lock, the fetch script and the deploy plan of a run, rendered from templates.

Pure: the same templates and pinned documents give the same bytes. Templates come in as texts; which ones were
used is recorded by their digests. No value reaches a file but through a filter that quotes it for that file, so
that names, commands and variables, which people write, stay values.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from controller.core.rollout import DEFAULT_DEADLINE, stage_deadline
from controller.core.run import Run
from controller.errors import Invalid
from controller.ledger.canonical import canonical, digest
from controller.model.base import format_duration
from controller.model.component import Component
from controller.model.entry import Pin, StagePlan
from controller.model.environment import Environment
from controller.model.lock import LockedComponent, ReleaseLock
from controller.model.order import PLAN
from controller.model.strategy import Strategy

if TYPE_CHECKING:
    from jinja2 import Environment as Engine
    from jinja2 import Template

COMPOSE, SCRIPT = "compose.lock.yaml", "pull.sh"
NAMES = (COMPOSE, SCRIPT, PLAN)
RELEASE_FILES = (COMPOSE, SCRIPT)
"""What depends on the release and the environment alone: two runs of both share these."""
FIRST = ("migration", "init")
"""Roles that run to their end before anything else starts, in this order, as agents run them."""
LAYOUT = "oci-layout:"
_INSIDE = re.compile(r"[A-Za-z0-9._/:-]*")


@dataclass(frozen=True, slots=True)
class Templates:
    """The templates' bytes by the name of what they render. Raises Invalid("template-invalid") unless there is
    a well-formed one for each of NAMES."""

    sources: Mapping[str, bytes]
    digests: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        if set(self.sources) != set(NAMES):
            raise _invalid("templates", f"one each for {', '.join(NAMES)}", ", ".join(sorted(self.sources)))
        for name, source in self.sources.items():
            _compiled(name, source)
        object.__setattr__(self, "digests", {name: digest(source) for name, source in self.sources.items()})


def release_files(
    templates: Templates,
    release: str,
    environment: Environment,
    components: Mapping[str, Component],
    lock: ReleaseLock,
) -> dict[str, bytes]:
    """The compose lock and the script that fetches what it names, by name."""
    ordered = in_order(lock)
    first = [name for name, one in ordered if one.role in FIRST]
    facts: dict[str, Any] = {
        "release": release,
        "environment": environment.name,
        "project": f"lockgate-{environment.name.replace('.', '-')}",
        "manifest_digest": lock.spec.manifest_digest,
        "identity": canonical({name: one.digest for name, one in ordered}).decode(),
        "components": [_located(name, one) for name, one in ordered],
        "services": [
            _service(name, one, components[name], environment.spec.variables, _before(name, first))
            for name, one in ordered
        ],
    }
    return {name: _render(name, templates.sources[name], facts) for name in RELEASE_FILES}


def plan(
    templates: Templates,
    run: Run,
    environment: Environment,
    strategy: Strategy,
    lock: ReleaseLock,
    lock_pin: Pin,
    stages: Sequence[StagePlan],
    files: Mapping[str, bytes],
) -> bytes:
    """The deploy plan: who gets what, in which order, on which terms; `files` are what it names by digest."""
    opened = run.opened
    back = opened.previous if opened.mode == "promotion" else None
    facts = {
        "run": run.id,
        "environment": run.environment,
        "mode": opened.mode,
        "commit": opened.commit,
        "release": opened.release,
        "manifest_digest": lock.spec.manifest_digest,
        "lock": {"path": lock_pin.path, "sha256": lock_pin.sha256},
        "components": [
            {
                "name": name,
                "role": one.role,
                "first": one.role in FIRST,
                "repository": one.repository,
                "digest": one.digest,
            }
            for name, one in in_order(lock)
        ],
        "stages": [_stage(strategy, opened.mode, place, stage) for place, stage in enumerate(stages)],
        "on_failure": environment.spec.on_failure,
        "previous": {"run": back.run, "release": back.release, "manifestDigest": back.manifest_digest}
        if back is not None
        else None,
        "checks": [
            check.model_dump(mode="json", by_alias=True, exclude_none=True) for check in strategy.spec.verify
        ],
        "artifacts": {name: digest(data) for name, data in files.items()},
    }
    return _render(PLAN, templates.sources[PLAN], facts)


def artifacts_of(run: Run, action: str) -> dict[str, str]:
    """The digests that a batch's orders carry, by name: the run's own; those of a rollback are what the run it
    goes back to rendered, under this run's plan."""
    own = dict(run.inputs.artifacts) if run.inputs is not None else {}
    if action != "rollback" or run.opened.previous is None:
        return own
    back = {name: value for name, value in run.opened.previous.artifacts.items() if name != PLAN}
    return back | {name: value for name, value in own.items() if name == PLAN}


def in_order(lock: ReleaseLock) -> list[tuple[str, LockedComponent]]:
    """A release's components in the order in which a target starts them."""
    places = {role: place for place, role in enumerate(FIRST)}
    return sorted(lock.spec.components.items(), key=lambda item: (places.get(item[1].role, len(FIRST)), item[0]))


# --- facts -----------------------------------------------------------------------------------------------


def _before(name: str, first: list[str]) -> list[str]:
    return first[: first.index(name)] if name in first else first


def _located(name: str, locked: LockedComponent) -> dict[str, str]:
    layout = locked.repository.removeprefix(LAYOUT) if locked.repository.startswith(LAYOUT) else ""
    return {"name": name, "repository": locked.repository, "layout": layout, "digest": locked.digest}


def _service(
    name: str, locked: LockedComponent, component: Component, variables: Mapping[str, str], after: list[str]
) -> dict[str, Any]:
    run = component.spec.run
    health = run.health
    ports = {f"PORT_{re.sub(r'[^A-Z0-9]', '_', port.upper())}": str(run.ports[port]) for port in sorted(run.ports)}
    values = {**run.env, **variables, **ports}
    return _located(name, locked) | {
        "role": locked.role,
        "first": locked.role in FIRST,
        "image": f"{locked.repository}@{locked.digest}",
        "command": list(run.command or ()),
        "environment": [f"{key}={values[key]}" for key in sorted(values)],
        "ports": sorted(set(run.ports.values())),
        "check": list(health.command or ()) if health is not None else [],
        "probe": (health.http or "") if health is not None else "",
        "probe_port": (health.port or "") if health is not None else "",
        "interval": _milliseconds(health.interval if health is not None else None),
        "timeout": _milliseconds(health.timeout if health is not None else None),
        "stop": _milliseconds(run.stop_timeout),
        "after": after,
    }


def _stage(strategy: Strategy, mode: str, place: int, stage: StagePlan) -> dict[str, Any]:
    """One stage, with the targets it adds; a rollback has one plain stage on no terms of the strategy's."""
    terms: dict[str, Any] = {}
    deadline = DEFAULT_DEADLINE
    if mode == "promotion":
        deadline = stage_deadline(strategy, place)
        terms = strategy.spec.stages[place].model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        **terms,
        "stage": place + 1,
        "percent": stage.percent,
        "targets": list(stage.targets),
        "deadline": format_duration(deadline),
    }


def _milliseconds(span: timedelta | None) -> int:
    return span // timedelta(milliseconds=1) if span is not None else 0


# --- rendering -------------------------------------------------------------------------------------------


class _Quoted(str):
    """Text that a filter wrote for the file it goes into."""

    __slots__ = ()


def _yaml(value: object) -> _Quoted:
    """A double-quoted YAML scalar in ASCII: nothing in it can end it, be folded or be a line break."""
    return _Quoted('"' + "".join(_escaped(char) for char in str(value)) + '"')


def _escaped(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return f"\\{char}"
    if 0x20 <= code < 0x7F:
        return char
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _compose(value: object) -> _Quoted:
    """A YAML scalar in which Compose interpolates nothing."""
    return _yaml(str(value).replace("$", "$$"))


def _inside(value: object) -> _Quoted:
    """Part of a scalar or word that the template quotes: only what no file gives a meaning to."""
    if _INSIDE.fullmatch(str(value)) is None:
        raise _invalid("a name or digest", "letters, digits and . _ / : -", str(value)[:80])
    return _Quoted(value)


def _sh(value: object) -> _Quoted:
    """One word of a POSIX shell, whatever is in it but NUL, which no word can hold."""
    if "\0" in str(value):
        raise _invalid("a word of a script", "no NUL", "one")
    return _Quoted(shlex.quote(str(value)))


def _json(value: object) -> _Quoted:
    return _Quoted(canonical(value).decode())


def _only_quoted(value: object) -> object:
    """Every value that a template writes went through one of the filters above, or is a number."""
    if isinstance(value, _Quoted) or type(value) is int:
        return value
    raise ValueError(f"a value is written without a filter: {value!r:.80}")


@cache
def _engine() -> Engine:
    # Imported where something is rendered: most commands never do, and start without waiting for it.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    engine = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=_only_quoted
    )
    engine.filters = {"yaml": _yaml, "compose": _compose, "inside": _inside, "sh": _sh, "json": _json}
    return engine


@cache
def _compiled(name: str, source: bytes) -> Template:
    from jinja2 import TemplateError

    try:
        return _engine().from_string(source.decode())
    except (TemplateError, UnicodeDecodeError) as error:
        raise _invalid(name, "a Jinja2 template", str(error)) from error


def _render(name: str, source: bytes, facts: Mapping[str, Any]) -> bytes:
    from jinja2 import TemplateError

    try:
        text = _compiled(name, source).render(facts)
        return canonical(json.loads(text)) if name.endswith(".json") else text.encode()
    except (TemplateError, ValueError) as error:
        raise _invalid(name, "a template that these documents fill", str(error)) from error


def _invalid(where: str, expected: str, got: str) -> Invalid:
    return Invalid(
        "template-invalid",
        "an artifact cannot be rendered",
        where=where,
        expected=expected,
        got=got,
        cure="use the templates of this version of lockgate",
    )
