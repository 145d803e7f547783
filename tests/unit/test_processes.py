"""Processes by identity: gated starts, stops that escalate, and strangers that are left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.agent.drivers import processes
from controller.agent.drivers.processes import Proc
from controller.agent.drivers.supervisor import Supervisor
from tests.support.waiting import until

ENV = {"PATH": "/usr/bin:/bin"}


def start(tmp_path: Path, *command: str, **more: object) -> Proc:
    return processes.spawn(
        command, cwd=tmp_path, env=ENV, log=tmp_path / "logs" / "x.log", record=lambda _: None, **more
    )


def test_a_process_runs_only_after_it_was_recorded(tmp_path: Path) -> None:
    seen: list[tuple[Proc, bool]] = []
    mark = tmp_path / "mark"

    def record(proc: Proc) -> None:
        time.sleep(0.05)
        seen.append((proc, mark.exists()))

    proc = processes.spawn(
        ["sh", "-c", "echo $$ >mark; exec sleep 30"], cwd=tmp_path, env=ENV, log=tmp_path / "l", record=record
    )
    until("the mark", lambda: mark.exists() and mark.read_text().endswith("\n"))
    assert seen == [(proc, False)]
    assert int(mark.read_text()) == proc.pid
    processes.stop(proc, 1)
    assert not processes.alive(proc)


def test_a_process_that_could_not_be_recorded_never_runs(tmp_path: Path) -> None:
    made: list[Proc] = []

    def record(proc: Proc) -> None:
        made.append(proc)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        processes.spawn(["touch", "mark"], cwd=tmp_path, env=ENV, log=tmp_path / "l", record=record)
    assert processes.wait(made[0], 5)
    assert not (tmp_path / "mark").exists()


def test_the_exit_status_is_written_down(tmp_path: Path) -> None:
    for status in (0, 7):
        file = tmp_path / f"status-{status}"
        proc = start(tmp_path, "sh", "-c", f"exit {status}", status_file=file)
        assert processes.wait(proc, 5)
        assert file.read_text() == f"{status}\n"


def test_stop_kills_what_ignores_the_term_signal_and_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 77 & echo $! >child; while :; do sleep 77; done"
    proc = start(tmp_path, "sh", "-c", script)
    child = until("the child", lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip())
    processes.stop(proc, 0.2)
    assert not processes.alive(proc)
    until("the child's end", lambda: processes.identify(int(child)) is None)


def test_children_of_an_adopted_process_end_with_it(tmp_path: Path) -> None:
    """Adopted: started by a former agent, so this process is not its parent and cannot reap it."""
    script = "(trap '' TERM; echo a >a; exec sleep 77) & echo $! >child; sleep 77"
    code = (
        "import subprocess as s,sys;"
        "p=s.Popen(['sh','-c',sys.argv[1]],start_new_session=True,stdout=s.DEVNULL);print(p.pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, script], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    proc = processes.identify(int(done.stdout))
    assert proc is not None
    until("the child", lambda: (tmp_path / "a").exists() and (tmp_path / "child").read_text().strip())
    child = processes.identify(int((tmp_path / "child").read_text()))
    assert child is not None
    processes.stop(proc, 2)
    assert not processes.alive(proc)
    until("the child's end", lambda: not processes.alive(child))


def test_a_stranger_with_the_same_pid_is_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "30"])
    try:
        real = processes.identify(stranger.pid)
        assert real is not None
        processes.stop(Proc(real.pid, real.start - 1), 0.1)
        assert processes.wait(Proc(real.pid, real.start - 1), 0.1)
        assert processes.alive(real)
        assert processes.identify(os.getpid()) is not None
    finally:
        stranger.kill()
        stranger.wait()
    assert processes.identify(stranger.pid) is None


def test_free_ports_differ_and_keep_what_is_wanted() -> None:
    ports = processes.free_ports(["a", "b", "c"])
    assert len(set(ports.values())) == 3
    assert processes.free_ports(["a"], {"a": ports["a"]}) == {"a": ports["a"]}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = processes.free_ports(["a"], {"a": taken.getsockname()[1]})
        assert other["a"] != taken.getsockname()[1]


def test_a_long_log_is_turned_over(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * ((1 << 20) + 1))
    processes.wait(start(tmp_path, "echo", "new"), 5)
    assert log.read_text() == "new\n"
    assert log.with_suffix(".log.old").stat().st_size > 1 << 20


def test_the_supervisor_calls_for_restarts_with_growing_pauses(tmp_path: Path) -> None:
    delays: list[float] = []
    starts: list[float] = []

    def restart(name: str) -> None:
        starts.append(time.monotonic())
        supervisor.watch({name: start(tmp_path, sys.executable, "-I", "-S", "-c", "")})

    supervisor = Supervisor(restart, lambda _, delay: delays.append(delay))
    supervisor.start()
    supervisor.watch({"api": start(tmp_path, "true")})
    until("three restarts", lambda: len(starts) >= 2 and len(delays) >= 3)
    supervisor.watch({})
    supervisor.stop()
    assert delays[:3] == [0.2, 0.4, 0.8]
    assert starts[1] - starts[0] >= 0.4
