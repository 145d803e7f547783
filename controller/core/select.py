"""Which tag a release's requirement means: versioning schemes, rules and channels, ranges. Pure.

Range grammar (as npm and Cargo write it): comparators `= > >= < <=` joined by spaces or commas, `^1.2.3`,
`~1.2.3`, `1.x`, `*`, alternatives joined by `||`. A pre-release is chosen only when a comparator of the
range names a pre-release of the same major.minor.patch, or when a channel was asked for.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import semver

from controller.core.patterns import TAG_LIMIT, safe_pattern
from controller.errors import Invalid
from controller.ledger.canonical import canonical, digest
from controller.model.component import Component, ComponentSpec, Versioning
from controller.model.release import ReleaseComponent

_RANGE_LIMIT: Final = 256
_NUMBER_LIMIT: Final = 18

_SEMVER_TAG: Final = r"^v?(?P<version>\d+\.\d+\.\d+(?:[-][0-9A-Za-z.-]+)?)$"
_DATE_TAG: Final = r"^v?(?P<version>\d{4}[0-9._-]{2,32})$"
_NUMBER_TAG: Final = r"^[vrb]?(?P<version>\d{1,18})$"
_WHOLE_TAG: Final = r"^(?P<version>.+)$"
_DEFAULT_PATTERNS: Final = {
    "semver": _SEMVER_TAG,
    "date": _DATE_TAG,
    "sequential": _NUMBER_TAG,
    "manual": _WHOLE_TAG,
}
_COMPARATOR = re.compile(r"(\^|~>?|>=|<=|>|<|==?)?\s*(v?[0-9A-Za-z*][0-9A-Za-z.*+_-]*)")
_DATE = re.compile(r"(\d{4})[._-]?(\d{2})[._-]?(\d{2})(?:[._-]?(\d{1,9}))?(?:[._-](\d{1,9}))?", re.ASCII)

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


@dataclass(frozen=True, slots=True)
class ParsedVersion:
    """A version read from a tag. `key` orders versions of one scheme; None where nothing orders them."""

    text: str
    key: Any
    prerelease: bool
    core: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tag with its version and what the component's rules say of it."""

    tag: str
    version: ParsedVersion | None
    channel: str | None
    rule: str | None
    prerelease: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What a requirement means. `tag` is None for a digest; `candidates` are the sorted tags chosen from."""

    tag: str | None
    semver: str | None
    channel: str | None
    rule: str | None
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Bound:
    """One comparator. `core` is set when it names a pre-release: of that version others are welcome."""

    compare: Callable[[Any, Any], bool]
    key: Any
    core: tuple[int, ...] | None = None


def needs_tags(requirement: ReleaseComponent) -> bool:
    """Whether the repository's tags must be listed to choose."""
    return requirement.version is not None or requirement.channel is not None


def choose(
    component: Component, requirement: ReleaseComponent, tags: Iterable[str], *, channel: str | None = None
) -> Choice:
    """The tag that `requirement` means among `tags` (ignored for a tag or digest requirement).

    `channel` narrows a version requirement to one channel, as releases of mode `channel` do. Of several
    tags with the same highest version the alphabetically first is chosen. Raises Invalid with
    "version-not-found", "version-range", "version-unordered" or "pattern-unsafe".
    """
    spec = component.spec
    if requirement.digest is not None:
        return Choice(None, None, requirement.channel, None, ())
    if requirement.tag is not None:
        return _choice(spec, classify(spec, requirement.tag), (requirement.tag,))
    found = [classify(spec, tag) for tag in sorted(set(tags)) if len(tag) <= TAG_LIMIT]
    wanted = requirement.channel or channel
    if wanted is not None:
        found = [one for one in found if one.channel == wanted]
    if requirement.version is not None:
        asked = _range(spec.versioning.scheme, requirement.version, component.name)
        fitting = [one for one in found if _fits(one, asked, wanted is not None)]
    else:
        fitting = [one for one in found if one.version is not None]
        if spec.versioning.scheme == "manual":
            raise _unordered(component, wanted)
    if not fitting:
        raise _not_found(component, requirement, wanted, found)
    newest = max(one.version.key for one in fitting if one.version is not None)
    best = min((one for one in fitting if one.version and one.version.key == newest), key=lambda one: one.tag)
    return _choice(spec, best, tuple(one.tag for one in fitting))


