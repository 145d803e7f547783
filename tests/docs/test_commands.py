"""Every `lockgate` command line in the documentation names a command and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from controller.cli import app as cli

ROOT = Path(__file__).parents[2]
PAGES = [p for p in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]) if "reference" not in p.parts]
FENCE = re.compile(r"^ *```(?:bash|console|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(lockgate [^`\n]+)`")
SUBSTITUTION = re.compile(r'"?\$\(([^)]*)\)"?')
CALL = re.compile(r"(?:^|[|;&(\s])(lockgate [^|;&)>\n]*)", re.MULTILINE)


@pytest.fixture(scope="module")
def root() -> Any:
    return cli.root().make_all()


def lines(page: Path) -> list[str]:
    text = page.read_text()
    blocks = "\n".join(
        line[2:] if line.startswith("$ ") else line
        for block in FENCE.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
    )
    blocks += "\n" + "\n".join(SUBSTITUTION.findall(blocks))
    return [m.strip() for m in CALL.findall(SUBSTITUTION.sub("VALUE", blocks))] + INLINE.findall(text)


def check(root: Any, line: str) -> None:
    command, words = root, shlex.split(line)[1:]
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word.startswith("-"):
            name = word.partition("=")[0]
            option = next((p for p in command.params if name in [*p.opts, *p.secondary_opts]), None)
            assert option is not None or name in ("--help", "-h"), f"{line}: {command.name} has no {name}"
            place += option is not None and not option.is_flag and "=" not in word
        elif hasattr(command, "commands"):
            assert word in command.commands, f"{line}: there is no command {word}"
            command = command.commands[word]


def test_every_documented_command_and_option_exists(root: Any) -> None:
    found = [(page, line) for page in PAGES for line in lines(page)]
    assert len(found) > 40
    for page, line in found:
        try:
            check(root, line)
        except AssertionError as error:
            raise AssertionError(f"{page.relative_to(ROOT)}: {error}") from None


def test_what_does_not_exist_is_found(root: Any) -> None:
    with pytest.raises(AssertionError):
        check(root, "lockgate statuss")
    with pytest.raises(AssertionError):
        check(root, "lockgate verify --trustroot x")


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", (ROOT / "README.md").read_text())) <= targets
