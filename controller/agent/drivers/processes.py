"""Operating-system processes by identity: a pid together with its start time, so that no stranger is hit.

Linux only: /proc/<pid>/stat (proc(5), field 22) and pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GATE = 'read -r go || exit 125; exec "$@" </dev/null'
_GATE_RUN = 'read -r go || exit 125; s="$1"; shift; "$@" </dev/null; echo $? >"$s.new" && mv "$s.new" "$s"'
_MAX_LOG = 1 << 20
_children: dict[int, subprocess.Popen[bytes]] = {}
_children_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Proc:
    """A process that cannot be mistaken for a later one with the same pid; `start` is in clock ticks."""

    pid: int
    start: int


def identify(pid: int) -> Proc | None:
    """The identity of a live process; None when there is none or it is a zombie."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = raw.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Proc(pid, int(fields[19]))


def age(proc: Proc) -> float:
    """Seconds since the process was started, also while this machine slept (CLOCK_BOOTTIME, as its start)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - proc.start / os.sysconf("SC_CLK_TCK")


def alive(proc: Proc) -> bool:
    """Whether this very process still runs."""
    return identify(proc.pid) == proc


def spawn(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    record: Callable[[Proc], None],
    status_file: Path | None = None,
) -> Proc:
    """Start `command` as the leader of its own session, its output appended to `log`.

    The child waits at a gate until `record` returned, so that no process runs which a crash would leave
    unrecorded: when this process dies first, the gate's pipe closes and the child ends. With `status_file`
    the exit status is written there, atomically. Raises OSError when the process cannot be made.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _MAX_LOG:
            log.replace(log.with_suffix(".log.old"))
    script = [_GATE, "lockgate"] if status_file is None else [_GATE_RUN, "lockgate", str(status_file)]
    with log.open("ab") as out:
        child = subprocess.Popen(
            ["/bin/sh", "-c", *script, *command],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    proc = identify(child.pid) or Proc(child.pid, 0)
    with _children_lock:
        _children[child.pid] = child
    assert child.stdin is not None
    try:
        record(proc)
        child.stdin.write(b"go\n")
        child.stdin.flush()
    except BrokenPipeError:
        pass
    finally:
        with contextlib.suppress(OSError):
            child.stdin.close()
    return proc


def reap(proc: Proc) -> None:
    """Clear away a dead process that was started here, with whatever it left in its group."""
    with _children_lock:
        child = _children.get(proc.pid)
        if child is None:
            return
        if child.returncode is None and identify(proc.pid) is None:
            # A zombie still holds its pid, so its group cannot be anybody else's yet.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(proc.pid, signal.SIGKILL)
        if child.poll() is not None:
            del _children[proc.pid]


def open_pidfd(proc: Proc) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it is gone."""
    try:
        fd = os.pidfd_open(proc.pid)
    except OSError:
        return None
    if alive(proc):
        return fd
    os.close(fd)
    return None


def wait(proc: Proc, seconds: float) -> bool:
    """Wait for the end of a process, child or not; whether it ended in time."""
    fd = open_pidfd(proc)
    if fd is not None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        ended = bool(poller.poll(max(0.0, seconds) * 1000))
        os.close(fd)
        if not ended:
            return False
    reap(proc)
    return True


def stop(proc: Proc, grace: float) -> None:
    """End a process and its group: SIGTERM, then SIGKILL after `grace` seconds. Only this very process.

    Whatever of its group outlives it is killed too, each by its own identity.
    """
    if alive(proc):
        members = _group(proc.pid)
        _signal(proc, signal.SIGTERM)
        if not wait(proc, grace) and alive(proc):
            _signal(proc, signal.SIGKILL)
            wait(proc, 5.0)
        for member in members:
            if alive(member):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(member.pid, signal.SIGKILL)
    reap(proc)


def _group(leader: int) -> list[Proc]:
    """The members of a process group besides its leader."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != leader:
            with contextlib.suppress(OSError):
                if os.getpgid(int(entry.name)) == leader:
                    member = identify(int(entry.name))
                    found += [member] if member else []
    return found


def _signal(proc: Proc, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(proc.pid) == proc.pid:
            os.killpg(proc.pid, number)
        else:
            os.kill(proc.pid, number)


def free_ports(names: Sequence[str], wanted: Mapping[str, int] | None = None) -> dict[str, int]:
    """A free local TCP port for each name; a port in `wanted` is kept when it is still free."""
    held: list[socket.socket] = []
    found: dict[str, int] = {}
    try:
        for name in names:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.append(sock)
            try:
                sock.bind(("127.0.0.1", (wanted or {}).get(name, 0)))
            except OSError:
                sock.bind(("127.0.0.1", 0))
            found[name] = sock.getsockname()[1]
    finally:
        for sock in held:
            sock.close()
    return found
