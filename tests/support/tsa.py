"""A time-stamp authority: openssl's, behind a small HTTP server, with a certificate authority of its own."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.support.components import used

CONFIG = """
[ tsa ]
default_tsa = one
[ one ]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.13762.3
digests = sha256, sha512
accuracy = secs:1
ordering = no
tsa_name = no
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[ ext ]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


def _openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


class Authority:
    """Keys, certificates and answers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        used("openssl", _openssl("version").decode())
        (folder / "tsa.cnf").write_text(CONFIG.format(folder=folder))
        (folder / "serial").write_text("01\n")
        ca, key = str(folder / "ca.pem"), str(folder / "ca.key")
        new = ["req", "-newkey", "rsa:2048", "-nodes", "-sha256"]
        subject = ["-subj", f"/O=Example/CN={folder.name} CA"]
        ca_extensions = [
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]
        _openssl(*new, "-x509", "-days", "3650", "-keyout", key, "-out", ca, *subject, *ca_extensions)
        request = str(folder / "tsa.csr")
        _openssl(*new, "-keyout", str(folder / "tsa.key"), "-out", request, "-subj", "/O=Example/CN=TSA")
        sign = ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-CAcreateserial", "-sha256"]
        sign += ["-extfile", str(folder / "tsa.cnf"), "-extensions", "ext", "-out", str(folder / "tsa.pem")]
        _openssl(*sign, "-days", "3650")

    def expire(self) -> None:
        """The signer's certificate ended yesterday; the authority goes on signing all the same."""
        ca = x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes())
        key = load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        old = x509.load_pem_x509_certificate((self.folder / "tsa.pem").read_bytes())
        assert isinstance(key, rsa.RSAPrivateKey)
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(ca.subject, old.subject, old.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=9)).not_valid_after(now - timedelta(days=1))
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(key, hashes.SHA256())
        (self.folder / "tsa.pem").write_bytes(signed.public_bytes(Encoding.PEM))

    @property
    def certificate(self) -> str:
        """The CA's certificate, PEM: what Trust pins."""
        return (self.folder / "ca.pem").read_text()

    def reply(self, query: bytes) -> bytes:
        """The response to a request, DER."""
        path = self.folder / f"{threading.get_ident()}.tsq"
        path.write_bytes(query)
        config = str(self.folder / "tsa.cnf")
        return _openssl("ts", "-reply", "-config", config, "-section", "one", "-queryfile", str(path))


class Server:
    """Serves `answer(query)` and counts queries; what `answer` raises is a 500."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def do_POST(self) -> None:
                outer.asked += 1
                query = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    status, data = 200, outer.answer(query)
                except Exception:
                    status, data = 500, b""
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Type", "application/timestamp-reply")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/tsa"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def serving(answer: Callable[[bytes], bytes]) -> Iterator[Server]:
    """A server that ends with the block."""
    made = Server(answer)
    try:
        yield made
    finally:
        made.close()
