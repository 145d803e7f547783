"""The origin fails in every way it can; the controller says so, does no wrong, and goes on when it is back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.wiring.controller import Controller, ControllerSettings
from controller.wiring.people import Person, commit_on
from tests.support.flow import Flow, flow, strategy
from tests.support.git_servers import http_server
from tests.support.waiting import until

DEV = {"dev-1": "dev"}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Flow]:
    with flow(tmp_path, DEV) as made:
        yield made


def _goes_on(shop: Flow, version: str) -> None:
    """A release still goes all the way, and the whole history holds."""
    shop.deploy("dev", version)
    shop.check_dense()
    shop.verify()


@contextlib.contextmanager
def _gone(shop: Flow) -> Iterator[None]:
    """The origin is not there, as when its disk is not mounted."""
    away = shop.stage.origin.with_name("away.git")
    shop.stage.origin.rename(away)
    try:
        yield
    finally:
        away.rename(shop.stage.origin)


def test_an_origin_that_vanishes_and_comes_back(shop: Flow) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    with _gone(shop):
        said = shop.says("origin-unavailable")
        assert said["state"] == "unavailable" and "check the path" in said["message"]
    shop.says("")
    _goes_on(shop, "1.1.0")


SHORT = "    - {percent: 100, minHealthyTime: 3s, deadline: 6s}\n"


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Flow]:
    """Stages have six seconds; a first release is there."""
    with flow(tmp_path, DEV, files={"strategies/dev.yaml": strategy("dev", SHORT)}) as made:
        made.start_heard()
        made.deploy("dev", "1.0.0")
        yield made


def _ordered(shop: Flow, version: str) -> tuple[str, datetime]:
    """Promote a release, and stop as soon as its stage is ordered: its name and the stage's deadline."""
    shop.image(version)
    name = shop.release(version)
    shop.locked(name)
    known = len(shop.entries())
    shop.promote("dev", name)

    def ordered() -> str | None:
        found = [one for one in shop.entries()[known:] if one["kind"] == "ordered"]
        return str(found[0]["detail"]["deadline"]) if found else None

    return name, datetime.fromisoformat(until("the stage is ordered", ordered))


def _passes(instant: datetime) -> None:
    until(f"it is {instant:%H:%M:%S}", lambda: datetime.now(UTC) > instant)


def test_an_outage_longer_than_a_stage_may_last_takes_no_sound_release_back(hasty: Flow) -> None:
    name, deadline = _ordered(hasty, "1.1.0")
    with _gone(hasty):
        _passes(deadline + timedelta(seconds=2))
    hasty.ends("dev", name, "completed")
    hasty.check_dense()
    hasty.verify()


def _here(shop: Flow) -> ControllerSettings:
    """For a controller in this process instead of the shop's own."""
    return ControllerSettings(
        repo=str(shop.stage.origin),
        trust_root=shop.stage.trust_root,
        signing_key=shop.stage.keys / "controller",
        state_dir=shop.stage.state,
        images=shop.stage.images,
    )


def test_an_origin_that_was_away_for_long_is_met_again_within_seconds(shop: Flow) -> None:
    shop.start()
    shop.stop_controller()
    controller = Controller(_here(shop))
    try:
        with _gone(shop):
            assert [controller.loop.pass_once() for _ in range(12)] == [None] * 12
            assert 4 < controller.loop.timeout(None) < 6
    finally:
        controller.close()


def test_a_restart_after_an_outage_does_not_forget_it(hasty: Flow) -> None:
    name, deadline = _ordered(hasty, "1.1.0")
    with _gone(hasty):
        hasty.says("origin-unavailable")
        _passes(deadline + timedelta(seconds=2))
    hasty.says("")
    hasty.kill_controller()
    hasty.processes.start_controller(poll="1s")
    hasty.ends("dev", name, "completed")
    hasty.check_dense()
    hasty.verify()


def test_a_controller_away_for_longer_than_a_stage_may_last_takes_no_sound_release_back(hasty: Flow) -> None:
    name, deadline = _ordered(hasty, "1.1.0")
    hasty.kill_controller()
    _passes(deadline + timedelta(seconds=2))
    hasty.processes.start_controller(poll="1s")
    hasty.ends("dev", name, "completed")
    hasty.check_dense()
    hasty.verify()


def test_a_controller_stopped_for_longer_than_a_stage_may_last_takes_no_sound_release_back(hasty: Flow) -> None:
    """As when the machine below it is put to sleep."""
    name, deadline = _ordered(hasty, "1.1.0")
    process = hasty.processes.controller
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    _passes(deadline + timedelta(seconds=6))
    process.send_signal(signal.SIGCONT)
    hasty.ends("dev", name, "completed")
    hasty.check_dense()
    hasty.verify()


