"""Agents with short-lived keys: certificates by ssh-keygen, read by us, taken by the hub, proven by verify."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.adapters.hub.mailbox import Mailbox
from controller.adapters.signers import CertifiedSigner
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger import dsse
from controller.ledger.canonical import canonical
from controller.ledger.cosign import attach, cosign, witnesses
from controller.ledger.log import origin_of
from controller.model.keys import key_id
from controller.model.link import link_name
from controller.model.order import POLL_TYPE, AgentKey, Cosignature, Poll, Sample, statement_of
from controller.model.sshcert import certified_key, read_certificate
from controller.model.trust import TimedKey
from controller.model.trustroot import TrustRoot
from controller.reconcile.logbook import LogBook
from controller.uses.rules.statement_checks import statement_problem
from tests.support.flow import HEAD, Flow, environment, flow
from tests.support.logs import MemoryLog
from tests.support.stock import checkout, in_toto_verify, pem, sealed_folders
from tests.support.waiting import until

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)


def authority(folder: Path, kind: str = "ed25519", name: str = "ca") -> str:
    """Make a certificate authority's key; its public key."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(folder / name)], check=True)
    return " ".join((folder / f"{name}.pub").read_text().split()[:2])


def certify(
    folder: Path, key: Path, *names: str, ca: str = "ca", span: str = "", options: tuple[str, ...] = ()
) -> str:
    """Stock ssh-keygen certifies a key; the certificate's line."""
    shape = "%Y%m%d%H%M%SZ"
    span = span or f"{NOW - HOUR:{shape}}:{NOW + HOUR:{shape}}"
    principals = ["-n", ",".join(names)] if names else []
    command = ["ssh-keygen", "-q", "-s", str(folder / ca), "-I", "id", *principals, "-V", span, *options]
    subprocess.run([*command, f"{key}.pub"], check=True, env={**os.environ, "TZ": "UTC"})
    return " ".join(Path(f"{key}-cert.pub").read_text().split()[:2])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_reads_what_ssh_keygen_writes(kind: str, tmp_path: Path) -> None:
    ca, key = authority(tmp_path, kind), generate_key(tmp_path / "key").public_key
    line = certify(tmp_path, tmp_path / "key", "web-1", "web-2")
    found = read_certificate(line)
    assert (found.key, found.authority, found.identity) == (key, ca, "id")
    assert (found.principals, found.after, found.before) == (("web-1", "web-2"), NOW - HOUR, NOW + HOUR)
    shown = subprocess.run(
        ["ssh-keygen", "-L", "-f", str(tmp_path / "key-cert.pub")],
        capture_output=True, text=True, check=True, env={**os.environ, "TZ": "UTC"},
    ).stdout  # fmt: skip
    for said in ("web-1", "web-2", f"{found.after:%Y-%m-%dT%H:%M:%S}", f"{found.before:%Y-%m-%dT%H:%M:%S}"):
        assert said in shown
    assert certified_key(line, ca, "web-1", NOW) == key


