"""Rules of every run: nothing is skipped unseen, and the end lists the real components that took part."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Generator
from typing import Any

import pygit2
import pytest

from tests.support.components import seen, used

# A verification in a test is one of everything, and leaves nothing in the home of whoever runs the tests.
os.environ.setdefault("LOCKGATE_NO_CACHE", "1")

ALLOWED_SKIPS: dict[str, str] = {}
"""Beginning of a test's id -> why it may be skipped. Any other skipped or expected failure fails."""


def _judge(identity: str, report: Any) -> None:
    if not report.skipped or any(identity.startswith(allowed) for allowed in ALLOWED_SKIPS):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{identity} was skipped and is not on the list in tests/conftest.py: {why}"
    if hasattr(report, "wasxfail"):
        del report.wasxfail


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(item.nodeid, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(collector.nodeid, report)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker ended: take over what it met."""
    for name, version in getattr(node, "workeroutput", {}).get("components", {}).items():
        used(name, version)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["components"] = seen()
        return
    used("python", platform.python_version())
    used("pygit2", f"{pygit2.__version__}, libgit2 {pygit2.LIBGIT2_VERSION}")
    used("git", subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout)
    if exitstatus == 0 and _absent():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("real components that took part")
    for name, version in sorted(seen().items()):
        terminalreporter.write_line(f"{name}: {version}")
    for name in _absent():
        terminalreporter.write_line(f"{name}: absent, and this run requires it", red=True)


def _absent() -> list[str]:
    """Components that LOCKGATE_TEST_COMPONENTS requires and no fixture met."""
    return sorted(set(os.environ.get("LOCKGATE_TEST_COMPONENTS", "").split()) - seen().keys())
