"""A Rekor v2 log in software: the HTTP API of rekor-tiles over a Merkle tree in memory, with real signatures.

Written from the service's protocol buffers and its CLIENTS.md, and on purpose not with the project's own tree.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_scalar_reduce,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

ALGORITHMS = {
    "PKIX_ECDSA_P256_SHA_256": ("SHA2_256", hashes.SHA256()),
    "PKIX_ECDSA_P384_SHA_384": ("SHA2_384", hashes.SHA384()),
    "PKIX_ECDSA_P521_SHA_512": ("SHA2_512", hashes.SHA512()),
    "PKIX_RSA_PKCS1V15_2048_SHA256": ("SHA2_256", hashes.SHA256()),
    "PKIX_RSA_PKCS1V15_3072_SHA256": ("SHA2_256", hashes.SHA256()),
    "PKIX_RSA_PKCS1V15_4096_SHA256": ("SHA2_256", hashes.SHA256()),
    "PKIX_ED25519_PH": ("SHA2_512", hashes.SHA512()),
}
Answer = tuple[int, dict[str, str], bytes]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    split = largest_power_below(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def audit_path(leaves: list[bytes], index: int) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = largest_power_below(len(leaves))
    if index < split:
        return [*audit_path(leaves[:split], index), tree_hash(leaves[split:])]
    return [*audit_path(leaves[split:], index - split), tree_hash(leaves[:split])]


def largest_power_below(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def ed25519ph_holds(public: bytes, signature: bytes, digest: bytes) -> bool:
    """RFC 8032 section 5.1.7 with dom2(1, ""), over a digest alone, as the log verifies: S·B = R + h·A."""
    first, scalar = signature[:32], signature[32:]
    domain = b"SigEd25519 no Ed25519 collisions\x01\x00"
    challenge = hashlib.sha512(domain + first + public + digest).digest()
    factor = crypto_core_ed25519_scalar_reduce(challenge)
    right = crypto_core_ed25519_add(first, crypto_scalarmult_ed25519_noclamp(factor, public))
    return bool(crypto_scalarmult_ed25519_base_noclamp(scalar) == right)


class RekorLog:
    """The log's entries and key. `origin` is the first line of its checkpoints."""

    def __init__(self, origin: str = "rekor.example.com", kind: str = "ed25519", entries: int = 0) -> None:
        self.origin = origin
        self.key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = (
            ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
        )
        self.bodies: list[bytes] = [f"another's entry {number}".encode() for number in range(entries)]
        self.requests: list[dict[str, Any]] = []

    @property
    def pem(self) -> str:
        """The public key: what Trust pins."""
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return self.key.public_key().public_bytes(*form).decode()

    @property
    def leaves(self) -> list[bytes]:
        return [hashlib.sha256(b"\x00" + body).digest() for body in self.bodies]

    def checkpoint(self, extra: str = "") -> str:
        """The signed note over the tree as it is now, with a line of a witness that nobody here knows."""
        body = f"{self.origin}\n{len(self.bodies)}\n{b64(tree_hash(self.leaves))}\n{extra}"
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            signature = self.key.sign(body.encode())
        else:
            signature = self.key.sign(body.encode(), ec.ECDSA(hashes.SHA256()))
        signed = b64(self.log_id[:4] + signature)
        return f"{body}\n— witness.example.com {b64(bytes(76))}\n— {self.origin} {signed}\n"

    @property
    def log_id(self) -> bytes:
        """The key's id in signed notes, not cut."""
        public = self.key.public_key()
        if isinstance(public, ed25519.Ed25519PublicKey):
            return hashlib.sha256(self.origin.encode() + b"\n\x01" + public.public_bytes_raw()).digest()
        return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()

    def entry(self, index: int) -> dict[str, Any]:
        """The TransparencyLogEntry, as JSON of protocol buffers has it."""
        return {
            "logIndex": str(index),
            "logId": {"keyId": b64(self.log_id)},
            "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
            "integratedTime": "0",
            "inclusionPromise": None,
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": b64(tree_hash(self.leaves)),
                "treeSize": str(len(self.bodies)),
                "hashes": [b64(item) for item in audit_path(self.leaves, index)],
                "checkpoint": {"envelope": self.checkpoint()},
            },
            "canonicalizedBody": b64(self.bodies[index]),
        }

    def handle(self, method: str, path: str, data: bytes) -> Answer:
        """One request, as the service answers it."""
        if (method, path) == ("POST", "/api/v2/log/entries"):
            return self._create(json.loads(data))
        if (method, path) == ("GET", "/api/v2/checkpoint"):
            return 200, {}, self.checkpoint().encode()
        if method == "GET" and path.startswith("/api/v2/tile/0/000"):
            width = int(path.partition(".p/")[2] or 256)
            return 200, {}, b"".join(self.leaves[:width])
        return 404, {}, b"{}"

    def _create(self, request: dict[str, Any]) -> Answer:
        self.requests.append(request)
        asked = request["hashedRekordRequestV002"]
        try:
            body = self._validated(asked)
        except Exception:
            said = {"code": 3, "message": "invalid hashedrekord request", "details": []}
            return 400, {}, json.dumps(said).encode()
        if body in self.bodies:
            index = self.bodies.index(body)
            said = {"code": 6, "message": f"an equivalent entry already exists with index {index}", "details": []}
            return 409, {"x-log-index": str(index)}, json.dumps(said).encode()
        self.bodies.append(body)
        return 201, {}, json.dumps(self.entry(len(self.bodies) - 1)).encode()

    def _validated(self, asked: dict[str, Any]) -> bytes:
        """The entry's body; raises for a signature that does not hold over the digest."""
        signed = asked["signature"]
        details = signed["verifier"]["keyDetails"]
        named, algorithm = ALGORITHMS[details]
        digest = base64.b64decode(asked["digest"], validate=True)
        assert len(digest) == algorithm.digest_size
        key = load_der_public_key(base64.b64decode(signed["verifier"]["publicKey"]["rawBytes"], validate=True))
        signature, hashed = base64.b64decode(signed["content"], validate=True), utils.Prehashed(algorithm)
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            assert f"_{key.key_size}_" in details
            key.verify(signature, digest, padding.PKCS1v15(), hashed)
        else:
            assert isinstance(key, ed25519.Ed25519PublicKey) and details == "PKIX_ED25519_PH"
            assert ed25519ph_holds(key.public_bytes_raw(), signature, digest)
        data = {"algorithm": named, "digest": asked["digest"]}
        spec = {"hashedRekordV002": {"data": data, "signature": signed}}
        return rfc8785.dumps({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": spec})


class Server:
    """Serves `handle(method, path, data)` and counts posts; what it raises is a 500."""

    def __init__(self, handle: Callable[[str, str, bytes], Answer]) -> None:
        self.handle = handle
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def _answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked += self.command == "POST"
                try:
                    status, headers, said = outer.handle(self.command, self.path, data)
                except Exception:
                    status, headers, said = 500, {}, b""
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(said)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(said)

            do_GET = do_POST = _answer  # noqa: N815

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def serving(handle: Callable[[str, str, bytes], Answer]) -> Iterator[Server]:
    """A server that ends with the block."""
    made = Server(handle)
    try:
        yield made
    finally:
        made.close()
