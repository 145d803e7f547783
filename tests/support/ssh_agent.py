"""A real ssh-agent of a test's own, ended by its process id."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.model.sshwire import string

_SK = b"sk-ssh-ed25519@openssh.com"
_TOUCHED = b"\x01" + (7).to_bytes(4, "big")
"""The flag that somebody was there, and the key's counter."""


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


class HardwareAgent:
    """An agent that holds one security key: Ed25519 with the user's presence (PROTOCOL.u2f), made in software."""

    def __init__(self, path: str, comment: str) -> None:
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.blob = string(_SK) + string(self.key.public_key().public_bytes_raw()) + string(b"ssh:")
        self.public = f"{_SK.decode()} {base64.b64encode(self.blob).decode()}"
        self._comment = comment.encode()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(path)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._socket.accept()
                with caller, caller.makefile("rwb") as stream:
                    message = stream.read(int.from_bytes(stream.read(4), "big"))
                    stream.write(string(self._answer(message)))

    def _answer(self, message: bytes) -> bytes:
        if message[0] == 11:
            return b"\x0c" + (1).to_bytes(4, "big") + string(self.blob) + string(self._comment)
        rest = message[1 + 4 + len(self.blob) :]
        data = rest[4 : 4 + int.from_bytes(rest[:4], "big")]
        signed = hashlib.sha256(b"ssh:").digest() + _TOUCHED + hashlib.sha256(data).digest()
        return b"\x0e" + string(string(_SK) + string(self.key.sign(signed)) + _TOUCHED)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
