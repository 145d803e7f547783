"""A whole project in a real bare repository: people with keys, genesis, main, requests and evidence."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git import sshsig
from controller.adapters.git.keys import KeySigner
from controller.adapters.git.repo import GitRepo
from controller.core.accept import Terms, judge_main, resume_state
from controller.core.parse import parse
from controller.core.requests import write_request
from controller.ledger.append import EVIDENCE_REF, Ledger, genesis_draft, prepare, write
from controller.ledger.canonical import digest
from controller.ledger.links import sign_link
from controller.ledger.log import origin_of
from controller.model.documents import Release
from controller.model.entry import Actor, Approval, Draft, Pin, SlotChange
from controller.model.history import NewCommit
from controller.model.keys import key_id
from controller.model.link import LinkSignature, approve_link
from controller.model.lock import release_digest
from controller.model.request import Request
from controller.model.trustroot import TrustRoot
from controller.uses.audit.findings import VerifyReport
from controller.uses.audit.verify import verify
from controller.uses.slots import slots_of
from tests.support.evidence import START, Story
from tests.support.shop import PEOPLE, trust_document

MAIN, REQUESTS = "refs/heads/main", "refs/heads/lockgate/requests"
PATHS = [
    {"match": "trust/**", "write": "owners", "approvals": {"owners": 2}},
    {"match": "**/*.lock.yaml", "write": "controller"},
    {"match": "{releases,promotions,environments,agents,components,strategies}/**", "write": "developers"},
]
HEAD = "apiVersion: lockgate.dev/v1\n"
STRATEGY = "kind: Strategy\nmetadata: {name: once}\nspec: {stages: [{percent: 100}]}\n"
DOCUMENTS = {
    "environments/dev.yaml": "kind: Environment\nmetadata: {name: dev}\nspec: {strategy: once, gates: none}\n",
    "environments/staging.yaml": (
        "kind: Environment\nmetadata: {name: staging}\nspec: {order: 20, strategy: once, gates: none}\n"
    ),
    "strategies/once.yaml": STRATEGY,
} | {
    f"components/{name}.yaml": (
        f"kind: Component\nmetadata: {{name: {name}}}\nspec: {{repository: registry.example.com/{name}}}\n"
    )
    for name in ("api", "web", "worker")
}
"""What runs pin besides agents: two environments without gates of their own, one stage, three components."""


def ssh_verify(armored: str, data: bytes, namespace: str) -> str:
    return sshsig.verify(armored.encode(), data, namespace)


ACTIONS = [
    {
        "environments": ["dev", "staging"],
        "allow": {"developers": ["pause", "resume", "abort", "rollback"], "reviewers": ["approve", "reject"]},
    },
    {"environments": ["*"], "allow": {"owners": ["acknowledge", "override", "replay"]}},
]


def private_key(name: str) -> ed25519.Ed25519PrivateKey:
    """The key that goes with a name: the same in every process."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def named_key(name: str) -> KeySigner:
    """The signer that goes with a name."""
    return KeySigner(private_key(name))


class OfPeople:
    """Backs nothing: what is judged was committed by people."""

    def lock(self, path: str, sha256: str) -> bool:
        return False

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        return False


PROJECT = b"apiVersion: lockgate.dev/v1\nkind: Project\nmetadata: {name: shop}\nspec: {}\n"


