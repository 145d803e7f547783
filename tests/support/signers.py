"""What every signer must do, whatever holds its key: the one contract of all addresses."""

from __future__ import annotations

import subprocess
from pathlib import Path

from controller.adapters.git import sshsig
from controller.ledger import dsse
from controller.model.keys import key_id
from controller.ports import Signer

DATA = b"what is signed\n"


def stock_accepts(folder: Path, signer: Signer, armored: str, namespace: str, data: bytes = DATA) -> bool:
    (folder / "allowed").write_text(f"a@example.com {signer.public_key}\n")
    (folder / "sig").write_text(armored)
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "a@example.com", "-n", namespace, "-s", "sig"]
    return subprocess.run(command, cwd=folder, input=data, capture_output=True).returncode == 0


def holds(folder: Path, signer: Signer) -> None:
    for namespace in ("git", "lockgate-trust"):
        armored = signer.sign_ssh(DATA, namespace)
        assert sshsig.verify(armored, DATA, namespace) == signer.public_key
        assert stock_accepts(folder, signer, armored, namespace)
        assert not stock_accepts(folder, signer, armored, namespace, b"other bytes")
    envelope = dsse.sign(DATA, dsse.STATEMENT_PAYLOAD, signer)
    assert dsse.open_envelope(envelope, {key_id(signer.public_key): signer.public_key}).payload == DATA
