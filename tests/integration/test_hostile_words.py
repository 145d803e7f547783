"""Words and names of an attacker on the way through records to a person's terminal: they are shown, never done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.flow import Flow, environment, strategy
from tests.support.guarded import MAIN, REQUESTS, Clone
from tests.support.real_run import answer, lockgate
from tests.support.site import Site

STEER = "\x1b]0;mine\x07\x1b[2J\x9b31m\u202e"
NAMES = {"steering": f"x\n✓ verified\n{STEER}".encode(), "no text": b"\xff\xfe\x9b2J"}
WORDS = f"look\n✓ verified\n{STEER}"
FILES = {
    "environments/dev.yaml": environment("dev"),
    "strategies/dev.yaml": strategy("dev", "    - {percent: 100, minHealthyTime: 200ms, deadline: 1h}\n"),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A release is locked, and a run in dev has ordered its deployment."""
    folder = tmp_path_factory.mktemp("begun")
    shop = Flow(folder, {"dev-1": "dev"}, files=FILES)
    site = Site(folder)
    shop.image("1.0.0")
    name = shop.release("1.0.0")
    assert site.settle() == ""
    shop.promote("dev", name)
    assert site.settle() == ""
    shop.people.close()
    return site


@pytest.fixture
def clone(begun: Site, tmp_path: Path) -> Clone:
    made = Clone.copy(begun.stage, tmp_path / "clone")
    assert isinstance(made, Clone)
    return made


def shown(clone: Clone, *arguments: str) -> str:
    """What a command says, none of it more than text."""
    done = lockgate("--repo", clone.stage.origin, *arguments)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    for line in said.splitlines():
        assert line.isprintable(), line
    assert "✓ verified" not in said.splitlines()
    return said


def with_file(clone: Clone, name: bytes, base: str) -> str:
    """The tree of a commit with one more file of this name."""
    blob = clone.blob(b"x").encode()
    rows = clone.git("ls-tree", "-z", base).encode()
    return clone.git("mktree", "-z", stdin=rows + b"100644 blob " + blob + b"\t" + name + b"\0")


@pytest.mark.parametrize(
    "name", [f"x\n✓ verified\n{STEER}".encode(), b"\xff\xfe\x9b2J"], ids=["steering", "no text"]
)
def test_a_path_that_is_no_text_is_refused_like_any_other(clone: Clone, name: bytes) -> None:
    bad = clone.commit("alice", {}, tree=with_file(clone, name, MAIN))
    clone.git("update-ref", MAIN, bad)
    assert clone.settle() == ""
    for words in (["status"], ["why", "dev"], ["verify", "--trust-root", str(clone.stage.trust_root)]):
        assert "path-denied: alice may not write " in shown(clone, *words)
    assert [one.commit for one in clone.verify().refused] == [bad]


def test_a_request_at_a_path_that_is_no_text_is_refused(clone: Clone) -> None:
    first = clone.asked("alice", reason="look")
    clone.git("update-ref", REQUESTS, first)
    bad = clone.commit("alice", {}, first, tree=with_file(clone, b"\xff\x1b[2J", first))
    clone.git("update-ref", REQUESTS, bad)
    assert clone.settle() == ""
    report = clone.verify()
    assert (report.findings, [one.commit for one in report.refused]) == ((), [bad])
    shown(clone, "verify", "--trust-root", str(clone.stage.trust_root))


def test_reasons_are_one_line_each(clone: Clone) -> None:
    clone.git("update-ref", REQUESTS, clone.asked("alice", reason=WORDS, ticket=WORDS))
    assert clone.settle() == ""
    (run,) = (row["run"] for row in answer("--repo", clone.stage.origin, "runs"))
    assert "paused by alice: look ✓ verified \\x1b]0;mine" in shown(clone, "status")
    for words in (["why", "dev"], ["timeline", run], ["step", run, "6"], ["runs"]):
        shown(clone, *words)
    assert clone.verify().findings == ()
