"""Signers by address: every holder of a key makes signatures that stock ssh-keygen and our envelopes accept."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git import sshsig
from controller.adapters.signers import open_signer
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from controller.ledger import dsse
from tests.support.signers import DATA, holds, stock_accepts
from tests.support.ssh_agent import HardwareAgent, ssh_agent

KINDS = (("ed25519", ""), ("ecdsa", "256"), ("ecdsa", "384"), ("rsa", "2048"))


def make(
    folder: Path, name: str, kind: str = "ed25519", bits: str = "", passphrase: str = "", form: str = ""
) -> Path:
    path = folder / name
    options = [*(["-b", bits] if bits else []), *(["-m", form] if form else [])]
    command = ["ssh-keygen", "-q", "-t", kind, *options, "-N", passphrase, "-C", f"{name}@example.com", "-f"]
    subprocess.run([*command, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {kind + bits: make(folder, kind + bits, kind, bits) for kind, bits in KINDS}


@pytest.fixture(scope="module")
def agent(keys: dict[str, Path]) -> Iterator[str]:
    with ssh_agent(*keys.values()) as path:
        yield path


@pytest.mark.parametrize("kind", [kind + bits for kind, bits in KINDS])
def test_agent_keys_sign_everything(kind: str, keys: dict[str, Path], agent: str, tmp_path: Path) -> None:
    signer = open_signer(f"ssh-agent:{kind}@example.com", {"SSH_AUTH_SOCK": agent})
    assert signer.public_key == open_signer(keys[kind]).public_key
    holds(tmp_path, signer)


def test_agent_keys_are_named_by_fingerprint_and_public_key_file(keys: dict[str, Path], agent: str) -> None:
    environ, path = {"SSH_AUTH_SOCK": agent}, keys["ed25519"]
    listed = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
    wanted = open_signer(path).public_key
    assert open_signer(f"ssh-agent:{listed.split()[1]}", environ).public_key == wanted
    assert open_signer(f"ssh-agent:{path}.pub", environ).public_key == wanted


def test_a_key_that_the_agent_lacks_is_named_with_those_it_has(agent: str, tmp_path: Path) -> None:
    for which in ("nobody@example.com", "", f"{tmp_path}/none.pub"):
        with pytest.raises(Invalid, match="key-not-in-agent") as caught:
            open_signer(f"ssh-agent:{which}", {"SSH_AUTH_SOCK": agent})
        assert "ed25519@example.com" in caught.value.got


def test_the_only_key_of_an_agent_needs_no_name(keys: dict[str, Path], tmp_path: Path) -> None:
    with ssh_agent(keys["ed25519"]) as path:
        signer = open_signer("ssh-agent:", {"SSH_AUTH_SOCK": path})
        holds(tmp_path, signer)
        subprocess.run(
            ["ssh-add", "-qD"], env={**os.environ, "SSH_AUTH_SOCK": path}, check=True, capture_output=True
        )
        with pytest.raises(Refused, match="ssh-agent-refused"):
            signer.sign_raw(DATA)
    with pytest.raises(Unavailable, match="ssh-agent-unreachable"):
        signer.sign_raw(DATA)


@pytest.mark.parametrize("environ", [{}, {"SSH_AUTH_SOCK": "/nonexistent/agent"}])
def test_no_agent_is_said(environ: dict[str, str]) -> None:
    with pytest.raises(Unavailable, match="ssh-agent-unreachable"):
        open_signer("ssh-agent:me", environ)


@pytest.mark.parametrize("form", ["", "PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_encrypted_files_open_with_their_passphrase(kind: str, form: str, tmp_path: Path) -> None:
    path = make(tmp_path, "key", kind, passphrase="a long secret", form=form)
    holds(tmp_path, open_signer(f"file:{path}", {"LOCKGATE_KEY_PASSPHRASE": "a long secret"}))
    for environ in ({}, {"LOCKGATE_KEY_PASSPHRASE": "another"}):
        with pytest.raises(Invalid, match="key-locked") as caught:
            open_signer(path, environ)
        assert "another" not in str(caught.value)


def test_encrypted_pkcs8_of_ed25519_opens(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(b"secret")
    text = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    path = tmp_path / "key.pem"
    path.write_bytes(text)
    path.chmod(0o600)
    holds(tmp_path, open_signer(path, {"LOCKGATE_KEY_PASSPHRASE": "secret"}))
    with pytest.raises(Invalid, match="key-locked"):
        open_signer(path, {})


def test_a_person_at_a_terminal_is_asked(tmp_path: Path) -> None:
    path = make(tmp_path, "key", passphrase="typed secret")
    code = (
        "import sys; from controller.adapters.signers import open_signer; "
        "print(open_signer(sys.argv[1], {}).public_key)"
    )
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=child,
        start_new_session=True,
    )
    os.close(child)
    said = b""
    while b"Passphrase" not in said:
        said += os.read(parent, 1000)
    os.write(parent, b"typed secret\n")
    out, _ = process.communicate(timeout=30)
    os.close(parent)
    public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
    assert out.decode().strip() == public
    assert b"typed secret" not in said


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_open_to_others_is_refused_with_its_cure(keys: dict[str, Path], mode: int, tmp_path: Path) -> None:
    path = make(tmp_path, "open")
    path.chmod(mode)
    with pytest.raises(Refused, match="key-permissions") as caught:
        open_signer(f"file:{path}")
    assert f"chmod 600 {path}" in caught.value.cure


@pytest.mark.parametrize("joined", ["\n", "\\n"])
def test_the_environment_holds_a_key(keys: dict[str, Path], joined: str, tmp_path: Path) -> None:
    environ = {"DEPLOY_KEY": joined.join(keys["ed25519"].read_text().splitlines())}
    holds(tmp_path, open_signer("env:DEPLOY_KEY", environ))


def test_no_key_is_ever_shown(keys: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = keys["ed25519"].read_text()
    secret = "".join(text.splitlines()[1:-1])
    broken = text.replace(secret[80:90], "AAAAAAAAAA")
    said = repr(open_signer("env:KEY", {"KEY": text}))
    for environ in ({"KEY": broken}, {"KEY": text[:150]}, {"KEY": secret}, {}):
        with pytest.raises(LockgateError) as caught:
            open_signer("env:KEY", environ)
        said += str(caught.value)
    public = open_signer("env:KEY", {"KEY": text}).public_key
    pieces = {secret[at : at + 20] for at in range(len(secret) - 20)}
    pieces = {piece for piece in pieces if piece not in public}
    with pytest.raises(Invalid, match="key-unreadable") as named:
        open_signer(text)
    said += str(named.value)
    assert not [piece for piece in pieces if piece in said + caplog.text]


@pytest.mark.parametrize(
    "kind", [["-algorithm", "RSA"], ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]]
)
def test_a_token_signs_through_the_agent(kind: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PKCS#11, here SoftHSM: ssh-agent holds the token's keys by its module, and its PIN."""
    tokens, pem = tmp_path / "tokens", tmp_path / "key.pem"
    tokens.mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    (tmp_path / "pin").write_text("#!/bin/sh\necho 1234\n")
    (tmp_path / "pin").chmod(0o700)
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    token = ["--token", "lockgate", "--pin", "1234"]
    for command in (
        ["softhsm2-util", "--init-token", "--free", "--label", "lockgate", "--pin", "1234", "--so-pin", "5678"],
        ["openssl", "genpkey", *kind, "-out", str(pem)],
        ["softhsm2-util", "--import", str(pem), "--label", "signer", "--id", "a1", *token],
    ):
        subprocess.run(command, check=True, capture_output=True)
    with ssh_agent() as path:
        asks = {"SSH_AUTH_SOCK": path, "SSH_ASKPASS": str(tmp_path / "pin"), "SSH_ASKPASS_REQUIRE": "force"}
        module = next(str(found) for found in Path("/usr/lib").rglob("libsofthsm2.so"))
        subprocess.run(["ssh-add", "-s", module], env=os.environ | asks, check=True, capture_output=True)
        holds(tmp_path, open_signer("ssh-agent:", {"SSH_AUTH_SOCK": path}))


def test_a_security_key_signs_commits_and_trust_and_no_envelopes(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
        hardware = HardwareAgent(f"{folder}/agent", "olivia@token")
        try:
            signer = open_signer("ssh-agent:olivia@token", {"SSH_AUTH_SOCK": f"{folder}/agent"})
            assert signer.public_key == hardware.public
            for namespace in ("git", "lockgate-trust"):
                armored = signer.sign_ssh(DATA, namespace)
                assert sshsig.verify(armored, DATA, namespace) == hardware.public
                assert stock_accepts(tmp_path, signer, armored, namespace)
            with pytest.raises(Invalid, match="key-not-for-envelopes"):
                dsse.sign(DATA, dsse.STATEMENT_PAYLOAD, signer)
        finally:
            hardware.close()


@pytest.mark.parametrize("address", ["vault:key", "pkcs12:token=x"])
def test_an_unknown_scheme_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="signer-scheme-unknown"):
        open_signer(address)