def test_stock_ssh_keygen_agrees_on_who_signs_when(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    generate_key(tmp_path / "key")
    line = certify(tmp_path, tmp_path / "key", "web-1")
    (tmp_path / "data").write_text("data")
    sign = ["ssh-keygen", "-q", "-Y", "sign", "-n", "lockgate-agent", "-f", str(tmp_path / "key-cert.pub")]
    subprocess.run([*sign, str(tmp_path / "data")], check=True, capture_output=True)
    (tmp_path / "allowed").write_text(f'web-1 cert-authority,namespaces="lockgate-agent" {ca}\n')
    (tmp_path / "others").write_text(f'web-2 cert-authority,namespaces="lockgate-agent" {ca}\n')
    for name, allowed, at in (
        ("web-1", "allowed", NOW),
        ("web-2", "others", NOW),
        ("web-1", "allowed", NOW + 2 * HOUR),
        ("web-1", "allowed", NOW - 2 * HOUR),
    ):
        command = [
            "ssh-keygen",
            "-Y",
            "verify",
            "-f",
            allowed,
            "-I",
            name,
            "-n",
            "lockgate-agent",
            "-s",
            "data.sig",
        ]
        when = f"-Overify-time={at:%Y%m%d%H%M%SZ}"
        stock = subprocess.run([*command, when], cwd=tmp_path, input=b"data", capture_output=True).returncode == 0
        try:
            ours = bool(certified_key(line, ca, name, at))
        except Refused:
            ours = False
        assert ours == stock == (name == "web-1" and at == NOW)


def test_what_does_not_count(tmp_path: Path) -> None:
    ca, other = authority(tmp_path), authority(tmp_path, name="other")
    key = tmp_path / "key"
    generate_key(key)
    good = certify(tmp_path, key, "web-1")
    for line, by, name, at, code in (
        (good, other, "web-1", NOW, "certificate-authority"),
        (good, ca, "web-2", NOW, "certificate-principal"),
        (good, ca, "web-1", NOW + HOUR, "certificate-expired"),
        (good, ca, "web-1", NOW - 2 * HOUR, "certificate-expired"),
        (certify(tmp_path, key), ca, "web-1", NOW, "certificate-malformed"),
        (certify(tmp_path, key, "web-1", span="always:forever"), ca, "web-1", NOW, "certificate-malformed"),
        (certify(tmp_path, key, "web-1", options=("-h",)), ca, "web-1", NOW, "certificate-malformed"),
        (
            certify(tmp_path, key, "web-1", options=("-O", "force-command=x")),
            ca,
            "web-1",
            NOW,
            "certificate-malformed",
        ),
        (FileSigner(key).public_key, ca, "web-1", NOW, "certificate-malformed"),
    ):
        with pytest.raises(Refused, match=code):
            certified_key(line, by, name, at)


def test_every_cut_and_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    authority(tmp_path)
    generate_key(tmp_path / "key")
    kind, text = certify(tmp_path, tmp_path / "key", "web-1").split()
    data = base64.b64decode(text)
    for at in range(len(data)):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]):
            with pytest.raises(Refused):
                read_certificate(f"{kind} {base64.b64encode(bad).decode()}")


class Caller:
    """An agent's side of a mailbox: polls and samples under any key and certificate."""

    def __init__(self, agent: AgentKey) -> None:
        self.box = Mailbox(lambda: None, lambda _: None)
        self.box.declare({"web-1": agent})
        self.count = 0

    def sample(
        self, signer: FileSigner, certificate: str | None, at: datetime = NOW, run: str | None = "r"
    ) -> bytes:
        said = Sample(agent="web-1", environment="dev", run=run, sequence=1, at=at, certificate=certificate)
        return dsse.sign(canonical(statement_of(said)), dsse.STATEMENT_PAYLOAD, signer)

    def poll(self, signer: FileSigner, certificate: str | None, *statements: bytes, at: datetime = NOW) -> int:
        """How many statements one accepted poll brought."""
        self.count += 1
        said = Poll(
            agent="web-1", environment="dev", nonce=f"nonce-{self.count:012}", at=at, wait_seconds=0,
            trust_version=1, statements=[json.loads(data) for data in statements], certificate=certificate,
        )  # fmt: skip
        before = len(self.box.inbox())
        self.box.accept(dsse.sign(canonical(said.plain()), POLL_TYPE, signer), at, 0.0)
        return len(self.box.inbox()) - before

    def code(self, signer: FileSigner, certificate: str | None, at: datetime = NOW) -> str:
        with pytest.raises(LockgateError) as caught:
            self.poll(signer, certificate, at=at)
        return caught.value.code