def candidates_digest(candidates: Sequence[str]) -> str:
    """sha256 over the RFC 8785 JSON of the sorted candidate tags."""
    return digest(canonical(sorted(candidates)))


def classify(spec: ComponentSpec, tag: str) -> Candidate:
    """A tag's version, and its channel by the first rule that matches.

    Without rules every tag is in the default channel; with rules a tag that none matches is in no channel.
    """
    version = parse_version(spec.versioning, tag)
    pre = version is not None and version.prerelease
    for rule in spec.rules:
        if safe_pattern(rule.pattern).search(tag):
            return Candidate(tag, version, rule.channel, rule.pattern, rule.prerelease or pre)
    return Candidate(tag, version, None if spec.rules else spec.default_channel, None, pre)


def parse_version(versioning: Versioning, tag: str) -> ParsedVersion | None:
    """The version in a tag, by the scheme and tagPattern's group `version`; None when there is none."""
    if len(tag) > TAG_LIMIT:
        return None
    pattern = safe_pattern(versioning.tag_pattern or _DEFAULT_PATTERNS[versioning.scheme])
    match = pattern.search(tag)
    if match is None:
        return None
    text = match["version"] if "version" in pattern.groupindex else match[0]
    return _parse(versioning.scheme, text) if text else None


def _choice(spec: ComponentSpec, best: Candidate, candidates: tuple[str, ...]) -> Choice:
    text = best.version.text if best.version and spec.versioning.scheme == "semver" else None
    return Choice(best.tag, text, best.channel, best.rule, tuple(sorted(candidates)))


def _parse(scheme: str, text: str) -> ParsedVersion | None:
    if scheme == "semver":
        try:
            version = semver.Version.parse(text)
        except ValueError:
            return None
        core = (version.major, version.minor, version.patch)
        return ParsedVersion(text, _semver_key(version), version.prerelease is not None, core)
    if scheme == "date":
        match = _DATE.fullmatch(text)
        if match is None or not (1 <= int(match[2]) <= 12 and 1 <= int(match[3]) <= 31):
            return None
        return ParsedVersion(text, tuple(int(group or 0) for group in match.groups()), False)
    if scheme == "sequential":
        fits = text.isascii() and text.isdigit() and len(text) <= _NUMBER_LIMIT
        return ParsedVersion(text, int(text), False) if fits else None
    return ParsedVersion(text, text, False)


def _semver_key(version: semver.Version) -> tuple[Any, ...]:
    """Precedence by semver.org 2.0.0, item 11, as a tuple that compares."""
    core = (version.major, version.minor, version.patch)
    if version.prerelease is None:
        return (*core, 1, ())
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in str(version.prerelease).split(".")
    )
    return (*core, 0, parts)


def _fits(one: Candidate, alternatives: Sequence[Sequence[_Bound]], any_prerelease: bool) -> bool:
    version = one.version
    if version is None:
        return False
    for bounds in alternatives:
        if not all(bound.compare(version.key, bound.key) for bound in bounds):
            continue
        named = any(bound.core is not None and bound.core == version.core for bound in bounds)
        exact = any(bound.compare is operator.eq for bound in bounds)
        if not one.prerelease or any_prerelease or named or exact:
            return True
    return False


def _range(scheme: str, text: str, component: str) -> list[list[_Bound]]:
    """A range as alternatives of bounds. Raises Invalid("version-range")."""
    if scheme == "manual":
        return [[_Bound(operator.eq, text)]]
    if len(text) <= _RANGE_LIMIT:
        alternatives = [_bounds(scheme, part.strip()) for part in text.split("||")]
        if all(alternatives):
            return [part for part in alternatives if part]
    raise Invalid(
        "version-range",
        "this is no version or range of the component's scheme",
        where=f"component {component}",
        expected=f"a {scheme} version or range such as '>=2.1 <3', '^2.3', '~2.3.1', '2.x' or '2.3.1'",
        got=text[:_RANGE_LIMIT],
        cure="correct the version in the release",
    )


def _bounds(scheme: str, text: str) -> list[_Bound] | None:
    bounds: list[_Bound] = []
    position = 0
    while position < len(text):
        match = _COMPARATOR.match(text, position)
        if match is None:
            return None
        sign, word = (match[1] or "").replace("==", "=").replace("~>", "~"), match[2]
        made = _semver_bounds(sign, word.removeprefix("v")) if scheme == "semver" else _plain(scheme, sign, word)
        if made is None:
            return None
        bounds += made
        position = match.end()
        while position < len(text) and text[position] in " ,":
            position += 1
    return bounds or None


