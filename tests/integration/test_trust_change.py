"""Trust changes as owners make them, on a real repository: rotate, sign, merge, and what counts from then on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from controller.adapters.git.people import swap, write_commit
from controller.adapters.git.sshsig import FileSigner, generate_key
from controller.cli import app as cli
from controller.core.trust import TRUST_NAMESPACE
from controller.demo.stage import Stage, release_file
from controller.errors import Stalled
from controller.settings import data_dir
from controller.wiring.controller import Controller, ControllerSettings
from controller.wiring.people import Person, commit_on, merge_branch
from tests.integration.test_cli import STAGING
from tests.support.ssh_agent import HardwareAgent, ssh_agent

AGENTS = ["dev-1", "staging-1", "prod-eu-1"]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Shop:
    """A staged project, its people's commands, and a controller that runs when it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.stage = Stage(folder)
        source = folder / "source"
        shutil.copytree(data_dir("example-repo"), source)
        (source / "environments" / "staging.yaml").write_text(STAGING)
        trust = source / "trust" / "trust.yaml.j2"
        trust.write_text(trust.read_text().replace("environments: [prod]", "environments: [prod, staging]"))
        self.stage.build(source, agents=AGENTS)
        self.stage.image("1.0.0")
        self.repo = self.stage.repo()

    def run(self, *words: str, env: dict[str, str] | None = None) -> Done:
        """A command, run in this process: starting Python for each would take most of the time."""
        out, err = io.StringIO(), io.StringIO()
        plain = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
        kept = dict(os.environ)
        try:
            os.environ.clear()
            os.environ.update(plain | (env or {}))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cli.run(["--repo", str(self.stage.origin), "-o", "json", *words])
        finally:
            os.environ.clear()
            os.environ.update(kept)
        return Done(code, out.getvalue(), err.getvalue())

    def ask(self, schema: str, *words: str, env: dict[str, str] | None = None) -> Any:
        """The answer of a command, held against its published schema."""
        done = self.run(*words, env=env)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        found = json.loads((data_dir("schemas") / "cli" / f"{schema}.schema.json").read_text())
        Draft202012Validator(found).validate(answer)
        return answer

    def fails(self, code: str, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode != 0 and f"lockgate: {code}: " in done.stderr, (done.stdout, done.stderr)
        return done.stderr

    def key(self, name: str) -> str:
        return str(self.stage.keys / name)

    def new_key(self, name: str) -> str:
        generate_key(self.stage.keys / name, name)
        return f"{self.key(name)}.pub"

    def person(self, name: str, key: str | None = None) -> Person:
        return Person(name, f"{name}@example.com", FileSigner(self.stage.keys / (key or name)))

    def controller(self, key: str = "controller") -> None:
        stage = self.stage
        settings = ControllerSettings(
            str(stage.origin), stage.trust_root, self.key(key), stage.state, images=stage.images
        )
        Controller(settings).run_once()

    def verifies(self) -> Any:
        answer = json.loads(self.run("verify", "--trust-root", str(self.stage.trust_root)).stdout)
        assert answer["findings"] == []
        return answer

    def refused(self) -> list[str]:
        """The codes by which main stands still."""
        text = self.git("show", "lockgate/evidence:state/cursors.json")
        return [one["code"] for one in json.loads(text)["refused"]]

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(self.stage.origin), *words], capture_output=True, text=True, check=True
        ).stdout

    def trust(self) -> dict[str, Any]:
        return dict(yaml.safe_load(self.git("show", "main:trust/trust.yaml")))

    def lands(self, who: Person, path: str, text: str, controller: str = "controller") -> str | None:
        """`who` commits on a branch, bob merges, the controller judges: the code of its refusal, if any."""
        branch = f"change-{time.monotonic_ns()}"
        commit_on(self.repo, branch, who, {path: text.encode()}, "Change")
        merge_branch(self.repo, branch, self.person("bob"), into="main", message=f"Merge branch '{branch}'")
        self.controller(controller)
        codes = self.refused()
        if codes:
            self.ask("merge", "restore-main", "--key", self.key("carol"))
            self.controller(controller)
            assert self.refused() == []
        return codes[0] if codes else None


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.controller()
    yield made
    made.repo.close()


def stock_verifies(shop: Shop, folder: Path, principal: str, path: str, branch: str) -> bool:
    """Whether stock ssh-keygen holds a signature file of a branch for this owner's, over the branch's document."""
    root = str(shop.stage.trust_root)
    signers = shop.run("trust", "allowed-signers", "--role", "owners", "--trust-root", root)
    lines = [f"{one['principal']} {one['options']} {one['key']}\n" for one in json.loads(signers.stdout)]
    (folder / "allowed").write_text("".join(lines))
    (folder / "sig").write_text(shop.git("show", f"{branch}:{path}"))
    document = shop.git("show", f"{branch}:trust/trust.yaml")
    command = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", principal, "-n", TRUST_NAMESPACE, "-s", "sig"]
    return subprocess.run(command, cwd=folder, input=document, text=True, capture_output=True).returncode == 0


