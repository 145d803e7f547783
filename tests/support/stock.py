"""What an auditor does with stock tools: a clean checkout of one run, and `in-toto-verify` in it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from controller.model.keys import public_key

IN_TOTO_VERIFY = Path(sys.executable).with_name("in-toto-verify")


def pem(path: Path, openssh: str) -> Path:
    """A public key as in-toto takes it."""
    path.write_bytes(public_key(openssh).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def payload_of(envelope: bytes) -> Any:
    """What a DSSE envelope holds, its signature not checked."""
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


def sealed_folders(origin: Path) -> dict[str, Path]:
    """The folders of the sealed runs, by run."""
    listed = subprocess.run(
        ["git", "-C", str(origin), "ls-tree", "-r", "--name-only", "lockgate/evidence", "runs/"],
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(line) for line in listed.stdout.splitlines() if line.endswith("-sealed.dsse.json")]
    return {path.parent.name: path.parent for path in paths}


def checkout(origin: Path, folder: Path, place: Path) -> Path:
    """The run's folder and its lock, each at its path, in a new directory and with nothing else."""
    place.mkdir(parents=True)
    _extract(origin, "lockgate/evidence", folder, place)
    sealed = payload_of(next((place / folder).glob("*-sealed.dsse.json")).read_bytes())["predicate"]
    _extract(origin, sealed["observed"]["main"], Path(f"releases/{sealed['what']['release']}.lock.yaml"), place)
    return place


def _extract(origin: Path, ref: str, path: Path, place: Path) -> None:
    packed = subprocess.run(["git", "-C", str(origin), "archive", ref, str(path)], capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(place)], input=packed.stdout, check=True)


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
        timeout=60,
    )
