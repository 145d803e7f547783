"""A transparency log in memory, shown to agents as the controller shows its own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from controller.adapters.git.objects import attach_signature, encode_commit, encode_person
from controller.adapters.git.sshsig import verify
from controller.agent.admission import Admission
from controller.agent.approved import Approved
from controller.agent.client import Client
from controller.agent.keyring import Keyring
from controller.agent.logbook import Logbook
from controller.core.chain import Chain, object_id, walk_states
from controller.core.declared import Declared
from controller.ledger.log import Log, leaf_hash
from controller.model.order import LogState
from controller.model.trustroot import TrustRoot
from controller.ports import Signer
from controller.reconcile.logbook import LogBook


class MemoryLog:
    """Entries are made up, and differ with `flavour`: two logs of different flavours are forks of each other."""

    def __init__(self, root: TrustRoot, signer: Signer, shared: int = 0, flavour: str = "") -> None:
        self.book = LogBook(root, signer)
        self.log = Log()
        self.files: dict[str, bytes] = {}
        for _ in range(shared):
            self.record()
        self.flavour = flavour

    flavour = ""

    def record(self, entries: int = 1) -> LogState:
        """Append entries, each a batch of its own; the log as an order names it."""
        for _ in range(entries):
            leaf = leaf_hash(hashlib.sha256(f"{self.flavour}{self.log.size}".encode()).digest())
            self.log, changed = self.log.append([leaf])
            for path, content in changed.items():
                if content is None:
                    del self.files[path]
                else:
                    self.files[path] = content
        self.book.update(self.log, dict(self.files).get)
        return self.state

    @property
    def state(self) -> LogState:
        return LogState(size=self.log.size, root="sha256:" + self.log.root.hex())


def client_of(
    root: TrustRoot,
    directory: Path,
    signer: Signer,
    *,
    agent: str,
    environment: str,
    url: str,
    now: Callable[[], datetime],
    witnesses: int = 0,
    keyring: Keyring | None = None,
) -> Client:
    """An agent's client with the parts that the agent itself gives it; the log it saw is kept in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    keyring = keyring or Keyring(lambda data: walk_states(root, Chain.loads(data).links, verify), now)
    logbook = Logbook(directory, root, agent, signer, keyring.keys, now)
    return Client(
        agent=agent,
        environment=environment,
        url=url,
        signer=signer,
        keyring=keyring,
        logbook=logbook,
        admission=Admission(
            logbook, witnesses, keyring.declared, Approved(directory, root, keyring, now, lambda _order: False)
        ),
        now=now,
    )


def declared_of(signer: Signer, agents: dict[str, str], environment: str = "prod") -> Declared:
    """A commit of main made by hand, signed by a person, with a document for each agent (name → key)."""
    documents = {
        f"{name}.yaml": (
            f"apiVersion: lockgate.dev/v1\nkind: Agent\nmetadata: {{name: {name}}}\n"
            f"spec: {{environment: {environment}, publicKey: '{key}'}}\n"
        ).encode()
        for name, key in sorted(agents.items())
    }
    folder = b"".join(
        b"100644 %b\0" % name.encode() + bytes.fromhex(object_id("blob", data)) for name, data in documents.items()
    )
    top = b"40000 agents\0" + bytes.fromhex(object_id("tree", folder))
    who = encode_person("Olga", "olga@example.com", datetime(2026, 1, 1, tzinfo=UTC))
    payload = encode_commit(object_id("tree", top), (), who, who, "Agents\n")
    commit = attach_signature(payload, signer.sign_ssh(payload, "git"))
    return Declared(commit=commit, trees=[top, folder], documents=documents)
