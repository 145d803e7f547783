"""The same judgements on real repositories, with real keys; and stock git agreeing about who signed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.adapters.git import people
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import KeySigner, generate_key, verify
from controller.core.accept import MainState, Terms, genesis_state, judge_main
from controller.core.chain import Chain, walk_states
from controller.core.trust import TRUST_NAMESPACE
from controller.errors import Refused
from controller.model.trustroot import TrustRoot
from controller.uses.allowed_signers import allowed_signers
from controller.uses.init import create_project
from controller.uses.trust_chain import build_chain
from tests.support.shop import PEOPLE, Evidence, slot, trust_bytes

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
PROD = "promotions/prod.yaml"


class GitShop:
    """A bare repository whose main is written by people and judged after every push."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "origin.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.path)], check=True)
        (folder / "keys").mkdir()
        self.keys: dict[str, KeySigner] = {
            name: generate_key(folder / "keys" / name) for name in (*PEOPLE, "mallory")
        }
        self.repo = GitRepo(str(self.path), folder / "state")
        self.evidence = Evidence()
        self.terms = Terms("shop", "refs/heads/main", verify)
        self.when = START
        self.root = create_project(
            self.repo,
            project="shop",
            trust=self.trust(1),
            document=b"apiVersion: lockgate.dev/v1\nkind: Project\nmetadata: {name: shop}\n",
            files={},
            signer=self.keys["olga"],
            at=START,
        )
        self.tip = self.root.genesis
        self.state: MainState = genesis_state(self.repo, self.root)

    def trust(self, version: int, **spec: object) -> bytes:
        return trust_bytes(version, keys={name: key.public_key for name, key in self.keys.items()}, **spec)

    def write(
        self, by: str | None, parents: tuple[str, ...], files: Mapping[str, bytes | None], **more: str
    ) -> str:
        self.when += timedelta(seconds=1)
        return people.write_commit(
            self.repo,
            parents,
            files,
            message=more.get("message", "Change"),
            author=(by or "stranger", f"{by or 'stranger'}@example.com"),
            when=self.when,
            signer=self.keys[by] if by else None,
            tree=more.get("tree"),
        )

    def judge(self, tip: str) -> MainState:
        people.swap(self.repo, "main", self.tip, tip)
        self.tip = tip
        self.state = judge_main(self.repo, self.state, tip, self.evidence, self.terms)
        return self.state

    def lone(self, by: str | None, files: Mapping[str, bytes | None]) -> MainState:
        return self.judge(self.write(by, (self.tip,), files))

    def land(self, by: str, merger: str | None, files: Mapping[str, bytes | None]) -> MainState:
        side = self.write(by, (self.tip,), files)
        tree = people.merge_tree(self.repo, self.tip, side)
        return self.judge(self.write(merger, (self.tip, side), {}, tree=tree, message="Merge"))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[GitShop]:
    shop = GitShop(tmp_path)
    yield shop
    shop.repo.close()


def test_review_refusal_and_cure(shop: GitShop) -> None:
    state = shop.land("dave", "rita", {PROD: slot("r1"), "policies/p.yaml": b"deny"})
    assert state.accepted == shop.tip and state.newly[0].approvals == ("rita",)
    good = shop.tip
    assert shop.land("dave", "dave", {PROD: slot("evil")}).refused[0].refused == "self-approval"
    assert shop.lone(None, {"policies/p.yaml": b"allow"}).refused[1].refused == "unsigned"
    assert shop.state.accepted == good
    state = shop.lone("rita", {PROD: slot("r1"), "policies/p.yaml": b"deny"})
    assert state.accepted == shop.tip and len(state.newly[-1].cured) == 2


@pytest.mark.parametrize(
    ("by", "merger", "path", "code"),
    [
        ("dave", "mallory", PROD, "signer-unknown"),
        ("dave", None, PROD, "unsigned"),
        ("dave", "ollie", PROD, "approver-not-in-role"),
        ("ollie", "rita", PROD, "path-denied"),
        ("dave", "rita", "releases/a.lock.yaml", "lock-by-person"),
        ("dave", "rita", "elsewhere", "path-denied"),
    ],
)
def test_merges_that_are_refused(shop: GitShop, by: str, merger: str | None, path: str, code: str) -> None:
    state = shop.land(by, merger, {path: slot("r1")})
    assert state.steps[-1].refused == code and state.accepted == shop.root.genesis


def test_evil_stale_and_foxtrot_merges(shop: GitShop) -> None:
    shop.land("dave", "rita", {"policies/p.yaml": b"deny"})
    base = shop.tip
    side = shop.write("dave", (base,), {"releases/r.yaml": b"x"})
    shop.land("dina", "ruth", {"policies/p.yaml": b"deny more"})
    good = shop.tip
    clean = people.merge_tree(shop.repo, good, side)
    evil = shop.write("rita", (good, side), {PROD: slot("evil")}, tree=clean)
    assert shop.judge(evil).steps[-1].refused == "evil-merge"
    stale = shop.write("rita", (good, side), {"policies/p.yaml": b"deny"}, tree=clean)
    assert shop.judge(stale).steps[-1].refused == "merge-side-dropped"
    foxtrot = shop.write("rita", (side, good), {}, tree=clean)
    with pytest.raises(Refused) as error:
        shop.judge(foxtrot)
    assert error.value.code == "main-not-first-parent"
    with pytest.raises(Refused) as error:
        shop.judge(shop.write("rita", (shop.root.genesis,), {"README.md": b"x"}))
    assert error.value.code == "main-rewound"


def test_trust_grows_and_the_chain_proves_it(shop: GitShop) -> None:
    data = shop.trust(2)
    files: dict[str, bytes | None] = {"trust/trust.yaml": data}
    for name in ("olga", "otto"):
        files[f"trust/2/{name}.sig"] = shop.keys[name].sign_ssh(data, TRUST_NAMESPACE).encode()
    assert shop.lone("olga", {"trust/trust.yaml": shop.trust(2)}).steps[-1].refused == "trust-quorum"
    shop.lone("otto", {"trust/trust.yaml": shop.trust(1)})
    assert shop.state.accepted == shop.tip
    assert shop.lone("olga", files).trust.version == 2
    chain = Chain.loads(build_chain(shop.repo, shop.root, shop.tip, verify).dumps())
    assert len(chain.links) == 2
    assert walk_states(shop.root, chain.links, verify)[-1].sha256 == shop.state.trust.sha256
    other = TrustRoot(project="shop", genesis=shop.tip)
    with pytest.raises(Refused) as error:
        walk_states(other, chain.links, verify)
    assert error.value.code == "genesis-mismatch"


def test_stock_git_verifies_by_the_derived_signers(shop: GitShop, tmp_path: Path) -> None:
    shop.lone("dave", {"releases/r.yaml": b"x"})
    for role, code in (("developers", 0), ("reviewers", 1)):
        signers = tmp_path / f"{role}.signers"
        signers.write_text(allowed_signers(shop.repo, shop.root, shop.tip, verify, role))
        found = subprocess.run(
            [
                "git",
                "-C",
                str(shop.path),
                "-c",
                f"gpg.ssh.allowedSignersFile={signers}",
                "verify-commit",
                shop.tip,
            ],
            capture_output=True,
            text=True,
        )
        assert found.returncode == code, found.stderr
        assert 'namespaces="git"' in signers.read_text()
    subprocess.run(["git", "-C", str(shop.path), "fsck", "--strict"], check=True, capture_output=True)
