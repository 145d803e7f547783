"""The version sticker: atomic, canonical, and kept when its order is repeated."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.agent.files import point_link, write_atomic
from controller.agent.sticker import NAME, Sticker, read_sticker, write_sticker
from controller.errors import Invalid

DIGEST = "sha256:" + "ab" * 32


def sticker(**changes: object) -> Sticker:
    values: dict[str, object] = {
        "release": "shop-1",
        "manifest_digest": DIGEST,
        "digests": {"api": DIGEST},
        "run": "prod-1-0123abcd",
        "order": "prod-1-0123abcd/1/1/web-1/deploy",
        "evidence_commit": "0" * 40,
        "at": datetime(2026, 2, 19, 2, 0, tzinfo=UTC),
        **changes,
    }
    return Sticker(**values)  # type: ignore[arg-type]


def test_written_bytes_have_the_digest_that_is_returned(tmp_path: Path) -> None:
    assert read_sticker(tmp_path) == (None, None)
    digest = write_sticker(tmp_path, sticker())
    data = (tmp_path / NAME).read_bytes()
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert read_sticker(tmp_path) == (sticker(), digest)
    assert json.loads(data)["manifestDigest"] == DIGEST
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_repeated_order_keeps_its_sticker_and_another_replaces_it(tmp_path: Path) -> None:
    first = write_sticker(tmp_path, sticker())
    assert write_sticker(tmp_path, sticker(at=datetime(2026, 3, 1, tzinfo=UTC))) == first
    assert write_sticker(tmp_path, sticker(order="other")) != first


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", '{"release": "x", "more": 1}'])
def test_an_edited_sticker_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(Invalid) as caught:
        read_sticker(tmp_path)
    assert caught.value.code == "sticker-invalid"


def test_an_edited_sticker_does_not_stop_the_next_deploy(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    digest = write_sticker(tmp_path, sticker())
    assert read_sticker(tmp_path) == (sticker(), digest)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    killed = os.fork()
    if not killed:
        # The kernel takes a part of the bytes and then ends the process: a crash in the middle.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        write_atomic(path, b"new" * 4096)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(killed, 0)[1]) == signal.SIGXFSZ
    assert path.read_bytes() == b"old"
    assert {left.stat().st_size for left in tmp_path.iterdir() if left != path} == {4096}
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [left.name for left in tmp_path.iterdir()] == ["f"]


def test_links_are_switched_by_one_rename(tmp_path: Path) -> None:
    link = tmp_path / "api"
    point_link(link, "../versions/api/one")
    (tmp_path / ".api.new").symlink_to("left over")
    point_link(link, "../versions/api/two")
    assert str(link.readlink()) == "../versions/api/two"
    assert [path.name for path in tmp_path.iterdir()] == ["api"]
