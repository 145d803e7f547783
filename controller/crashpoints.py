"""Named places where a crash test can end the process as a power cut would.

`LOCKGATE_CRASH_AT=<point>[:<n>]` makes the n-th (default first) passage of that point raise SIGKILL against
this process. Without the variable every call is one dictionary-free comparison. Nothing else reads it.
"""

from __future__ import annotations

import os
import signal

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

_target, _, _count = os.environ.get("LOCKGATE_CRASH_AT", "").partition(":")
_left = int(_count) if _count.isdigit() else 1


def reached(name: str) -> None:
    """Die here by SIGKILL when the environment asks for it; otherwise do nothing."""
    global _left
    if name != _target:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
