"""A small project for tests of trust: people, roles, rules, and a genesis to build on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import yaml

from controller.core.accept import MainState, Terms, genesis_state, judge_main
from controller.core.trust import TRUST_NAMESPACE
from controller.model.trustroot import TrustRoot
from tests.support.history import SimHistory, seal, ssh_key, unseal

PEOPLE = ("olga", "otto", "rita", "ruth", "dave", "dina", "ollie", "controller")


def trust_document(version: int = 1, keys: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """Owners olga and otto (2 of 2), reviewers rita and ruth, developers dave and dina, operator ollie."""
    principals: dict[str, Any] = {
        name: {"keys": [(keys or {}).get(name) or ssh_key(name)], "emails": [f"{name}@example.com"]}
        for name in PEOPLE
    }
    body: dict[str, Any] = {
        "version": version,
        "principals": principals,
        "roles": {
            "owners": {"members": ["olga", "otto"], "threshold": 2},
            "reviewers": {"members": ["rita", "ruth"]},
            "developers": {"members": ["dave", "dina", "rita"]},
            "operators": {"members": ["ollie"]},
            "controller": {"members": ["controller"]},
        },
        "paths": [
            {"match": "trust/**", "write": "owners", "approvals": {"owners": 2}},
            {"match": "**/*.lock.yaml", "write": "controller"},
            {"match": ".gitattributes", "write": "owners", "approvals": {"owners": 1}},
            {"match": "policies/**", "write": "developers", "approvals": {"reviewers": 1}},
            {
                "match": "{promotions,environments}/prod.yaml",
                "write": "developers",
                "approvals": {"reviewers": 1},
            },
            {"match": "{releases,promotions,environments}/**", "write": "developers"},
            {"match": "README.md", "write": ["developers", "operators"]},
        ],
        "actions": [
            {"environments": ["dev", "staging"], "allow": {"developers": ["pause", "abort", "rollback"]}},
            {
                "environments": ["prod"],
                "allow": {"operators": ["pause", "abort"], "reviewers": ["approve", "reject"]},
            },
            {"environments": ["*"], "allow": {"owners": ["acknowledge", "override"]}},
        ],
    }
    body.update(spec)
    return {
        "apiVersion": "lockgate.dev/v1",
        "kind": "Trust",
        "metadata": {"name": "trust"},
        "spec": body,
    }


def trust_bytes(version: int = 1, **spec: Any) -> bytes:
    return yaml.safe_dump(trust_document(version, **spec), sort_keys=False).encode()


def signed_trust(data: bytes, version: int, *signers: str) -> dict[str, bytes | None]:
    """The files of a trust change: the document and its detached signatures."""
    files: dict[str, bytes | None] = {"trust/trust.yaml": data}
    for name in signers:
        files[f"trust/{version}/{name}.sig"] = seal(name, data, TRUST_NAMESPACE).encode()
    return files


def slot(release: str) -> bytes:
    return (
        "apiVersion: lockgate.dev/v1\nkind: Promotion\nmetadata: {name: prod}\n"
        f"spec: {{release: {release}, reason: test}}\n"
    ).encode()


class Evidence:
    """What the evidence records, as the Backing port."""

    def __init__(self) -> None:
        self.locks: set[tuple[str, str]] = set()
        self.reverts: set[tuple[str, str, str | None]] = set()

    def lock(self, path: str, sha256: str) -> bool:
        return (path, sha256) in self.locks

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        return (run, path, blob) in self.reverts


class Shop:
    """A main that is judged after every commit; `tip` is where it is, `state` what is accepted of it."""

    def __init__(self, **spec: Any) -> None:
        self.history = SimHistory()
        self.evidence = Evidence()
        self.terms = Terms("shop", "refs/heads/main", unseal)
        files = {"trust/trust.yaml": trust_bytes(**spec), "lockgate.yaml": b"kind: Project\n"}
        self.genesis = self.history.write([], files, by="olga", message="Genesis")
        self.root = TrustRoot(project="shop", genesis=self.genesis)
        self.state: MainState = genesis_state(self.history, self.root)
        self.tip = self.genesis

    def judge(self, tip: str | None = None) -> MainState:
        self.tip = tip or self.tip
        self.state = judge_main(self.history, self.state, self.tip, self.evidence, self.terms)
        return self.state

    def lone(self, by: str | None, files: Mapping[str, bytes | None], **more: Any) -> MainState:
        return self.judge(self.history.write([self.tip], files, by=by, **more))

    def branch(self, by: str | None, files: Mapping[str, bytes | None], base: str = "", **more: Any) -> str:
        return self.history.write([base or self.tip], files, by=by, **more)

    def merge(self, by: str | None, side: str, **more: Any) -> MainState:
        return self.judge(self.history.merge(self.tip, side, by=by, **more))

    def land(self, author: str | None, merger: str | None, files: Mapping[str, bytes | None]) -> MainState:
        """A branch of one commit and its merge."""
        return self.merge(merger, self.branch(author, files))

    def code(self) -> str | None:
        """The code of the last judged step."""
        return self.state.steps[-1].refused

    def accepted_file(self, path: str) -> bytes | None:
        entry = self.history.trees[self.state.accepted].get(path)
        return self.history.blobs[entry.blob] if entry else None


PROD = "promotions/prod.yaml"


def opened() -> Shop:
    """A shop with a policy, a locked release, and a promotion of it to prod."""
    shop = Shop()
    shop.land("dave", "rita", {"policies/strict.yaml": b"deny", "releases/r1.yaml": b"r1"})
    lock = b"locked r1"
    shop.evidence.locks.add(("releases/r1.lock.yaml", hashlib.sha256(lock).hexdigest()))
    shop.lone("controller", {"releases/r1.lock.yaml": lock})
    shop.land("dave", "rita", {PROD: slot("r1")})
    assert shop.state.refused == () and shop.state.accepted == shop.tip
    return shop


def refused(shop: Shop, code: str) -> None:
    """The last step was refused with this code, main stands still, and the words are all there."""
    step = shop.state.steps[-1]
    assert step.refused == code, step
    assert shop.state.accepted != shop.tip
    assert shop.state.refused[-1].commit == shop.tip
    assert step.message and step.where and step.expected and step.got and step.cure
    assert step.approvals == ()
