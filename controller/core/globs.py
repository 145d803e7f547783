"""The patterns of Trust's path rules.

`*` is any run of characters within one part of the path, `**` as a whole part is any number of parts (none
too), `?` is one character, `{a,b}` is either. Everything else stands for itself; case matters.
"""

from __future__ import annotations

import re
from functools import lru_cache

MOST_LENGTH = 512
MOST_ALTERNATIVES = 64
MOST_DEEP = 3
MOST_STARS = 8


def match(pattern: str, path: str) -> bool:
    """Whether the pattern covers the path. Raises ValueError when the pattern is malformed."""
    return compiled(pattern).fullmatch(path) is not None


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression; how much it can backtrack is bounded by the limits above."""
    if not pattern or len(pattern) > MOST_LENGTH:
        raise ValueError(f"a pattern has 1 to {MOST_LENGTH} characters")
    if pattern.startswith("/") or pattern.endswith("/") or "//" in pattern:
        raise ValueError("a pattern is relative and has no empty parts")
    return re.compile("|".join(_plain(text) for text in _alternatives(pattern)), re.DOTALL)


def _alternatives(pattern: str) -> list[str]:
    texts = [""]
    rest = pattern
    while rest:
        before, opening, rest = rest.partition("{")
        if "}" in before:
            raise ValueError("a } without its {")
        texts = [text + before for text in texts]
        if not opening:
            break
        inside, closing, rest = rest.partition("}")
        if not closing or "{" in inside:
            raise ValueError("a { without its }, or one inside another")
        texts = [text + choice for text in texts for choice in inside.split(",")]
        if len(texts) > MOST_ALTERNATIVES:
            raise ValueError(f"a pattern has at most {MOST_ALTERNATIVES} alternatives")
    return texts


def _plain(pattern: str) -> str:
    given = pattern.split("/")
    parts = [
        part for index, part in enumerate(given) if part != "**" or given[max(index - 1, 0) : index] != ["**"]
    ]
    if parts.count("**") > MOST_DEEP:
        raise ValueError(f"a pattern has ** at most {MOST_DEEP} times")
    if parts == ["**"]:
        return ".+"
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".+" if last else "(?:[^/]+/)*"
        else:
            expression += _part(part) + ("" if last else "/")
    return expression


def _part(part: str) -> str:
    if "**" in part:
        raise ValueError("** stands alone between slashes")
    pieces = [re.escape(piece).replace(r"\?", "[^/]") for piece in part.split("*")]
    if len(pieces) - 1 > MOST_STARS:
        raise ValueError(f"a part of a pattern has * at most {MOST_STARS} times")
    if len(pieces) == 1:
        return pieces[0]
    # The first place where a middle piece fits is as good as any later one, so it is never reconsidered.
    middle = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1])
    return pieces[0] + middle + "[^/]*" + pieces[-1]
