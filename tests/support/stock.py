"""What an auditor does with stock tools: a clean checkout of one run, and `in-toto-verify` in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controller.model.keys import public_key

IN_TOTO_VERIFY = Path(sys.executable).with_name("in-toto-verify")
TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def pem(path: Path, openssh: str) -> Path:
    """A public key as in-toto takes it."""
    path.write_bytes(public_key(openssh).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def checkout(origin: Path, folder: Path, place: Path, lock: str, tip: str = "lockgate/evidence") -> Path:
    """The run's folder and its lock, each at its path, in a new directory and with nothing else."""
    place.mkdir(parents=True)
    for ref, path in ((tip, str(folder)), ("main", lock)):
        packed = subprocess.run(["git", "-C", str(origin), "archive", ref, path], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(place)], input=packed.stdout, check=True)
    return place


def in_toto_verify(
    place: Path, folder: Path, layout: Path, keys: Sequence[Path]
) -> subprocess.CompletedProcess[str]:
    """The real command, in the checkout."""
    return subprocess.run(
        [
            str(IN_TOTO_VERIFY),
            *("--layout", str(layout)),
            *("--link-dir", str(folder / "links")),
            *("--verification-keys", *map(str, keys)),
        ],
        cwd=place,
        capture_output=True,
        text=True,
    )
