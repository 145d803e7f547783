"""SoftHSM tokens of a test process's own: a PKCS#11 module in software, with its tokens in a folder."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization

PIN = "48215307"
_SO_PIN = "73051482"


@cache
def home() -> Path:
    """The folder of this process's tokens. A module reads where they lie once a process: so there is one."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-hsm-"))
    atexit.register(shutil.rmtree, folder, True)
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    return folder


@cache
def module() -> Path:
    """The module's shared library."""
    return next(Path("/usr/lib").rglob("libsofthsm2.so"))


def util(*arguments: str) -> None:
    """softhsm2-util in this process's home."""
    home()
    subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True)


def make_tokens(*labels: str) -> None:
    """Tokens with `PIN`. SoftHSM shows a process those that stood when it first looked: make them all before."""
    for label in labels:
        util("--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", _SO_PIN)


def import_key(token: str, name: str, path: Path, key_id: str) -> None:
    """Put a private key file (OpenSSH or PEM) onto a token, under a label and an id (hexadecimal)."""
    data = path.read_bytes()
    load = serialization.load_ssh_private_key if b"OPENSSH" in data else serialization.load_pem_private_key
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = home() / f"{token}-{name}.pem"
    pem.write_bytes(load(data, None).private_bytes(*form))
    util("--import", str(pem), "--label", name, "--id", key_id, "--token", token, "--pin", PIN)
    pem.unlink()


def pin_file(folder: Path, pin: str = PIN) -> Path:
    """A file that holds a PIN."""
    path = folder / "pin"
    path.write_text(f"{pin}\n")
    path.chmod(0o600)
    return path


def address(token: str, name: str, pin: Path | None = None) -> str:
    """The address of a key."""
    source = f"&pin-source=file:{pin}" if pin is not None else ""
    return f"pkcs11:token={token};object={name};type=private?module-path={module()}{source}"
