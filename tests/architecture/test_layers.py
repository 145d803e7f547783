"""The architecture as executable rules: layers, purity, sizes, no doubles of our code, every code documented."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ci.reference.codes import ERRORS

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted((ROOT / "controller").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MOST_LINES = 450
MOST_FUNCTION_LINES = 70
LARGER: dict[str, str] = {}
"""File, or file:function -> why it may be larger."""

VARIABLES = {
    "LOCKGATE_REPO": "where the repository is",
    "LOCKGATE_TRUST_ROOT": "where the trust root is",
    "LOCKGATE_IMAGES": "where image layouts are",
    "LOCKGATE_KEY": "which key signs",
    "LOCKGATE_KEY_PASSPHRASE": "a secret",
    "LOCKGATE_PKCS11_MODULE": "where the token's module is",
    "LOCKGATE_PKCS11_PIN": "a secret",
    "LOCKGATE_OUTPUT": "how answers are written",
    "LOCKGATE_DEBUG": "whether a defect shows its traceback",
    "LOCKGATE_VERSION": "not read",
    "LOCKGATE_COMPONENT": "told to services",
    "LOCKGATE_DIGEST": "told to services",
    "LOCKGATE_ROOTFS": "told to services",
    "LOCKGATE_CRASH_AT": "for crash tests",
    "LOCKGATE_CRASH_LOG": "for crash tests",
}
"""What a variable of the environment is about: never whether a feature is there or a rule holds."""

CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"}
CLOCK_OWNERS = {"datetime", "date", "time"}


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_imports_keep_their_contracts() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", ["core", "ledger", "model", "uses"])
def test_no_clock_is_read(room: str) -> None:
    reads = [
        f"{short(path)}:{node.lineno}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "controller" / room)
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in CLOCKS
        and isinstance(node.value, ast.Name)
        and node.value.id in CLOCK_OWNERS
    ]
    assert reads == []


def test_no_variable_switches_a_feature() -> None:
    name = re.compile(r"\bLOCKGATE_[A-Z0-9_]*[A-Z0-9]\b")
    assert {found for path in SOURCES for found in name.findall(path.read_text())} == set(VARIABLES)


def test_no_test_mocks_our_code() -> None:
    # What Python itself offers (secrets, os, time) may be held still inside a module of ours.
    doubles = re.compile(
        r"\bunittest\.mock\b|\bimport mock\b|\bMagicMock\b|\bmocker\b"
        r"|setattr\(\s*\"controller\.(?![\w.]*\.(?:secrets|os|time)\.)"
    )
    assert [short(path) for path in TESTS if path != Path(__file__) and doubles.search(path.read_text())] == []


def test_no_file_or_function_outgrows_its_purpose() -> None:
    sizes = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in [*SOURCES, *TESTS]}
    found = {name for name, lines in sizes.items() if lines > MOST_LINES}
    for path in [*SOURCES, *TESTS]:
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    found.add(f"{short(path)}:{node.name}")
    assert found == set(LARGER), "larger than allowed, or listed without need"


def test_every_error_code_is_in_the_reference() -> None:
    listed = set(re.findall(r"^\| `([a-z0-9-]+)`", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE))
    given = {
        (node.args[0].value, short(path))
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ERRORS
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(given) > 100
    assert sorted((code, path) for code, path in given if code not in listed) == []


def test_the_generated_files_are_up_to_date() -> None:
    for generator in ("ci.generate_schemas", "ci.generate_docs"):
        done = subprocess.run(
            [sys.executable, "-m", generator, "--check"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
