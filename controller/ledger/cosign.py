"""Cosignatures: witnesses' signatures over checkpoints, as lines of the signed note (https://c2sp.org/tlog-cosignature).

A cosignature says that, at its time, the checkpoint was the largest consistent one that the witness had seen of
this log. Witnesses are the project's agents; only Ed25519 keys have this form (`cosignature/v1`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from controller.errors import Invalid
from controller.ledger.dsse import verify_raw
from controller.ledger.log import parse_note
from controller.ledger.speaker import key_at
from controller.model.keys import public_key
from controller.model.order import AgentKey
from controller.ports import Signer

_ED25519 = "ssh-ed25519"
_KIND = b"\x04"
_MOST_SECONDS = 253402300799
"""The last second that a datetime holds."""


def witness_name(origin: str, agent: str) -> str:
    """The key name of an agent as a witness of the log `origin`."""
    return f"{origin}/agents/{agent}"


def can_cosign(openssh: str) -> bool:
    """Whether a key can make a `cosignature/v1`: Ed25519 alone has that form."""
    return openssh.split(" ", 1)[0] == _ED25519


def note_text(note: bytes) -> bytes:
    """The bytes of a checkpoint that every signature is over. Raises Invalid("checkpoint-malformed")."""
    return parse_note(note)[1]


def cosign(note: bytes, origin: str, agent: str, signer: Signer, at: datetime) -> str:
    """The signature line, without its newline, by which `agent` cosigns a checkpoint at `at` (whole seconds).

    Raises Invalid("checkpoint-malformed"); Invalid("cosigner-key") for a key that is not Ed25519.
    """
    if not can_cosign(signer.public_key):
        raise Invalid("cosigner-key", "only an Ed25519 key can cosign", got=signer.public_key.split(" ", 1)[0])
    seconds = int(at.timestamp())
    name = witness_name(origin, agent)
    signature = signer.sign_raw(_message(seconds, note_text(note)))
    blob = _key_id(name, signer.public_key) + seconds.to_bytes(8, "big") + signature
    return f"— {name} {base64.b64encode(blob).decode()}"


def cosigners(note: bytes, keys: Mapping[str, str]) -> dict[str, datetime]:
    """The witnesses whose cosignatures on a checkpoint hold, and when each signed.

    `keys` maps agents to OpenSSH keys. Lines of others, and lines that do not hold, count for nothing. Raises
    Invalid("checkpoint-malformed").
    """
    checkpoint, text, signatures = parse_note(note)
    known = {
        witness_name(checkpoint.origin, agent): (agent, key) for agent, key in keys.items() if can_cosign(key)
    }
    found: dict[str, datetime] = {}
    for name, blob in signatures:
        agent, key = known.get(name, ("", ""))
        if not agent or len(blob) != 76 or blob[:4] != _key_id(name, key):
            continue
        seconds = int.from_bytes(blob[4:12], "big")
        if seconds <= _MOST_SECONDS and verify_raw(public_key(key), blob[12:], _message(seconds, text)):
            found[agent] = datetime.fromtimestamp(seconds, UTC)
    return found


def witnesses(
    note: bytes, agents: Mapping[str, AgentKey], certificates: Mapping[str, str], at: datetime
) -> dict[str, datetime]:
    """The agents that bear witness to a checkpoint as of `at`, and when each signed.

    One whose keys an authority certifies does so by the key of its certificate, which must have been valid when
    it signed and still be at `at`: an expired key cannot date a signature back. Raises as `cosigners`.
    """
    keys = {name: key for name in agents if (key := key_at(agents[name], name, at, certificates.get(name)))}
    return {
        name: signed
        for name, signed in cosigners(note, keys).items()
        if key_at(agents[name], name, signed, certificates.get(name)) == keys[name]
    }


def attach(note: bytes, lines: Iterable[str]) -> bytes:
    """A checkpoint with further signature lines at its end, each once. Raises Invalid("checkpoint-malformed")."""
    text = note.decode()
    for line in lines:
        if f"\n{line}\n" not in text:
            text += f"{line}\n"
    data = text.encode()
    parse_note(data)
    return data


def lines_of(note: bytes) -> list[str]:
    """The signature lines of a checkpoint, the log's own first."""
    parse_note(note)
    return note.decode().partition("\n\n")[2].removesuffix("\n").split("\n")


def _message(seconds: int, text: bytes) -> bytes:
    return b"cosignature/v1\ntime %d\n" % seconds + text


def _key_id(name: str, openssh: str) -> bytes:
    try:
        raw = base64.b64decode(openssh.split()[1], validate=True)[-32:]
    except (IndexError, ValueError) as error:
        raise Invalid("cosigner-key", "the witness's key does not read", got=openssh[:40]) from error
    return hashlib.sha256(name.encode() + b"\n" + _KIND + raw).digest()[:4]
