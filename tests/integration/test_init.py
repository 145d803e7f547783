"""`init` makes a repository that stock git and Lockgate accept, and keeps keys and root outside of it."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.adapters.attest.layout import make_layout, signed_by
from controller.adapters.git.create import GitWorkshop
from controller.adapters.git.repo import GitRepo
from controller.adapters.git.sshsig import FileSigner, generate_key, verify
from controller.core.accept import Terms, genesis_state, judge_main
from controller.errors import LockgateError
from controller.model.trustroot import TrustRoot
from controller.settings import data_dir
from controller.uses.allowed_signers import allowed_signers
from controller.uses.init import Made, create_project, init
from controller.wiring.people import Person, commit_on, merge_branch
from tests.support.shop import PEOPLE, Evidence, slot, trust_bytes

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def make(directory: Path, outside: Path, **more: str) -> Made:
    workshop = GitWorkshop(("Alice", "alice@example.com"))
    try:
        return init(
            directory,
            project=more.get("project", "shop"),
            owner=more.get("owner", "alice"),
            email="alice@example.com",
            scaffold=data_dir("templates") / "scaffold",
            outside=outside,
            workshop=workshop,
            at=NOW,
            layout=make_layout,
        )
    finally:
        workshop.close()


def git(directory: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(directory), *words], check=True, capture_output=True, text=True).stdout


def test_a_new_repository(tmp_path: Path) -> None:
    directory, outside = tmp_path / "shop", tmp_path / "secrets"
    made = make(directory, outside)
    assert TrustRoot.load(made.root_path) == made.root
    assert git(directory, "status", "--porcelain") == ""
    assert git(directory, "rev-list", "--count", "main").strip() == "2"
    genesis = git(directory, "ls-tree", "--name-only", "-r", made.root.genesis).split()
    assert genesis == ["lockgate.yaml", "trust/layout.json", "trust/trust.yaml"]
    owner = FileSigner(made.keys["owner"]).public_key
    assert signed_by((directory / "trust" / "layout.json").read_bytes(), {owner: "alice"}) == ["alice"]
    assert (directory / "environments" / "dev.yaml").is_file()
    git(directory, "fsck", "--strict")
    assert oct(made.keys["controller"].stat().st_mode & 0o777) == "0o600"

    repo = GitRepo.read_only(directory)
    state = genesis_state(repo, made.root)
    tip = git(directory, "rev-parse", "main").strip()
    judged = judge_main(repo, state, tip, Evidence(), Terms("shop", made.root.refs.main, verify))
    assert judged.accepted == tip and judged.refused == ()
    signers = outside / "signers"
    signers.write_text(allowed_signers(repo, made.root, tip, verify))
    git(directory, "-c", f"gpg.ssh.allowedSignersFile={signers}", "verify-commit", tip, made.root.genesis)
    repo.close()


def test_places_and_names_that_are_refused(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("x")
    for directory, outside, code in (
        (full, tmp_path / "a", "directory-in-use"),
        (full / "file", tmp_path / "a", "directory-in-use"),
        (tmp_path / "new", tmp_path / "new" / "keys", "keys-inside"),
    ):
        with pytest.raises(LockgateError) as error:
            make(directory, outside)
        assert error.value.code == code
    with pytest.raises(LockgateError):
        make(tmp_path / "bad", tmp_path / "b", project="Not A Name: {}")
    assert not (tmp_path / "bad").exists()


def test_an_origin_with_reviewed_files(tmp_path: Path) -> None:
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(origin)], check=True)
    (tmp_path / "keys").mkdir()
    keys: dict[str, FileSigner] = {name: generate_key(tmp_path / "keys" / name) for name in PEOPLE}
    repo = GitRepo(str(origin), tmp_path / "state")
    root = create_project(
        repo,
        project="shop",
        trust=trust_bytes(keys={name: key.public_key for name, key in keys.items()}),
        document=b"apiVersion: lockgate.dev/v1\nkind: Project\nmetadata: {name: shop}\n",
        files={},
        signer=keys["olga"],
        at=NOW,
    )
    files = {"promotions/prod.yaml": slot("r1"), "policies/p.yaml": b"deny"}
    commit_on(repo, "start", Person("Dave", "dave@example.com", keys["dave"]), files, "Start")
    rita = Person("Rita", "rita@example.com", keys["rita"])
    tip = merge_branch(repo, "start", rita, into="main", message="Merge: Start")
    state = genesis_state(repo, root)
    judged = judge_main(repo, state, tip, Evidence(), Terms("shop", root.refs.main, verify))
    assert judged.accepted == tip and judged.newly[0].approvals == ("rita",)
    with pytest.raises(LockgateError):
        create_project(repo, project="x", trust=trust_bytes(), document=b"", files={}, signer=keys["olga"], at=NOW)
    with pytest.raises(LockgateError) as error:
        create_project(
            repo,
            project="x",
            trust=trust_bytes(),
            document=b"",
            files={},
            signer=keys["olga"],
            at=NOW,
            trust_files={"promotions/prod.yaml": b"x"},
        )
    assert error.value.code == "genesis-malformed"
    repo.close()
