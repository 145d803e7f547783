"""SSH signatures, checked against the stock ssh-keygen in both directions."""

from __future__ import annotations

import base64
import hashlib
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from controller.adapters.git import sshformat, sshsig
from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.errors import Invalid, Refused
from controller.model.sshwire import string

DATA = b"what is signed\n"
TYPES = [("ed25519", ""), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("rsa", "2048"), ("rsa", "3072")]


def run(*command: object, data: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(part) for part in command], input=data, capture_output=True, check=check)


@pytest.fixture(scope="module", params=TYPES, ids="-".join)
def key(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, bits = request.param
    path = tmp_path_factory.mktemp("key") / "id"
    run(
        "ssh-keygen",
        "-q",
        "-t",
        kind,
        *(["-b", bits] if bits else []),
        "-N",
        "",
        "-C",
        "a@example.com",
        "-f",
        path,
    )
    return path


def public(path: Path) -> str:
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def stock_verify(home: Path, public_key: str, armored: str, namespace: str, data: bytes = DATA) -> bool:
    (home / "allowed").write_text(f"a@example.com {public_key}\n")
    (home / "sig").write_text(armored)
    arguments = (
        "-Y",
        "verify",
        "-f",
        home / "allowed",
        "-I",
        "a@example.com",
        "-n",
        namespace,
        "-s",
        home / "sig",
    )
    return run("ssh-keygen", *arguments, data=data, check=False).returncode == 0


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_what_ssh_keygen_signs_is_verified(key: Path, algorithm: str) -> None:
    made = run("ssh-keygen", "-Y", "sign", "-O", f"hashalg={algorithm}", "-f", key, "-n", "git", data=DATA).stdout
    assert sshsig.verify(made, DATA, "git") == public(key)
    assert sshsig.verify(made.decode(), DATA, "git") == public(key)


def test_what_is_signed_here_ssh_keygen_verifies(key: Path, tmp_path: Path) -> None:
    signer = FileSigner(key)
    assert signer.public_key == public(key)
    armored = signer.sign_ssh(DATA, "lockgate-trust")
    assert stock_verify(tmp_path, signer.public_key, armored, "lockgate-trust")
    assert not stock_verify(tmp_path, signer.public_key, armored, "git")
    assert not stock_verify(tmp_path, signer.public_key, armored, "lockgate-trust", DATA + b"!")
    assert sshsig.verify(armored, DATA, "lockgate-trust") == signer.public_key


def test_bare_signatures_round_trip(key: Path) -> None:
    signer = FileSigner(key)
    signature = signer.sign_raw(DATA)
    sshsig.verify_raw(signer.public_key, signature, DATA)
    with pytest.raises(Refused, match="signature-invalid"):
        sshsig.verify_raw(signer.public_key, signature, DATA + b"!")


@pytest.mark.parametrize(
    ("data", "namespace"), [(b"other", "git"), (DATA, "file"), (DATA, ""), (b"", "git")], ids=str
)
def test_other_bytes_or_another_namespace_are_refused(key: Path, data: bytes, namespace: str) -> None:
    armored = FileSigner(key).sign_ssh(DATA, "git")
    with pytest.raises(Refused) as caught:
        sshsig.verify(armored, data, namespace)
    assert caught.value.code == "signature-invalid"


def test_no_flipped_byte_passes(tmp_path: Path) -> None:
    blob = bytearray(sshformat.dearmor(generate_key(tmp_path / "k").sign_ssh(DATA, "git")))
    for at in range(len(blob)):
        blob[at] ^= 0x01
        with pytest.raises(Refused, match="signature-invalid"):
            sshsig.verify(sshformat.armor(bytes(blob)), DATA, "git")
        blob[at] ^= 0x01
    for at in range(len(blob)):
        with pytest.raises(Refused, match="signature-invalid"):
            sshsig.verify(sshformat.armor(bytes(blob[:at])), DATA, "git")
    with pytest.raises(Refused, match="after the end"):
        sshsig.verify(sshformat.armor(bytes(blob) + b"\0"), DATA, "git")


@pytest.mark.parametrize(
    "armored",
    ["", "-----BEGIN PGP SIGNATURE-----\nabc\n-----END PGP SIGNATURE-----\n", "\udcff", b"\xff\xfe",
     "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH=U1N\n-----END SSH SIGNATURE-----\n"],
    ids=["empty", "pgp", "surrogate", "binary", "base64"],
)  # fmt: skip
def test_what_is_no_signature_is_refused(armored: str | bytes) -> None:
    with pytest.raises(Refused) as caught:
        sshsig.verify(armored, DATA, "git")
    assert caught.value.code == "signature-invalid"


def envelope(public_blob: bytes, signature: bytes, reserved: bytes = b"", algorithm: bytes = b"sha512") -> str:
    head = b"SSHSIG\x00\x00\x00\x01" + string(public_blob) + string(b"git") + string(reserved)
    return sshformat.armor(head + string(algorithm) + string(signature))


def to_sign(reserved: bytes = b"") -> bytes:
    return (
        b"SSHSIG" + string(b"git") + string(reserved) + string(b"sha512") + string(hashlib.sha512(DATA).digest())
    )


def security_key(flags: int, application: bytes = b"ssh:") -> tuple[str, str]:
    """A signature as a FIDO token makes it (PROTOCOL.u2f), and its public key."""
    private = ed25519.Ed25519PrivateKey.generate()
    kind = b"sk-ssh-ed25519@openssh.com"
    blob = string(kind) + string(private.public_key().public_bytes_raw()) + string(application)
    tail = bytes([flags]) + (7).to_bytes(4, "big")
    signed = hashlib.sha256(application).digest() + tail + hashlib.sha256(to_sign()).digest()
    armored = envelope(blob, string(kind) + string(private.sign(signed)) + tail)
    return armored, f"{kind.decode()} {base64.b64encode(blob).decode()}"


def test_a_security_key_counts_when_it_was_touched(tmp_path: Path) -> None:
    armored, public_key = security_key(0x01)
    assert sshsig.verify(armored, DATA, "git") == public_key
    assert stock_verify(tmp_path, public_key, armored, "git")
    assert sshsig.verify(security_key(0x05)[0], DATA, "git").startswith("sk-ssh-ed25519@openssh.com ")
    with pytest.raises(Refused, match="nobody touched"):
        sshsig.verify(security_key(0x00)[0], DATA, "git")


def test_rsa_with_sha1_is_refused() -> None:
    private = rsa.generate_private_key(65537, 2048)
    raw = private.sign(to_sign(), padding.PKCS1v15(), hashes.SHA1())
    blob = sshformat.public_blob(private.public_key())
    with pytest.raises(Refused, match="signature algorithm ssh-rsa"):
        sshsig.verify(envelope(blob, string(b"ssh-rsa") + string(raw)), DATA, "git")


def test_a_short_rsa_key_is_refused() -> None:
    private = rsa.generate_private_key(65537, 1024)
    armored = sshsig.sign(private, DATA, "git")
    with pytest.raises(Refused, match="1024 bits"):
        sshsig.verify(armored, DATA, "git")


def test_a_used_reserved_field_and_an_unknown_hash_are_refused() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    blob = sshformat.public_blob(private.public_key())
    with pytest.raises(Refused, match="reserved"):
        signature = string(b"ssh-ed25519") + string(private.sign(to_sign(b"x")))
        sshsig.verify(envelope(blob, signature, b"x"), DATA, "git")
    with pytest.raises(Refused, match="hash md5"):
        signature = string(b"ssh-ed25519") + string(private.sign(to_sign()))
        sshsig.verify(envelope(blob, signature, algorithm=b"md5"), DATA, "git")


def test_keys_of_other_types_are_refused() -> None:
    with pytest.raises(Refused, match="key type ssh-dss"):
        sshsig.verify(envelope(string(b"ssh-dss"), b""), DATA, "git")
    with pytest.raises(Refused, match="signature-invalid"):
        sshsig.verify(envelope(string(b"ssh-ed25519") + string(b"short"), b""), DATA, "git")
    with pytest.raises(Refused, match="differs from the key"):
        sshsig.parse_public_key("ssh-rsa " + security_key(1)[1].split()[1])


def test_a_generated_key_is_private_and_ssh_keygen_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "controller"
    signer = generate_key(path, "controller@example.com")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_name("controller.pub").read_text() == f"{signer.public_key} controller@example.com\n"
    assert run("ssh-keygen", "-y", "-f", path).stdout.decode().split()[:2] == signer.public_key.split()
    listed = run("ssh-keygen", "-l", "-f", path).stdout.decode().split()[1]
    assert listed == sshsig.fingerprint(signer.public_key)
    with pytest.raises(Invalid, match="key-exists"):
        generate_key(path)
    assert FileSigner(path).public_key == signer.public_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    generate_key(tmp_path / "k")
    (tmp_path / "k").chmod(mode)
    with pytest.raises(Refused) as caught:
        FileSigner(tmp_path / "k")
    assert caught.value.code == "key-permissions"


def test_pkcs8_keys_are_read(tmp_path: Path) -> None:
    for private in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())):
        path = tmp_path / type(private).__name__
        path.touch(0o600)
        path.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        assert FileSigner(path).public_key == sshsig.public_text(private)


def test_unusable_key_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="key-unreadable"):
        FileSigner(tmp_path / "absent")
    (tmp_path / "noise").touch(0o600)
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(Invalid, match="key-unusable"):
        FileSigner(tmp_path / "noise")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", tmp_path / "locked")
    with pytest.raises(Invalid, match="passphrase"):
        FileSigner(tmp_path / "locked")
