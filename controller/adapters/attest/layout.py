"""The owners' in-toto layout: its steps and rules, and its signatures. Written with in-toto's own library, so
that it is what stock `in-toto-verify` reads (format: in-toto specification 1.0, section 4.3; envelope: DSSE)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any

from in_toto.models.layout import Inspection, Layout, Step
from in_toto.models.metadata import Envelope
from securesystemslib.exceptions import Error as FormatProblem
from securesystemslib.signer import Signature, SSlibKey

from controller.errors import Invalid
from controller.model import link as links
from controller.model.keys import key_id, public_key
from controller.model.layout import LayoutTerms
from controller.ports import Signer

INSPECTION = "checkout"
"""The inspection: the files of a clean checkout are those that were sealed, all of them."""
_CHECK = f"sha256sum -c runs/*/*/*/*/*/{links.SUMS} >/dev/null"
_REST = ["DISALLOW", "*"]
Rule = list[str]


def make_layout(terms: LayoutTerms, signers: Sequence[Signer]) -> bytes:
    """The layout's file, signed by everybody in `signers`. Raises Invalid("layout-threshold" | "key-unusable")."""
    envelope = Envelope.from_signable(_layout(terms))
    return _signed(envelope, signers)


def countersign(data: bytes, signers: Sequence[Signer]) -> bytes:
    """A layout's file with further signatures. Raises Invalid("layout-malformed" | "key-unusable")."""
    return _signed(_read(data), signers)


def merge(made: bytes, former: bytes) -> bytes:
    """`made` with the signatures of `former` too, where both say the same; else `made`."""
    new, old = _read(made), _read(former)
    if new.payload != old.payload:
        return made
    new.signatures = {**old.signatures, **new.signatures}
    return _written(new)


def signed_by(data: bytes, keys: Mapping[str, str]) -> list[str]:
    """Whose signatures over the layout hold, of `keys` (OpenSSH key → name), sorted. Raises
    Invalid("layout-malformed")."""
    envelope = _read(data)
    found = set()
    for openssh, name in keys.items():
        signature = envelope.signatures.get(key_id(openssh)) if _plain(openssh) else None
        if signature is not None:
            try:
                SSlibKey.from_dict(key_id(openssh), _key(openssh)).verify_signature(signature, envelope.pae())
                found.add(name)
            except FormatProblem:
                continue
    return sorted(found)


def _layout(terms: LayoutTerms) -> Layout:
    controllers = _ids(key for keys in terms.controllers.values() for key in keys)
    agents = _ids(terms.agents.values())
    approvers = controllers
    if terms.approvers is not None:
        approvers = _ids(key for keys in terms.approvers.values() for key in keys)
        _enough("approve", terms.approved_by, len(terms.approvers))
    if terms.agents:
        _enough("deploy", terms.deployed_by, len(terms.agents), terms.certified)
    people = {
        links.APPROVE: (approvers, terms.approved_by if terms.approvers is not None else 1),
        links.DEPLOY: (agents, terms.deployed_by),
    }
    steps = []
    for name, materials, products in _rules():
        keys, threshold = people.get(name, (controllers, 1))
        steps.append(
            Step(
                name=name,
                pubkeys=list(keys),
                threshold=threshold,
                expected_materials=materials,
                expected_products=products,
            )
        )
    whole = [["MATCH", "runs/*", *_of(links.SEAL)], ["MATCH", "releases/*.lock.yaml", *_of(links.RESOLVE)], _REST]
    inspection = Inspection(
        name=INSPECTION, run=["sh", "-c", _CHECK], expected_materials=whole, expected_products=whole
    )
    about = f"{terms.project}, " + (
        f"environment {terms.environment}" if terms.environment else "every environment"
    )
    return Layout(
        steps=steps,
        inspect=[inspection],
        keys={**controllers, **agents, **approvers},
        expires=terms.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        readme=f"Runs of {about}: resolve, inputs, gates, approve, deploy, verify, seal.",
    )


