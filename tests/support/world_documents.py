"""Documents of the worlds that scenarios play in: what people write, and what follows from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import yaml

from controller.core.parse import Parsed, parse
from controller.ledger.canonical import digest
from controller.model.documents import ReleaseLock, lock_bytes, manifest_digest
from controller.model.entry import Actor, LockMade, Pin, SlotChange
from controller.model.keys import key_id
from tests.support.history import ssh_key

PEOPLE = ("alice", "dave", "bob", "carol", "olga", "olivia", "controller")


@lru_cache(maxsize=4096)
def parsed(path: str, data: bytes) -> Parsed:
    """A parsed file; scenarios read the same ones over and over."""
    return parse(path, data)


def git(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def document(kind: str, name: str, **spec: Any) -> bytes:
    body = {"apiVersion": "lockgate.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return yaml.safe_dump(body, sort_keys=False).encode()


def trust(version: int = 1) -> bytes:
    return document(
        "Trust",
        "trust",
        version=version,
        principals={n: {"keys": [ssh_key(n)], "emails": [f"{n}@example.com"]} for n in PEOPLE},
        roles={
            "owners": {"members": ["olivia"], "threshold": 1},
            "developers": ["alice", "dave"],
            "reviewers": ["bob", "carol"],
            "operators": ["olga"],
            "controller": ["controller"],
        },
        paths=[{"match": "**", "write": ["developers", "reviewers", "controller"]}],
        actions=[
            {
                "environments": ["*"],
                "allow": {
                    "operators": ["pause", "resume", "abort", "rollback", "continue", "replay"],
                    "reviewers": ["approve", "reject"],
                    "developers": ["approve"],
                },
            }
        ],
    )


ERRORS = {
    "source": "agents",
    "metric": "error_rate",
    "successWhen": "value < 0.05",
    "interval": "10s",
    "minSamples": 3,
    "failureLimit": 0,
}


def stage(percent: int, **more: Any) -> dict[str, Any]:
    return {"percent": percent, "deadline": "5m", **more}


def canary(*percents: int, **more: Any) -> dict[str, Any]:
    """A strategy's spec: stages that measure the error rate."""
    stages = [stage(p, minHealthyTime="30s", analysis=["errors"]) for p in percents]
    return {"stages": stages, "analysis": {"errors": ERRORS}, **more}


def slot_change(
    commit: str, path: str, data: bytes, author: str, merger: str, before: Mapping[str, bytes], at: datetime
) -> SlotChange:
    """What a promotion that somebody wrote and somebody merged changes."""
    spec: Any = parsed(path, data).document
    assert spec is not None, parsed(path, data).diagnostics
    spec = spec.spec
    signer = Actor(principal=merger, key_id=key_id(ssh_key(merger)))
    lock = before.get(f"releases/{spec.release}.lock.yaml")
    begin = spec.schedule.not_before if spec.schedule else None
    return SlotChange(
        environment=path.removeprefix("promotions/").removesuffix(".yaml"),
        commit=commit,
        pin=Pin(path=path, blob=blob_id(data), sha256=digest(data)),
        release=spec.release,
        reason=spec.reason,
        ticket=spec.ticket,
        not_before=begin,
        expires=at + spec.expires_after if spec.expires_after else None,
        requester=Actor(principal=author),
        authors=(author,),
        approvers=(signer,) if merger != author and merger in ("bob", "carol") else (),
        seen_lock=blob_id(lock) if lock is not None else None,
        at=at,
    )


def lock_made(
    payload: Mapping[str, Any], asked: str, tags: Mapping[str, str], roles: Mapping[str, str]
) -> LockMade:
    """The lock of a release whose images have digests of their own; `asked` is the digest of its document."""
    name = payload["release"]
    components = {c: digest(f"{name}/{c}".encode()) for c in payload["components"]}
    lock = ReleaseLock.model_validate(
        {
            "apiVersion": "lockgate.dev/v1",
            "kind": "ReleaseLock",
            "metadata": {"name": name},
            "spec": {
                "manifestDigest": manifest_digest(components),
                "releaseDigest": asked,
                "components": {
                    c: {
                        "repository": f"oci-layout:{c}",
                        "digest": d,
                        "tag": tags.get(c),
                        "role": roles.get(c, "primary"),
                        "mediaType": "application/vnd.oci.image.index.v1+json",
                        "candidates": {"count": 1, "digest": digest(b"[]")},
                    }
                    for c, d in components.items()
                },
                "resolvedAt": "2026-01-05T08:00:00Z",
                "resolver": "lockgate/0",
            },
        }
    )
    data = lock_bytes(lock)
    return LockMade(
        release=name,
        path=f"releases/{name}.lock.yaml",
        manifest_digest=lock.spec.manifest_digest,
        release_digest=asked,
        sha256=digest(data),
        components=components,
        content=data.decode(),
    )


def project(
    strategy: Mapping[str, Any] | None, policies: Mapping[str, Mapping[str, Any]], **environment: Any
) -> dict[str, bytes]:
    """A project's files, by path: prod, which rolls out by `strategy` (all at once without one), and staging."""
    files = {
        "lockgate.yaml": document("Project", "lockgate-project").replace(b"lockgate-project", b"shop"),
        "trust/trust.yaml": trust(),
        "components/api.yaml": document("Component", "api", repository="oci-layout:api"),
        "components/worker.yaml": document("Component", "worker", repository="oci-layout:worker"),
        "strategies/roll.yaml": document("Strategy", "roll", **(strategy or {"stages": [stage(100)]})),
        "strategies/once.yaml": document("Strategy", "once", stages=[stage(100)]),
        "environments/staging.yaml": document("Environment", "staging", strategy="once", gates="none"),
        "environments/prod.yaml": document(
            "Environment", "prod", **{"order": 30, "strategy": "roll", **environment}
        ),
    }
    for name, spec in policies.items():
        files[f"policies/{name}.yaml"] = document("Policy", name, **spec)
    return files
