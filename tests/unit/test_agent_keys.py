"""Agents' keys over the documents: each key has one owner, and only an authority may certify for several."""

from __future__ import annotations

import json

from tests.support.documents import intent_of, valid_files
from tests.support.history import ssh_key

HEAD = "apiVersion: lockgate.dev/v1\nkind: Agent\n"


def agent(name: str, **spec: object) -> bytes:
    return f"{HEAD}metadata: {{name: {name}}}\nspec: {json.dumps({'environment': 'dev', **spec})}\n".encode()


def codes(*documents: bytes) -> list[str]:
    files = valid_files()
    for number, data in enumerate(documents):
        name = f"agents/extra-{number}.yaml"
        files[name] = data
    return [found.code for found in intent_of(files, {}).diagnostics]


def test_an_authority_certifies_for_several_agents() -> None:
    shared = {"publicKey": ssh_key("ca"), "certAuthority": True}
    assert codes(agent("extra-0", **shared), agent("extra-1", **shared)) == []


def test_an_authority_is_nobodys_own_key() -> None:
    ca = {"publicKey": ssh_key("ca"), "certAuthority": True}
    assert codes(agent("extra-0", **ca), agent("extra-1", publicKey=ssh_key("ca"))) == ["key-reused"] * 2


def test_a_key_on_its_way_out_is_still_its_agents() -> None:
    former = [{"publicKey": ssh_key("old"), "validBefore": "2026-03-01T00:00:00Z"}]
    one = agent("extra-0", publicKey=ssh_key("new"), previousKeys=former)
    assert codes(one) == []
    assert codes(one, agent("extra-1", publicKey=ssh_key("old"))) == ["key-reused"] * 2
