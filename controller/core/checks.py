"""What a schema cannot say about one document: calendars, regular expressions, orders, inner references."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from controller.core import globs
from controller.core.compose import Pointer
from controller.core.finding import Finding, shown
from controller.model.base import Document
from controller.model.trust import TimedKey, Trust

if TYPE_CHECKING:
    # A document that is checked brought its model along; the others are not needed.
    from controller.model.agent import Agent
    from controller.model.component import Component
    from controller.model.environment import Environment
    from controller.model.freeze import Freeze
    from controller.model.lock import ReleaseLock
    from controller.model.strategy import Strategy

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MOST_PATTERN = 256


def check(document: Document) -> list[Finding]:
    """Everything that is wrong inside a document that its schema accepts."""
    checks = _CHECKS.get(document.kind)
    return list(checks(document)) if checks else []


@lru_cache(maxsize=1024)
def _cron_error(schedule: str) -> str | None:
    if len(schedule) > 128 or len(schedule.split()) != 5:
        return "five fields: minute, hour, day of month, month, day of week"
    try:
        next(CronSim(schedule, _EPOCH))
    except CronSimError as error:
        return str(error).lower()
    except StopIteration:
        return "it never fires"
    return None


@lru_cache(maxsize=256)
def _zone_exists(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _recurring(at: Pointer, schedule: str, zone: str) -> Iterator[Finding]:
    error = _cron_error(schedule)
    if error is not None:
        yield Finding(
            (*at, "schedule"),
            "bad-schedule",
            f"'{schedule}' is not a cron schedule: {error}",
            "write it like '0 9 * * MON-THU'",
        )
    if not _zone_exists(zone):
        yield Finding(
            (*at, "timeZone"),
            "unknown-zone",
            f"the time zone '{zone}' does not exist",
            "use an IANA name such as Europe/Berlin",
        )


def _regex(at: Pointer, pattern: str) -> Iterator[Finding]:
    message = ""
    if len(pattern) > MOST_PATTERN:
        message = f"it has more than {MOST_PATTERN} characters"
    else:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            message = str(error)
    if message:
        yield Finding(
            at, "bad-pattern", f"{shown(at)} is not a regular expression: {message}", "correct the pattern"
        )


def _twice(at: Pointer, items: Sequence[str]) -> Iterator[Finding]:
    for index, item in enumerate(items):
        if item in items[:index]:
            yield Finding(
                (*at, index), "listed-twice", f"'{item}' stands twice in {shown(at)}", "remove one of them"
            )


def key_error(key: str) -> str | None:
    """What is wrong with an OpenSSH public key line whose form is right, None when nothing: whoever takes the
    document must be able to use the key."""
    from controller.core.keys import key_id, normal_key
    from controller.errors import Invalid

    try:
        if not normal_key(key).startswith("ssh-ed25519 "):
            key_id(key)
    except Invalid as error:
        return error.got if error.code == "key-malformed" else "a key that cannot be used"
    return None


def _key(at: Pointer, key: str) -> Iterator[Finding]:
    error = key_error(key)
    if error is not None:
        yield Finding(
            at, "bad-key", f"{shown(at)} is not an OpenSSH public key: {error}", "copy the .pub file's line"
        )


def _component(document: Component) -> Iterator[Finding]:
    spec = document.spec
    pattern = spec.versioning.tag_pattern
    if pattern is not None:
        at: Pointer = ("spec", "versioning", "tagPattern")
        bad = list(_regex(at, pattern))
        yield from bad
        if not bad and spec.versioning.scheme == "semver" and "version" not in re.compile(pattern).groupindex:
            yield Finding(
                at, "bad-pattern", f"{shown(at)} names no group `version`", "mark the version by (?P<version>…)"
            )
    for index, rule in enumerate(spec.rules):
        yield from _regex(("spec", "rules", index, "pattern"), rule.pattern)
    yield from _twice(("spec", "platforms"), spec.platforms)
    run: Pointer = ("spec", "run")
    for name, probe in (("health", spec.run.health), ("metrics", spec.run.metrics)):
        if probe is None or probe.http is None:
            continue
        if not spec.run.ports:
            yield Finding(
                (*run, name),
                "unknown-port",
                f"{shown((*run, name))} asks over HTTP, but there is no port",
                "add `ports`",
            )
        elif probe.port is not None and probe.port not in spec.run.ports:
            yield Finding(
                (*run, name, "port"),
                "unknown-port",
                f"the port '{probe.port}' is not in spec.run.ports",
                f"use one of {', '.join(sorted(spec.run.ports))}",
            )


def _environment(document: Environment) -> Iterator[Finding]:
    spec = document.spec
    for index, window in enumerate(spec.windows):
        yield from _recurring(("spec", "windows", index), window.schedule, window.time_zone)
    yield from _twice(("spec", "gates"), spec.gate_names)
    yield from _twice(("spec", "promotesFrom"), spec.promotes_from)


def _strategy(document: Strategy) -> Iterator[Finding]:
    spec = document.spec
    before = 0
    for index, stage in enumerate(spec.stages):
        at: Pointer = ("spec", "stages", index)
        if stage.percent <= before:
            yield Finding(
                (*at, "percent"),
                "stage-order",
                f"{shown((*at, 'percent'))} is {stage.percent}, not more than the {before} before it",
                "let the percentages grow",
            )
        before = stage.percent
        for place, name in enumerate(stage.analysis):
            if name not in spec.analysis:
                yield Finding(
                    (*at, "analysis", place),
                    "unknown-analysis",
                    f"'{name}' is not in spec.analysis",
                    "define it there, or remove it here",
                )
    if before != 100:
        yield Finding(
            ("spec", "stages", len(spec.stages) - 1, "percent"),
            "stage-order",
            f"the last stage ends at {before} percent",
            "add a stage with percent 100",
        )


def _freeze(document: Freeze) -> Iterator[Finding]:
    spec = document.spec
    if spec.schedule is not None:
        yield from _recurring(("spec",), spec.schedule, spec.time_zone)
    if spec.begins is not None and spec.until is not None and spec.until <= spec.begins:
        yield Finding(
            ("spec", "until"),
            "empty-span",
            "spec.until is not after spec.from",
            "let the freeze end after it begins",
        )
    yield from _twice(("spec", "environments"), spec.environments)


def _agent(document: Agent) -> Iterator[Finding]:
    yield from _key(("spec", "publicKey"), document.spec.public_key)
    for index, key in enumerate(document.spec.previous_keys):
        yield from _key(("spec", "previousKeys", index, "publicKey"), key.public_key)


def _lock(document: ReleaseLock) -> Iterator[Finding]:
    from controller.model.lock import manifest_digest  # loaded by now, as the document's own model

    spec = document.spec
    expected = manifest_digest({name: part.digest for name, part in spec.components.items()})
    if expected != spec.manifest_digest:
        yield Finding(
            ("spec", "manifestDigest"),
            "lock-inconsistent",
            f"spec.manifestDigest is not the digest of the components, which is {expected}",
            "restore the lock that the controller wrote",
        )


def _trust(document: Trust) -> Iterator[Finding]:
    spec = document.spec
    owners: dict[str, str] = {}
    for name, principal in spec.principals.items():
        at: Pointer = ("spec", "principals", name)
        bares = [" ".join(key.public_key.split(" ")[:2]) for key in principal.timed_keys]
        for index, key in enumerate(principal.timed_keys):
            yield from _key((*at, "keys", index), key.public_key)
            other = owners.setdefault(bares[index], name)
            if other != name or index != bares.index(bares[index]):
                yield Finding(
                    (*at, "keys", index),
                    "key-reused",
                    f"the key is also that of '{other}'" if other != name else "the key stands twice",
                    "give every principal a key of its own",
                )
            if isinstance(principal.keys[index], TimedKey) and _never(key.valid_after, key.valid_before):
                yield Finding(
                    (*at, "keys", index),
                    "empty-span",
                    f"the key of '{name}' is never valid",
                    "let validBefore be after validAfter, within the time of its principal",
                )
        if _never(principal.valid_after, principal.valid_before):
            yield Finding(
                (*at, "validBefore"),
                "empty-span",
                f"'{name}' is never valid",
                "let validBefore be after validAfter",
            )
    yield from _roles(document)
    yield from _rules(document)


def _never(after: datetime | None, before: datetime | None) -> bool:
    return after is not None and before is not None and before <= after


def _roles(document: Trust) -> Iterator[Finding]:
    spec = document.spec
    for name in ("owners", "controller"):
        if name not in spec.roles:
            yield Finding(("spec", "roles"), "missing-role", f"there is no role `{name}`", f"add `{name}`")
    for name, role in spec.roles.items():
        at: Pointer = ("spec", "roles", name)
        listed: Pointer = (*at, "members")
        for member in role.members:
            if member not in spec.principals:
                yield Finding(
                    at,
                    "unknown-principal",
                    f"'{member}' in {shown(at)} is no principal",
                    "add it to spec.principals",
                )
        if len(set(role.members)) != len(role.members):
            yield Finding(at, "listed-twice", f"{shown(listed)} names somebody twice", "name everybody once")
        if role.threshold > max(len(role.members), 1):
            yield Finding(
                (*at, "threshold"),
                "threshold-unreachable",
                f"{shown(at)} needs {role.threshold} of {len(role.members)} members",
                "add members or lower the threshold",
            )


def _rules(document: Trust) -> Iterator[Finding]:
    roles: Mapping[str, Any] = document.spec.roles

    def known(at: Pointer, names: Sequence[str]) -> Iterator[Finding]:
        for name in names:
            if name not in roles:
                yield Finding(
                    at,
                    "unknown-role",
                    f"the role '{name}' in {shown(at)} does not exist",
                    "define it in spec.roles",
                )

    for index, rule in enumerate(document.spec.paths):
        at: Pointer = ("spec", "paths", index)
        try:
            globs.compiled(rule.match)
        except ValueError as error:
            yield Finding(
                (*at, "match"), "bad-glob", f"'{rule.match}' is not a pattern: {error}", "correct the pattern"
            )
        yield from known((*at, "write"), rule.write)
        yield from known((*at, "approvals"), list(rule.approvals))
        for name, count in rule.approvals.items():
            if name in roles and count > len(roles[name].members):
                yield Finding(
                    (*at, "approvals", name),
                    "threshold-unreachable",
                    f"{shown((*at, 'approvals', name))} asks for {count} of {len(roles[name].members)} members",
                    "add members or ask for fewer",
                )
    for index, action in enumerate(document.spec.actions):
        yield from known(("spec", "actions", index, "allow"), list(action.allow))


_CHECKS = cast(
    "dict[str, Callable[[Document], Iterator[Finding]]]",
    {
        "Agent": _agent,
        "Component": _component,
        "Environment": _environment,
        "Freeze": _freeze,
        "ReleaseLock": _lock,
        "Strategy": _strategy,
        "Trust": _trust,
    },
)
