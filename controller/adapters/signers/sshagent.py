"""Keys that ssh-agent holds: software, hardware (sk-*) or forwarded; the private key is never seen here.

Protocol: draft-ietf-sshm-ssh-agent; signatures as in RFC 8709, RFC 5656, RFC 8332 and PROTOCOL.u2f; the SSHSIG
around them as in PROTOCOL.sshsig.
"""

from __future__ import annotations

import base64
import socket
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from controller.adapters.git.sshformat import fingerprint, parse_public_key, sign_by
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.model.sshwire import Reader, string

TIMEOUT = 60.0
"""Seconds: a hardware key waits for a finger, a confirming agent for a person."""
_MOST = 1 << 18
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_RSA_SHA2_256, _RSA_SHA2_512 = 2, 4
_HARDWARE = ("sk-ssh-", "sk-ecdsa-")


@dataclass(frozen=True, slots=True)
class Held:
    """One key of an agent: wire form, OpenSSH text without comment, comment."""

    blob: bytes
    public: str
    comment: str


class AgentSigner:
    """A Signer over one key of the agent at `path` (SSH_AUTH_SOCK).

    `which` is the key's fingerprint (SHA256:…), its comment, or its public key file; it may be empty when the
    agent holds one usable key. Raises Unavailable("ssh-agent-unreachable"), Invalid("key-not-in-agent").
    """

    __slots__ = ("_held", "_path")

    def __init__(self, path: str, which: str) -> None:
        self._path = path
        self._held = _chosen(identities(path), which)

    @property
    def public_key(self) -> str:
        """OpenSSH public key without comment."""
        return self._held.public

    def sign_raw(self, data: bytes) -> bytes:
        """The bare signature over `data`, as `sshformat.sign_raw` makes it.

        Raises Invalid("key-not-for-envelopes") for hardware keys: they sign a hash of their own around the data.
        """
        if self._held.public.startswith(_HARDWARE):
            raise Invalid(
                "key-not-for-envelopes",
                "a hardware key signs commits and trust documents, no evidence envelopes",
                where=self._held.comment or self._held.public[:44],
                expected="an ed25519, ecdsa or rsa key",
                got=self._held.public.partition(" ")[0],
                cure="give the controller or agent a key of one of these kinds",
            )
        signature = _reader(self._sign(data, _RSA_SHA2_256))
        algorithm, raw = signature.string(), signature.string()
        if algorithm.startswith(b"ecdsa-"):
            numbers = _reader(raw)
            return encode_dss_signature(numbers.mpint(), numbers.mpint())
        return raw

    def sign_ssh(self, data: bytes, namespace: str) -> str:
        """An armored SSHSIG over `data`."""
        return sign_by(lambda message: self._sign(message, _RSA_SHA2_512), self._held.blob, data, namespace)

    def _sign(self, data: bytes, rsa_flags: int) -> bytes:
        flags = rsa_flags if self._held.public.startswith("ssh-rsa") else 0
        body = string(self._held.blob) + string(data) + struct.pack(">I", flags)
        kind, answer = _ask(self._path, _SIGN_REQUEST, body)
        if kind != _SIGN_RESPONSE:
            raise Refused(
                "ssh-agent-refused",
                "ssh-agent did not sign",
                where=self._held.comment or fingerprint(self._held.public),
                expected="a signature",
                got="its refusal",
                cure="unlock the agent, touch the key, or confirm the signature when asked",
            )
        return _reader(answer).string()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._held.public!r})"


def identities(path: str) -> list[Held]:
    """The keys of an agent that can sign here. Raises Unavailable("ssh-agent-unreachable")."""
    kind, body = _ask(path, _REQUEST_IDENTITIES, b"")
    if kind != _IDENTITIES_ANSWER:
        raise _unreachable(path, "another answer than its keys")
    found: list[Held] = []
    fields = _reader(body)
    for _ in range(fields.number(4)):
        blob, comment = fields.string(), fields.string()
        name = _reader(blob).string().decode("ascii", "replace")
        try:
            public = parse_public_key(f"{name} {base64.b64encode(blob).decode()}")
        except LockgateError:
            continue  # a certificate, or a kind of key that nobody here verifies
        found.append(Held(blob, public, comment.decode("utf-8", "replace")))
    return found


def _chosen(keys: list[Held], which: str) -> Held:
    matching = [key for key in keys if not which or _is(key, which)]
    if not matching and which and Path(which).is_file():
        try:
            wanted = parse_public_key(Path(which).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, LockgateError):
            wanted = ""
        matching = [key for key in keys if key.public == wanted]
    if len(matching) == 1:
        return matching[0]
    raise Invalid(
        "key-not-in-agent",
        "ssh-agent does not hold exactly one such key",
        where=f"ssh-agent:{which}",
        expected="the fingerprint, comment or public key file of a key that `ssh-add -l` lists",
        got=", ".join(f"{fingerprint(key.public)} {key.comment}" for key in matching or keys) or "no keys",
        cure="add the key with ssh-add, or name it by its fingerprint",
    )


def _is(key: Held, which: str) -> bool:
    return which in (key.comment, fingerprint(key.public))


def _ask(path: str, kind: int, body: bytes) -> tuple[int, bytes]:
    """One question to the agent: a message's kind and body, and those of the answer."""
    if not path:
        raise _unreachable("SSH_AUTH_SOCK", "it is not set")
    message = bytes([kind]) + body
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(TIMEOUT)
            agent.connect(path)
            agent.sendall(string(message))
            size = int.from_bytes(_exactly(agent, 4), "big")
            if not 0 < size <= _MOST:
                raise _unreachable(path, f"an answer of {size} bytes")
            answer = _exactly(agent, size)
    except OSError as error:
        raise _unreachable(path, error.strerror or type(error).__name__) from error
    return answer[0], answer[1:]


def _exactly(agent: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = agent.recv(count - len(data))
        if not piece:
            raise ConnectionResetError(0, "it hung up")
        data += piece
    return bytes(data)


def _reader(data: bytes) -> Reader:
    return Reader(data, partial(_unreachable, "its answer"))


def _unreachable(where: str, got: str) -> Unavailable:
    return Unavailable(
        "ssh-agent-unreachable",
        "ssh-agent does not answer",
        where=where,
        expected="the socket of a running ssh-agent in SSH_AUTH_SOCK",
        got=got,
        cure='start one with: eval "$(ssh-agent)" && ssh-add',
    )
