"""A real ssh-agent of a test's own, ended by its process id."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def ssh_agent(*keys: Path) -> Iterator[str]:
    """The socket of a running agent that holds these keys."""
    # A Unix socket's path may have 107 bytes: the test's own folder is often longer.
    with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
        path = f"{folder}/agent"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 20
            environ = {**os.environ, "SSH_AUTH_SOCK": path}
            while subprocess.run(["ssh-add", "-l"], env=environ, capture_output=True).returncode == 2:
                assert time.monotonic() < end, "ssh-agent never answered"
                time.sleep(0.02)
            for key in keys:
                subprocess.run(["ssh-add", "-q", str(key)], env=environ, check=True, capture_output=True)
            yield path
        finally:
            process.terminate()
            process.wait(10)
