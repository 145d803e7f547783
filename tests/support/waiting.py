"""Waiting for what happens in other threads and processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(what: str, check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `check`; fails, naming `what`, after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)
