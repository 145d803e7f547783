"""The command line makes a command only when it is asked for, and still knows, names and helps with every one."""

from __future__ import annotations

import importlib
import re

import pytest
import typer

from controller.cli.app import GROUPS, root, run


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_adds_the_commands_that_the_table_says(group: str) -> None:
    part = typer.Typer()
    importlib.import_module(f"controller.cli.{group}").register(part)
    assert tuple(typer.main.get_group(part).commands) == GROUPS[group]


def test_a_command_is_made_without_those_of_other_groups() -> None:
    line = root()
    assert line.commands == {}
    assert line.get_command(None, "why").name == "why"
    assert tuple(line.commands) == GROUPS["look"]
    assert line.get_command(None, "statuss") is None


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = re.findall(r"^\W{0,3}\b([a-z-]+) ", capsys.readouterr().out.partition("Commands")[2], re.MULTILINE)
    assert listed == [name for names in GROUPS.values() for name in names]


def test_a_typing_error_is_answered_with_what_is_similar(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verfy"]) == 2
    assert "verfy" in (said := capsys.readouterr().err) and "'verify'" in said


def test_a_variable_has_one_name_whatever_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCKGATE_TRUST_ROOT", "/no/such/root.json")
    assert run(["verify"]) == 2
    assert "/no/such/root.json" in capsys.readouterr().err
    monkeypatch.delenv("LOCKGATE_TRUST_ROOT")
    monkeypatch.setenv("LOCKGATE_VERIFY_TRUST_ROOT", "/no/such/root.json")
    assert run(["verify"]) == 2
    assert "trust-root-missing" in capsys.readouterr().err
