"""Who the project's agents are, for one that holds only a trust root: main's own objects, signed by a person.

The controller's word is not enough where witnesses guard against the controller. A commit of main that a person
signed, with the tree objects down to agents/ and the documents, proves itself by Git's object ids; that the
person may decide about agents follows from the trust document that the agent walked to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from controller.core.chain import object_id, tree_entries
from controller.core.parse import parse
from controller.core.trust import CONTROLLER, TrustState
from controller.errors import Invalid, LockgateError, Refused
from controller.model.agent import Agent
from controller.model.history import Commit
from controller.model.order import AgentKey
from controller.model.sshwire import bare_key

FOLDER = "agents"
ParseCommit = Callable[[str, bytes], Commit]
"""(id, bytes) -> the commit, its signature checked."""


class Declared(BaseModel):
    """The wire form: a commit, its root and agents/ trees, and the documents by file name; bytes are base64."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64", strict=True
    )

    commit: bytes
    trees: list[bytes]
    documents: dict[str, bytes]

    @classmethod
    def loads(cls, data: bytes) -> Declared:
        """From its JSON. Raises Invalid("declared-malformed")."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise Invalid("declared-malformed", "the agents' declaration does not read") from error


def may_vouch(commit: Commit, trust: TrustState, path: str) -> bool:
    """Whether the commit's signer can vouch for an agent's document at `path`: a person, never the controller,
    who approves such documents by a merge, or writes them where no approval is asked for."""
    if commit.key is None or commit.malformed is not None:
        return False
    person = trust.principal_of(commit.key, commit.committer.at)
    if person is None or trust.holds(person, CONTROLLER):
        return False
    merge = len(commit.parents) == 2
    approvals = trust.approvals_for(path)
    if approvals:
        return merge and any(trust.holds(person, role) for role in approvals)
    return merge or trust.may_write(person, path)


def agent_key(document: Agent) -> AgentKey:
    """The keys that an agent's document lets it sign with."""
    spec = document.spec
    return AgentKey(spec.environment, bare_key(spec.public_key), spec.cert_authority, spec.previous_keys)


def declared_agents(declared: Declared, trust: TrustState, read_commit: ParseCommit) -> Mapping[str, AgentKey]:
    """The agents' keys by name, from main's objects. Raises Refused("declared-unproven")."""
    commit = read_commit(object_id("commit", declared.commit), declared.commit)
    if len(declared.trees) != 2:
        raise _unproven("the root tree and agents/", f"{len(declared.trees)} trees")
    top, folder = declared.trees
    if commit.tree != object_id("tree", top):
        raise _unproven(commit.tree, object_id("tree", top))
    if (tree_entries(top) or {}).get(FOLDER.encode()) != (b"40000", object_id("tree", folder)):
        raise _unproven("the commit's agents/", object_id("tree", folder))
    files = tree_entries(folder) or {}
    found: dict[str, AgentKey] = {}
    for name, data in declared.documents.items():
        path = f"{FOLDER}/{name}"
        if files.get(name.encode()) != (b"100644", object_id("blob", data)):
            raise _unproven(f"{path} of that commit", object_id("blob", data))
        if not may_vouch(commit, trust, path):
            raise _unproven("a person's signature who may decide about agents", commit.key or "no signature")
        try:
            document = parse(path, data).document
            if isinstance(document, Agent):
                found[document.metadata.name] = agent_key(document)
        except LockgateError:
            continue  # a document that does not read declares nobody
    return found


def _unproven(expected: str, got: str) -> Refused:
    return Refused(
        "declared-unproven",
        "the project's agents are not proven from the trust root",
        expected=expected,
        got=got,
        cure="let a person who may decide about agents land a signed merge on main",
    )
