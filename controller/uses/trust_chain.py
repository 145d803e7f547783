"""Collecting the trust chain from history, for those who hold only a trust root."""

from __future__ import annotations

import re
from collections.abc import Iterable

from controller.core.accept import genesis_state
from controller.core.chain import Chain, ChainLink, tree_entries
from controller.core.trust import TrustState, VerifySsh, check_successor
from controller.errors import LockgateError, Refused
from controller.model.places import TRUST_PATH
from controller.model.trustroot import TrustRoot
from controller.ports import Repo

_SIGNATURE = re.compile(r"trust/[0-9]+/([a-z0-9][a-z0-9.-]*)\.sig")


def build_chain(repo: Repo, root: TrustRoot, tip: str, verify_ssh: VerifySsh) -> Chain:
    """The links from genesis to the trust document of `tip`, an accepted commit of main.

    Documents that were pushed and never followed their predecessor (refused changes) are left out. Raises
    Refused("genesis-mismatch"), Refused("main-rewound"), Refused("trust-quorum") when the tip's document has
    no chain.
    """
    return Chain(links=[link for link, _ in trust_history(repo, root, tip, verify_ssh)])


def trust_history(
    repo: Repo, root: TrustRoot, tip: str, verify_ssh: VerifySsh
) -> list[tuple[ChainLink, TrustState]]:
    """Each link of the chain with the state it leads to, oldest first. Raises as `build_chain` does."""
    genesis_state(repo, root)
    commits = [commit.id for commit in repo.first_parents(tip, root.genesis)]
    chains = _chains(repo, root, commits, verify_ssh)
    current = repo.file(tip, TRUST_PATH)
    wanted = TrustState.parse(repo.read(current.blob)).sha256 if current else ""
    if wanted not in chains:
        raise Refused(
            "trust-quorum",
            "the tip's trust document does not follow from genesis",
            where=f"commit {tip[:12]} {TRUST_PATH}",
            expected="a chain of versions signed by their owners",
            got="no such chain",
            cure="run `lockgate verify`",
        )
    return chains[wanted]


def signed_versions(
    repo: Repo,
    root: TrustRoot,
    commits: Iterable[str],
    verify_ssh: VerifySsh,
    changed: list[str] | None = None,
) -> dict[int, tuple[TrustState, ...]]:
    """Every trust version of these first-parent commits of main, oldest first, that its owners' quorum signed;
    genesis' own among them. Whether main could be accepted with it is another question. `changed` gets the commits
    that change the document: they alone give the same answer. Raises Refused("genesis-mismatch") and what a
    damaged genesis raises.
    """
    found: dict[int, dict[str, TrustState]] = {}
    for chain in _chains(repo, root, commits, verify_ssh, changed).values():
        for _, state in chain:
            found.setdefault(state.version, {})[state.sha256] = state
    return {version: tuple(states.values()) for version, states in found.items()}


def _chains(
    repo: Repo,
    root: TrustRoot,
    commits: Iterable[str],
    verify_ssh: VerifySsh,
    changed: list[str] | None = None,
) -> dict[str, list[tuple[ChainLink, TrustState]]]:
    """Every chain of documents from genesis, by the digest of the one it ends in."""
    first = _genesis_link(repo, root)
    start = TrustState.parse(first.document)
    chains: dict[str, list[tuple[ChainLink, TrustState]]] = {start.sha256: [(first, start)]}
    genesis = repo.file(root.genesis, TRUST_PATH)
    seen = {genesis.blob if genesis else ""}
    last = None
    for commit in commits:
        try:
            entry = repo.file(commit, TRUST_PATH)
            if entry is None or entry.blob == last:
                continue
            last = entry.blob
            if changed is not None:
                changed.append(commit)
            if entry.blob not in seen and _follow(repo, commit, repo.read(entry.blob), chains, verify_ssh):
                seen.add(entry.blob)
        except Refused:
            continue  # a document that cannot be read is no link; judging main says what is wrong there
    return chains


def _follow(
    repo: Repo,
    commit: str,
    document: bytes,
    chains: dict[str, list[tuple[ChainLink, TrustState]]],
    verify_ssh: VerifySsh,
) -> bool:
    """Extend whichever chain this document follows, with the signatures of the tree it came in."""
    for chain in list(chains.values()):
        previous = chain[-1][1]
        signatures: dict[str, str] = {}
        for path, entry in repo.files(commit, f"trust/{previous.version + 1}/"):
            found = _SIGNATURE.fullmatch(path)
            if found:
                signatures[found[1]] = repo.read(entry.blob).decode("ascii", "replace")
        try:
            state = check_successor(previous, document, signatures, verify_ssh)
        except LockgateError:
            continue
        chains[state.sha256] = [*chain, (ChainLink(document=document, signatures=signatures), state)]
        return True
    return False


def _genesis_link(repo: Repo, root: TrustRoot) -> ChainLink:
    kind, commit = repo.raw(root.genesis)
    head = commit.partition(b"\n")[0]
    if kind != "commit" or not head.startswith(b"tree "):
        raise Refused(
            "genesis-mismatch",
            "the pinned genesis is no commit of this repository",
            where=root.genesis,
            expected="a commit",
            got=kind,
            cure="use the trust-root.json of this repository",
        )
    top = repo.raw(head[5:].decode("ascii"))[1]
    mode, folder = (tree_entries(top) or {}).get(b"trust", (b"", ""))
    trust = repo.raw(folder)[1] if mode == b"40000" else b""
    entry = repo.file(root.genesis, TRUST_PATH)
    document = repo.read(entry.blob) if entry else b""
    return ChainLink(document=document, commit=commit, trees=[top, trust])
