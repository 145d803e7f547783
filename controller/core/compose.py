"""YAML bytes to plain values, bounded on the event stream before anything is built.

The stock composer recurses (100 KB of `[` ends the process) and expands aliases without limit; this one
keeps its own stack, refuses aliases and tags, and knows only the scalars of YAML 1.2's core schema (section
10.3.2), so that `no`, `012:30` and `2026-01-01` are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

MOST_BYTES: Final = 1 << 20
MOST_DEPTH: Final = 32
MOST_NODES: Final = 20_000
MOST_NUMBER: Final = 2**53 - 1
MOST_PROBLEMS: Final = 100

Pointer = tuple[str | int, ...]

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_STARTS = frozenset("-+.0123456789nNtTfF~")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the bytes; `line` counts from 1."""

    line: int
    code: str
    message: str
    cure: str


@dataclass(slots=True)
class Composed:
    """The value (None unless complete), what was wrong, and, when asked for, the line of each key and item."""

    value: Any
    problems: list[Problem]
    lines: dict[Pointer, int]


@dataclass(slots=True)
class _Frame:
    container: dict[str, Any] | list[Any]
    at: Pointer
    key: str | None = None
    wants_key: bool = False


class _Stopped(Exception):  # no error: the end of reading
    """The rest of the stream is not looked at."""


def compose(data: bytes, *, with_lines: bool = False) -> Composed:
    """Read one YAML document. Never raises; every defect is a Problem."""
    out = Composed(None, [], {})
    if len(data) > MOST_BYTES:
        out.problems.append(
            Problem(0, "too-large", f"the file has {len(data)} bytes, more than {MOST_BYTES}", "split the file")
        )
        return out
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        out.problems.append(Problem(line, "encoding", "the file is not UTF-8", "save it as UTF-8"))
        return out
    builder = _Builder(out, with_lines)
    parser = yaml.CSafeLoader(data)
    try:
        builder.read(parser)
    except _Stopped:
        out.value = None
    except yaml.YAMLError as error:
        out.value = None
        out.problems.append(_syntax(error, data))
    finally:
        parser.dispose()
    return out


def _syntax(error: yaml.YAMLError, data: bytes) -> Problem:
    cure = "correct the YAML; indent by spaces and quote texts that hold : or #"
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", None) or getattr(error, "context", None) or "cannot be read"
        return Problem(mark.line + 1, "yaml-syntax", f"not YAML: {problem}", cure)
    position = getattr(error, "position", 0) or 0
    return Problem(
        data.count(b"\n", 0, position) + 1,
        "yaml-syntax",
        "not YAML: a character that text files do not hold",
        "remove control characters",
    )


class _Builder:
    def __init__(self, out: Composed, with_lines: bool) -> None:
        self.out = out
        self.lines = out.lines if with_lines else None
        self.stack: list[_Frame] = []
        self.nodes = 0
        self.documents = 0

    def read(self, parser: Any) -> None:
        while True:
            event = parser.get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self.node(event)
                self.put(self.scalar(event), event)
            elif kind is yaml.MappingStartEvent:
                self.node(event)
                self.push({}, event)
            elif kind is yaml.SequenceStartEvent:
                self.node(event)
                self.push([], event)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self.stack.pop()
            elif kind is yaml.AliasEvent:
                self.problem(
                    event, "yaml-alias", f"the alias *{event.anchor} is not allowed", "write the value out"
                )
                self.put("", event)
            elif kind is yaml.DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    self.stop(event, "yaml-documents", "the file holds more than one document", "split the file")
            elif kind is yaml.StreamEndEvent:
                break
        if not self.documents:
            self.out.problems.append(
                Problem(0, "empty-file", "the file is empty", "write the document, or remove the file")
            )

    def node(self, event: Any) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            self.stop(event, "yaml-nodes", f"more than {MOST_NODES} values in one file", "split the file")
        if event.tag is not None:
            self.problem(event, "yaml-tag", f"the tag {event.tag[:40]} is not allowed", "remove the tag")

    def push(self, container: dict[str, Any] | list[Any], event: Any) -> None:
        if len(self.stack) >= MOST_DEPTH:
            self.stop(event, "yaml-depth", f"nested more than {MOST_DEPTH} deep", "nest less deeply")
        at = self.put(container, event)
        self.stack.append(_Frame(container, at, None, isinstance(container, dict)))

    def put(self, value: Any, event: Any) -> Pointer:
        """Place a value where the stack says, and return its pointer."""
        if not self.stack:
            self.out.value = value
            return self.mark((), event)
        frame = self.stack[-1]
        if isinstance(frame.container, list):
            if value is None:
                self.problem(event, "null-value", "an item of the list has no value", "remove the item")
            frame.container.append(value)
            return self.mark((*frame.at, len(frame.container) - 1), event) if self.lines is not None else ()
        if frame.wants_key:
            frame.key = self.key(frame, value, event)
            frame.wants_key = False
            return self.mark((*frame.at, frame.key), event) if self.lines is not None else ()
        key = frame.key or ""
        if value is None:
            self.problem(event, "null-value", f"`{key}` has no value", "give a value or leave the field out")
        frame.container[key] = value
        frame.wants_key = True
        return (*frame.at, key) if self.lines is not None else ()

    def key(self, frame: _Frame, value: Any, event: Any) -> str:
        if not isinstance(value, str):
            shown = event.value if isinstance(event, yaml.ScalarEvent) else "a list or mapping"
            self.problem(event, "key-not-text", f"the key {shown} is not text", "put the key in quotes")
            return f"\0{self.nodes}"
        if value in frame.container:
            self.problem(event, "duplicate-key", f"`{value}` stands twice in one mapping", "remove one of them")
        return value

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0] or (text and text[0] not in _STARTS):
            return text
        if text in _NULLS:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        number = self.number(text)
        if isinstance(number, str):
            return text
        if number is None or abs(number) > MOST_NUMBER:
            self.problem(
                event,
                "number-range",
                f"{text[:40]} is not a finite number within ±{MOST_NUMBER}",
                "write a smaller number, or quote it if it is text",
            )
            return 0
        return number

    @staticmethod
    def number(text: str) -> int | float | str | None:
        """The number, the text itself when it is none, None when it is beyond any bound."""
        if _INTEGER.fullmatch(text):
            return int(text) if len(text) <= 32 else None
        if _OCTAL.fullmatch(text):
            return int(text, 8) if len(text) <= 32 else None
        if _HEXADECIMAL.fullmatch(text):
            return int(text, 16) if len(text) <= 32 else None
        if _FLOAT.fullmatch(text):
            value = float(text)
            return value if math.isfinite(value) else None
        return None if _NOT_FINITE.fullmatch(text) else text

    def mark(self, at: Pointer, event: Any) -> Pointer:
        if self.lines is not None and at not in self.lines:
            self.lines[at] = event.start_mark.line + 1
        return at

    def problem(self, event: Any, code: str, message: str, cure: str) -> None:
        self.out.problems.append(Problem(event.start_mark.line + 1, code, message, cure))
        if len(self.out.problems) >= MOST_PROBLEMS:
            raise _Stopped

    def stop(self, event: Any, code: str, message: str, cure: str) -> None:
        self.out.problems.append(Problem(event.start_mark.line + 1, code, message, cure))
        raise _Stopped
