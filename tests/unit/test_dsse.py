"""DSSE envelopes: one canonical form, checked against securesystemslib for every key type."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from controller.adapters.git.keys import KeySigner
from controller.errors import Invalid, Refused
from controller.ledger.canonical import canonical
from controller.ledger.dsse import STATEMENT_PAYLOAD, open_envelope, pae, sign, split
from controller.model.keys import key_id

PAYLOAD = canonical({"_type": "https://in-toto.io/Statement/v1", "text": "grün"})
KEYS = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.fixture(scope="module")
def signer() -> KeySigner:
    return KeySigner(ed25519.Ed25519PrivateKey.generate())


def test_pae_is_the_published_vector() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize("kind", list(KEYS))
def test_signs_as_securesystemslib_verifies(kind: str) -> None:
    signer = KeySigner(KEYS[kind]())
    data = sign(PAYLOAD, STATEMENT_PAYLOAD, signer)
    scheme = "rsa-pkcs1v15-sha256" if kind == "rsa" else None
    stock = SSlibKey.from_crypto(load_ssh_public_key(signer.public_key.encode()), scheme=scheme)
    assert key_id(signer.public_key) == stock.keyid
    envelope = Envelope.from_dict(json.loads(data))
    assert list(envelope.verify([stock], 1)) == [stock.keyid]
    opened = open_envelope(data, {stock.keyid: signer.public_key})
    assert (opened.payload, opened.payload_type, opened.keyid) == (PAYLOAD, STATEMENT_PAYLOAD, stock.keyid)
    assert data == canonical(json.loads(data))


def refused(data: bytes, keys: dict[str, str]) -> str:
    with pytest.raises(Refused) as caught:
        open_envelope(data, keys)
    return caught.value.code


def test_a_changed_payload_type_signature_or_key_is_refused(signer: KeySigner) -> None:
    keys = {key_id(signer.public_key): signer.public_key}
    data = sign(PAYLOAD, STATEMENT_PAYLOAD, signer)
    value = json.loads(data)
    other = KeySigner(ed25519.Ed25519PrivateKey.generate())
    changed = base64.b64encode(PAYLOAD.replace(b"text", b"texT")).decode()
    assert refused(canonical(value | {"payload": changed}), keys) == "envelope-signature"
    assert refused(canonical(value | {"payloadType": "application/other"}), keys) == "envelope-signature"
    assert refused(data, {}) == "envelope-signature"
    assert refused(data, {key_id(other.public_key): other.public_key}) == "envelope-signature"
    # Another key listed under the controller's id verifies nothing, though its own signature is good.
    forged = json.loads(sign(PAYLOAD, STATEMENT_PAYLOAD, other))
    forged["signatures"][0]["keyid"] = key_id(signer.public_key)
    assert refused(canonical(forged), {key_id(signer.public_key): other.public_key}) == "envelope-signature"


REFORMS: dict[str, Callable[[bytes, dict], bytes]] = {
    "spaces": lambda data, value: json.dumps(value).encode(),
    "trailing newline": lambda data, value: data + b"\n",
    "key order": lambda data, value: json.dumps(dict(reversed(value.items()))).encode(),
    "further member": lambda data, value: canonical(value | {"extra": 1}),
    "further signature member": lambda data, value: canonical(
        value | {"signatures": [value["signatures"][0] | {"x": 1}]}
    ),
    "twice a key": lambda data, value: data.replace(b'{"payload":', b'{"payload":"AA==","payload":'),
}


@pytest.mark.parametrize("how", list(REFORMS))
def test_only_the_one_form_is_accepted(signer: KeySigner, how: str) -> None:
    data = sign(PAYLOAD, STATEMENT_PAYLOAD, signer)
    keys = {key_id(signer.public_key): signer.public_key}
    assert refused(REFORMS[how](data, json.loads(data)), keys) == "not-canonical"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"payload":1}',
        b"[" * 100_000,
        b'{"payload":"A","payloadType":"x","signatures":[]}',
    ],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as caught:
        split(data)
    assert caught.value.code == "envelope-malformed"


def test_a_second_signature_is_refused(signer: KeySigner) -> None:
    value = json.loads(sign(PAYLOAD, STATEMENT_PAYLOAD, signer))
    value["signatures"] *= 2
    assert refused(canonical(value), {key_id(signer.public_key): signer.public_key}) == "envelope-malformed"


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        key_id("ssh-ed25519 AAAA")
    assert caught.value.code == "key-unusable"
