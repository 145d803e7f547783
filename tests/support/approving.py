"""Git objects made by hand, as an order carries them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from controller.adapters.git.objects import attach_signature, encode_commit, encode_person
from controller.core.chain import object_id
from controller.model.order import Approving
from controller.ports import Signer

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def vouched_rules(signer: Signer, environment: str = "prod", **spec: object) -> Approving:
    """An environment's document in the tree of a commit that `signer` signed."""
    path = f"environments/{environment}.yaml"
    body = {"order": 10, "strategy": "all", "gates": "none", **spec}
    text = f"apiVersion: lockgate.dev/v1\nkind: Environment\nmetadata: {{name: {environment}}}\n"
    made = Objects()
    oid = made.commit({path: f"{text}spec: {json.dumps(body)}\n".encode()}, (), signer)
    return made.approving(vouched={path: oid})


class Objects:
    """Objects by kind, each once."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, bytes]] = {"commit": {}, "tree": {}, "blob": {}}

    def add(self, kind: str, data: bytes) -> str:
        oid = object_id(kind, data)
        self.kinds[kind][oid] = data
        return oid

    def tree(self, files: Mapping[str, bytes]) -> str:
        """The tree of these files, one folder deep at most."""
        folders: dict[str, dict[str, bytes]] = {}
        top: dict[str, tuple[bytes, str]] = {}
        for path, data in files.items():
            folder, slash, name = path.rpartition("/")
            if slash:
                folders.setdefault(folder, {})[name] = data
            else:
                top[path] = (b"100644", self.add("blob", data))
        top |= {name: (b"40000", self.tree(inside)) for name, inside in folders.items()}
        entries = sorted(top.items(), key=lambda one: one[0] + ("/" if one[1][0] == b"40000" else ""))
        return self.add(
            "tree", b"".join(b"%b %b\0" % (mode, n.encode()) + bytes.fromhex(oid) for n, (mode, oid) in entries)
        )

    def commit(
        self,
        files: Mapping[str, bytes],
        parents: tuple[str, ...],
        signer: Signer | None,
        *,
        message: str = "Change\n",
        name: str = "Nobody",
        at: datetime = WHEN,
    ) -> str:
        """A commit of these files."""
        who = encode_person(name, f"{name}@example.com", at)
        payload = encode_commit(self.tree(files), parents, who, who, message)
        data = payload if signer is None else attach_signature(payload, signer.sign_ssh(payload, "git"))
        return self.add("commit", data)

    def approving(self, **fields: object) -> Approving:
        """All of it."""
        texts = {k: [base64.b64encode(d).decode() for d in found.values()] for k, found in self.kinds.items()}
        return Approving(commits=texts["commit"], trees=texts["tree"], blobs=texts["blob"], **fields)  # type: ignore[arg-type]