def test_the_hub_takes_certified_keys_and_no_others(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    agent = Caller(AgentKey("dev", ca, authority=True))
    key, stranger = generate_key(tmp_path / "key"), generate_key(tmp_path / "stranger")
    good = certify(tmp_path, tmp_path / "key", "web-1")
    assert agent.poll(key, good, agent.sample(key, good)) == 1
    assert agent.code(key, None) == "envelope-signature"
    assert agent.code(stranger, good) == "envelope-signature"  # the key swapped under a good certificate
    assert agent.code(stranger, None) == "envelope-signature"
    assert (
        agent.code(FileSigner(tmp_path / "ca"), None) == "envelope-signature"
    )  # the authority itself says nothing
    assert agent.code(key, good, NOW + HOUR) == "certificate-expired"
    assert agent.code(key, certify(tmp_path, tmp_path / "key", "web-2")) == "certificate-principal"
    assert (
        agent.poll(
            key,
            good,
            agent.sample(stranger, good),
            agent.sample(key, None),
            agent.sample(key, good, NOW - 2 * HOUR),
        )
        == 0
    )


def test_the_hub_takes_a_key_on_its_way_out_for_its_time(tmp_path: Path) -> None:
    new, old = generate_key(tmp_path / "new"), generate_key(tmp_path / "old")
    former = TimedKey(public_key=old.public_key, valid_before=NOW + HOUR)
    agent = Caller(AgentKey("dev", new.public_key, previous=(former,)))
    assert agent.poll(new, None, agent.sample(old, None)) == 1
    assert agent.poll(old, None) == 0
    assert agent.code(old, None, NOW + HOUR) == "envelope-signature"


def test_an_expired_key_cannot_date_a_statement_into_a_later_run(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    key = generate_key(tmp_path / "key")
    certificate = certify(tmp_path, tmp_path / "key", "web-1")
    pinned = {"web-1": AgentKey("dev", ca, authority=True)}.get
    caller = Caller(AgentKey("dev", ca, authority=True))
    line = caller.sample(key, certificate)

    def problem(since: datetime, at: datetime) -> str | None:
        return statement_problem(line, pinned, lambda _: None, "r", since, at)

    assert problem(NOW - timedelta(minutes=1), NOW + timedelta(minutes=1)) is None
    # The run began after the key's time: what the stolen key says of its own time does not fit the run.
    late = problem(NOW + 2 * HOUR, NOW + 3 * HOUR)
    assert late is not None and "outside its run" in late
    ahead = problem(NOW - 2 * HOUR, NOW - HOUR)
    assert ahead is not None and "outside its run" in ahead
    honest = caller.sample(key, certificate, NOW + 2 * HOUR)
    said = statement_problem(honest, pinned, lambda _: None, "r", NOW + 2 * HOUR, NOW + 3 * HOUR)
    assert said is not None and "certificate-expired" in said


def test_keys_and_certificates_are_renewed_in_place(tmp_path: Path) -> None:
    authority(tmp_path)
    first = generate_key(tmp_path / "key").public_key
    certify(tmp_path, tmp_path / "key", "web-1")
    signer = CertifiedSigner(tmp_path / "key", tmp_path / "key-cert.pub")
    assert signer.public_key == first
    second = generate_key(tmp_path / "next").public_key
    certify(tmp_path, tmp_path / "next", "web-1")
    (tmp_path / "next").replace(tmp_path / "key")
    assert signer.public_key == first  # the certificate is still the former key's
    (tmp_path / "next-cert.pub").replace(tmp_path / "key-cert.pub")
    assert signer.public_key == second
    with pytest.raises(Invalid, match="certificate-unreadable"):
        CertifiedSigner(tmp_path / "key", tmp_path / "none")


def certified_agent(shop: Flow, name: str, ca: str) -> None:
    """The agent's key is the one that the authority certifies, for an hour."""
    spec = {"environment": "dev", "publicKey": ca, "certAuthority": True}
    text = f"{HEAD}kind: Agent\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"
    shop.land(f"certified-{name}", {f"agents/{name}.yaml": text.encode()})


def renew(shop: Flow, folder: Path, name: str) -> None:
    """A new key and its certificate take the place of the former ones."""
    keys = shop.stage.keys
    generate_key(keys / "next")
    certify(folder, keys / "next", name)
    (keys / "next").replace(keys / name)
    (keys / "next.pub").replace(keys / f"{name}.pub")
    (keys / "next-cert.pub").replace(keys / f"{name}-cert.pub")


def test_certified_agents_bear_witness_and_sign_their_links(tmp_path: Path) -> None:
    """Each order of dev-1 needs dev-2's cosignature and the other way round; an agent with a key of its own is the
    functionary that a layout can name."""
    agents = {"dev-1": "dev", "dev-2": "dev", "dev-3": "dev"}
    witnesses = {"environments/dev.yaml": environment("dev", witnesses=2)}
    with flow(tmp_path, agents, files=witnesses) as shop:
        ca, stage = authority(tmp_path), shop.stage
        for name in ("dev-1", "dev-2"):
            certify(tmp_path, stage.keys / name, name)
            certified_agent(shop, name, ca)
        layout = tmp_path / "layout.json"
        words = ("trust", "layout", "--environment", "dev", "--out", str(layout), "--key")
        for owner in ("olivia", "oscar"):
            said = shop.asks(*words, str(stage.keys / owner))
            assert "dev-1, dev-2: keys that an authority certifies" in said
        shop.processes.start_controller(poll="1s")
        for name in agents:
            certificate = {"LOCKGATE_CERTIFICATE": f"{stage.keys / name}-cert.pub"} if name != "dev-3" else {}
            shop.processes.start_agent(name, "dev", certificate)
        shop.deploy("dev", "1.0.0")
        until("the seal is witnessed", lambda: "witnessed" in shop.kinds())
        renew(shop, tmp_path, "dev-2")
        shop.deploy("dev", "1.1.0")
        until("the next seal is witnessed", lambda: shop.kinds().count("witnessed") == 2)
        shop.verify()

        events = [entry["detail"] for entry in shop.entries() if entry["kind"] == "witnessed"]
        for detail in events:
            given = {one["agent"]: one.get("certificate") for one in detail["witnesses"]}
            assert {name for name, certificate in given.items() if certificate is not None} <= {"dev-1", "dev-2"}
            assert given.keys() & {"dev-1", "dev-2"} == {name for name, one in given.items() if one is not None}
        owners = [pem(tmp_path / f"{name}.pem", owner_key(shop, name)) for name in ("olivia", "oscar")]
        for run, folder in sealed_folders(stage.origin).items():
            place = checkout(stage.origin, folder, tmp_path / run)
            assert len(list(place.rglob("links/deploy.*.link"))) == 3
            assert in_toto_verify(place, folder, layout, owners).returncode == 0
        (own,) = place.rglob(link_name("deploy", key_id(owner_key(shop, "dev-3"))))
        own.unlink()
        assert in_toto_verify(place, folder, layout, owners).returncode != 0


def owner_key(shop: Flow, name: str) -> str:
    return " ".join((shop.stage.keys / f"{name}.pub").read_text().split()[:2])


def test_a_witness_counts_as_long_as_its_certificate(tmp_path: Path) -> None:
    ca, key = authority(tmp_path), generate_key(tmp_path / "key")
    certificate = certify(tmp_path, tmp_path / "key", "web-1")
    root = TrustRoot(project="shop", genesis="0" * 40)
    log = MemoryLog(root, generate_key(tmp_path / "controller"))
    size, agent = log.record(3).size, AgentKey("dev", ca, authority=True)

    def bears(at: datetime, now: datetime, line: str = certificate, name: str = "web-1") -> bool:
        cosigned = cosign(log.book.note(size), origin_of(root.project, root.genesis), name, key, at)
        note, certificates = attach(log.book.note(size), [cosigned]), {name: line}
        found = witnesses(note, {name: agent}, certificates, now)
        kept = LogBook(root, FileSigner(tmp_path / "controller"))
        kept.update(log.log, dict(log.files).get)
        given = Cosignature(size=size, line=cosigned, certificate=line)
        assert kept.cosigned(name, agent, given, now) is bool(found)
        assert kept.certificates() == ({name: line} if found else {})
        return bool(found)

    assert bears(NOW, NOW + timedelta(minutes=5))
    assert not bears(NOW, NOW + HOUR)  # expired by the time that it is to count
    assert not bears(NOW - 2 * HOUR, NOW)  # dated to before it was certified
    assert not bears(NOW, NOW, name="web-2")
    other = generate_key(tmp_path / "other")
    assert other.public_key not in certificate
    assert not bears(NOW, NOW, line=certify(tmp_path, tmp_path / "other", "web-1"))  # of another key
    authority(tmp_path, name="stranger")
    assert not bears(NOW, NOW, line=certify(tmp_path, tmp_path / "key", "web-1", ca="stranger"))


def test_a_run_by_an_agent_with_certified_keys_is_proven_afterwards(tmp_path: Path) -> None:
    with flow(tmp_path, {"web-1": "dev"}) as shop:
        keys = shop.stage.keys
        ca = authority(tmp_path)
        key = keys / "web-1"
        certify(tmp_path, key, "web-1")
        certified_agent(shop, "web-1", ca)
        shop.start(environ={"LOCKGATE_CERTIFICATE": f"{key}-cert.pub"})
        shop.deploy("dev", "1.0.0")
        first = FileSigner(key).public_key
        renew(shop, tmp_path, "web-1")
        shop.deploy("dev", "1.1.0")
        shop.verify()
        lines = [
            json.loads(base64.b64decode(json.loads(line)["payload"]))["predicate"]["certificate"]
            for path in shop.git("ls-tree", "-r", "--name-only", "lockgate/evidence").splitlines()
            if "/reports/" in path
            for line in shop.git("show", f"lockgate/evidence:{path}").splitlines()
        ]
        assert {read_certificate(line).key for line in lines} == {first, FileSigner(key).public_key}
