"""Audit packs and Git bundles that mean harm: each is a clear finding or error, and writes nothing."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from controller.uses.exports.packfile import BLOCK, SUMS, Pack, read_pack, sums, write_pack
from tests.support.real_run import Recorded, check, codes, content, lockgate

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


def artifact(files: Mapping[str, bytes]) -> str:
    return next(path for path in sorted(files) if "/artifacts/sha256/" in path)


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
    "page edited": (edited("story.html", b"shop-1.0.0", b"shop-9.9.9"), "story-mismatch"),
    "readme edited": (edited("README.md", b"sha256sum --check", b"true"), "story-mismatch"),
    "key edited": (edited(".pem", b"MC", b"MD"), "story-mismatch"),
    "signers edited": (edited("allowed_signers", b"AAAA", b"AAAB"), "story-mismatch"),
    "trust document edited": (edited("trust/trust.yaml", b"version", b"Version"), "story-mismatch"),
    "pinned agent edited": (edited("agents/dev-1.yaml", b"AAAA", b"AAAB"), "digest-mismatch"),
    "sample edited": (edited("stage-1-samples.jsonl", b'"sig":"', b'"sig":"AAAA'), "report-mismatch"),
    "report edited": (edited("-verify.jsonl", b'"sig":"', b'"sig":"AAAA'), "report-mismatch"),
    "file added": (lambda files, _: files.__setitem__("evidence/x.json", b"{}"), "pack-malformed"),
    "link edited": (edited("SHA256SUMS", b"inputs", b"Inputs"), "link-mismatch"),
    "link missing": (lambda files, _: files.__delitem__(one(files, ".link")), "link-missing"),
    "artifact missing": (lambda files, _: files.__delitem__(artifact(files)), "record-missing"),
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
