"""A whole project in a real bare repository: people with keys, genesis, main, requests and evidence."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git import sshsig
from controller.adapters.git.keys import KeySigner
from controller.adapters.git.repo import GitRepo
from controller.ledger.append import EVIDENCE_REF, Ledger, genesis_drafts, prepare, write
from controller.ledger.canonical import digest
from controller.ledger.log import origin_of
from controller.model.entry import Draft, Pin
from controller.model.history import NewCommit
from controller.model.trustroot import TrustRoot
from controller.uses.findings import VerifyReport
from controller.uses.verify import verify
from tests.support.evidence import START, Story
from tests.support.shop import PEOPLE, trust_document

MAIN, REQUESTS = "refs/heads/main", "refs/heads/lockgate/requests"
PATHS = [
    {"match": "trust/**", "write": "owners", "approvals": {"owners": 2}},
    {"match": "**/*.lock.yaml", "write": "controller"},
    {"match": "{releases,promotions,environments,agents,components,strategies}/**", "write": "developers"},
]


def ssh_verify(armored: str, data: bytes, namespace: str) -> str:
    return sshsig.verify(armored.encode(), data, namespace)


class Home:
    """`write` appends drafts as the controller does; `commit` appends to any branch as anybody does."""

    def __init__(
        self, folder: Path, step: timedelta = timedelta(seconds=1), agents: Sequence[str] = (), **trust: object
    ) -> None:
        self.origin = folder / "origin.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.origin)], check=True)
        self.repo = GitRepo(str(self.origin), folder / "state")
        self.people = {name: KeySigner(ed25519.Ed25519PrivateKey.generate()) for name in (*PEOPLE, "mallory")}
        keys = {name: signer.public_key for name, signer in self.people.items()}
        document = yaml.safe_dump(trust_document(keys=keys, paths=PATHS, **trust), sort_keys=False).encode()
        files: dict[str, bytes | None] = {"trust/trust.yaml": document, "lockgate.yaml": b"kind: Project\n"}
        self.at = START - timedelta(days=1)
        self.tips: dict[str, str | None] = {}
        genesis = self.commit(MAIN, files, "olga", "Genesis")
        self.root = TrustRoot(project="shop", genesis=genesis)
        self.origin_line = origin_of("shop", genesis)
        self.story = Story(genesis, START, step)
        self.ledger = Ledger()
        self.batch(genesis_drafts("shop", genesis, {"main": MAIN}, START))
        for name in agents:
            self.add_agent(name)

    @property
    def controller(self) -> KeySigner:
        return self.people["controller"]

    def commit(
        self,
        ref: str,
        files: Mapping[str, bytes | None],
        by: str,
        message: str = "Change",
        at: datetime | None = None,
    ) -> str:
        """One commit on top of a branch, signed by a person."""
        self.at += timedelta(seconds=1)
        expected = self.tips.get(ref)
        new = NewCommit(files, message, at or self.at)
        self.tips[ref] = self.repo.append(ref, expected, [new], self.people[by])[-1]
        return self.tips[ref] or ""

    def batch(self, drafts: Sequence[Draft]) -> Ledger:
        """One pass's push of evidence."""
        prepared = prepare(self.ledger, drafts, self.controller, self.origin_line)
        self.ledger = write(self.repo, prepared, self.ledger.commit, self.controller)
        self.tips[EVIDENCE_REF] = self.ledger.commit
        return self.ledger

    def add_agent(self, name: str) -> None:
        signer = KeySigner(ed25519.Ed25519PrivateKey.generate())
        data = (
            f"apiVersion: lockgate.dev/v1\nkind: Agent\nmetadata: {{name: {name}}}\n"
            f"spec: {{environment: dev, publicKey: '{signer.public_key}'}}\n"
        ).encode()
        tip = self.commit(MAIN, {f"agents/{name}.yaml": data}, "dave", "Add an agent")
        file = self.repo.file(tip, f"agents/{name}.yaml")
        assert file is not None
        self.story.agents[name] = (Pin(path=f"agents/{name}.yaml", blob=file.blob, sha256=digest(data)), signer)
        self.batch([self.story.accepted(tip)])

    def document(self, path: str, data: bytes) -> None:
        """A document that every later run pins, and renders its artifacts from."""
        tip = self.commit(MAIN, {path: data}, "dave", f"Add {path}")
        file = self.repo.file(tip, path)
        assert file is not None
        self.story.documents[path] = (Pin(path=path, blob=file.blob, sha256=digest(data)), data)
        self.batch([self.story.accepted(tip)])

    def release(self, name: str) -> None:
        """A release lands, is locked in evidence, and the lock is committed to main and accepted."""
        data = f"apiVersion: lockgate.dev/v1\nkind: Release\nmetadata: {{name: {name}}}\n".encode()
        tip = self.commit(MAIN, {f"releases/{name}.yaml": data}, "dave", f"Release {name}")
        self.batch([self.story.accepted(tip), self.story.lock(name)])
        path = f"releases/{name}.lock.yaml"
        tip = self.commit(MAIN, {path: self.story.content[name]}, "controller", f"Lock {name}")
        self.batch([self.story.accepted(tip)])

    def verify(self, origin: Path | None = None, **more: object) -> VerifyReport:
        """Verify with a fresh reader, as an auditor would."""
        repo = GitRepo.read_only(origin or self.origin)
        try:
            return verify(repo, self.root, verify_ssh=ssh_verify, **more)  # type: ignore[arg-type]
        finally:
            repo.close()

    def git(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.origin), *arguments], capture_output=True, text=True, check=check
        )
        return done.stdout
