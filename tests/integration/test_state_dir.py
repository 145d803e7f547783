"""One controller at a time lives in a state directory, and `status` sees when none does any more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flow import Flow, flow
from tests.support.real_run import lockgate


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Flow]:
    with flow(tmp_path, {"dev-1": "dev"}) as made:
        made.start()
        made.deploy("dev", "1.0.0")
        yield made


def _status(shop: Flow) -> str:
    done = lockgate("--repo", shop.stage.origin, "status", "--state-dir", shop.stage.state)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _once(shop: Flow) -> tuple[int, str]:
    done = lockgate(
        *("--repo", shop.stage.origin, "controller", "--once", "--images", shop.stage.images),
        *("--trust-root", shop.stage.trust_root, "--signing-key", shop.stage.keys / "controller"),
        *("--state-dir", shop.stage.state),
    )
    return done.returncode, done.stderr


def test_a_controller_that_died_is_told_and_starts_again(shop: Flow) -> None:
    assert "the controller is" not in _status(shop)
    shop.kill_controller()
    assert f"the controller is stopped: none runs with {shop.stage.state}" in _status(shop)
    done = lockgate("--repo", shop.stage.origin, "-o", "json", "why", "dev", "--state-dir", shop.stage.state)
    blockers = json.loads(done.stdout)["blockedBy"]
    assert [(one["code"], one["unblock"]) for one in blockers] == [("controller-stopped", "start it")]
    shop.processes.start_controller(poll="1s")
    shop.says("")
    assert "the controller is" not in _status(shop)


def test_a_second_controller_is_refused_its_state(shop: Flow) -> None:
    process = shop.processes.controller
    assert process is not None
    code, said = _once(shop)
    assert code == 2
    assert f"state-dir-in-use: another controller works with this state directory, {shop.stage.state}" in said
    assert f"got one that process {process.pid} holds" in said
    shop.deploy("dev", "1.1.0")


def test_a_controller_that_only_passes_by_is_not_missed(shop: Flow) -> None:
    shop.stop_controller()
    assert "the controller is stopped" in _status(shop)
    code, said = _once(shop)
    assert code == 0, said
    assert "the controller is" not in _status(shop)
