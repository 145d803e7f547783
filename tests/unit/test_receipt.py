"""Receipts and cosignatures: their exact bytes, and that nothing else passes for them."""

import hashlib
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from controller.adapters.git.keys import KeySigner
from controller.errors import Invalid, Refused
from controller.ledger.cosign import attach, can_cosign, cosign, cosigners, lines_of, note_text, witness_name
from controller.ledger.log import Log, Tree, leaf_hash, open_checkpoint, read_checkpoint, sign_checkpoint
from controller.ledger.receipt import Receipt, check_receipt, read_receipt
from controller.model.keys import key_id

ORIGIN = "shop/abababababababab"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGESTS = [hashlib.sha256(b"%d" % i).digest() for i in range(300)]


def signer() -> KeySigner:
    return KeySigner(ed25519.Ed25519PrivateKey.generate())


CONTROLLER = signer()
KEYS = {key_id(CONTROLLER.public_key): CONTROLLER.public_key}
LOG, FILES = Log().append([leaf_hash(item) for item in DIGESTS])
NOTE = sign_checkpoint(ORIGIN, LOG, CONTROLLER)


def receipt(index: int, extra: bytes | None = None) -> Receipt:
    return Receipt(index, tuple(Tree(300, FILES.get).inclusion(index)), NOTE, extra)


def named(index: int) -> str:
    return "sha256:" + DIGESTS[index].hex()


@pytest.mark.parametrize("extra", [None, b"", b"the trust chain"])
def test_a_receipt_has_its_published_form(extra: bytes | None) -> None:
    made = receipt(255, extra)
    lines = made.dumps().decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == ("index 255" if extra is None else {b"": "extra "}.get(extra, "extra dGhlIHRydXN0IGNoYWlu"))
    assert made.dumps().endswith(b"\n\n" + NOTE)
    assert read_receipt(made.dumps()) == made
    assert check_receipt(made, named(255), ORIGIN, KEYS).size == 300


def test_the_only_leaf_of_a_log_has_no_path() -> None:
    log, _ = Log().append([leaf_hash(DIGESTS[0])])
    made = Receipt(0, (), sign_checkpoint(ORIGIN, log, CONTROLLER))
    assert made.dumps().startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nshop/")
    assert check_receipt(read_receipt(made.dumps()), named(0), ORIGIN, KEYS).size == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"@v1", b"@v2"),
        (b"index 7", b"index 07"),
        (b"index 7", b"index -7"),
        (b"index 7", b"index 7 "),
        (b"index 7", b"index 9223372036854775808"),
        (b"index 7", b"extra !\nindex 7"),
        (b"index 7\n", b""),
        (b"index 7\n", b"index 7\nAAAA\n"),
        (b"=\n", b"=\r\n"),
        (b"\n\n", b"\n"),
    ],
)
def test_what_is_no_receipt_is_refused(old: bytes, new: bytes) -> None:
    data = receipt(7).dumps()
    assert old in data
    with pytest.raises(Invalid) as caught:
        read_receipt(data.replace(old, new, 1) if old != b"\n\n" else data.replace(old, new))
    assert caught.value.code == "receipt-malformed"


def test_every_cut_and_every_flipped_byte_is_refused() -> None:
    data = receipt(7).dumps()
    for at in range(len(data)):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises((Invalid, Refused)):
                check_receipt(read_receipt(bad), named(7), ORIGIN, KEYS)


