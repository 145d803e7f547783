"""`trust restart`: owners say how evidence goes on after it was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.ask import ReasonOption, needed_reason
from controller.cli.context import context_of
from controller.cli.session import KeyOption, NameOption, PinnedOption, now, person, pinned_root, writing
from controller.errors import Invalid, Refused, UsageError

if TYPE_CHECKING:
    from controller.core.trust import TrustState
    from controller.ledger.append import Ledger
    from controller.model.restart import Restart
    from controller.model.trustroot import TrustRoot
    from controller.uses.shapes import RestartShape
    from controller.wiring.people import Person
    from controller.wiring.repos import GitRepo


def restart(
    context: typer.Context,
    lost: Annotated[
        str | None, typer.Option("--lost", help="The evidence commit that the controller says it misses.")
    ] = None,
    acknowledge: Annotated[
        list[str] | None,
        typer.Option("--acknowledge", help="A refused commit of main that owners had let stand; may be repeated."),
    ] = None,
    countersign: Annotated[
        bool, typer.Option("--countersign", help="Sign the restart that another owner proposed.")
    ] = False,
    branch: Annotated[
        str | None, typer.Option("--branch", help="The branch; by default restart-<number>.")
    ] = None,
    reason: ReasonOption = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: PinnedOption = None,
) -> None:
    """Let lost evidence go on from what the origin holds, as an owner; it takes as many as a trust version."""
    options = context_of(context)
    root = pinned_root(trust_root)
    with writing(options, trust_root) as repo:
        if countersign:
            value = _countersigned(repo, root, branch, key, name)
        else:
            value = _proposed(repo, root, needed_reason(reason), lost, acknowledge or [], branch, key, name)
    options.answer(value, lambda: restart_text(value))


def _survivor(repo: GitRepo) -> Ledger:
    from controller.ledger import append

    tip = repo.observe().evidence
    return append.load(repo, tip) if tip is not None else append.Ledger()


def _proposed(
    repo: GitRepo,
    root: TrustRoot,
    reason: str,
    lost: str | None,
    stood: list[str],
    branch: str | None,
    key: str | None,
    name: str | None,
) -> RestartShape:
    from controller.core.restart import restart_bytes
    from controller.model.restart import restart_path, restart_signature_path
    from controller.wiring.people import propose as commit_proposal

    made, trust = _made(repo, root, reason, lost, stood)
    who, signature = _signed(made, trust, key, name)
    where = branch or f"restart-{made.number}"
    files = {
        restart_path(made.number): restart_bytes(made),
        restart_signature_path(made.number, who.name): signature,
    }
    commit = commit_proposal(repo, where, who, files, f"Restart evidence\n\n{reason}\n")
    return _shape(repo, made, trust, where, commit)


def _made(
    repo: GitRepo, root: TrustRoot, reason: str, lost: str | None, stood: list[str]
) -> tuple[Restart, TrustState]:
    """The restart for what the origin holds. Raises Refused("main-stands-still")."""
    from controller.uses.restarting import propose
    from controller.wiring.repos import verify_ssh

    tips = repo.observe()
    if tips.main is None:
        cure = "push main again from a clone, or give --repo the project's origin"
        raise Invalid("main-missing", "the origin has no main branch", where=root.refs.main, cure=cure)
    ledger = _survivor(repo)
    if lost is not None and not _is_id(lost):
        raise UsageError(
            "lost-malformed",
            "this is no commit",
            where="--lost",
            expected="7 to 40 hex digits",
            got=lost,
            cure="give the id of the lost evidence tip, as the controller's message or a receipt names it",
        )
    vouched: dict[str, str] = {}
    while True:
        said = (reason, lost, vouched)
        made, main = propose(repo, root, ledger, (tips.main, tips.requests), said, verify_ssh, now())
        more = {
            step.commit: step.refused or ""
            for step in main.refused
            if any(step.commit.startswith(one) for one in stood) and step.commit not in vouched
        }
        if not more:
            break
        vouched |= more
    if main.refused:
        step = main.refused[0]
        raise Refused(
            "main-stands-still",
            f"main is refused there: {step.message}",
            where=f"commit {step.commit[:12]}",
            expected="main to be accepted up to its tip with what owners vouch for",
            got=step.refused or "",
            cure="take the commit back by a reviewed revert, or name it with --acknowledge if owners let it stand",
        )
    return made, main.trust


def _is_id(text: str) -> bool:
    return 7 <= len(text) <= 40 and all(letter in "0123456789abcdef" for letter in text)


def _countersigned(
    repo: GitRepo, root: TrustRoot, branch: str | None, key: str | None, name: str | None
) -> RestartShape:
    from controller.core.restart import read_restart
    from controller.model.restart import restart_path, restart_signature_path
    from controller.uses.restarting import newest_restart
    from controller.wiring.people import commit_on

    tips = repo.observe()
    number = (newest_restart(repo, tips.main) if tips.main is not None else None) or 0
    where = branch or f"restart-{max(number, _survivor(repo).state.cursors.restarts) + 1}"
    tip = repo.known(f"refs/heads/{where}")
    found = newest_restart(repo, tip) if tip is not None else None
    file = repo.file(tip, restart_path(found)) if tip is not None and found is not None else None
    if file is None or found is None:
        raise Invalid(
            "restart-missing",
            "no restart is proposed there",
            where=where,
            expected=f"a branch with {restart_path(number + 1)}",
            got="none",
            cure="make one with `lockgate trust restart --reason R`, or name its branch with --branch",
        )
    proposed = read_restart(repo.read(file.blob), restart_path(found))
    stood = [one.commit for one in proposed.acknowledged]
    own, trust = _made(repo, root, proposed.reason, proposed.lost, stood)
    if own.model_copy(update={"at": proposed.at, "number": proposed.number}) != proposed:
        raise Refused(
            "restart-mismatch",
            "the proposed restart is not what the origin calls for",
            where=f"{where} {restart_path(found)}",
            expected="what `lockgate trust restart` would write here",
            got="something else: evidence, main or requests moved on, or it vouches for more",
            cure="propose it anew",
        )
    who, signature = _signed(proposed, trust, key, name)
    files: dict[str, bytes | None] = {restart_signature_path(found, who.name): signature}
    commit = commit_on(repo, where, who, files, f"Countersign the restart of evidence as {who.name}")
    return _shape(repo, proposed, trust, where, commit)


def _signed(made: Restart, trust: TrustState, key: str | None, name: str | None) -> tuple[Person, bytes]:
    """Who signs, named as Trust does, and the detached signature. Raises Refused("not-an-owner")."""
    from dataclasses import replace

    from controller.core.restart import restart_bytes
    from controller.core.trust import OWNERS, TRUST_NAMESPACE

    who = person(trust, key, name)
    assert who.signer is not None
    owner = trust.owner_of(who.signer.public_key) or ""
    if not trust.holds(owner, OWNERS):
        raise Refused(
            "not-an-owner",
            "only owners restart evidence",
            where=f"trust version {trust.version}",
            expected=", ".join(sorted(trust.roles.get(OWNERS, ()))),
            got=owner,
            cure="sign with the key of one of them",
        )
    return replace(who, name=owner), who.signer.sign_ssh(restart_bytes(made), TRUST_NAMESPACE).encode()


def _shape(repo: GitRepo, made: Restart, trust: TrustState, branch: str, commit: str) -> RestartShape:
    from controller.core.restart import restart_bytes
    from controller.core.trust import OWNERS, quorum_signers
    from controller.uses.restarting import signatures_at
    from controller.wiring.repos import verify_ssh

    signatures = signatures_at(repo, commit, made.number)
    signed = sorted(quorum_signers(trust, restart_bytes(made), signatures, verify_ssh, now()))
    needed = trust.threshold(OWNERS)
    left = sorted(trust.roles.get(OWNERS, frozenset()) - set(signed))
    if len(signed) < needed:
        following = f"{needed - len(signed)} more of {', '.join(left)}: lockgate trust restart --countersign"
        following += f" --branch {branch} --key KEY"
    else:
        following = f"have it merged: lockgate merge {branch} --key KEY"
    return {
        "number": made.number,
        "branch": branch,
        "commit": commit,
        "evidence": made.evidence,
        "size": made.size,
        "lost": made.lost,
        "main": made.main,
        "locks": [lock.path for lock in made.locks],
        "reverts": [f"{one.path} by {one.run}" for one in made.reverts],
        "acknowledged": [one.commit for one in made.acknowledged],
        "signed": signed,
        "needed": needed,
        "next": following,
    }


def restart_text(value: Any) -> str:
    """What a restart says, in words: what its signers vouch for stands in full."""
    from_ = (
        f"{value['evidence'][:12]}, {value['size']} entries" if value["evidence"] else "nothing: it begins anew"
    )
    lines = [f"restart {value['number']} on {value['branch']} ({value['commit'][:8]})", f"  goes on from {from_}"]
    if value["lost"]:
        lines.append(f"  lost: {value['lost'][:12]}")
    lines.append(f"  main up to {value['main'][:12]}; by signing you vouch that the controller made there:")
    lines += [f"    {text}" for text in (*value["locks"], *value["reverts"])] or ["    nothing"]
    lines += [f"  let stand: {commit[:12]}" for commit in value["acknowledged"]]
    lines.append(f"  signed by {', '.join(value['signed']) or 'nobody'}, {value['needed']} needed")
    return "\n".join([*lines, f"next: {value['next']}"])
