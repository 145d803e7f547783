"""Trust as questions and answers, its succession, its chain from the root, and the root file."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import SSlibKey

from controller.core.chain import Chain, ChainLink, object_id, walk_states
from controller.core.keys import key_id, normal_key
from controller.core.quorum import missing_roles
from controller.core.trust import TRUST_NAMESPACE, TrustState, check_successor
from controller.errors import Invalid, LockgateError, Refused
from controller.model.trustroot import RootCheckpoint, TrustRoot
from tests.support.history import seal, ssh_key, unseal
from tests.support.shop import trust_bytes, trust_document

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def trust() -> TrustState:
    return TrustState.parse(trust_bytes())


def signatures(data: bytes, *names: str) -> dict[str, str]:
    return {name: seal(name, data, TRUST_NAMESPACE) for name in names}


# --- questions ----------------------------------------------------------------------------------------------


def test_keys_people_and_roles(trust: TrustState) -> None:
    assert trust.principal_of(ssh_key("dave"), NOW) == "dave"
    assert trust.principal_of(ssh_key("dave") + " comment", NOW) == "dave"
    assert trust.principal_of(ssh_key("mallory"), NOW) is None
    assert trust.principal_of("garbage", NOW) is None
    assert trust.holds("rita", "reviewers") and not trust.holds("dave", "reviewers")
    assert not trust.holds("dave", "nobody")
    assert trust.roles_of("rita") == {"reviewers", "developers"}
    assert trust.keys_of_role("controller") == [ssh_key("controller")]


def test_validity(trust: TrustState) -> None:
    data = trust_bytes().replace(
        b"emails:\n      - dave@example.com",
        b"validAfter: '2026-02-01T00:00:00Z'\n      validBefore: '2026-03-01T00:00:00Z'",
    )
    state = TrustState.parse(data)
    day = {n: datetime(2026, n, 1, tzinfo=UTC) for n in (1, 2, 3)}
    assert [state.principal_of(ssh_key("dave"), day[n]) for n in (1, 2, 3)] == [None, "dave", None]
    assert state.owner_of(ssh_key("dave")) == "dave"
    assert ssh_key("dave") in state.keys_of_role("developers")
    assert ssh_key("dave") not in state.keys_of_role("developers", NOW)


def test_path_rules(trust: TrustState) -> None:
    assert trust.approvals_for("promotions/prod.yaml") == {"reviewers": 1}
    assert trust.approvals_for("promotions/dev.yaml") == {}
    assert trust.may_write("dave", "promotions/prod.yaml")
    assert not trust.may_write("ollie", "promotions/prod.yaml") and trust.may_write("ollie", "README.md")
    assert trust.rule_for("elsewhere") is None and not trust.may_write("olga", "elsewhere")
    assert not trust.may_write("dave", "releases/a.lock.yaml")
    assert not trust.may_write("dave", "releases/.gitattributes") and trust.may_write("olga", "x/.gitattributes")


def test_action_rules(trust: TrustState) -> None:
    assert trust.allows("abort", "dev", "dave") == "developers"
    assert trust.allows("abort", "prod", "dave") is None
    assert trust.allows("approve", "prod", "rita") == "reviewers"
    assert trust.allows("override", "anything", "olga") == "owners"
    assert trust.allows("pause", "elsewhere", "ollie") is None


def test_one_key_for_two_principals_or_agents(trust: TrustState) -> None:
    with pytest.raises(Refused) as error:
        TrustState.parse(trust_bytes(keys={"dina": ssh_key("dave") + " other-comment"}))
    assert error.value.code == "key-reused"
    trust.check_agent_keys({"web-1": ssh_key("web-1"), "web-2": ssh_key("web-2")})
    for agents in ({"a": ssh_key("x"), "b": ssh_key("x") + " b"}, {"a": ssh_key("controller")}):
        with pytest.raises(Refused) as error:
            trust.check_agent_keys(agents)
        assert error.value.code == "key-reused"


@pytest.mark.parametrize("data", [b"", b"[", b"[" * 100_000, b"kind: Trust", b"\xff", b"a: &a [*a]"])
def test_documents_that_do_not_read(data: bytes) -> None:
    with pytest.raises(Invalid) as error:
        TrustState.parse(data)
    assert error.value.code == "trust-malformed"


# --- keys ---------------------------------------------------------------------------------------------------


def test_key_ids_are_those_of_securesystemslib() -> None:
    for private in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())):
        public = private.public_key()
        line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        assert key_id(line + " me@host") == SSlibKey.from_crypto(public).keyid


def test_one_key_has_one_spelling() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert normal_key(line) == normal_key(f"  {line}  comment here") == line
    # Base64 spare bits: another last character, the same bytes.
    short = ssh_key("x")
    assert normal_key(short) == short
    for bad in ("ssh-ed25519", "ssh-ed25519 AAAA", "ssh-dss AAAA", short + "AAAA", "", "x y"):
        with pytest.raises(Invalid) as error:
            normal_key(bad)
        assert error.value.code == "key-malformed"


@given(st.text(max_size=80))
def test_no_text_crashes_a_key(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert normal_key(normal_key(text)) == normal_key(text)


# --- people in places ---------------------------------------------------------------------------------------


def test_a_person_fills_one_place() -> None:
    required = {"reviewers": 1, "product": 1}
    assert missing_roles(required, {"rita": {"reviewers", "product"}}) != {}
    assert missing_roles(required, {"rita": {"reviewers", "product"}, "ruth": {"reviewers"}}) == {}
    assert missing_roles(required, {"ann": {"product"}, "rita": {"reviewers", "product"}}) == {}
    assert missing_roles({"reviewers": 2}, {"rita": {"reviewers"}}) == {"reviewers": 1}
    assert missing_roles({}, {}) == {}


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 2)),
    st.dictionaries(st.sampled_from("123456"), st.sets(st.sampled_from("abc"))),
)
def test_missing_is_never_more_than_a_greedy_count(required: dict[str, int], people: dict[str, set[str]]) -> None:
    missing = missing_roles(required, people)
    assert sum(required.values()) - sum(missing.values()) <= len(people)
    for role, number in required.items():
        able = sum(role in roles for roles in people.values())
        assert missing.get(role, 0) >= max(0, number - able)
    taken: set[str] = set()
    greedy = 0
    for role, number in required.items():
        for _ in range(number):
            who = next((p for p in people if p not in taken and role in people[p]), None)
            greedy += who is not None
            taken |= {who} if who else set()
    assert sum(required.values()) - sum(missing.values()) >= greedy


# --- succession ---------------------------------------------------------------------------------------------


def test_the_next_version_by_the_owners(trust: TrustState) -> None:
    data = trust_bytes(2)
    state = check_successor(trust, data, signatures(data, "olga", "otto", "dave"), unseal)
    assert state.version == 2


@pytest.mark.parametrize("version", [1, 3, 7])
def test_versions_grow_by_one(trust: TrustState, version: int) -> None:
    data = trust_bytes(version)
    with pytest.raises(Refused) as error:
        check_successor(trust, data, signatures(data, "olga", "otto"), unseal)
    assert error.value.code == "trust-rollback"


def test_quorums_that_are_none(trust: TrustState) -> None:
    data = trust_bytes(2)
    other = signatures(trust_bytes(3), "olga", "otto")
    foreign = {name: seal(name, data, "git") for name in ("olga", "otto")}
    borrowed = {"olga": seal("olga", data, TRUST_NAMESPACE), "otto": seal("olga", data, TRUST_NAMESPACE)}
    garbage = {"olga": "x", "otto": ""}
    for given_ in (
        {},
        signatures(data, "olga"),
        signatures(data, "olga", "dave"),
        other,
        foreign,
        borrowed,
        garbage,
    ):
        with pytest.raises(Refused) as error:
            check_successor(trust, data, given_, unseal)
        assert error.value.code == "trust-quorum"


def test_new_owners_do_not_install_themselves_and_must_sign_too(trust: TrustState) -> None:
    roles = trust_document()["spec"]["roles"]
    roles["owners"] = {"members": ["dave", "dina"], "threshold": 2}
    data = trust_bytes(2, roles=roles)
    for names in (("dave", "dina"), ("olga", "otto"), ("olga", "otto", "dave")):
        with pytest.raises(Refused) as error:
            check_successor(trust, data, signatures(data, *names), unseal)
        assert error.value.code == "trust-quorum"
    assert check_successor(trust, data, signatures(data, "olga", "otto", "dave", "dina"), unseal).version == 2


def test_a_lower_threshold_does_not_admit_itself(trust: TrustState) -> None:
    data = trust_bytes(2, roles={"owners": {"members": ["olga"], "threshold": 1}})
    with pytest.raises(Refused):
        check_successor(trust, data, signatures(data, "olga"), unseal)


def test_one_person_with_two_keys_is_one_person() -> None:
    text = (
        trust_bytes().decode().replace(f"- {ssh_key('olga')}", f"- {ssh_key('olga')}\n      - {ssh_key('olga2')}")
    )
    state = TrustState.parse(text.encode())
    assert state.owner_of(ssh_key("olga2")) == "olga"
    data = trust_bytes(2)
    given_ = {"olga": seal("olga", data, TRUST_NAMESPACE), "otto": seal("olga2", data, TRUST_NAMESPACE)}
    with pytest.raises(Refused) as error:
        check_successor(state, data, given_, unseal)
    assert error.value.code == "trust-quorum"


def test_bytes_without_a_quorum_are_not_even_parsed(trust: TrustState) -> None:
    with pytest.raises(Refused) as error:
        check_successor(trust, b"[" * 100_000, {}, unseal)
    assert error.value.code == "trust-quorum"


# --- the chain ----------------------------------------------------------------------------------------------


def genesis(data: bytes, *, extra: bytes = b"", parent: bytes = b"") -> tuple[TrustRoot, ChainLink]:
    trust_tree = b"100644 trust.yaml\0" + bytes.fromhex(object_id("blob", data))
    top = extra + b"40000 trust\0" + bytes.fromhex(object_id("tree", trust_tree))
    commit = b"tree " + object_id("tree", top).encode() + b"\n" + parent + b"author x\n\nGenesis\n"
    root = TrustRoot(project="shop", genesis=object_id("commit", commit))
    return root, ChainLink(document=data, commit=commit, trees=[top, trust_tree])


def test_walking_from_the_root() -> None:
    root, first = genesis(trust_bytes())
    links = [first]
    for version in (2, 3):
        data = trust_bytes(version)
        links.append(ChainLink(document=data, signatures=signatures(data, "olga", "otto")))
    again = Chain.loads(Chain(links=links).dumps()).links
    assert again == links
    assert walk_states(root, again, unseal)[-1].version == 3
    for cut in ([], links[1:], [links[0], links[2]], [*links, links[1]]):
        with pytest.raises(Refused):
            walk_states(root, cut, unseal)


def test_the_same_trust_under_a_new_root() -> None:
    root, first = genesis(trust_bytes())
    other, _ = genesis(trust_bytes(), extra=b"100644 lockgate.yaml\0" + b"\1" * 20)
    assert walk_states(root, [first], unseal)[-1].version == 1
    with pytest.raises(Refused) as error:
        walk_states(other, [first], unseal)
    assert error.value.code == "genesis-mismatch"


def test_a_first_link_that_does_not_hash_to_the_root() -> None:
    root, first = genesis(trust_bytes())
    assert first.commit is not None
    evil = trust_bytes(roles={"owners": {"members": ["dave"]}})
    top, tree = first.trees
    for change in (
        {"document": evil},
        {"commit": first.commit + b"x"},
        {"commit": None},
        {"trees": []},
        {"trees": [top, tree + b"100644 a\0" + b"\2" * 20]},
        {"trees": [tree, top]},
        {"trees": [top[:-1], tree]},
    ):
        with pytest.raises(Refused) as error:
            walk_states(root, [first.model_copy(update=change)], unseal)
        assert error.value.code == "genesis-mismatch"


def test_a_genesis_with_more_than_trust_or_with_parents() -> None:
    for more in ({"extra": b"100644 other\0" + b"\1" * 20}, {"parent": b"parent " + b"0" * 40 + b"\n"}):
        root, first = genesis(trust_bytes(), **more)  # type: ignore[arg-type]
        with pytest.raises(Refused) as error:
            walk_states(root, [first], unseal)
        assert error.value.code == "genesis-mismatch"


@given(st.binary(max_size=200))
def test_no_bytes_crash_a_chain(data: bytes) -> None:
    with pytest.raises(LockgateError):
        Chain.loads(data)
    root, first = genesis(trust_bytes())
    with pytest.raises(LockgateError):
        walk_states(root, [first.model_copy(update={"trees": [data, data], "commit": data})], unseal)


# --- the root file ------------------------------------------------------------------------------------------


def test_the_root_file_round_trips(tmp_path: Path) -> None:
    root = TrustRoot(project="shop", genesis="a" * 40, checkpoint=RootCheckpoint(size=5, root="abc="))
    root.save(tmp_path / "keys" / "trust-root.json")
    assert TrustRoot.load(tmp_path / "keys" / "trust-root.json") == root
    assert '"main": "refs/heads/main"' in root.dumps() and root.dumps().endswith("}\n")


def test_a_root_file_that_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "trust-root.json"
    with pytest.raises(LockgateError) as missing:
        TrustRoot.load(path)
    assert missing.value.code == "trust-root-missing" and str(path) in str(missing.value)
    for text in ("", "{}", "[]", '{"project": "shop", "genesis": "short"}', '{"project": 1}'):
        path.write_text(text)
        with pytest.raises(Invalid) as error:
            TrustRoot.load(path)
        assert error.value.code == "trust-root-malformed" and error.value.where == str(path)


def test_each_key_has_its_own_time() -> None:
    data = trust_document()
    old, new = ssh_key("dave"), ssh_key("dave's new key")
    data["spec"]["principals"]["dave"]["keys"] = [
        {"publicKey": old, "validBefore": "2026-03-01T00:00:00Z"},
        {"publicKey": new, "validAfter": "2026-02-01T00:00:00Z"},
    ]
    state = TrustState.parse(yaml.safe_dump(data).encode())
    january, february, march = (datetime(2026, month, 15, tzinfo=UTC) for month in (1, 2, 3))
    assert [state.principal_of(old, at) for at in (january, february, march)] == ["dave", "dave", None]
    assert [state.principal_of(new, at) for at in (january, february, march)] == [None, "dave", "dave"]
    assert state.keys_of_role("developers", march).count(new) == 1
    assert old not in state.keys_of_role("developers", march) and old in state.keys_of_role("developers")


def test_an_owners_expired_key_signs_no_trust() -> None:
    document = trust_document()
    olga = ssh_key("olga")
    document["spec"]["principals"]["olga"]["keys"] = [{"publicKey": olga, "validBefore": "2026-03-01T00:00:00Z"}]
    first = TrustState.parse(yaml.safe_dump(document).encode())
    document["spec"]["version"] = 2
    data = yaml.safe_dump(document).encode()
    signatures = {name: seal(name, data, TRUST_NAMESPACE) for name in ("olga", "otto")}
    before, after = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    assert check_successor(first, data, signatures, unseal, before).version == 2
    with pytest.raises(Refused, match="trust-quorum"):
        check_successor(first, data, signatures, unseal, after)
