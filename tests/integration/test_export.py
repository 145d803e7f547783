"""Audit packs of real runs: the same bytes everywhere, checked alone, by stock tools and against tampering."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tarfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from controller.uses.exports.packfile import SUMS
from tests.support.real_run import Recorded, answer, check, codes, content, lockgate

README_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


# --- what is in it ---------------------------------------------------------------------------------------


def test_packs_are_verified_by_themselves(recorded: Recorded, packs: dict[str, Path]) -> None:
    for name, run, sealed in (
        ("first", recorded.first, True),
        ("second", recorded.second, True),
        ("held", recorded.held, False),
    ):
        report = check(recorded, packs[name])
        assert (report["verified"], report["run"], report["sealed"]) == (True, run, sealed)
        assert report["findings"] == []


def test_a_pack_holds_everything_that_the_run_rests_on(recorded: Recorded, packs: dict[str, Path]) -> None:
    files = content(packs["first"])
    steps = answer("--repo", recorded.origin, "timeline", recorded.first)["steps"]
    entries = [path for path in files if path.startswith("evidence/runs/") and path.endswith(".dsse.json")]
    assert len(entries) == len(steps)
    assert {f"sha256:{hashlib.sha256(files[path]).hexdigest()}" for path in entries} == {
        step["envelope"] for step in steps
    }
    kinds = {path.rpartition("-")[2] for path in files if path.startswith("evidence/events/")}
    assert kinds == {"lock.dsse.json", "accepted.dsse.json", "request.dsse.json", "replayed.dsse.json"}
    for wanted in (
        "README.md",
        "story.html",
        "manifest.json",
        SUMS,
        "evidence/log/checkpoint",
        "proof/trust-chain.json",
        "trust/trust.yaml",
        "documents/policies/named.yaml",
        "documents/releases/shop-1.0.0.lock.yaml",
    ):
        assert wanted in files
    assert any(path.endswith("stage-1-samples.jsonl") for path in files)
    named = {value for step in (3, 4) for value in _digests(recorded, step)}
    assert named <= {f"sha256:{path.rpartition('/')[2]}" for path in files if "/artifacts/sha256/" in path}


def _digests(recorded: Recorded, step: int) -> set[str]:
    detail = answer("--repo", recorded.origin, "step", recorded.first, step)["predicate"]["detail"]
    return set(detail.get("artifacts", {}).values())


def test_an_open_run_is_refused_unless_partial_and_then_marked_everywhere(
    recorded: Recorded, packs: dict[str, Path], tmp_path: Path
) -> None:
    done = lockgate("--repo", recorded.origin, "export", recorded.held, "--out", tmp_path / "x.tar")
    assert (done.returncode, (tmp_path / "x.tar").exists()) == (1, False)
    assert done.stderr.startswith("lockgate: run-not-sealed: ") and "--partial" in done.stderr
    files = content(packs["held"])
    with tarfile.open(packs["held"]) as tar:
        assert all(name.startswith(f"lockgate-{recorded.held}-unsealed/") for name in tar.getnames())
    assert b"UNSEALED" in files["story.html"] and b"**UNSEALED.**" in files["README.md"]
    assert json.loads(files["manifest.json"])["sealed"] is False
    text = lockgate("verify", "--bundle", packs["held"], "--trust-root", recorded.root).stdout
    assert text.startswith("UNSEALED: ")


def test_errors_have_codes_and_leave_nothing_behind(recorded: Recorded, tmp_path: Path) -> None:
    origin, out = ("--repo", recorded.origin), tmp_path / "x.tar"
    for arguments, code, text in (
        ((*origin, "export", "dev-9-00000000", "--out", out), 1, "run-not-found"),
        ((*origin, "export", recorded.first, "--out", tmp_path / "no" / "x"), 2, "file-unwritable"),
        ((*origin, "export", recorded.first, "--at", "0" * 40, "--out", out), 1, "commit-not-found"),
        (("verify", "--bundle", tmp_path / "no", "--trust-root", recorded.root), 1, "bundle-unreadable"),
        (("verify", "--bundle", tmp_path, "--trust-root", recorded.root), 1, "bundle-unreadable"),
    ):
        done = lockgate(*arguments)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith(f"lockgate: {text}: ")
    assert list(tmp_path.iterdir()) == []


# --- the same bytes --------------------------------------------------------------------------------------


def test_two_clones_two_places_one_pack(recorded: Recorded, packs: dict[str, Path], tmp_path: Path) -> None:
    sums_of = {}
    for name, environ in (
        ("a", {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        ("b/elsewhere", {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "99"}),
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        git = ["git", "-c", f"pack.compression={len(name) % 9}", "clone", "-q", "--no-local", "--mirror"]
        subprocess.run([*git, recorded.origin, folder / "clone.git"], check=True)
        subprocess.run(["git", "-C", folder / "clone.git", "repack", "-qadf", f"--depth={len(name)}"], check=True)
        before = os.umask(0o077 if name == "a" else 0o002)
        try:
            for options in ((), ("--bundle",)):
                out = folder / f"pack{len(options)}.tar"
                answer(
                    "--repo", folder / "clone.git", "export", recorded.second, *options, "--out", out, **environ
                )
        finally:
            os.umask(before)
        sums_of[name] = [hashlib.sha256((folder / f"pack{n}.tar").read_bytes()).hexdigest() for n in (0, 1)]
    assert sums_of["a"] == sums_of["b/elsewhere"]
    assert sums_of["a"][1] == hashlib.sha256(packs["second"].read_bytes()).hexdigest()


def test_an_earlier_state_gives_an_earlier_pack(
    recorded: Recorded, packs: dict[str, Path], tmp_path: Path
) -> None:
    tip = json.loads(content(packs["first"])["manifest.json"])["evidence"]
    again = tmp_path / "again.tar"
    answer("--repo", recorded.origin, "export", recorded.first, "--at", tip, "--out", again)
    assert again.read_bytes() == packs["first"].read_bytes()
    steps = answer("--repo", recorded.origin, "timeline", recorded.first)["steps"]
    answer("--repo", recorded.origin, "export", recorded.first, "--at", steps[-1]["commit"], "--out", again)
    assert check(recorded, again)["verified"] is True
    assert not any("replayed" in path for path in content(again))
    newer = tmp_path / "newer"
    newer.write_bytes(content(packs["first"])["evidence/log/checkpoint"])
    assert check(recorded, packs["first"], 0, "--min-checkpoint", newer)["verified"] is True
    assert codes(recorded, again, "--min-checkpoint", newer) == {"checkpoint-mismatch"}
    older = tmp_path / "older"
    older.write_bytes(content(again)["evidence/log/checkpoint"])
    assert check(recorded, packs["first"], 0, "--min-checkpoint", older)["verified"] is True
    (tmp_path / "junk").write_bytes(b"{}")
    done = lockgate(
        "verify", "--bundle", again, "--trust-root", recorded.root, "--min-checkpoint", tmp_path / "junk"
    )
    assert (done.returncode, done.stderr.split(":")[1]) == (1, " checkpoint-malformed")


# --- the story -------------------------------------------------------------------------------------------


class Markup(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words += data


def test_what_people_write_never_becomes_markup(recorded: Recorded, packs: dict[str, Path]) -> None:
    page = content(packs["second"])["story.html"].decode()
    markup = Markup()
    markup.feed(page)
    assert not markup.tags & {"script", "img", "link", "iframe", "object", "a", "form", "base", "svg"}
    assert not any(name.startswith("on") or name in ("src", "href", "style") for name in markup.attributes)
    assert "<script>alert(1)</script>" in markup.words
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page


def test_characters_that_turn_reading_around_are_shown() -> None:
    from controller.uses.exports.story_page import _text

    assert _text("a\u202eb\x00<\u2066") == "a[U+202E]b[U+0000]&lt;[U+2066]"
    assert len(_text("x" * 100_000)) < 5000


# --- stock tools -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first", "second", "held"])
def test_the_readmes_commands_do_what_they_say(packs: dict[str, Path], tmp_path: Path, name: str) -> None:
    subprocess.run(["tar", "-xf", packs[name], "-C", tmp_path], check=True)
    (folder,) = tmp_path.iterdir()
    blocks = [b for b in README_BLOCK.findall((folder / "README.md").read_text()) if "lockgate verify" not in b]
    assert len(blocks) == (6 if name == "second" else 5)

    def run(block: str) -> subprocess.CompletedProcess[str]:
        script = ["bash", "-euo", "pipefail", "-c", block]
        return subprocess.run(script, cwd=folder, capture_output=True, text=True, check=False, timeout=60)

    for block in blocks:
        done = run(block)
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    (entry,) = folder.glob("evidence/runs/*/*/*/*/*/001-opened.dsse.json")
    data = entry.read_bytes()
    place = data.index(b'"payload":"') + 100
    entry.write_bytes(data[:place] + (b"A" if data[place : place + 1] != b"A" else b"B") + data[place + 1 :])
    assert [run(block).returncode != 0 for block in (blocks[0], *blocks[2:4])] == [True] * 3