def _arm(shop: Flow, script: str) -> Path:
    """Let the origin run this before it takes a push."""
    hook = shop.stage.origin / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    return hook


def test_an_origin_that_rejects_pushes(shop: Flow) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    shop.stop_controller()
    shop.image("1.1.0")
    name = shop.release("1.1.0")
    shop.promote("dev", name)
    tip, main = shop.tip(), shop.tip("main")
    hook = _arm(shop, "echo 'closed for today' >&2; exit 1")
    shop.processes.start_controller(poll="1s")
    said = shop.says("push-rejected")
    assert "closed for today" in said["message"] and said["state"] in ("stalled", "unavailable")
    assert (shop.tip(), shop.tip("main")) == (tip, main)
    hook.unlink()
    shop.says("")
    shop.ends("dev", name, "completed")
    _goes_on(shop, "1.2.0")


def test_an_http_origin_that_goes_down_and_comes_back(tmp_path: Path) -> None:
    with flow(tmp_path / "work", DEV) as shop:
        shop.git("config", "http.receivepack", "true")
        with http_server(tmp_path / "one", shop.stage.folder) as server:
            port = int(server.prefix.rpartition(":")[2])
            shop.processes.repo = server.url(shop.stage.origin)
            shop.start()
            shop.deploy("dev", "1.0.0")
            shop.image("1.1.0")
            name = shop.release("1.1.0")
            shop.locked(name)
        tip = shop.tip()
        shop.promote("dev", name)
        assert shop.says("origin-unavailable")["state"] == "unavailable"
        assert shop.tip() == tip
        with http_server(tmp_path / "two", shop.stage.folder, port):
            shop.says("", 30)
            shop.ends("dev", name, "completed")
            _goes_on(shop, "1.2.0")
            shop.stop_controller()


def test_an_origin_that_takes_a_push_after_git_was_given_up(shop: Flow) -> None:
    """The hook sleeps longer than git may take: the push is cut off, and may or may not land later."""
    agents = shop.processes
    (shop.stage.folder / "controller.log").write_text("")
    slept = shop.stage.folder / "slept"
    impatient = dataclasses.replace(_here(shop), listen=agents.address, poll=timedelta(seconds=1), git_timeout=1.0)
    controller = Controller(impatient)
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        agents.start_agent("dev-1", "dev")
        shop.deploy("dev", "1.0.0")
        shop.image("1.2.0")
        # People's git has patience, and the hook is theirs to pass: only the evidence is slow, twice.
        _arm(
            shop,
            f"grep -q lockgate/evidence || exit 0\n[ $(wc -l < {slept}) -ge 2 ] && exit 0\n"
            f"echo once >> {slept}\nsleep 2",
        )
        slept.write_text("")
        later = shop.release("1.2.0")
        shop.says("origin-unavailable")
        shop.locked(later, 30)
        shop.promote("dev", later)
        shop.ends("dev", later, "completed")
        shop.says("")
        assert slept.read_text() == "once\n" * 2
        shop.check_dense()
        shop.verify()
    finally:
        controller.stop()
        thread.join(15)
    assert not thread.is_alive()


def test_main_rewritten_and_put_back(shop: Flow) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    main, evidence = shop.tip("main"), shop.tip()
    shop.git("update-ref", "refs/heads/main", f"{main}~2")
    said = shop.says("main-rewound")
    assert said["state"] == "stalled" and shop.tip() == evidence
    shop.git("update-ref", "refs/heads/main", main)
    shop.says("")
    _goes_on(shop, "1.1.0")