def test_two_owners_rotate_a_key(shop: Shop, tmp_path: Path) -> None:
    comment = "# the first rule that matches decides; nothing matches: denied"
    made = shop.ask(
        "trust-rotate", "trust", "rotate", "alice", "--new-key", shop.new_key("alice2"), "--overlap", "1s",
        "--key", shop.key("olivia"),
    )  # fmt: skip
    assert (made["branch"], made["version"], made["file"]) == ("trust-2", 2, "trust/trust.yaml")
    changed = shop.git("diff", "--unified=0", "main", "trust-2")
    assert len([line for line in changed.splitlines() if line[:1] == "+" and line[:3] != "+++"]) == 2
    assert comment in shop.git("show", "trust-2:trust/trust.yaml")

    before = shop.ask("trust-show", "trust", "show")
    assert (before["version"], before["inForce"], before["pending"]["version"]) == (1, 1, 2)
    assert [quorum["signed"] for quorum in before["pending"]["quorums"]] == [[], []]
    shop.fails("not-an-owner", "trust", "sign", "--key", shop.key("alice"))
    first = shop.ask("trust-sign", "trust", "sign", "--key", shop.key("olivia"))
    assert not first["pending"]["complete"] and "1 more of oscar (owners of version 1)" in first["next"]
    with ssh_agent(Path(shop.key("oscar"))) as socket:
        second = shop.ask(
            "trust-sign",
            "trust",
            "sign",
            "--key",
            f"ssh-agent:{shop.key('oscar')}.pub",
            env={"SSH_AUTH_SOCK": socket},
        )
    assert second["pending"]["complete"] and second["path"] == "trust/2/oscar.sig"
    for name in ("olivia", "oscar"):
        assert stock_verifies(shop, tmp_path, name, f"trust/2/{name}.sig", "trust-2")
        assert not stock_verifies(
            shop, tmp_path, "olivia" if name == "oscar" else "oscar", f"trust/2/{name}.sig", "trust-2"
        )

    landed = shop.ask("merge", "merge", "trust-2", "--key", shop.key("olivia"))
    assert landed["accepted"] is True
    shop.controller()
    after = shop.ask("trust-show", "trust", "show")
    assert (after["version"], after["inForce"], after["pending"]) == (2, 2, None)
    alice = next(one for one in after["principals"] if one["name"] == "alice")
    assert [key["validBefore"] is None for key in alice["keys"]] == [False, True]
    former = shop.ask("trust-show", "trust", "show", "--version", "1")
    assert (former["version"], former["inForce"]) == (1, 2)
    shop.fails("trust-missing", "trust", "show", "--version", "3")

    end = datetime.fromisoformat(made["oldKeysUntil"])
    assert shop.lands(shop.person("alice", "alice2"), "README.md", "by the new key\n") is None
    while datetime.now(UTC) <= end:
        time.sleep(0.05)  # the overlap itself: one second, mostly over by now
    assert shop.lands(shop.person("alice"), "README.md", "by the old key\n") == "key-expired"
    shop.verifies()

    # Whoever still holds the old key dates the commit back into its time: what counts is when it was seen.
    back = end - timedelta(seconds=1)
    tip = write_commit(
        shop.repo, (shop.repo.observe().main or "",), {"README.md": b"dated back\n"}, message="Earlier",
        author=("alice", "alice@example.com"), when=back, signer=shop.person("alice").signer,
    )  # fmt: skip
    swap(shop.repo, "main", shop.repo.known("main"), tip)
    shop.controller()
    assert shop.refused() == ["key-expired"]
    shop.ask("merge", "restore-main", "--key", shop.key("carol"))
    shop.controller()
    assert shop.refused() == [] and shop.verifies()["refused"] == 2
    signers = shop.run(
        "trust", "allowed-signers", "--role", "developers", "--trust-root", str(shop.stage.trust_root)
    )
    assert f'valid-before="{end:%Y%m%d%H%M%SZ}"' in str(json.loads(signers.stdout))


def test_an_older_or_leaping_version_is_not_signed(shop: Shop) -> None:
    text = shop.git("show", "main:trust/trust.yaml")
    for number in (3, 1):
        changed = text.replace("version: 1", f"version: {number}") + "\n# changed\n"
        commit_on(shop.repo, "leap", shop.person("olivia"), {"trust/trust.yaml": changed.encode()}, "Change")
        shop.fails("trust-rollback", "trust", "sign", "--branch", "leap", "--key", shop.key("olivia"))
    shop.fails("trust-not-pending", "trust", "sign", "--key", shop.key("olivia"))


