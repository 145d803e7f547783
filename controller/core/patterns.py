"""Patterns from documents, admitted only if they end quickly on every tag. Pure.

A backtracking matcher is slow where it has choices. Each part of a pattern that can match in several ways,
with what follows unable to tell them apart, is counted in bits (the logarithm of the number of ways on a tag
of 128 characters); within a repeat the bits multiply. `^v\\d+\\.\\d+$` has none: a digit is never a dot.
"""

from __future__ import annotations

import functools
import math
import re
import string
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

from controller.errors import Invalid

TAG_LIMIT: Final = 128
PATTERN_LIMIT: Final = 256
_BITS_LIMIT: Final = 15.0

Chars = frozenset[str]
_ALL: Final[Chars] = frozenset(string.ascii_letters + string.digits + "_.-")
_NONE: Final[Chars] = frozenset()
_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: frozenset(string.digits),
    op.CATEGORY_NOT_DIGIT: _ALL - frozenset(string.digits),
    op.CATEGORY_WORD: _ALL - frozenset(".-"),
    op.CATEGORY_NOT_WORD: frozenset(".-"),
    op.CATEGORY_SPACE: _NONE,
    op.CATEGORY_NOT_SPACE: _ALL,
}
_REPEATS: Final = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)


@functools.lru_cache(maxsize=1024)
def safe_pattern(pattern: str) -> re.Pattern[str]:
    """A document's pattern, compiled. Raises Invalid("pattern-unsafe") for one that could run for long."""
    reason = "" if len(pattern) <= PATTERN_LIMIT else f"{len(pattern)} characters"
    try:
        if not reason:
            bits = _bits(list(_parser.parse(pattern)), _NONE)
            if bits <= _BITS_LIMIT:
                return re.compile(pattern)
            reason = "parts that can match the same text in too many ways"
    except (re.error, RecursionError, OverflowError) as error:
        reason = str(error)
    raise Invalid(
        "pattern-unsafe",
        "this pattern is not used",
        where=f"pattern {pattern[:80]}",
        expected=f"at most {PATTERN_LIMIT} characters, and parts that cannot match the same text twice",
        got=reason,
        cure="write the pattern more plainly: put a fixed character between repeats",
    )


def _bits(items: list[Any], after: Chars) -> float:
    """How ambiguous a sequence is, when one of `after` comes next."""
    total = 0.0
    for place, (code, argument) in enumerate(items):
        follow = _first(items[place + 1 :], after)
        if code in _REPEATS:
            least, most, body = argument
            total += _repeat_bits(int(least), min(int(most), TAG_LIMIT), list(body), follow)
        elif code is op.SUBPATTERN:
            total += _bits(list(argument[3]), follow)
        elif code is op.ATOMIC_GROUP:
            total += _bits(list(argument), follow)
        elif code is op.BRANCH:
            branches = [list(branch) for branch in argument[1]]
            total += sum(_bits(branch, follow) for branch in branches)
            total += math.log2(_overlaps([_first(branch, follow) for branch in branches]))
        elif code in (op.GROUPREF, op.GROUPREF_EXISTS, op.ASSERT, op.ASSERT_NOT):
            return math.inf
    return total


def _repeat_bits(least: int, most: int, inner: list[Any], follow: Chars) -> float:
    entry = _first(inner, _NONE)
    again = entry | follow if most > 1 else follow
    bits = _bits(inner, again) * max(most, 1)
    if _nullable(inner):
        if most > 1:
            return math.inf
        bits += 1  # nothing can be matched inside or by leaving it out
    # With one character a turn, only what may follow the repeat can make its end a choice.
    if most > least and entry & follow:
        bits += math.log2(most - least + 1)
    return bits


def _overlaps(firsts: list[Chars]) -> int:
    """The largest number of branches that one character can start."""
    return max([1, *(sum(char in first for first in firsts) for char in _ALL)])


def _nullable(items: list[Any]) -> bool:
    for code, argument in items:
        if code in _REPEATS:
            empty = argument[0] == 0 or _nullable(list(argument[2]))
        elif code is op.SUBPATTERN:
            empty = _nullable(list(argument[3]))
        elif code is op.BRANCH:
            empty = any(_nullable(list(branch)) for branch in argument[1])
        else:
            empty = code in (op.AT, op.ASSERT, op.ASSERT_NOT, op.GROUPREF)
        if not empty:
            return False
    return True


def _first(items: list[Any], after: Chars) -> Chars:
    """The characters a sequence can start with; those of `after` too if it can be empty."""
    found: Chars = _NONE
    for code, argument in items:
        if code is op.AT and argument in (op.AT_END, op.AT_END_STRING):
            return found
        found |= _item_first(code, argument)
        if not _nullable([(code, argument)]):
            return found
    return found | after


def _item_first(code: Any, argument: Any) -> Chars:
    if code in _REPEATS:
        return _first(list(argument[2]), _NONE)
    if code is op.SUBPATTERN:
        return _first(list(argument[3]), _NONE)
    if code is op.BRANCH:
        return frozenset().union(*(_first(list(branch), _NONE) for branch in argument[1]))
    if code is op.AT:
        return _NONE
    if code is op.LITERAL:
        return _folded(frozenset({chr(argument)}))
    if code is op.IN:
        return _folded(_members(argument))
    return _ALL


def _members(argument: Any) -> Chars:
    found: Chars = _NONE
    negated = False
    for code, value in argument:
        if code is op.NEGATE:
            negated = True
        elif code is op.LITERAL:
            found |= {chr(value)}
        elif code is op.RANGE:
            found |= frozenset(char for char in _ALL if value[0] <= ord(char) <= value[1])
        else:
            found |= _CATEGORIES.get(value, _ALL)
    return _ALL - found if negated else found


def _folded(chars: Chars) -> Chars:
    """Both cases, as the pattern may ignore case."""
    return chars | {char.swapcase() for char in chars}
