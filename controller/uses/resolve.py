"""Resolve a release's requirements to digests, and check later that they still mean the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from controller.core.locking import Answer, build_lock, channel_of, requirements
from controller.core.select import Choice, choose, needs_tags
from controller.errors import Invalid, LockgateError
from controller.ledger.fold import EnvironmentState
from controller.model.component import Component
from controller.model.intent import Intent, Loaded
from controller.model.lock import LockedComponent, ReleaseLock, release_digest
from controller.model.release import Release
from controller.ports import Registry

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class Moved:
    """A tag that no longer names the digest that was locked. `now` is None when the tag is gone."""

    component: str
    repository: str
    tag: str
    locked: str
    now: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What `resolve --check` says of a lock: `changed` when the release file changed after it."""

    lock: ReleaseLock
    moved: tuple[Moved, ...]
    changed: bool


def resolve(
    release: Loaded[Release],
    components: Mapping[str, Loaded[Component]],
    registry: Registry,
    *,
    pinned: Mapping[str, LockedComponent] | None = None,
    resolver_version: str,
    now: datetime,
) -> ReleaseLock:
    """The release's lock, by one concurrent round of tag lists and one of manifests.

    A repository's tags are listed only for a version or channel, and once; a reference is read once. Raises
    as `build_lock`, `choose` and the registry; of several errors the first by component name.
    """
    wanted = requirements(release, components, pinned)
    repositories = {name: components[name].document.spec.repository for name in wanted}
    listed = {repositories[name] for name, requirement in wanted.items() if needs_tags(requirement)}
    tags = _together(sorted(listed), _for(repositories, registry.tags))
    channel = channel_of(release.document)
    choices: dict[str, Choice] = {}
    references: dict[str, tuple[str, str]] = {}
    for name, requirement in wanted.items():
        repository = repositories[name]
        choices[name] = choose(components[name].document, requirement, tags.get(repository, ()), channel=channel)
        references[name] = (repository, choices[name].tag or requirement.digest or "")
    manifests = _together(
        dict.fromkeys(references.values()), _for(references, lambda reference: registry.manifest(*reference))
    )
    answers = {name: Answer(choices[name], manifests[references[name]]) for name in wanted}
    return build_lock(release, components, answers, resolver=resolver_version, now=now, pinned=pinned)


def pinned_by(
    release: Release, intent: Intent, environments: Mapping[str, EnvironmentState]
) -> Mapping[str, LockedComponent] | None:
    """The locked components that a release takes over from what the environment of its `pinFrom` runs; None
    without one. Raises Invalid("pin-source-missing")."""
    source = release.spec.pin_from
    if source is None:
        return None
    place = environments.get(source)
    lock = intent.locks.get(place.release) if place is not None and place.release else None
    if lock is None:
        raise Invalid(
            "pin-source-missing",
            "nothing has completed in the environment to pin from",
            where=f"pinFrom: {source}",
            expected="a completed release there",
            got="none",
            cure="name the components' versions, or promote a release there first",
        )
    return lock.document.spec.components


def check(lock: ReleaseLock, release: Loaded[Release], registry: Registry) -> Checked:
    """Whether the release file changed after its lock, and which tags moved. Changes nothing."""
    references = {
        name: (one.repository, one.tag) for name, one in lock.spec.components.items() if one.tag is not None
    }

    def now_at(reference: tuple[str, str]) -> str | None:
        try:
            return registry.manifest(*reference).digest
        except Invalid as error:
            if error.code in ("tag-not-found", "repository-not-found"):
                return None
            raise

    digests = _together(dict.fromkeys(references.values()), now_at)
    moved = []
    for name, reference in sorted(references.items()):
        locked = lock.spec.components[name].digest
        if digests[reference] != locked:
            moved.append(Moved(name, *reference, locked, digests[reference]))
    return Checked(lock, tuple(moved), release_digest(release.document) != lock.spec.release_digest)


def report(lock: ReleaseLock, checked: Checked | None = None) -> dict[str, Any]:
    """The shape that `resolve -o json` prints."""
    moved = checked.moved if checked else ()
    return {
        "release": lock.name,
        "manifestDigest": lock.spec.manifest_digest,
        "components": {
            name: {"tag": one.tag, "digest": one.digest, "semver": one.semver, "channel": one.channel}
            for name, one in sorted(lock.spec.components.items())
        },
        "moved": [
            {
                "component": one.component,
                "repository": one.repository,
                "tag": one.tag,
                "locked": one.locked,
                "now": one.now,
            }
            for one in moved
        ],
        "changed": checked.changed if checked else False,
    }


def _for(used: Mapping[str, K], ask: Callable[[K], V]) -> Callable[[K], V]:
    """`ask`, whose errors say which components they keep from being resolved; `used` maps these to their keys."""

    def asked(key: K) -> V:
        try:
            return ask(key)
        except LockgateError as error:
            names = sorted(name for name, one in used.items() if one == key)
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            error.where = f"component{'s' if len(names) > 1 else ''} {shown}: {error.where}"
            raise

    return asked


def _together(keys: Iterable[K], ask: Callable[[K], V]) -> dict[K, V]:
    """`ask` for each key, concurrently; the first error by the order of the keys is raised, the rest dropped."""
    order = list(keys)
    if len(order) <= 1:
        return {key: ask(key) for key in order}
    pool = ThreadPoolExecutor(max_workers=min(_WORKERS, len(order)), thread_name_prefix="resolve")
    try:
        futures = [(key, pool.submit(ask, key)) for key in order]
        return {key: future.result() for key, future in futures}
    finally:
        pool.shutdown(cancel_futures=True)
