"""Durability of what an agent writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.agent.files import sync_filesystem


def test_a_folder_is_made_durable_with_all_its_files(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}").write_bytes(os.urandom(4096))
    sync_filesystem(tmp_path)


def test_what_cannot_be_made_durable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(OSError):
            sync_filesystem(path)
