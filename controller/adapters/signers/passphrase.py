"""Where the passphrase of an encrypted key comes from: the environment, else a person at a terminal."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping

VARIABLE = "LOCKGATE_KEY_PASSPHRASE"


def passphrase_from(environ: Mapping[str, str]) -> Callable[[str], bytes | None]:
    """Asks for the passphrase of the key at `where`; None when it is not set and nobody sits at a terminal."""

    def ask(where: str) -> bytes | None:
        given = environ.get(VARIABLE)
        if given is not None:
            return given.encode()
        if not sys.stdin.isatty():
            return None
        return getpass.getpass(f"Passphrase for {where}: ", stream=sys.stderr).encode()

    return ask
