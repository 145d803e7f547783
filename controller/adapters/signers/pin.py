"""Where a token's PIN comes from: a file of mode 0600, the environment, or a person at a terminal."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.errors import Invalid, Refused

VARIABLE = "LOCKGATE_PKCS11_PIN"


@dataclass(frozen=True, slots=True)
class Pin:
    """A PIN, and whether a person typed it just now. Never shown."""

    text: str
    typed: bool

    def __repr__(self) -> str:
        return "Pin(…)"


def pin_from(source: str | None, where: str, environ: Mapping[str, str]) -> Pin:
    """The PIN of the token of the key at `where`.

    `source` is the address's pin-source: file:/PATH (or /PATH), or env:NAME; without one LOCKGATE_PKCS11_PIN, else
    a person at the terminal is asked. Raises Invalid("pin-missing"), Refused("pin-permissions").
    """
    if source is None:
        given = environ.get(VARIABLE, "")
        return Pin(given, False) if given else _typed(where)
    scheme, _, name = source.partition(":")
    if scheme == "env":
        given = environ.get(name, "")
        if not given:
            raise _missing(where, f"the variable {name} is not set")
        return Pin(given, False)
    path = source.removeprefix("file:")
    path = path.removeprefix("//") if path.startswith("///") else path
    if not path.startswith("/"):
        # RFC 7512 lets `|PROGRAM` stand here too: an address names things and runs nothing.
        raise _missing(where, "a pin-source that is neither file:/PATH nor env:NAME")
    return Pin(_read(Path(path), where), False)


def _read(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(1024).decode("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "no text"
        raise _missing(where, f"{path}: {said}") from None
    if mode & 0o077:
        raise Refused(
            "pin-permissions",
            "the PIN's file is open to other users",
            where=str(path),
            expected="mode 0600",
            got=f"mode {mode:04o}",
            cure=f"chmod 600 {path}, and change the PIN if others may have read it",
        )
    if not text:
        raise _missing(where, f"{path} is empty")
    return text


def _typed(where: str) -> Pin:
    if not sys.stdin.isatty():
        raise _missing(where, f"no pin-source, {VARIABLE} is not set, and nobody is at a terminal")
    return Pin(getpass.getpass(f"PIN for {where}: ", stream=sys.stderr), True)


def _missing(where: str, got: str) -> Invalid:
    return Invalid(
        "pin-missing",
        "the token needs its PIN",
        where=where,
        expected=f"pin-source=file:/PATH or env:NAME in the address, or {VARIABLE}, or a person at a terminal",
        got=got,
        cure="put the PIN into a file of mode 0600 and name it in the address: pin-source=file:/PATH",
    )