class Home:
    """`write` appends drafts as the controller does; `commit` appends to any branch as anybody does."""

    def __init__(
        self,
        folder: Path,
        step: timedelta = timedelta(seconds=1),
        agents: Sequence[str] = ("a", "b"),
        **trust: object,
    ) -> None:
        self.origin = folder / "origin.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.origin)], check=True)
        self.repo = GitRepo(str(self.origin), folder / "state")
        self.people = {name: named_key(name) for name in (*PEOPLE, "mallory")}
        self.passes: list[tuple[Ledger, list[Draft]]] = []
        """What was pushed at once, each with the ledger that it was pushed on."""
        keys = {name: signer.public_key for name, signer in self.people.items()}
        self.trust: dict[str, object] = {"keys": keys, "paths": PATHS, "actions": ACTIONS, **trust}
        document = yaml.safe_dump(trust_document(**self.trust), sort_keys=False).encode()  # type: ignore[arg-type]
        files: dict[str, bytes | None] = {"trust/trust.yaml": document, "lockgate.yaml": PROJECT}
        self.at = START - timedelta(days=1)
        self.tips: dict[str, str | None] = {}
        self.landed = self.asked = 0
        genesis = self.commit(MAIN, files, "olga", "Genesis")
        self.root = TrustRoot(project="shop", genesis=genesis)
        self.origin_line = origin_of("shop", genesis)
        self.story = Story(genesis, START, step)
        self.ledger = Ledger()
        self.batch([genesis_draft("shop", genesis, {"main": MAIN}, START)])
        self.story.land = self.land
        self.documents({path: (HEAD + text).encode() for path, text in DOCUMENTS.items()})
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
        self.passes.append((self.ledger, list(drafts)))
        self.append(drafts)
        self.story.state = self.ledger.state
        return self.ledger

    def append(self, drafts: Sequence[Draft]) -> None:
        """Push drafts that the story went on after already."""
        prepared = prepare(self.ledger, drafts, self.controller, self.origin_line)
        self.ledger = write(self.repo, prepared, self.ledger.commit, self.controller)
        self.tips[EVIDENCE_REF] = self.ledger.commit

    def add_agent(self, name: str) -> None:
        signer = named_key(f"agent {name}")
        data = (
            f"apiVersion: lockgate.dev/v1\nkind: Agent\nmetadata: {{name: {name}}}\n"
            f"spec: {{environment: dev, publicKey: '{signer.public_key}'}}\n"
        ).encode()
        tip = self.commit(MAIN, {f"agents/{name}.yaml": data}, "dave", "Add an agent")
        file = self.repo.file(tip, f"agents/{name}.yaml")
        assert file is not None
        self.story.agents[name] = (Pin(path=f"agents/{name}.yaml", blob=file.blob, sha256=digest(data)), signer)
        self.batch([self.story.accepted(tip)])

    def documents(self, files: Mapping[str, bytes], by: str = "dave") -> str:
        """Documents that every later run pins, and renders its artifacts from."""
        tip = self.commit(MAIN, files, by, "Add documents")
        self.batch([self.story.accepted(tip)])
        self.know(tip, files)
        return tip

    def know(self, tip: str, files: Mapping[str, bytes]) -> None:
        """Let later runs pin these files of a commit of main."""
        for path, data in files.items():
            file = self.repo.file(tip, path)
            assert file is not None
            self.story.documents[path] = (Pin(path=path, blob=file.blob, sha256=digest(data)), data)

    def release(self, name: str) -> None:
        """A release lands, is locked in evidence, and the lock is committed to main and accepted."""
        path = f"releases/{name}.yaml"
        components = "".join(f"{one}: {{tag: v1}}, " for one in ("api", "web", "worker"))
        spec = f"spec: {{displayName: {name}, mode: pinned, components: {{{components[:-2]}}}}}\n"
        data = f"{HEAD}kind: Release\nmetadata: {{name: {name}}}\n{spec}".encode()
        tip = self.commit(MAIN, {path: data}, "dave", f"Release {name}")
        self.know(tip, {path: data})
        document = parse(path, data).document
        assert isinstance(document, Release)
        self.story.release_digests[name] = release_digest(document)
        self.batch([self.story.accepted(tip), self.story.lock(name)])
        path = f"releases/{name}.lock.yaml"
        tip = self.commit(MAIN, {path: self.story.content[name]}, "controller", f"Lock {name}")
        self.batch([self.story.accepted(tip)])

    def land(self, env: str, release: str, by: str = "dave") -> tuple[str, SlotChange]:
        """Somebody promotes a release, and the controller accepts it: the commit and what it changed."""
        tip = self.promote(env, release, by)
        self.batch([self.accepting(tip)])
        return tip, next(change for change in self.ledger.state.cursors.pending if change.commit == tip)

    def promote(self, env: str, release: str, by: str = "dave") -> str:
        """Somebody promotes a release: the commit on main."""
        self.landed += 1
        path = f"promotions/{env}.yaml"
        spec = f"spec: {{release: {release}, reason: monthly, ticket: T-{self.landed}}}\n"
        data = f"{HEAD}kind: Promotion\nmetadata: {{name: {env}}}\n{spec}".encode()
        return self.commit(MAIN, {path: data}, by, f"Promote {release} to {env}")

    def accepting(self, tip: str) -> Draft:
        """The entry that accepts a tip of main, with the slots that it changed."""
        before = self.story.main
        terms = Terms(self.root.project, self.root.refs.main, ssh_verify)
        judged = judge_main(self.repo, resume_state(self.repo, before), tip, OfPeople(), terms)
        slots = slots_of(self.repo, before, judged.accepted, judged.newly)
        return self.story.accepted(tip, len(judged.newly), slots)

    def ask(self, verb: str, env: str, run: str | None, by: str, **more: Any) -> tuple[str, Request]:
        """Somebody's request lands on its branch: the commit and what it asks."""
        self.asked += 1
        values = {"id": f"request-{self.asked:08}", "project": self.root.project, "verb": verb, "environment": env}
        times = {"at": self.story.at, "expires": self.story.at + timedelta(hours=1)}
        request = Request.model_validate({**values, "run": run, "reason": "why", **times, **more})
        path, data = write_request(request)
        return self.commit(REQUESTS, {path: data}, by, f"{verb} {env}"), request

    def actor(self, name: str) -> Actor:
        """A person as entries name one who signed."""
        return Actor(principal=name, key_id=key_id(self.people[name].public_key))

    def approve(self, drafts: Sequence[Draft], by: str, link: LinkSignature | None = None) -> list[Draft]:
        """A run's drafts with an approval by request after its gates, which brought its author's link."""
        subject, run = drafts[1].detail.approval_subject, drafts[0].run or ""
        link = link or sign_link(approve_link(subject), self.people[by])
        commit, request = self.ask("approve", drafts[0].environment or "", run, by, binds=subject, link=link)
        judged = self.story.judged(commit, request, self.actor(by))
        detail = Approval(
            principal=by,
            key_id=key_id(self.people[by].public_key),
            via="request",
            commit=commit,
            subject=subject,
            at=drafts[2].at,
            expires=None,
            counted=True,
            code="approved",
            message="fine",
            link=link,
        )
        observed = drafts[2].observed.model_copy(update={"requests": commit})
        changes = {"kind": "approval", "detail": detail, "files": {}, "how": {}, "result": "APPROVED"}
        given = drafts[2].model_copy(update={**changes, "observed": observed})
        judged = judged.model_copy(update={"at": drafts[2].at})
        return [*drafts[:3], judged, given, *drafts[3:]]

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