def test_a_signature_has_one_spelling() -> None:
    """The last letter of base64 has bits that stand for nothing: letters apart, and the same bytes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    head, last = NOTE.decode()[:-3], NOTE.decode()[-3:-2]
    assert NOTE.decode().endswith(f"{last}=\n")
    other = f"{head}{letters[letters.index(last) + 1]}=\n".encode()
    with pytest.raises(Invalid) as caught:
        read_checkpoint(other)
    assert caught.value.code == "checkpoint-malformed"


def test_a_receipt_is_for_one_entry_of_one_log() -> None:
    for made, digest, origin, keys in (
        (receipt(7), named(8), ORIGIN, KEYS),
        (receipt(8), named(7), ORIGIN, KEYS),
        (receipt(7), named(7), "shop/other", KEYS),
        (receipt(7), named(7), ORIGIN, {key_id(signer().public_key): signer().public_key}),
        (receipt(7), named(7), ORIGIN, {}),
    ):
        with pytest.raises(Refused):
            check_receipt(made, digest, origin, keys)


def test_inclusion_is_proven_and_checked_fast_in_a_long_log() -> None:
    """The bar is a millisecond a proof; here only that it does not grow with the log."""
    digests = [hashlib.sha256(b"%d" % i).digest() for i in range(100_000)]
    log, files = Log().append([leaf_hash(item) for item in digests])
    tree = Tree(100_000, files.get)
    tree.inclusion(1)
    begun = time.perf_counter()
    places = range(0, 100_000, 997)
    for index in places:
        path = tuple(tree.inclusion(index))
        assert len(path) <= 17
    each = (time.perf_counter() - begun) / len(places)
    assert each < 0.05
    made = Receipt(99_709, tuple(tree.inclusion(99_709)), sign_checkpoint(ORIGIN, log, CONTROLLER))
    check_receipt(made, "sha256:" + digests[99_709].hex(), ORIGIN, KEYS)


# --- cosignatures ----------------------------------------------------------------------------------------


def test_a_cosignature_has_its_published_form() -> None:
    witness = signer()
    line = cosign(NOTE, ORIGIN, "dev-1", witness, AT)
    assert line.startswith(f"— {ORIGIN}/agents/dev-1 ")
    cosigned = attach(NOTE, [line, line])
    assert lines_of(cosigned) == [lines_of(NOTE)[0], line]
    assert note_text(cosigned) == note_text(NOTE)
    assert read_checkpoint(cosigned) == read_checkpoint(NOTE)
    assert open_checkpoint(cosigned, ORIGIN, KEYS).key == CONTROLLER.public_key
    assert cosigners(cosigned, {"dev-1": witness.public_key}) == {"dev-1": AT}
    seconds = int(AT.timestamp())
    message = b"cosignature/v1\ntime %d\n" % seconds + b"\n".join(NOTE.split(b"\n")[:3]) + b"\n"
    import base64

    blob = base64.b64decode(line.split(" ")[2])
    raw = base64.b64decode(witness.public_key.split()[1])[-32:]
    name = witness_name(ORIGIN, "dev-1").encode()
    assert blob[:4] == hashlib.sha256(name + b"\n\x04" + raw).digest()[:4]
    assert int.from_bytes(blob[4:12], "big") == seconds
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(blob[12:], message)


def test_lines_that_do_not_hold_count_for_nothing() -> None:
    witness, other = signer(), signer()
    line = cosign(NOTE, ORIGIN, "dev-1", witness, AT)
    longer = sign_checkpoint(ORIGIN, LOG.append([bytes(32)])[0], CONTROLLER)
    assert cosigners(attach(longer, [line]), {"dev-1": witness.public_key}) == {}
    assert cosigners(attach(NOTE, [line]), {"dev-1": other.public_key}) == {}
    assert cosigners(attach(NOTE, [line]), {"dev-2": witness.public_key}) == {}
    renamed = line.replace("dev-1", "dev-2")
    assert cosigners(attach(NOTE, [renamed]), {"dev-2": witness.public_key}) == {}
    assert cosigners(NOTE, {"dev-1": witness.public_key}) == {}
    with pytest.raises(Invalid):
        attach(NOTE, ["no line"])


def test_only_ed25519_keys_cosign() -> None:
    other = KeySigner(ec.generate_private_key(ec.SECP256R1()))
    assert not can_cosign(other.public_key)
    with pytest.raises(Invalid) as caught:
        cosign(NOTE, ORIGIN, "dev-1", other, AT)
    assert caught.value.code == "cosigner-key"
    assert cosigners(NOTE, {"dev-1": other.public_key}) == {}
