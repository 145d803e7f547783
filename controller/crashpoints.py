"""Named places where a crash test can end the process as a power cut would.

`LOCKGATE_CRASH_AT=<point>[:<n>]` makes the n-th (default first) passage of that point raise SIGKILL against
this process; `LOCKGATE_CRASH_LOG=<file>` appends the name of every point passed, one a line. Without these
variables every call is two comparisons. Nothing else reads them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

CONTROLLER_POINTS = (
    "record-before",  # decided and signed, nothing stored
    "pack-before",
    "pack-unindexed",  # the pack has its name, its index has not: git does not see it
    "pack-after",  # stored, and no ref names it
    "swap-before",
    "swap-locked",  # REF.lock is held
    "swap-moved",  # the ref has moved, the marker of the lock is still there
    "swap-after",
    "push-before",  # instead of a swap, for an origin that is pushed to
    "push-after",  # the origin has it, our mirror does not know yet
    "record-after",  # recorded, nothing done yet
    "deliver-before",
    "deliver-after",
    "cancel-before",
    "cancel-after",
    "acknowledge-before",
    "acknowledge-after",
    "main-before",  # then pack, swap or push again, of main
    "main-after",
    "remember-before",
    "remember-after",
    "pass-after",
)
"""In the order in which a controller's pass that records and does something passes them."""

AGENT_POINTS = (
    "agent-received",
    "agent-pull-before",
    "agent-pull-after",
    "agent-unpack-before",
    "agent-unpack-after",
    "agent-start-before",
    "agent-start-after",
    "agent-switch-before",
    "agent-switch-after",
    "agent-stop-after",
    "agent-sticker-after",
    "agent-report-before",
    "agent-report-after",
)
"""In the order in which an agent that executes a deploy order passes them."""

_target = ""
_left = 1
_log: int | None = None


def configure(environ: Mapping[str, str]) -> None:
    """Take over what the environment asks for; done at import, and by a process that forks others."""
    global _target, _left, _log
    _target, _, count = environ.get("LOCKGATE_CRASH_AT", "").partition(":")
    _left = int(count) if count.isdigit() else 1
    path = environ.get("LOCKGATE_CRASH_LOG")
    _log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600) if path else None


def reached(name: str) -> None:
    """Die here by SIGKILL when the environment asks for it; otherwise do nothing."""
    global _left
    if _log is not None:
        os.write(_log, name.encode() + b"\n")
    if name != _target:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


configure(os.environ)
