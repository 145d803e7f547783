"""Audit packs of real runs: the same bytes everywhere, checked alone, by stock tools and against tampering."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from controller.uses.packfile import BLOCK, SUMS, Pack, read_pack, sums, write_pack
from tests.support.real_run import Recorded, answer, lockgate

README_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def packs(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both completed runs, the second (whose reason is hostile) with its history, and the open one."""
    folder = tmp_path_factory.mktemp("packs")
    found = {"first": folder / "first.tar", "second": folder / "second.tar", "held": folder / "held.tar"}
    answer("--repo", recorded.origin, "export", recorded.first, "--out", found["first"])
    answer("--repo", recorded.origin, "export", recorded.second, "--bundle", "--out", found["second"])
    answer("--repo", recorded.origin, "export", recorded.held, "--partial", "--out", found["held"])
    return found


def check(recorded: Recorded, path: Path, code: int = 0, *more: object) -> dict:
    return dict(answer("verify", "--bundle", path, "--trust-root", recorded.root, *more, code=code))


def codes(recorded: Recorded, path: Path, *more: object) -> set[str]:
    return {finding["code"] for finding in check(recorded, path, 1, *more)["findings"]}


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path, "r:") as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


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
    from controller.uses.story_page import _text

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


# --- tampering -------------------------------------------------------------------------------------------

Change = Callable[[dict[str, bytes], Recorded], None]


def rebuilt(path: Path, recorded: Recorded, change: Change, target: Path) -> Path:
    """The pack with a change, and a manifest that agrees with it."""
    files = content(path)
    with tarfile.open(path) as tar:
        member = tar.next()
        assert member is not None
        top, mtime = member.name.partition("/")[0], int(member.mtime)
    files.pop(SUMS)
    bundle = files.pop("repository.bundle", None)
    change(files, recorded)
    pack = Pack(top, files, mtime)
    if bundle is not None:
        (target.parent / "history").write_bytes(bundle)
        pack = replace(pack, bundle=target.parent / "history")
    with target.open("wb") as out:
        write_pack(pack, out)
    return target


def one(files: Mapping[str, bytes], ending: str) -> str:
    return next(path for path in sorted(files) if path.endswith(ending))


def without(ending: str) -> Change:
    return lambda files, _: files.__setitem__("x", files.pop(one(files, ending)))


def edited(ending: str, old: bytes, new: bytes) -> Change:
    def change(files: dict[str, bytes], _: Recorded) -> None:
        path = one(files, ending)
        assert old in files[path]
        files[path] = files[path].replace(old, new)

    return change


def later_event_left_out(files: dict[str, bytes], _: Recorded) -> None:
    del files[one(files, "-replayed.dsse.json")]


def last_commit_left_out(files: dict[str, bytes], _: Recorded) -> None:
    del files[sorted(path for path in files if path.startswith("chain/"))[-1]]


def called_unsealed(files: dict[str, bytes], _: Recorded) -> None:
    files["manifest.json"] = files["manifest.json"].replace(b'"sealed":true', b'"sealed":false')


def another_log_size(files: dict[str, bytes], _: Recorded) -> None:
    value = json.loads(files["manifest.json"])
    value["peaks"] = value["peaks"][:-1]
    files["manifest.json"] = json.dumps(value).encode()