def test_a_version_without_its_quorum_is_refused_on_main(shop: Shop) -> None:
    made = shop.ask(
        "trust-rotate",
        "trust",
        "rotate",
        "alice",
        "--new-key",
        shop.new_key("alice2"),
        "--key",
        shop.key("olivia"),
    )
    shop.ask("trust-sign", "trust", "sign", "--key", shop.key("olivia"))
    landed = shop.ask("merge", "merge", made["branch"], "--key", shop.key("oscar"))
    assert (landed["accepted"], landed["code"]) == (False, "trust-quorum")
    shop.controller()
    assert shop.refused() == ["trust-quorum"]
    assert shop.ask("trust-show", "trust", "show")["inForce"] == 1


def test_an_owner_signs_elsewhere_with_stock_ssh_keygen(shop: Shop, tmp_path: Path) -> None:
    made = shop.ask(
        "trust-rotate", "trust", "rotate", "olga", "--new-key", shop.new_key("olga2"), "--key", shop.key("olivia")
    )
    (tmp_path / "trust.yaml").write_text(shop.git("show", f"{made['branch']}:trust/trust.yaml"))
    sign = ["ssh-keygen", "-q", "-Y", "sign", "-n", TRUST_NAMESPACE, "-f", shop.key("oscar"), "trust.yaml"]
    subprocess.run(sign, cwd=tmp_path, check=True, capture_output=True)
    signature = str(tmp_path / "trust.yaml.sig")
    added = shop.ask("trust-sign", "trust", "sign", "--signature", signature, "--key", shop.key("olivia"))
    assert (added["principal"], added["path"]) == ("oscar", "trust/2/oscar.sig")
    (tmp_path / "trust.yaml.sig").write_text("no signature\n")
    shop.fails("signature-invalid", "trust", "sign", "--signature", signature, "--key", shop.key("olivia"))


def test_one_key_for_two_is_refused(shop: Shop) -> None:
    for new, who in (("bob", "alice"), ("dev-1", "alice"), ("bob", "dev-1"), ("staging-1", "dev-1")):
        public = f"{shop.key(new)}.pub"
        shop.fails("key-reused", "trust", "rotate", who, "--new-key", public, "--key", shop.key("olivia"))
    shop.fails(
        "principal-unknown",
        "trust",
        "rotate",
        "nobody",
        "--new-key",
        shop.new_key("n"),
        "--key",
        shop.key("olivia"),
    )


def test_a_compromised_key_counts_for_nothing_any_more(shop: Shop) -> None:
    files = {"releases/shop-1.0.0.yaml": release_file("shop-1.0.0", "1.0.0")}
    commit_on(shop.repo, "release", shop.person("alice"), files, "Release")
    merge_branch(shop.repo, "release", shop.person("bob"), into="main", message="Merge branch 'release'")
    shop.controller()
    reason = ["--reason", "because", "--key"]
    made = shop.ask("promote", "promote", "staging", "shop-1.0.0", *reason, shop.key("alice"))
    assert shop.ask("merge", "merge", made["branch"], "--key", shop.key("bob"))["approves"] == ["bob"]
    shop.controller()
    waiting = {row["environment"]: row for row in shop.ask("status", "status")}["staging"]
    assert waiting["phase"] == "awaiting_approval" and "carol" in waiting["waitingFor"][0]

    made = shop.ask(
        "trust-rotate", "trust", "rotate", "bob", "--new-key", shop.new_key("bob2"), "--compromised",
        "--key", shop.key("oscar"),
    )  # fmt: skip
    assert made["oldKeysUntil"] is None
    for owner in ("olivia", "oscar"):
        shop.ask("trust-sign", "trust", "sign", "--key", shop.key(owner))
    assert shop.ask("merge", "merge", made["branch"], "--key", shop.key("oscar"))["accepted"] is True
    shop.controller()

    shop.fails("key-not-principal", "abort", "staging", *reason, shop.key("bob"))
    shop.ask("request", "approve", "staging", *reason, shop.key("carol"))
    shop.controller()
    waiting = {row["environment"]: row for row in shop.ask("status", "status")}["staging"]
    assert waiting["phase"] == "awaiting_approval" and "bob" in waiting["waitingFor"][0], waiting
    # Whoever has the old key does without our commands.
    thief = shop.person("bob")
    old = write_commit(
        shop.repo, (shop.repo.observe().requests or "",),
        {"requests/2026/01/20260101-000000-abort-00000000.json": b"{}"},
        message="abort", author=thief.author, when=datetime.now(UTC).replace(microsecond=0), signer=thief.signer,
    )  # fmt: skip
    swap(shop.repo, shop.repo.requests, shop.repo.known(shop.repo.requests), old)
    commit_on(shop.repo, "main", thief, {"README.md": b"the thief was here\n"}, "Change")
    shop.controller()
    assert shop.refused() == ["signer-unknown"]
    judged = [
        json.loads(line)
        for line in shop.git("log", "--format=%s", "lockgate/evidence").splitlines()
        if line.startswith("{")
    ]
    assert judged == [] and "refused, signer-unknown" in shop.git("log", "--format=%s", "lockgate/evidence")
    shop.ask("merge", "restore-main", "--key", shop.key("carol"))
    shop.ask("request", "approve", "staging", *reason, shop.key("bob2"))
    shop.controller()
    ready = {row["environment"]: row for row in shop.ask("status", "status")}["staging"]
    assert ready["phase"] not in ("awaiting_approval", "gating"), ready
    shop.verifies()


