"""Keys on PKCS#11 tokens: SoftHSM's, by their address, through the same contract as every other signer's."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from controller.adapters.signers import open_signer
from controller.demo.processes import LOCKGATE
from controller.errors import Invalid, LockgateError, Refused, Unavailable
from tests.support import softhsm
from tests.support.flow import Flow, flow
from tests.support.signers import holds
from tests.support.softhsm import PIN, address, module

KINDS = {
    "ed25519": ["ed25519"],
    "ecdsa256": ["ecdsa", "-b", "256"],
    "ecdsa384": ["ecdsa", "-b", "384"],
    "ecdsa521": ["ecdsa", "-b", "521"],
    "rsa2048": ["rsa", "-b", "2048"],
}


MADE = ("EC_EDWARDS", "EC", "RSA")
GUARDED = ("spent", "once", "unsigning", "lost")


@pytest.fixture(scope="module", autouse=True)
def tokens() -> None:
    """`fresh` is one that nobody logs in to; those of GUARDED are one test's each, with one key."""
    softhsm.make_tokens("contract", "fresh", *MADE, *GUARDED)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One key of each kind, as a file and on the token `contract`."""
    folder = tmp_path_factory.mktemp("keys")
    found = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        found[name] = folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-f", str(found[name])], check=True)
        softhsm.import_key("contract", name, found[name], f"a{number}")
    for label in GUARDED:
        softhsm.import_key(label, "key", found["ecdsa256"], "b1")
    return found


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    return softhsm.pin_file(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_s_keys_sign_everything(kind: str, keys: dict[str, Path], pin: Path, tmp_path: Path) -> None:
    signer = open_signer(address("contract", kind, pin))
    assert signer.public_key == open_signer(keys[kind]).public_key
    holds(tmp_path, signer)


@pytest.mark.parametrize("kind", MADE)
def test_keys_made_on_the_token_sign_everything(kind: str, pin: Path, tmp_path: Path) -> None:
    """By the token itself: the private half was never anywhere else."""
    import pkcs11

    token = pkcs11.lib(str(module())).get_token(token_label=kind)
    kept = {"store": True, "label": "key", "id": b"\x07\x08"}
    curves = {"EC_EDWARDS": "06032b6570", "EC": "06052b81040022"}
    with token.open(rw=True, user_pin=PIN) as session:
        if kind == "RSA":
            session.generate_keypair(pkcs11.KeyType.RSA, 3072, **kept)
        else:
            named = {pkcs11.Attribute.EC_PARAMS: bytes.fromhex(curves[kind])}
            made = session.create_domain_parameters(getattr(pkcs11.KeyType, kind), named, local=True)
            made.generate_keypair(**kept)
    holds(tmp_path, open_signer(f"pkcs11:token={kind};id=%07%08?module-path={module()}&pin-source={pin}"))


def test_the_environment_names_module_and_pin(keys: dict[str, Path], tmp_path: Path) -> None:
    known = {"LOCKGATE_PKCS11_MODULE": str(module()), "LOCKGATE_PKCS11_PIN": PIN, "OTHER": PIN}
    assert holds(tmp_path, open_signer("pkcs11:token=contract;object=ed25519", known)) is None
    by_id = "pkcs11:token=contract;manufacturer=SoftHSM%20project;id=%a0?pin-source=env:OTHER"
    wanted = open_signer(keys["ed25519"]).public_key
    assert open_signer(by_id, {"LOCKGATE_PKCS11_MODULE": str(module()), "OTHER": PIN}).public_key == wanted


def test_many_threads_share_a_token(keys: dict[str, Path], pin: Path, tmp_path: Path) -> None:
    signers = [open_signer(address("contract", kind, pin)) for kind in ("ed25519", "ecdsa256")]
    wrong: list[BaseException] = []

    def sign(signer: object, folder: Path) -> None:
        folder.mkdir()
        try:
            holds(folder, signer)  # type: ignore[arg-type]
        except BaseException as error:
            wrong.append(error)

    threads = [
        threading.Thread(target=sign, args=(signers[number % 2], tmp_path / f"{number}")) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("pkcs11:token=contract;object=ed25519", "pkcs11-address"),
        ("pkcs11:token=contract;object=ed25519?module-path=libsofthsm2.so", "pkcs11-address"),
        ("pkcs11:token=contract;colour=red?module-path=/m.so", "pkcs11-address"),
        ("pkcs11:token=contract;token=b?module-path=/m.so", "pkcs11-address"),
        ("pkcs11:token?module-path=/m.so", "pkcs11-address"),
        ("pkcs11:object=a;type=cert?module-path=/m.so", "pkcs11-address"),
        ("pkcs11:object=a?module-path=/nonexistent/m.so", "pkcs11-module"),
        ("pkcs11:object=a?module-path=/etc/hostname", "pkcs11-module"),
        ("pkcs11:token=contract;library-manufacturer=Other?module-path={module}", "pkcs11-module"),
        ("pkcs11:token=another;object=ed25519?module-path={module}", "token-missing"),
        ("pkcs11:object=ed25519;serial=00?module-path={module}", "token-missing"),
        ("pkcs11:token=contract;object=nobody?module-path={module}&pin-source={pin}", "key-not-in-token"),
        ("pkcs11:token=contract?module-path={module}&pin-source={pin}", "key-not-in-token"),
        ("pkcs11:token=fresh?module-path={module}", "pin-missing"),
        ("pkcs11:token=fresh?module-path={module}&pin-source=env:NOT_SET", "pin-missing"),
        ("pkcs11:token=fresh?module-path={module}&pin-source=file:/nonexistent/pin", "pin-missing"),
        ("pkcs11:token=fresh?module-path={module}&pin-source=%7Ccat%20/etc/passwd", "pin-missing"),
    ],
)
def test_what_is_wrong_is_named_with_its_cure(
    text: str, code: str, keys: dict[str, Path], pin: Path, tmp_path: Path
) -> None:
    with pytest.raises(Invalid, match=code) as caught:
        open_signer(text.format(module=module(), pin=pin), {})
    assert caught.value.cure
    if code == "key-not-in-token":
        assert "object=ecdsa256;id=a1" in caught.value.got
    if code == "token-missing":
        assert "token=contract" in caught.value.got


def test_an_address_may_be_longer_than_a_file_s_name(pin: Path) -> None:
    with pytest.raises(Invalid, match="token-missing"):
        open_signer(address("x" * 300, "any", pin))


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_pin_file_open_to_others_is_refused(mode: int, pin: Path) -> None:
    pin.chmod(mode)
    with pytest.raises(Refused, match="pin-permissions") as caught:
        open_signer(address("fresh", "any", pin))
    assert f"chmod 600 {pin}" in caught.value.cure


def test_an_empty_pin_file_is_said(pin: Path) -> None:
    pin.write_text("\n")
    with pytest.raises(Invalid, match="pin-missing"):
        open_signer(address("fresh", "any", pin))


def test_a_pin_in_the_address_is_refused_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Invalid, match="pkcs11-address") as caught:
        open_signer(f"pkcs11:object=a?pin-value={PIN}&module-path={module()}", {})
    assert PIN not in str(caught.value) + caplog.text


def logins(label: str, pin: str, **environ: str) -> str:
    """The code that a new process gets for a key of a token; the address holds no PIN, nor does what it says."""
    code = (
        "import sys\n"
        "from controller.adapters.signers import open_signer\n"
        "from controller.errors import LockgateError\n"
        "try: print(open_signer(sys.argv[1]).public_key)\n"
        "except LockgateError as error: print(error.code, error, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, address(label, "key")],
        env={**os.environ, "LOCKGATE_PKCS11_PIN": pin, **environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert pin not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return "" if done.stdout else done.stderr.split()[0]


def test_a_wrong_pin_is_tried_once_however_often_a_service_starts(keys: dict[str, Path]) -> None:
    guarded = "spent"
    wrong = "99999999"
    assert logins(guarded, PIN) == ""
    assert logins(guarded, wrong) == "pin-wrong"
    # SoftHSM locks nothing; a token that counts three tries would be locked by now.
    assert [logins(guarded, wrong) for _ in range(2)] == ["pin-spent"] * 2
    assert logins(guarded, PIN) == "pin-spent"
    typed_at_a_terminal(guarded)
    assert logins(guarded, PIN) == ""


def typed_at_a_terminal(label: str) -> None:
    """A person types the PIN; what the terminal shows does not hold it."""
    code = "import sys; from controller.adapters.signers import open_signer; open_signer(sys.argv[1], {})"
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, address(label, "key")], stdin=child, stderr=child, start_new_session=True
    )
    os.close(child)
    said = b""
    while b"PIN for" not in said:
        said += os.read(parent, 1000)
    os.write(parent, f"{PIN}\n".encode())
    assert process.wait(60) == 0
    os.close(parent)
    assert PIN.encode() not in said


def test_a_wrong_pin_is_tried_once_a_process(keys: dict[str, Path], tmp_path: Path) -> None:
    wrong = softhsm.pin_file(tmp_path, "11111111")
    with pytest.raises(Refused, match="pin-wrong") as caught:
        open_signer(address("once", "key", wrong))
    assert "11111111" not in f"{caught.value!r} {caught.value} {caught.value.__context__!r}"
    for _ in range(3):
        with pytest.raises(Refused, match="pin-spent"):
            open_signer(address("once", "key", wrong))


def test_a_lost_session_is_opened_again(keys: dict[str, Path], tmp_path: Path) -> None:
    """As after a token was taken out and put back: here the module is reset, in a process of its own."""
    code = (
        "import sys, pathlib, pkcs11\n"
        "from controller.adapters.signers import open_signer\n"
        "from tests.support.signers import holds\n"
        "signer = open_signer(sys.argv[1])\n"
        "holds(pathlib.Path(sys.argv[3]), signer)\n"
        "pkcs11.lib(sys.argv[2]).reinitialize()\n"
        "holds(pathlib.Path(sys.argv[3]), signer)\n"
    )
    arguments = [address("lost", "key", softhsm.pin_file(tmp_path)), str(module()), str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_key_that_may_not_sign_is_said(keys: dict[str, Path], tmp_path: Path) -> None:
    import pkcs11

    token = pkcs11.lib(str(module())).get_token(token_label="unsigning")
    with token.open(rw=True, user_pin=PIN) as session:
        key = next(iter(list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}))))
        key[pkcs11.Attribute.SIGN] = False
    with pytest.raises(Refused, match="token-refused"):
        open_signer(address("unsigning", "key", softhsm.pin_file(tmp_path)))


def test_without_the_extra_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(Unavailable, match="pkcs11-missing") as caught:
        open_signer(address("contract", "ed25519"), {})
    assert "lockgate[pkcs11]" in caught.value.cure


def test_no_pin_is_ever_shown(keys: dict[str, Path], pin: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    signer = open_signer(address("contract", "ed25519", pin))
    said = f"{signer!r} {signer.public_key}"
    with pytest.raises(LockgateError) as caught:
        open_signer(address("contract", "nobody", pin))
    assert PIN not in said + str(caught.value) + caplog.text


def test_controller_agent_and_people_sign_with_a_token(tmp_path: Path) -> None:
    """A whole run, every key of it on one token; their files are gone, stock git agrees."""
    with flow(tmp_path, {"dev-1": "dev"}) as shop:
        softhsm.make_tokens("site")
        pin = softhsm.pin_file(tmp_path)
        for number, name in enumerate(("controller", "dev-1", "alice")):
            softhsm.import_key("site", name, shop.stage.keys / name, f"c{number}")
        for name in ("controller", "dev-1"):
            (shop.stage.keys / name).unlink()
        shop.processes.start_controller(poll="1s", options=("--signing-key", address("site", "controller", pin)))
        shop.processes.start_agent("dev-1", "dev", options=("--key", address("site", "dev-1", pin)))
        shop.image("1.0.0")
        release = shop.release("1.0.0")
        shop.locked(release)
        root = ("--trust-root", str(shop.stage.trust_root))
        said = lockgate(
            shop, "promote", "dev", release, "--reason", "first", "--key", address("site", "alice", pin), *root
        )
        branch = f"promote/dev-{release}"
        said += lockgate(shop, "merge", branch, "--key", str(shop.stage.keys / "bob"), *root)
        shop.ends("dev", release, "completed")
        shop.verify()
        signers = tmp_path / "signers"
        signers.write_text(lockgate(shop, "trust", "allowed-signers", "--role", "controller", *root))
        own = shop.git("rev-list", "lockgate/evidence").split()
        shop.git("-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", *own)
        assert PIN not in said + shop.log() + shop.agent_log("dev-1") + json.dumps(shop.health())
        for process in (shop.processes.controller, *shop.processes.agents.values()):
            assert process is not None
            assert PIN.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def lockgate(shop: Flow, *arguments: str) -> str:
    command = [*LOCKGATE, "--repo", shop.address, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout
