"""How a service is launched: its environment, its program, and what is said when that fails."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.agent.drivers.versions import Version
from controller.errors import LockgateError, Refused
from controller.model.component import Run


def environment(version: Version, run: Run, variables: Mapping[str, str], name: str) -> dict[str, str]:
    """Nothing of the agent's own environment reaches a service but the search path and the time zone."""
    inside = [str(version.rootfs / part) for part in ("usr/local/bin", "usr/bin", "bin", ".")]
    outside = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {
        "TZ": os.environ.get("TZ", "UTC"),
        "HOME": str(version.rootfs),
        **version.env,
        **run.env,
        **variables,
        "PATH": ":".join([*inside, outside]),
        "LOCKGATE_COMPONENT": name,
        "LOCKGATE_ROOTFS": str(version.rootfs),
        "LOCKGATE_DIGEST": version.digest,
    }


def resolve(command: Sequence[str], rootfs: Path) -> tuple[str, ...]:
    """An absolute program is looked for in the image first, as its author meant it."""
    program = command[0]
    if program.startswith("/") and (rootfs / program.lstrip("/")).exists():
        program = str(rootfs / program.lstrip("/"))
    return (program, *command[1:])


def failed(code: str, component: str, expected: str, got: str, tail: str) -> LockgateError:
    """The refusal of a new version: `code` is init-failed, start-failed or unhealthy; `tail` its last output."""
    what = {
        "init-failed": "a component that must run first did not end well",
        "start-failed": "the new version does not start",
        "unhealthy": "the new version does not become healthy",
    }[code]
    return Refused(
        code,
        what,
        where=f"component {component}",
        expected=expected,
        got=f"{got}; its last output: {tail}" if tail else got,
        cure="the former version still runs; look at the component's log on the target",
    )


def safe_name(text: str) -> str:
    """`text` as a file name: everything but letters, digits, dash and dot becomes an underscore."""
    return "".join(char if char.isalnum() or char in "-." else "_" for char in text)