def test_main_deleted_and_put_back(shop: Flow) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    main = shop.tip("main")
    shop.git("update-ref", "-d", "refs/heads/main")
    assert shop.says("main-missing")["state"] == "stalled"
    shop.git("update-ref", "refs/heads/main", main)
    shop.says("")
    _goes_on(shop, "1.1.0")


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
def test_evidence_deleted_and_rewound(shop: Flow, restart: bool) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    evidence, main = shop.tip(), shop.tip("main")
    if restart:
        shop.stop_controller()
    shop.git("update-ref", "-d", "refs/heads/lockgate/evidence")
    if restart:
        shop.processes.start_controller(poll="1s")
    assert shop.says("evidence-missing")["state"] == "stalled"
    assert not shop.tip() and shop.tip("main") == main
    former = shop.git("log", "-2", "--format=%H", evidence, "--", "log/checkpoint").split()[-1]
    middle = shop.git("rev-parse", f"{evidence}~1")
    assert former != middle, "the newest push is of one commit: its middle is a former push"
    for place in (middle, former):
        shop.git("update-ref", "refs/heads/lockgate/evidence", place)
        until(
            "the controller saw this one too", lambda place=place: place[:12] in str(shop.health().get("message"))
        )
        assert shop.says("evidence-rewound")["state"] == "stalled"
        assert shop.tip() == place
    shop.git("update-ref", "refs/heads/lockgate/evidence", evidence)
    shop.says("")
    _goes_on(shop, "1.1.0")


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("who", ["nobody", "alice"])
def test_a_foreign_commit_on_evidence(shop: Flow, who: str, restart: bool) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    evidence = shop.tip()
    if restart:
        shop.stop_controller()
    person = shop.stage.person("alice") if who == "alice" else Person("nobody", "nobody@example.com", None)
    commit_on(shop.people, "lockgate/evidence", person, {"README": b"owned\n"}, "A note")
    foreign = shop.tip()
    if restart:
        shop.processes.start_controller(poll="1s")
    until("the commit is removed again", lambda: shop.kinds()[-1] == "evidence-repaired")
    detail = shop.entries()[-1]["detail"]
    assert (detail["removed"], detail["restored"]) == ([foreign], evidence)
    assert "README" not in shop.git("ls-tree", "--name-only", "lockgate/evidence")
    _goes_on(shop, "1.1.0")


def test_a_state_directory_lost_between_runs(shop: Flow) -> None:
    shop.start()
    shop.deploy("dev", "1.0.0")
    shop.stop_controller()
    subprocess.run(["rm", "-r", str(shop.stage.state)], check=True)
    shop.processes.start_controller(poll="1s")
    shop.says("")
    _goes_on(shop, "1.1.0")


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Root writes where modes forbid it, so the folder is a file's child: no process can make it."""
    with flow(tmp_path, DEV) as shop:
        shop.stage.state.write_text("in the way\n")
        command = ["--repo", str(shop.stage.origin), "controller", "--once"]
        command += [
            "--trust-root",
            str(shop.stage.trust_root),
            "--signing-key",
            str(shop.stage.keys / "controller"),
        ]
        done = subprocess.run(
            [*_lockgate(), *command, "--state-dir", str(shop.stage.state)],
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 2 and "state-dir-unusable" in done.stderr and "Traceback" not in done.stderr
        (tmp_path / "controller.log").write_text("")


def test_a_state_directory_that_is_read_only(tmp_path: Path) -> None:
    """What the state directory holds can be lost, so the controller goes on from Git without it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        with flow(tmp_path / "work", DEV) as shop:
            shop.stage.state = disk / "state"
            shop.start()
            shop.deploy("dev", "1.0.0")
            shop.stop_controller()
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            shop.processes.start_controller(poll="1s")
            shop.deploy("dev", "1.1.0")
            assert shop.status()["health"]["state"] == "running"
            shop.stop_controller()
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            shop.processes.start_controller(poll="1s")
            shop.says("")
            _goes_on(shop, "1.2.0")
            shop.stop_controller()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    """Origin and state directory on a small file system of their own, filled to the last byte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        with flow(tmp_path / "work", DEV, origin=disk / "origin.git") as shop:
            shop.stage.state = disk / "state"
            shop.start()
            shop.deploy("dev", "1.0.0")
            shop.image("1.1.0")
            name = shop.release("1.1.0")
            shop.locked(name)
            evidence = shop.tip()
            shop.promote("dev", name)
            _fill(disk / "filler")
            until("the controller says that the disk is full", lambda: _full(shop) or shop.tip() != evidence)
            shop.git("fsck", "--strict", "--full")
            (disk / "filler").unlink()
            shop.says("")
            shop.ends("dev", name, "completed")
            shop.check_dense()
            # Full before anything of a release is there: nothing can be recorded at all.
            shop.image("1.2.0")
            later = shop.release("1.2.0")
            shop.locked(later)
            shop.stop_controller()
            before = shop.tip()
            shop.promote("dev", later)
            _fill(disk / "filler")
            shop.processes.start_controller(poll="1s")
            until("the controller says that the disk is full", lambda: _full(shop))
            assert shop.tip() == before
            shop.git("fsck", "--strict", "--full")
            (disk / "filler").unlink()
            shop.ends("dev", later, "completed")
            shop.says("")
            shop.check_dense()
            shop.verify()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _full(shop: Flow) -> bool:
    health = shop.status()["health"]
    return health["state"] == "unavailable" and "No space left" in health["message"]


def _fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def _lockgate() -> list[str]:
    import sys

    return os.environ.get("LOCKGATE", f"{sys.executable} -m controller").split()
