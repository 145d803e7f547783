"""One file to one document, or everything that is wrong with it."""

from __future__ import annotations

import hashlib
import stat
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError

from controller.core.checks import check
from controller.core.compose import Pointer, compose
from controller.core.finding import Finding, shown
from controller.model.base import API_VERSION, NAME_MAX, NAME_PATTERN, Document, ecma
from controller.model.diagnostic import Diagnostic
from controller.model.places import DOCUMENT_DIRECTORIES, PROJECT_PATH, model_of, path_kind, path_name

_NAME = ecma(NAME_PATTERN)
_MARKER = b"lockgate.dev/"
_SMALL = 8_192
"""Bytes of a document that is kept once it was parsed."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file of the tree. `document` is None when it holds none or an error was found.

    `sha256` is "sha256:<hex>" of the bytes. `packed` are the bytes, compressed: they are wanted again only to
    find a line, and ten thousand files should fit in little memory.
    """

    path: str
    sha256: str
    document: Document | None
    diagnostics: tuple[Diagnostic, ...]
    packed: bytes = field(default=b"", repr=False, compare=False)

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return zlib.decompress(self.packed) if self.packed else b""


def reads(path: str, mode: int = 0o100644) -> bool:
    """Whether the file at `path` has to be parsed: documents, misplaced ones, and links in their places."""
    if path_kind(path) is not None:
        return True
    if not stat.S_ISREG(mode):
        return _guarded(path)
    return path.endswith((".yaml", ".yml"))


def parse(path: str, data: bytes, mode: int = 0o100644) -> Parsed:
    """Parse one file. Never raises: whatever the bytes are, the answer is a document or diagnostics.

    `mode` is the Git mode of the tree entry; links and submodules are refused unread. The last answers are kept:
    a walk over history asks for the same few documents again and again.
    """
    return _kept(path, data, mode) if len(data) <= _SMALL else _parse(path, data, mode)


@lru_cache(512)
def _kept(path: str, data: bytes, mode: int) -> Parsed:
    return _parse(path, data, mode)


def _parse(path: str, data: bytes, mode: int) -> Parsed:
    sha256 = "sha256:" + hashlib.sha256(data).hexdigest()
    packed = zlib.compress(data, 1)
    kind = path_kind(path)
    finding = _place(path, kind, data, mode)
    if finding is not None:
        return Parsed(path, sha256, None, (_diagnostic(path, finding, 0),), packed)
    if kind is None:
        return Parsed(path, sha256, None, (), packed)
    document, diagnostics = _document(path, kind, data)
    if document is not None:
        _slim(document)
    return Parsed(path, sha256, document, diagnostics, packed)


_NOTHING_SET: set[str] = set()


def _slim(value: Any) -> None:
    """Let go of each model's record of which fields were given: only validation needs it, and in ten thousand
    documents it takes more memory than their content."""
    if isinstance(value, BaseModel):
        object.__setattr__(value, "__pydantic_fields_set__", _NOTHING_SET)
        for part in value.__dict__.values():
            if isinstance(part, BaseModel | tuple | dict):
                _slim(part)
    elif isinstance(value, tuple):
        for part in value:
            _slim(part)
    elif isinstance(value, dict):
        for part in value.values():
            _slim(part)


def line_of(parsed: Parsed, at: Pointer) -> int:
    """The line of a key or item in the parsed file: of the nearest enclosing one that exists."""
    return _line(compose(parsed.data, with_lines=True).lines, at)


def raw(parsed: Parsed) -> Any:
    """The file's plain value, however wrong it is; None when it is not YAML."""
    return compose(parsed.data).value


def _guarded(path: str) -> bool:
    top = path.partition("/")[0]
    return top in DOCUMENT_DIRECTORIES or top in ("trust", PROJECT_PATH)


