"""In-toto links: which of those that agents send count, and what a run's seal says."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git.keys import KeySigner
from controller.ledger import links
from controller.model.entry import Deployed
from controller.model.keys import key_id
from controller.model.link import LinkSignature, approve_link, deploy_link, link_name
from controller.model.order import Report, Sample
from tests.support.evidence import sha
from tests.support.world_agents import Agent
from tests.support.world_documents import document
from tests.support.worlds import Theatre

KEYS: dict[str, KeySigner] = {}


def key(name: str) -> KeySigner:
    return KEYS.setdefault(name, KeySigner(ed25519.Ed25519PrivateKey.generate()))


def given(body: Report) -> LinkSignature | None:
    """prod-1 signs what it did; the others sign another release, under another key, or not at all."""
    own = deploy_link(body.run, body.manifest_digest)
    return {
        "prod-1": links.sign_link(own, key("prod-1")),
        "prod-2": links.sign_link(deploy_link(body.run, sha("else")), key("prod-2")),
        "prod-3": links.sign_link(own, key("prod-1")),
    }.get(body.target)


class Signing(Theatre):
    """A theatre whose agents have keys, and send links with their reports."""

    def declare(self, environment: str, name: str) -> None:
        spec = {"environment": environment, "publicKey": key(name).public_key}
        self.files[f"agents/{name}.yaml"] = document("Agent", name, **spec)
        self.agents[name] = Agent(name, environment)

    def say(self, agent: str, body: Report | Sample) -> None:
        if isinstance(body, Report):
            body = body.model_copy(update={"link": given(body)})
        super().say(agent, body)


def test_only_an_agents_own_link_of_its_own_deployment_counts() -> None:
    theatre = Signing(agents=4)
    theatre.complete("shop-1")
    run = next(entry.run for entry in theatre.entries if entry.kind == "deployed")
    entries = [entry for entry in theatre.entries if entry.run == run]
    results = next(entry.detail for entry in entries if isinstance(entry.detail, Deployed)).results
    assert {result.target for result in results if result.result == "succeeded"} == {
        f"prod-{n}" for n in range(1, 5)
    }
    assert [result.target for result in results if result.link is not None] == ["prod-1"]
    keyid = key_id(key("prod-1").public_key)
    assert set(links.received(entries)) == {link_name("deploy", keyid)}
    checked = next(entry.detail for entry in entries if entry.kind == "verified")
    assert all(result.link is None for result in checked.results)


def test_a_link_holds_for_its_signer_and_its_words_alone() -> None:
    payload = approve_link(sha("subject"))
    signature = links.sign_link(payload, key("rita"))
    assert links.holds(payload, signature, key("rita").public_key)
    assert not links.holds(payload, signature, key("ruth").public_key)
    assert not links.holds(approve_link(sha("else")), signature, key("rita").public_key)
    assert not links.holds(payload, None, key("rita").public_key)
    assert not links.holds(payload, signature, None)
    named = signature.model_copy(update={"keyid": key_id(key("ruth").public_key)})
    assert not links.holds(payload, named, key("rita").public_key)
    assert not links.holds(payload, named, key("ruth").public_key)