def _rules() -> list[tuple[str, list[Rule], list[Rule]]]:
    """Each step's expected materials and products. in-toto takes each rule in turn off what is left; artifacts
    that say what must be there are named by one word, because a required name is literal."""
    strict = (
        "*/run.json",
        "*-opened.*",
        "*-inputs.*",
        "*-gates.*",
        "*-verified.*",
        "*/inputs/*",
        "*-verify.jsonl",
    )
    return [
        (
            links.RESOLVE,
            [["ALLOW", "releases/*.yaml"], _REST],
            [_need("manifest"), *_allow("manifest", "images/*", "releases/*.lock.yaml"), _REST],
        ),
        (
            links.INPUTS,
            [_need("manifest"), ["MATCH", "*", *_of(links.RESOLVE)], _REST],
            [*map(_need, ("run", "subject", "inputs")), *_allow("run", "subject", "inputs", "runs/*"), _REST],
        ),
        (
            links.GATES,
            [*_same("inputs", links.INPUTS), _REST],
            [
                _need("decision"),
                *_allow("decision", "runs/*-gates.dsse.json", "runs/*/inputs/gates-*.json"),
                _REST,
            ],
        ),
        (
            links.APPROVE,
            [*_same("subject", links.INPUTS), _REST],
            [*_same("subject", links.INPUTS), _REST],
        ),
        (
            links.DEPLOY,
            [*_same("run", links.INPUTS), *_same("manifest", links.RESOLVE), _REST],
            [*_same("manifest", links.RESOLVE), _REST],
        ),
        (
            links.VERIFY,
            [*_same("run", links.INPUTS), *_same("manifest", links.DEPLOY), _REST],
            [
                *_same("manifest", links.DEPLOY),
                *_allow("runs/*-verified.dsse.json", "runs/*/reports/*-verify.jsonl"),
                _REST,
            ],
        ),
        (
            links.SEAL,
            [
                *_same("run", links.INPUTS),
                *_same("manifest", links.VERIFY),
                *_same("subject", links.APPROVE),
                *_same("decision", links.GATES),
                *(["MATCH", "runs/*", *_of(step)] for step in (links.INPUTS, links.GATES, links.VERIFY)),
                *(["DISALLOW", f"runs/{pattern}"] for pattern in strict),
                ["ALLOW", "runs/*"],
                _REST,
            ],
            [_need("root"), *_allow("root", "runs/*"), _REST],
        ),
    ]


def _of(step: str) -> Rule:
    return ["WITH", "PRODUCTS", "FROM", step]


def _need(name: str) -> Rule:
    return ["REQUIRE", name]


def _same(name: str, step: str) -> list[Rule]:
    """An artifact that must be there, as the other step gave it out."""
    return [_need(name), ["MATCH", name, *_of(step)]]


def _allow(*patterns: str) -> list[Rule]:
    return [["ALLOW", pattern] for pattern in patterns]


def _plain(openssh: str) -> bool:
    """Whether the key signs envelopes: hardware keys sign a hash of their own around the data."""
    return not openssh.startswith("sk-")


def _key(openssh: str) -> dict[str, Any]:
    """The key as layouts hold it, under the same id that our envelopes carry."""
    scheme = "rsa-pkcs1v15-sha256" if openssh.startswith("ssh-rsa ") else None
    key = SSlibKey.from_crypto(public_key(openssh), key_id(openssh), scheme)
    found: dict[str, Any] = key.to_dict()
    return found


def _ids(keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {key_id(key): {**_key(key), "keyid": key_id(key)} for key in keys if _plain(key)}


def _enough(step: str, threshold: int, people: int, unnamed: Sequence[str] = ()) -> None:
    if not 1 <= threshold <= people:
        why = f"; a layout cannot name certified keys, those of {', '.join(unnamed)}" if unnamed else ""
        raise Invalid(
            "layout-threshold",
            f"the step {step} could never be signed by so many{why}",
            where=step,
            expected=f"between 1 and {people}",
            got=str(threshold),
            cure="choose a lower threshold, or make a layout of one environment with --environment",
        )


def _signed(envelope: Envelope, signers: Sequence[Signer]) -> bytes:
    for signer in signers:
        if signer.public_key.startswith("ssh-rsa ") or not _plain(signer.public_key):
            raise Invalid(
                "key-unusable",
                "stock in-toto-verify takes no such key for a layout",
                expected="an owner's ed25519 or ecdsa key",
                got=signer.public_key.partition(" ")[0],
                cure="sign with another key of an owner",
            )
        keyid = key_id(signer.public_key)
        envelope.signatures[keyid] = Signature(keyid, signer.sign_raw(envelope.pae()).hex())
    return _written(envelope)


def _written(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), indent=1, sort_keys=True).encode() + b"\n"


def _read(data: bytes) -> Envelope:
    try:
        envelope = Envelope.from_dict(json.loads(data))
        if not isinstance(envelope.get_payload(), Layout):
            raise ValueError("no layout inside")
    except Exception as error:  # in-toto answers a malformed file with whatever its parsing ran into
        raise Invalid(
            "layout-malformed",
            f"not an in-toto layout in a DSSE envelope ({type(error).__name__}: {error})"[:300],
            expected="what `lockgate trust layout` writes",
            cure="make it again with `lockgate trust layout`",
        ) from error
    return envelope