def _plain(scheme: str, sign: str, word: str) -> list[_Bound] | None:
    version = _parse(scheme, word)
    compare = _OPERATORS.get(sign or "=")
    return [_Bound(compare, version.key)] if version is not None and compare is not None else None


def _semver_bounds(sign: str, word: str) -> list[_Bound] | None:
    exact = _parse("semver", word)
    if exact is not None:
        named = exact.core if exact.prerelease else None
        if sign in ("^", "~"):
            upper = _next(exact.core, _caret_index(exact.core) if sign == "^" else 1)
            return [_Bound(operator.ge, exact.key, named), _Bound(operator.lt, _lowest(upper))]
        key = _lowest(exact.core) if sign == "<" and named is None else exact.key
        return [_Bound(_OPERATORS[sign or "="], key, named)]
    given = _partial(word)
    if given is None:
        return None
    if not given:
        return [_Bound(operator.ge, _lowest((0, 0, 0)))] if sign in ("", "=", ">=", "<=", "^", "~") else None
    low: tuple[int, ...] = (*given, *(0 for _ in range(3 - len(given))))
    index = min(_caret_index(low), len(given) - 1) if sign == "^" else min(1, len(given) - 1)
    high = _next(low, index)
    above = _Bound(operator.ge, _floor(low))
    return {
        ">=": [above],
        ">": [_Bound(operator.ge, _floor(high))],
        "<": [_Bound(operator.lt, _lowest(low))],
        "<=": [_Bound(operator.lt, _lowest(high))],
    }.get(sign, [above, _Bound(operator.lt, _lowest(high))])


def _partial(word: str) -> tuple[int, ...] | None:
    """(2,) for '2', '2.x', '2.x.x'; () for '*'; None for anything else."""
    numbers: list[int] = []
    wild = False
    parts = word.split(".")
    for part in parts:
        if part in ("x", "X", "*"):
            wild = True
        elif wild or not (part.isascii() and part.isdigit()) or len(part) > _NUMBER_LIMIT:
            return None
        else:
            numbers.append(int(part))
    return tuple(numbers) if len(parts) <= 3 and len(numbers) < 3 else None


def _caret_index(core: tuple[int, ...]) -> int:
    """The place a caret range may not change: the first that is not zero."""
    return next((index for index, number in enumerate(core) if number), 2)


def _next(core: tuple[int, ...], index: int) -> tuple[int, ...]:
    return (*core[:index], core[index] + 1, *(0 for _ in range(2 - index)))


def _lowest(core: tuple[int, ...]) -> tuple[Any, ...]:
    """Below every pre-release of `core`."""
    return (*core, 0, ())


def _floor(core: tuple[int, ...]) -> tuple[Any, ...]:
    return (*core, 1, ())


def _unordered(component: Component, channel: str | None) -> Invalid:
    return Invalid(
        "version-unordered",
        "versions of this component have no order, so a channel has no newest",
        where=f"component {component.name}",
        expected="an exact version, a tag or a digest",
        got=f"channel {channel}",
        cure="name a tag in the release, or give the component another versioning scheme",
    )


def _not_found(
    component: Component, requirement: ReleaseComponent, channel: str | None, found: Sequence[Candidate]
) -> Invalid:
    wanted = requirement.version or f"channel {channel}"
    if requirement.version and channel:
        wanted += f" in channel {channel}"
    return Invalid(
        "version-not-found",
        "no tag of the repository fits",
        where=f"component {component.name}, repository {component.spec.repository}",
        expected=wanted,
        got=", ".join(_near(requirement.version, found)) or "no tag with a version",
        cure="push the version, or correct the requirement, the component's tagPattern or its rules",
    )


def _near(version: str | None, found: Sequence[Candidate]) -> list[str]:
    """Up to five tags that a person may have meant: alike in writing, then the newest."""
    versioned = [one for one in found if one.version is not None]
    newest = [
        one.tag
        for one in sorted(versioned, key=lambda one: (one.version and one.version.key, one.tag), reverse=True)
    ]
    alike = difflib.get_close_matches(version or "", newest[:200], n=3, cutoff=0.6)
    return list(dict.fromkeys([*alike, *newest]))[:5]
