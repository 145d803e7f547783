"""Parsing one file, and the invalid fixtures with their exact diagnostics."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from controller.core import globs
from controller.core.compose import MOST_BYTES, MOST_NODES, compose
from controller.core.explain import explain
from controller.core.parse import parse, reads
from controller.model.documents import KINDS, Environment, Strategy, path_kind
from tests.support.documents import INVALID, intent_of, read_case, valid_files, written

CASES = sorted(INVALID.glob("*.case"))
VALID = valid_files()


def test_there_are_enough_invalid_cases() -> None:
    assert len(CASES) >= 65


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_an_invalid_project_gets_exactly_these_diagnostics(path: Path) -> None:
    case = read_case(path)
    diagnostics = intent_of(case.files, case.modes).diagnostics
    found = [written(diagnostic) for diagnostic in diagnostics]
    if os.environ.get("LOCKGATE_REWRITE"):
        before = path.read_text().partition("=== expect\n")[0]
        path.write_text(before + "=== expect\n" + "".join(line + "\n" for line in found))
        return
    assert found == case.expected
    assert found, "an invalid case must have a diagnostic"
    assert all(diagnostic.cure for diagnostic in diagnostics)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_schema_and_model_give_one_verdict(path: Path) -> None:
    case = read_case(path)
    for name, data in case.files.items():
        kind, composed = path_kind(name), compose(data)
        if kind is None or composed.problems:
            continue
        assert (not explain(kind, composed.value)) == model_accepts(kind, composed.value), name


def model_accepts(kind: str, value: object) -> bool:
    try:
        KINDS[kind].model_validate(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("path", sorted(VALID))
def test_every_valid_file_is_a_document_for_both(path: str) -> None:
    parsed = parse(path, VALID[path])
    assert parsed.diagnostics == ()
    assert parsed.document is not None
    assert explain(parsed.document.kind, compose(VALID[path]).value) == []


def test_values_are_typed() -> None:
    strategy = parse("strategies/canary.yaml", VALID["strategies/canary.yaml"]).document
    assert isinstance(strategy, Strategy)
    first = strategy.spec.stages[0]
    assert first.min_healthy_time == timedelta(minutes=5)
    assert first.require is not None and first.require.healthy == 0.95
    promotion = parse("promotions/prod.yaml", VALID["promotions/prod.yaml"]).document
    assert promotion is not None
    assert promotion.spec.schedule.not_before == datetime(2026, 2, 19, 2, tzinfo=UTC)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("ON", "ON"),
        ("true", True),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("1e3", 1000.0),
        ("'1'", "1"),
        ("+.5", 0.5),
        ("=", "="),
        ("<<", "<<"),
        ("9007199254740991", 2**53 - 1),
    ],
)
def test_scalars_are_those_of_yaml_1_2_core(text: str, value: object) -> None:
    composed = compose(f"a: {text}\n".encode())
    assert not composed.problems
    assert composed.value == {"a": value}
    assert type(composed.value["a"]) is type(value)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[" * 100_000, "yaml-depth"),
        (b"- " * 100_000, "yaml-depth"),
        (b"{a: " * 25_000, "yaml-depth"),
        (b"? " * 100_000, "yaml-depth"),
        (b"a: [" + b"1," * MOST_NODES + b"1]", "yaml-nodes"),
        (b"#" * (MOST_BYTES + 1), "too-large"),
        (b"a: " + b"9" * 10_000, "number-range"),
        (
            b"a: &a [1]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122)),
            "yaml-alias",
        ),
    ],
    ids=["brackets", "dashes", "braces", "questions", "nodes", "bytes", "digits", "laughs"],
)
def test_bombs_are_diagnostics_and_quick(data: bytes, code: str) -> None:
    started = time.perf_counter()
    parsed = parse("environments/prod.yaml", data)
    assert time.perf_counter() - started < 2
    assert parsed.document is None
    assert code in {diagnostic.code for diagnostic in parsed.diagnostics}


def test_a_small_valid_file_takes_less_than_a_millisecond() -> None:
    data = VALID["environments/prod.yaml"]
    parse("environments/prod.yaml", data)
    best = min(_seconds(data) for _ in range(30))
    assert best < 0.001


def _seconds(data: bytes) -> float:
    started = time.perf_counter()
    parse("environments/prod.yaml", data)
    return time.perf_counter() - started


def test_gates_none_is_explicit() -> None:
    dev = parse("environments/dev.yaml", VALID["environments/dev.yaml"]).document
    assert isinstance(dev, Environment)
    assert dev.spec.gates == "none"
    assert dev.spec.gate_names == ()


def test_what_is_not_intent_is_left_alone() -> None:
    assert not reads("README.md")
    assert not reads("docs/link", 0o120000)
    assert reads("environments", 0o120000)
    assert reads("agents/x", 0o160000)
    workflow = parse(".github/workflows/build.yml", b"on: push\n")
    assert (workflow.document, workflow.diagnostics) == (None, ())


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("trust/**", "trust/trust.yaml", True),
        ("trust/**", "trust/1/alice.sig", True),
        ("trust/**", "trust", False),
        ("**/*.lock.yaml", "releases/a.lock.yaml", True),
        ("**/*.lock.yaml", "a.lock.yaml", True),
        ("**/*.lock.yaml", "releases/a.yaml", False),
        ("*.yaml", "a/b.yaml", False),
        ("{promotions,environments}/prod.yaml", "environments/prod.yaml", True),
        ("{promotions,environments}/prod.yaml", "environments/prodxyaml", False),
        ("{a,b}/{c,d}/**", "b/c/x", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a*b*c", "aXbXbXc", True),
        ("a*b*c", "aXbX", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("**", "any/thing", True),
        ("*", ".gitattributes", True),
        ("a.b", "axb", False),
        ("Trust/**", "trust/x", False),
    ],
)
def test_globs(pattern: str, path: str, matches: bool) -> None:
    assert globs.match(pattern, path) is matches


@pytest.mark.parametrize("pattern", ["", "/a", "a/", "a//b", "a{b", "a}b", "{a,{b}}", "a**", "**/**b", "*" * 600])
def test_malformed_globs_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        globs.match(pattern, "a")


def test_a_glob_cannot_be_made_slow() -> None:
    started = time.perf_counter()
    globs.match("**/*a*a*a*a*a*b/**/*c/**", "a" * 500 + "/" + "a/" * 200 + "c")
    assert time.perf_counter() - started < 1
