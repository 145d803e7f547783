"""`trust layout`: what stock in-toto-verify checks runs against, signed by the owners."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.context import context_of
from controller.cli.session import KeyOption, NameOption, RootOption, person, writing
from controller.errors import Invalid, UsageError

if TYPE_CHECKING:
    from controller.uses.view import View
    from controller.wiring.people import Person
    from controller.wiring.repos import GitRepo


def layout(
    context: typer.Context,
    environment: Annotated[
        str | None, typer.Option("--environment", help="A layout of this environment's agents alone.")
    ] = None,
    agents: Annotated[
        int, typer.Option("--agents", help="How many agents must have signed that they deployed.", min=1)
    ] = 1,
    approvers: Annotated[
        str | None, typer.Option("--approvers", help="Demand the approvers' own signatures: a role's.")
    ] = None,
    approvals: Annotated[int, typer.Option("--approvals", help="How many of them, with --approvers.", min=1)] = 1,
    expires: Annotated[
        str | None, typer.Option("--expires", help="Until when it verifies (RFC 3339); by default for ever.")
    ] = None,
    countersign: Annotated[
        bool, typer.Option("--countersign", help="Sign the layout that is there, as it is.")
    ] = False,
    branch: Annotated[
        str, typer.Option("--branch", help="The branch to commit it on, to be reviewed and merged.")
    ] = "trust-layout",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the file here, and commit nothing.", dir_okay=False)
    ] = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
) -> None:
    """Make the in-toto layout of this project's runs and sign it as an owner; the next owner adds a signature."""
    from controller.uses.layout import certified_agents, layout_path, owners_keys
    from controller.uses.view import view
    from controller.wiring import attest
    from controller.wiring.people import commit_on, to_review

    options = context_of(context)
    terms: dict[str, Any] = {"environment": environment, "deployed_by": agents}
    terms |= {"approvers": approvers, "approved_by": approvals}
    terms |= {} if expires is None else {"expires": _instant(expires)}
    with writing(options, trust_root) as repo:
        found = view(repo)
        who = person(found.trust, key, name)
        owners = owners_keys(found.trust)
        path = layout_path(environment)
        former = _former(repo, found, out, branch, path)
        if countersign and former is None:
            raise _nothing_there(str(out or path))
        data = _signed(found, who, owners, former, None if countersign else terms)
        commit = None
        if out is not None:
            _write(out, data)
        else:
            title = f"Sign the in-toto layout {path} as {who.name}"
            commit = commit_on(repo, to_review(repo, branch), who, {path: data}, title)
    value = {
        "path": str(out) if out is not None else path,
        "environment": environment,
        "certified": certified_agents((one.document for one in found.intent.agents.values()), environment),
        "signedBy": attest.signed_by(data, owners),
        "needed": found.trust.threshold("owners"),
        "branch": branch if commit is not None else None,
        "commit": commit,
    }
    options.answer(value, lambda: _words(value))


def _signed(
    found: View, who: Person, owners: dict[str, str], former: bytes | None, asked: dict[str, Any] | None
) -> bytes:
    """The layout with one more signature: that on these terms, or without any the former one."""
    from controller.uses.layout import terms_of
    from controller.uses.view import project_of
    from controller.wiring import attest

    assert who.signer is not None
    if who.signer.public_key not in owners:
        raise _no_owner(owners, who.name)
    if asked is None:
        assert former is not None
        return attest.countersign(former, [who.signer])
    agents = (loaded.document for loaded in found.intent.agents.values())
    made = attest.make_layout(terms_of(found.trust, project_of(found), agents, **asked), [who.signer])
    return attest.merge(made, former) if former is not None else made


def _words(value: dict[str, Any]) -> str:
    where = f" on {value['branch']} ({value['commit'][:8]})" if value["commit"] else ""
    text = f"{value['path']}{where}, signed by {', '.join(value['signedBy'])}"
    if value["certified"]:
        names = ", ".join(value["certified"])
        text += f"\nnot named, and not counted by its threshold: {names}: keys that an authority certifies"
    missing = value["needed"] - len(value["signedBy"])
    if missing > 0:
        return f"{text}\nnext: {missing} more of the owners: lockgate trust layout --countersign --key KEY"
    return f"{text}\nnext: have it reviewed and merged" if value["commit"] else text


def _former(repo: GitRepo, found: View, out: Path | None, branch: str, path: str) -> bytes | None:
    """The layout that is there already: in the file, on the branch, else on accepted main."""
    if out is not None:
        return out.read_bytes() if out.exists() else None
    tip = repo.known(branch if branch.startswith("refs/") else f"refs/heads/{branch}")
    for commit in (tip, found.accepted):
        file = repo.file(commit, path) if commit is not None else None
        if file is not None:
            return repo.read(file.blob)
    return None


def _write(out: Path, data: bytes) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    except OSError as error:
        raise UsageError(
            "file-unwritable",
            "the layout cannot be written",
            where=str(out),
            expected="a place with room that may be written",
            got=error.strerror or type(error).__name__,
            cure="choose another --out",
        ) from error


def _instant(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is None:
            raise ValueError("no offset from UTC")
    except ValueError as error:
        raise UsageError(
            "time-malformed",
            f"--expires is no instant ({error})",
            where="--expires",
            expected="RFC 3339, as 2027-01-01T00:00:00Z",
            got=text,
            cure="give date, time and offset",
        ) from error
    return value


def _no_owner(owners: dict[str, str], who: str) -> Invalid:
    return Invalid(
        "not-an-owner",
        "only owners say who may sign which step",
        where="--key",
        expected=f"a key of {', '.join(sorted(set(owners.values())))}",
        got=who,
        cure="have an owner sign it",
    )


def _nothing_there(where: str) -> UsageError:
    return UsageError(
        "layout-missing",
        "there is no layout to countersign",
        where=where,
        expected="a layout that another owner signed",
        got="none",
        cure="make one: lockgate trust layout --key KEY",
    )