def _place(path: str, kind: str | None, data: bytes, mode: int) -> Finding | None:
    """What is wrong with where and what the file is, before it is opened."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or any(p in ("", ".", "..") or p.lower() == ".git" for p in parts):
        return Finding((), "path-escapes", "the path leaves the repository", "remove the file")
    if _guarded(path) and not path.isascii():
        return Finding((), "name-not-ascii", "the path is not ASCII", "rename the file")
    if _guarded(path) and stat.S_ISLNK(mode):
        return Finding((), "symlink", "the file is a symbolic link", "replace it by the file itself")
    if _guarded(path) and (mode & 0o170000) == 0o160000:
        return Finding((), "submodule", "the path is a submodule", "keep documents in this repository")
    if kind is None:
        return _misplaced(path, parts, data)
    name = path_name(path)
    if _NAME.match(name) is None or len(name) > NAME_MAX:
        return Finding(
            (),
            "bad-name",
            f"'{name}' is not a name",
            "use lower-case letters, digits, dots and dashes, and begin and end with a letter or digit",
        )
    return None


def _misplaced(path: str, parts: list[str], data: bytes) -> Finding | None:
    if not path.endswith((".yaml", ".yml")):
        return None
    if parts[0] in DOCUMENT_DIRECTORIES:
        if path.endswith(".yml"):
            return Finding((), "misplaced", "documents end in .yaml", "rename the file")
        return Finding((), "misplaced", f"documents lie directly in {parts[0]}/", "move the file there")
    if _MARKER in data[:512]:
        return Finding(
            (), "misplaced", "no document is read from here", "move the file into the directory of its kind"
        )
    return None


def _document(path: str, kind: str, data: bytes) -> tuple[Document | None, tuple[Diagnostic, ...]]:
    composed = compose(data)
    if composed.problems:
        return None, tuple(
            Diagnostic(path, problem.line, "error", problem.code, problem.message, problem.cure)
            for problem in sorted(composed.problems, key=lambda problem: problem.line)
        )
    try:
        document = model_of(kind).model_validate(composed.value)
        findings = check(document)
    except ValidationError as error:
        document = None
        findings = _refused(kind, composed.value, error)
    if document is not None and kind not in ("Project", "Trust") and document.name != path_name(path):
        findings = [_wrong_stem(path, document.name), *findings]
    if not findings:
        return document, ()
    lines = compose(data, with_lines=True).lines
    return None, tuple(sorted(_diagnostic(path, finding, _line(lines, finding.at)) for finding in findings))


def _refused(kind: str, value: Any, error: ValidationError) -> list[Finding]:
    if not isinstance(value, Mapping):
        return [
            Finding(
                (), "not-a-document", "the file is not a mapping", "begin with apiVersion, kind, metadata, spec"
            )
        ]
    version = value.get("apiVersion")
    if isinstance(version, str) and version != API_VERSION:
        return [
            Finding(
                ("apiVersion",), "api-version", f"apiVersion '{version[:60]}' is not known", f"write {API_VERSION}"
            )
        ]
    found = value.get("kind")
    if isinstance(found, str) and found != kind:
        return [
            Finding(
                ("kind",),
                "wrong-kind",
                f"the kind is '{found[:60]}', but files here are of kind {kind}",
                f"write {kind}, or move the file",
            )
        ]
    from controller.core.explain import explain  # jsonschema is slow to load, and only broken files need it

    findings = explain(kind, value)
    if findings:
        return findings
    first = error.errors(include_url=False, include_input=False)[0]
    at = tuple(first["loc"])
    return [Finding(at, "invalid", f"{shown(at)}: {first['msg']}", "see `lockgate schema`")]


def _wrong_stem(path: str, name: str) -> Finding:
    stem = path_name(path)
    return Finding(
        ("metadata", "name"),
        "wrong-stem",
        f"metadata.name is '{name}', but the file is called '{stem}'",
        f"write '{stem}', or rename the file",
    )


def _line(lines: Mapping[Pointer, int], at: Pointer) -> int:
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 0)


def _diagnostic(path: str, finding: Finding, line: int) -> Diagnostic:
    return Diagnostic(path, line, "error", finding.code, finding.message, finding.cure)