def test_an_agents_key_is_rotated_by_review(shop: Shop) -> None:
    made = shop.ask(
        "trust-rotate", "trust", "rotate", "dev-1", "--new-key", shop.new_key("dev-1b"), "--key", shop.key("alice")
    )
    assert (made["branch"], made["version"], made["file"]) == ("rotate-dev-1", None, "agents/dev-1.yaml")
    assert shop.ask("merge", "merge", made["branch"], "--key", shop.key("bob"))["accepted"] is True
    spec = yaml.safe_load(shop.git("show", "main:agents/dev-1.yaml"))["spec"]
    assert spec["publicKey"] == FileSigner(shop.stage.keys / "dev-1b").public_key
    assert [one["publicKey"] for one in spec["previousKeys"]] == [FileSigner(shop.stage.keys / "dev-1").public_key]
    assert shop.ask("validate", "validate", "--ref", "main") == []


@pytest.mark.parametrize("how", [["--overlap", "1h"], ["--compromised"]])
def test_the_controllers_key_is_rotated(shop: Shop, how: list[str]) -> None:
    made = shop.ask(
        "trust-rotate", "trust", "rotate", "controller", "--new-key", shop.new_key("controller2"), *how,
        "--key", shop.key("olivia"),
    )  # fmt: skip
    for owner in ("olivia", "oscar"):
        shop.ask("trust-sign", "trust", "sign", "--key", shop.key(owner))
    assert shop.ask("merge", "merge", made["branch"], "--key", shop.key("oscar"))["accepted"] is True
    if "--compromised" in how:
        with pytest.raises(Stalled, match="signer-not-controller"):
            shop.controller()
    else:
        shop.controller()
    shop.controller("controller2")
    assert shop.lands(shop.person("alice"), "README.md", "under the new key\n", "controller2") is None
    assert shop.ask("trust-show", "trust", "show")["inForce"] == 2
    shop.verifies()


def test_a_reviewer_approves_with_a_security_key(shop: Shop, tmp_path: Path) -> None:
    """What a merge's signature is recorded by is what approvals are counted by, for hardware keys too."""
    files = {"releases/shop-1.0.0.yaml": release_file("shop-1.0.0", "1.0.0")}
    commit_on(shop.repo, "release", shop.person("alice"), files, "Release")
    merge_branch(shop.repo, "release", shop.person("bob"), into="main", message="Merge branch 'release'")
    with tempfile.TemporaryDirectory(prefix="lockgate-") as folder:
        token = HardwareAgent(f"{folder}/agent", "carol@token")
        public = tmp_path / "carol.pub"
        public.write_text(f"{token.public} carol@token\n")
        made = shop.ask(
            "trust-rotate", "trust", "rotate", "carol", "--new-key", str(public), "--key", shop.key("olivia")
        )
        for owner in ("olivia", "oscar"):
            shop.ask("trust-sign", "trust", "sign", "--key", shop.key(owner))
        assert shop.ask("merge", "merge", made["branch"], "--key", shop.key("oscar"))["accepted"] is True
        shop.controller()
        asked = shop.ask(
            "promote", "promote", "staging", "shop-1.0.0", "--reason", "because", "--key", shop.key("alice")
        )
        hardware = {"SSH_AUTH_SOCK": f"{folder}/agent"}
        landed = shop.ask("merge", "merge", asked["branch"], "--key", "ssh-agent:carol@token", env=hardware)
        assert landed["approves"] == ["carol"]
        shop.controller()
        token.close()
    waiting = {row["environment"]: row for row in shop.ask("status", "status")}["staging"]["waitingFor"]
    assert "1 more approval" in waiting[0] and "bob" in waiting[0] and "carol" not in waiting[0], waiting
    shop.verifies()