TAMPERED: dict[str, tuple[Change, str]] = {
    "entry missing": (without("002-inputs.dsse.json"), "record-missing"),
    "seal missing": (without("-sealed.dsse.json"), "record-missing"),
    "later event missing": (later_event_left_out, "record-missing"),
    "last commit missing": (last_commit_left_out, "chain-broken"),
    "entry edited": (edited("002-inputs.dsse.json", b'"sig":"', b'"sig":"AAAA'), "envelope-signature"),
    "input edited": (edited("inputs/strategy.json", b"}", b"} "), "digest-mismatch"),
    "gate input edited": (edited("inputs/gates-01.json", b'"a":"a"', b'"a":"b"'), "digest-mismatch"),
    "samples edited": (without("stage-1-samples.jsonl"), "verdict-mismatch"),
    "policy edited": (edited("documents/policies/named.yaml", b"'a' in", b"'b' in"), "decision-mismatch"),
    "checkpoint edited": (edited("log/checkpoint", b"\n4", b"\n5"), "checkpoint-signature"),
    "peaks edited": (another_log_size, "log-mismatch"),
    "another genesis": (edited("manifest.json", b'"genesis":"', b'"genesis":"0'), "genesis-mismatch"),
    "another project": (edited("manifest.json", b'"project":"shop"', b'"project":"other"'), "genesis-mismatch"),
    "chain edited": (edited("trust-chain.json", b'"commit":"', b'"commit":"AAAA'), "genesis-mismatch"),
    "receipt edited": (edited(".tlog-proof", b"index ", b"index 1"), "log-inconsistent"),
    "called unsealed": (called_unsealed, "pack-malformed"),
    "manifest is no JSON": (edited("manifest.json", b"{", b"["), "pack-malformed"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_pack_that_agrees_with_itself_is_still_found_out(
    recorded: Recorded, packs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    change, code = TAMPERED[name]
    assert code in codes(recorded, rebuilt(packs["first"], recorded, change, tmp_path / "x.tar"))


def test_a_byte_changed_on_the_way_is_named(recorded: Recorded, packs: dict[str, Path], tmp_path: Path) -> None:
    data = packs["first"].read_bytes()
    place = data.index(b"UNSEALED" if b"UNSEALED" in data else b"color-scheme")
    (tmp_path / "x.tar").write_bytes(data[:place] + b"X" + data[place + 1 :])
    (finding,) = check(recorded, tmp_path / "x.tar", 1)["findings"]
    assert (finding["code"], finding["path"]) == ("pack-damaged", "story.html")


def test_another_pinned_root_refuses_every_pack(
    recorded: Recorded, packs: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "root.json"
    other.write_text(re.sub(r'"genesis": "\w{4}', '"genesis": "0000', recorded.root.read_text()))
    fake = replace(recorded, root=other)
    assert codes(fake, packs["first"]) == {"genesis-mismatch"}
    assert codes(fake, packs["second"]) == {"genesis-mismatch"}
    (tmp_path / "history").write_bytes(content(packs["second"])["repository.bundle"])
    assert codes(fake, tmp_path / "history") == {"genesis-mismatch"}


# --- containers that mean harm ---------------------------------------------------------------------------


def member(name: str, data: bytes = b"x", **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


HARM = {
    "escapes upwards": member("lockgate-x/../../../../tmp/lockgate-was-here"),
    "absolute": member("/tmp/lockgate-was-here"),
    "symlink": member("lockgate-x/a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("lockgate-x/a", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": member("lockgate-x/a", b"", type=tarfile.CHRTYPE),
    "folder": member("lockgate-x", b"", type=tarfile.DIRTYPE),
    "other owner": member("lockgate-x/a", uid=1000),
    "other mode": member("lockgate-x/a", mode=0o4755),
    "long name": member("lockgate-x/" + "a" * 300),
    "nothing": b"",
    "zeros": bytes(10240),
    "noise": bytes(range(256)) * 64,
    "gzip": b"\x1f\x8b\x08" + bytes(2000),
}


@pytest.mark.parametrize("name", HARM)
def test_a_file_that_is_no_pack_is_an_error_and_writes_nothing(
    recorded: Recorded, tmp_path: Path, name: str
) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(HARM[name])
    place = tmp_path / "tmp"
    place.mkdir()
    done = lockgate("verify", "--bundle", bad, "--trust-root", recorded.root, TMPDIR=str(place))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lockgate: pack-malformed: "), done.stderr
    assert list(place.iterdir()) == [] and not Path("/tmp/lockgate-was-here").exists()


def test_sizes_that_lie_cost_nothing(recorded: Recorded, packs: dict[str, Path], tmp_path: Path) -> None:
    data = packs["first"].read_bytes()
    head = bytearray(data[:BLOCK])
    head[124:135] = b"77777777777"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    for broken in (bytes(head) + data[BLOCK:], data[: len(data) // 2], data[:-1], data + b"x", data[:BLOCK] * 2):
        (tmp_path / "x.tar").write_bytes(broken)
        done = lockgate("verify", "--bundle", tmp_path / "x.tar", "--trust-root", recorded.root)
        assert (done.returncode, done.stderr.split(":")[1]) == (1, " pack-malformed"), done.stderr


def test_names_twice_or_out_of_order_are_refused(tmp_path: Path) -> None:
    for names in (("a", "a"), ("b", "a")):
        out = io.BytesIO()
        for name in names:
            single = io.BytesIO()
            write_pack(Pack("lockgate-x", {name: b"1"}), single)
            out.write(single.getvalue()[: 2 * BLOCK])
        (tmp_path / "x.tar").write_bytes(out.getvalue() + bytes(2 * BLOCK))
        with pytest.raises(Exception, match="each once and in order"):
            read_pack(tmp_path / "x.tar", tmp_path)


# --- the Git bundle --------------------------------------------------------------------------------------


@pytest.fixture
def history(packs: dict[str, Path], tmp_path: Path) -> Path:
    (tmp_path / "history.bundle").write_bytes(content(packs["second"])["repository.bundle"])
    return tmp_path / "history.bundle"


def test_the_bundle_is_one_that_git_takes_whole(recorded: Recorded, history: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "bundle", "verify", "-q", history], cwd=recorded.origin, check=True)
    subprocess.run(["git", "clone", "-q", history, tmp_path / "work"], check=True)
    assert (tmp_path / "work" / "lockgate.yaml").is_file()
    assert check(recorded, history)["verified"] is True
    done = subprocess.run(["git", "-C", tmp_path / "work", "fsck", "--strict"], capture_output=True, check=True)
    assert done.stderr == b""


def test_a_bundle_that_is_broken_or_foreign_is_refused(recorded: Recorded, history: Path, tmp_path: Path) -> None:
    data = history.read_bytes()
    head = data[: data.index(b"\n\n") + 2]
    place = data.rindex(b"lockgate-was") if b"lockgate-was" in data else len(data) - 4000
    for broken, code in (
        (data[: len(data) // 2], "bundle-malformed"),
        (data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "bundle-malformed"),
        (
            head.replace(b"bundle\n", b"bundle\n-" + b"1" * 40 + b" x\n", 1) + data[len(head) :],
            "bundle-incomplete",
        ),
        (b"# v3 git bundle\n@object-format=sha1\n" + data[16:], "bundle-malformed"),
        (b"# v2 git bundle\n", "bundle-malformed"),
        (b"# v2 git bundle\n" + b"a" * 100_000, "bundle-malformed"),
        (re.sub(rb"refs/heads/\S+", b"refs/heads/x", data), "bundle-malformed"),
    ):
        (tmp_path / "x.bundle").write_bytes(broken)
        done = lockgate("verify", "--bundle", tmp_path / "x.bundle", "--trust-root", recorded.root)
        assert (done.returncode, done.stdout, done.stderr.split(":")[1].strip()) == (1, "", code), done.stderr


def test_a_bundle_with_objects_that_fsck_refuses_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    made = tmp_path / "bad.git"
    subprocess.run(["git", "init", "-q", "--bare", made], check=True)

    def write(kind: str, data: bytes) -> str:
        command = ["git", "-C", made, "hash-object", "-t", kind, "-w", "--literally", "--stdin"]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode().strip()

    blob = write("blob", b"x")
    tree = write("tree", b"100644 ..\0" + bytes.fromhex(blob))
    who = b"x <x@example.com> 1 +0000"
    commit = write("commit", b"tree %s\nauthor %s\ncommitter %s\n\nx\n" % (tree.encode(), who, who))
    subprocess.run(["git", "-C", made, "update-ref", "refs/heads/main", commit], check=True)
    subprocess.run(["git", "-C", made, "bundle", "create", "-q", tmp_path / "bad", "main"], check=True)
    done = lockgate("verify", "--bundle", tmp_path / "bad", "--trust-root", recorded.root)
    assert (done.returncode, done.stderr.split(":")[1]) == (1, " bundle-malformed"), done.stderr


def test_a_pack_beside_another_history_is_found_out(
    recorded: Recorded, packs: dict[str, Path], tmp_path: Path
) -> None:
    def older_history(files: dict[str, bytes], recorded: Recorded) -> None:
        target = tmp_path / "clone.git"
        subprocess.run(["git", "clone", "-q", "--mirror", recorded.origin, target], check=True)
        tip = json.loads(files["manifest.json"])["evidence"]
        evidence = "refs/heads/lockgate/evidence"
        subprocess.run(["git", "-C", target, "update-ref", evidence, f"{tip}~3"], check=True)
        subprocess.run(["git", "-C", target, "bundle", "create", "-q", tmp_path / "old", "--all"], check=True)

    path = rebuilt(packs["second"], recorded, older_history, tmp_path / "x.tar")
    with (tmp_path / "y.tar").open("wb") as out:
        write_pack(replace(read_pack(path, new_folder(tmp_path)), bundle=tmp_path / "old"), out)
    assert "record-changed" in codes(recorded, tmp_path / "y.tar")


def new_folder(parent: Path) -> Path:
    (parent / "unpacked").mkdir()
    return parent / "unpacked"


def test_sums_are_over_every_file() -> None:
    pack = Pack("t", {"b": b"2", "a": b"1"})
    assert sums(pack).decode().split() == [
        hashlib.sha256(b"1").hexdigest(),
        "a",
        hashlib.sha256(b"2").hexdigest(),
        "b",
    ]
