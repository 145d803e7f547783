"""`trust`: who may sign what, and how that is changed under the owners' signatures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.context import context_of
from controller.cli.layout import layout
from controller.cli.restart import restart
from controller.cli.session import (
    KeyOption,
    NameOption,
    PinnedOption,
    RootOption,
    duration,
    load_root,
    now,
    person,
    pinned_root,
    viewing,
    writing,
)
from controller.errors import Invalid, UsageError

if TYPE_CHECKING:
    from controller.core.trust import TrustState
    from controller.uses.trust_changes import Pending
    from controller.uses.view import View
    from controller.wiring.repos import GitRepo

BranchOption = Annotated[
    str | None, typer.Option("--branch", help="The branch with the pending version; by default trust-<version>.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    trust = typer.Typer(name="trust", help="Who may sign what.", no_args_is_help=True)
    trust.command("allowed-signers")(allowed_signers)
    trust.command("show")(show)
    trust.command("sign")(sign)
    trust.command("rotate")(rotate)
    trust.command("layout")(layout)
    trust.command("restart")(restart)
    app.add_typer(trust)


def allowed_signers(
    context: typer.Context,
    trust_root: PinnedOption = None,
    role: Annotated[
        str | None, typer.Option("--role", help="Only this role's keys; `agents` for those of the agents.")
    ] = None,
) -> None:
    """The allowed-signers file of a role for stock git and ssh-keygen, derived from the pinned root."""
    from controller.uses.allowed_signers import AGENTS, agent_signers
    from controller.uses.allowed_signers import allowed_signers as signers_of
    from controller.wiring.repos import verify_ssh

    root = pinned_root(trust_root)
    options = context_of(context)
    with viewing(options, trust_root) as found:
        tip = found.accepted or root.genesis
        if role == AGENTS and role not in found.trust.roles:
            text = agent_signers(found.repo, root, tip, verify_ssh)
        else:
            text = signers_of(found.repo, root, tip, verify_ssh, role)
    lines = [line.split(" ", 2) for line in text.splitlines()]
    options.answer([{"principal": name, "options": terms, "key": key} for name, terms, key in lines], lambda: text)


def show(
    context: typer.Context,
    version: Annotated[int | None, typer.Option("--version", help="A version that was in force.", min=1)] = None,
    branch: BranchOption = None,
    trust_root: RootOption = None,
) -> None:
    """Principals, keys, roles and path rules; which version is in force by the evidence, and what is pending."""
    from controller.cli import render
    from controller.core.keys import key_id
    from controller.uses.trust_changes import shown, version_at
    from controller.wiring.repos import fingerprint, verify_ssh

    options = context_of(context)
    with viewing(options, trust_root) as found:
        state, commit = found.trust, found.accepted or ""
        if version is not None:
            state, commit = version_at(found, load_root(trust_root), version, verify_ssh)
        keys = {key: (key_id(key), fingerprint(key)) for who in state.members.values() for key in who.keys}
        value = shown(found, state, commit, _pending(found, branch), keys)
    options.answer(value, lambda: render.trust_text(value))


def sign(
    context: typer.Context,
    branch: BranchOption = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            "--signature", help="An owner's signature made elsewhere: ssh-keygen -Y sign -n lockgate-trust."
        ),
    ] = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
) -> None:
    """Sign the pending trust version as an owner; says who has signed and who is still needed."""
    from controller.core.trust import TRUST_NAMESPACE
    from controller.uses.trust_changes import not_next, pending_shape, signature_for
    from controller.uses.view import view
    from controller.wiring.people import commit_on
    from controller.wiring.repos import verify_ssh

    options = context_of(context)
    with writing(options, trust_root) as repo:
        found = view(repo)
        pending = _pending(found, branch)
        if pending is None:
            raise Invalid(
                "trust-not-pending",
                "no next version of the trust document is proposed",
                where=branch or f"trust-{found.trust.version + 1}",
                expected=f"a branch with version {found.trust.version + 1} in trust/trust.yaml",
                got="none",
                cure="make one with `lockgate trust rotate`, or commit the change on a branch and name it",
            )
        if pending.following.version != found.trust.version + 1:
            raise not_next(found.trust, pending.following)
        who = person(found.trust, key, name)
        assert who.signer is not None
        if signature is not None:
            armored = _armored(signature)
        else:
            armored = who.signer.sign_ssh(pending.document, TRUST_NAMESPACE)
        owner = signature_for(pending, found.trust, armored, verify_ssh)
        path = f"trust/{pending.following.version}/{owner}.sig"
        title = f"Sign trust version {pending.following.version} as {owner}"
        commit = commit_on(repo, pending.branch, who, {path: armored.encode()}, title)
        after = _pending(found, pending.branch)
        assert after is not None
        value = {
            "principal": owner,
            "path": path,
            "commit": commit,
            "pending": pending_shape(after),
            "next": after.next_step(),
        }
    options.answer(value, lambda: _signed_text(value, after))


def _armored(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            "signature-unreadable",
            "the signature cannot be read",
            where=str(path),
            expected="what ssh-keygen -Y sign wrote",
            got=type(error).__name__,
            cure="name the .sig file",
        ) from error


def _signed_text(value: dict[str, Any], after: Pending) -> str:
    lines = [f"{value['principal']} signed trust version {after.following.version} ({value['commit'][:8]})"]
    for quorum in after.quorums:
        signed = ", ".join(sorted(quorum.signed)) or "nobody"
        lines.append(
            f"  owners of version {quorum.version}: {len(quorum.signed)} of {quorum.needed} needed ({signed})"
        )
    return "\n".join([*lines, f"next: {value['next']}"])


def rotate(
    context: typer.Context,
    principal: Annotated[str, typer.Argument(help="A principal of Trust, or an agent.", metavar="PRINCIPAL")],
    new_key: Annotated[
        str, typer.Option("--new-key", help="The new public key: its .pub file, the line itself, or a signer.")
    ],
    overlap: Annotated[str, typer.Option("--overlap", help="How long the old keys may still sign.")] = "7d",
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Take the old keys away at once: somebody else may have them.")
    ] = False,
    branch: Annotated[
        str | None, typer.Option("--branch", help="The branch to write; by default trust-<version>.")
    ] = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
) -> None:
    """Give a principal or agent a new key: the changed document, as a signed commit on a branch to be reviewed."""
    from controller.uses.view import view
    from controller.wiring.people import propose

    options = context_of(context)
    span = duration("--overlap", overlap)
    with writing(options, trust_root) as repo:
        found = view(repo)
        who = person(found.trust, key, name)
        public = public_key_of(new_key)
        until = None if compromised else (now() + span).replace(microsecond=0)
        path, data, version = _rotated(repo, found, principal, public, until)
        where = branch or (f"trust-{version}" if version is not None else f"rotate-{principal}")
        title = f"Rotate the key of {principal}\n\n" + (
            "The old keys are compromised and may not sign any more.\n"
            if until is None
            else f"The old keys may sign until {until.isoformat()}.\n"
        )
        commit = propose(repo, where, who, {path: data}, title)
        following = _rotation_next(found, where, version, path)
    value = {
        "principal": principal,
        "key": public,
        "file": path,
        "version": version,
        "oldKeysUntil": until.isoformat() if until is not None else None,
        "branch": where,
        "commit": commit,
        "next": following,
    }
    old = f"the old keys until {until.isoformat()}" if until is not None else "the old keys no more"
    options.answer(
        value, lambda: f"{principal}: new key in {path} on {where} ({commit[:8]}), {old}\nnext: {following}"
    )


def _rotated(repo: GitRepo, found: View, principal: str, public: str, until: Any) -> tuple[str, bytes, int | None]:
    """The changed document: its path, bytes, and the trust version it makes (None for an agent's)."""
    from controller.core.rotation import rotate_agent, rotate_principal
    from controller.model.documents import TRUST_PATH

    accepted = found.accepted
    path = TRUST_PATH if principal in found.trust.members else f"agents/{principal}.yaml"
    file = repo.file(accepted, path) if accepted is not None else None
    if file is None:
        raise Invalid(
            "principal-unknown",
            "neither the trust document nor agents/ knows this name",
            where=principal,
            expected=", ".join(sorted(found.trust.members)) + ", or an agent",
            got=principal,
            cure="see `lockgate trust show`",
        )
    data = repo.read(file.blob)
    if path == TRUST_PATH:
        found.trust.check_agent_keys(_agent_keys(found) | {"a new key": public})
        return path, rotate_principal(data, principal, public, until), found.trust.version + 1
    keys = {name: key for name, key in _agent_keys(found).items() if name != principal}
    found.trust.check_agent_keys({**keys, principal: public})
    return path, rotate_agent(path, data, public, until), None


def _agent_keys(found: View) -> dict[str, str]:
    """The keys of the agents that sign with a key of their own (an authority may certify for several)."""
    agents = {name: loaded.document.spec for name, loaded in found.intent.agents.items()}
    return {name: spec.public_key for name, spec in agents.items() if not spec.cert_authority}


def _rotation_next(found: View, branch: str, version: int | None, path: str) -> str:
    if version is not None:
        owners = ", ".join(sorted(found.trust.roles.get("owners", ())))
        return f"have the owners ({owners}) sign it: lockgate trust sign --branch {branch} --key KEY"
    needed = found.trust.approvals_for(path)
    by = ", ".join(f"{number} of {role}" for role, number in sorted(needed.items())) or "anybody who may write it"
    return (
        f"open a pull request of {branch}, to be merged by {by}; without a host: lockgate merge {branch} --key KEY"
    )


def public_key_of(given: str) -> str:
    """The OpenSSH public key, without comment, of a .pub file, a key line, or a signer's address.

    Raises UsageError("key-malformed") and as `open_signer`.
    """
    from controller.core.keys import normal_key
    from controller.wiring.making import open_signer

    if "PRIVATE KEY" in given:
        return open_signer(given).public_key  # which refuses it, and repeats nothing of it
    text = given
    path = Path(given)
    try:
        if path.suffix == ".pub" or " " not in given:
            text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        return open_signer(given).public_key
    if "PRIVATE KEY" in text[:60]:
        return open_signer(given).public_key
    try:
        return normal_key(text)
    except Invalid as error:
        raise UsageError(
            "key-malformed",
            "this is no public key",
            where=f"--new-key {given[:60]}",
            expected="a .pub file, its line, or a signer such as ssh-agent:COMMENT",
            got=error.got,
            cure="make a key with: ssh-keygen -t ed25519 -f FILE",
        ) from error


def _pending(found: View, branch: str | None) -> Pending | None:
    """The next version on a branch, or on main where it is not accepted; None when there is none."""
    from controller.uses.trust_changes import pending_at
    from controller.wiring.repos import verify_ssh

    repo: GitRepo = found.repo  # type: ignore[assignment]
    trust: TrustState = found.trust
    names = [branch] if branch is not None else [f"trust-{trust.version + 1}", repo.main]
    for name in names:
        tip = repo.known(name if name.startswith("refs/") else f"refs/heads/{name}")
        if tip is None or tip == found.accepted:
            continue
        pending = pending_at(repo, trust, name.removeprefix("refs/heads/"), tip, verify_ssh, now())
        if pending is not None:
            return pending
    return None
