"""A certificate authority made for a test, and nginx with its certificates in front of a server of the test."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.components import used
from tests.support.git_servers import NGINX, free_port, running


class Authority:
    """`file` is its certificate as PEM; `certificate` gives one for a host."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file = folder, folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        made = _builder(self._name, self._name, self._key.public_key())
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.file.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def certificate(self, host: str) -> tuple[Path, Path]:
        """Certificate and key files for a host name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = _builder(name, self._name, key.public_key())
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        certificate, private = self.folder / f"{host}.pem", self.folder / f"{host}.key"
        certificate.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, private


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@contextlib.contextmanager
def tls_front(
    home: Path, files: tuple[Path, Path], upstream: str, login: tuple[str, str] | None = None
) -> Iterator[int]:
    """nginx that ends TLS in front of `upstream` ("127.0.0.1:port"), by basic authentication with a login; its
    port on the loopback address."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    guard = ""
    if login is not None:
        passwords = home / "htpasswd"
        subprocess.run(["htpasswd", "-Bbc", str(passwords), *login], check=True, capture_output=True, timeout=20)
        passwords.chmod(0o644)
        guard = f'auth_basic "test"; auth_basic_user_file {passwords};'
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {home}/{kind};\n" for kind in kinds)
    (home / "nginx.conf").write_text(
        f"""{user}
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  {temporary}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {files[0]};
    ssl_certificate_key {files[1]};
    client_max_body_size 0;
    location / {{ {guard} proxy_pass http://{upstream}; proxy_set_header Host $http_host; proxy_buffering off; }}
  }}
}}
"""
    )
    command = [NGINX, "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
    with running(command, home / "nginx.log", port):
        used("nginx", subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=False).stderr.strip())
        yield port
