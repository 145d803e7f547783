"""Golden scenarios of `decide`: each tells a story line by line; the .txt beside this file is what must come out.

`LOCKGATE_REWRITE=1` writes the files anew; review the difference. Every scenario is played twice: once by a
process that lives on, once by one that is restarted before every pass.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scenarios import approving, gating, rollbacks, rollouts
from tests.scenarios.stage import SCENES, Stage
from tests.support.world_checks import check_invariants

HERE = Path(__file__).parent
SUBJECTS = (rollouts, rollbacks, gating, approving)
"""The modules whose scenes are played; importing one registers them."""


@pytest.mark.parametrize("crash", [False, True], ids=["lives", "restarts"])
@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str, crash: bool) -> None:
    played = Stage(crash)
    SCENES[name](played)
    theatre = played.theatre
    assert theatre is not None
    check_invariants(theatre)
    told = "\n".join(theatre.lines) + "\n"
    golden = HERE / f"{name}.txt"
    if os.environ.get("LOCKGATE_REWRITE") and not crash:
        golden.write_text(told)
    assert told == golden.read_text()


def test_every_golden_file_has_its_scene() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == set(SCENES)
