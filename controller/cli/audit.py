"""`verify` and `trust`: what an auditor asks, from a pinned root."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from controller.cli.context import context_of
from controller.cli.session import RootOption, load_root, reading, viewing
from controller.errors import UsageError

Pinned = Annotated[
    Path | None,
    typer.Option("--trust-root", help="The pinned trust root: everything is verified from it."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("verify")(verify)
    trust = typer.Typer(name="trust", help="Who may sign what.", no_args_is_help=True)
    trust.command("allowed-signers")(allowed_signers)
    trust.command("show")(show)
    app.add_typer(trust)


def verify(
    context: typer.Context,
    trust_root: Pinned = None,
    run: Annotated[str | None, typer.Option("--run", help="Report findings about this run only.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Walk only the evidence after this commit, verified before.")
    ] = None,
) -> None:
    """Verify main, requests and evidence from the pinned root; exit code 1 with each finding."""
    from controller.cli import render
    from controller.uses.verify import verify as verify_history
    from controller.wiring.repos import ask_cel, verify_ssh

    root = load_root(_needed(trust_root))
    assert root is not None
    options = context_of(context)
    with reading(options, trust_root) as repo:
        report = verify_history(
            repo,
            root,
            verify_ssh=verify_ssh,
            ask=ask_cel(),
            run=run,
            since=since,
            progress=_progress(options.output == "text"),
        )
    value = {
        "verified": report.verified,
        "commits": report.commits,
        "entries": report.entries,
        "runs": report.runs,
        "refused": len(report.refused),
        "refusedCommits": [
            {"commit": one.commit, "ref": one.ref, "code": one.code, "message": one.message}
            for one in report.refused
        ],
        "findings": [
            {"code": one.code, "commit": one.commit, "path": one.path, "rule": one.rule, "message": one.message}
            for one in report.findings
        ],
    }
    options.answer(value, lambda: render.verify_text(value))
    if not report.verified:
        raise typer.Exit(1)


def _progress(wanted: bool) -> Callable[[int, int], None] | None:
    """A counter on standard error, on a terminal only."""
    if not wanted or not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        end = "\r" if done < total else "\r\x1b[K"
        print(f"verifying {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show


def _needed(trust_root: Path | None) -> Path:
    if trust_root is None:
        raise UsageError(
            "trust-root-missing",
            "nothing can be verified without a pinned root",
            where="--trust-root",
            expected="the trust-root.json of this project",
            got="none",
            cure="give --trust-root FILE or set LOCKGATE_TRUST_ROOT",
        )
    return trust_root


def allowed_signers(
    context: typer.Context,
    trust_root: Pinned = None,
    role: Annotated[str | None, typer.Option("--role", help="Only this role's keys.")] = None,
) -> None:
    """The allowed-signers file of a role for stock git, derived from the pinned root."""
    from controller.uses.allowed_signers import allowed_signers as signers_of
    from controller.wiring.repos import verify_ssh

    root = load_root(_needed(trust_root))
    assert root is not None
    options = context_of(context)
    with viewing(options, trust_root) as found:
        text = signers_of(found.repo, root, found.accepted or root.genesis, verify_ssh, role)
    lines = [line.split(" ", 2) for line in text.splitlines()]
    options.answer([{"principal": name, "options": terms, "key": key} for name, terms, key in lines], lambda: text)


def show(context: typer.Context, trust_root: RootOption = None) -> None:
    """The trust document in force at the accepted tip of main."""
    from controller.cli import render
    from controller.model.entry import format_time

    options = context_of(context)
    with viewing(options, trust_root) as found:
        trust = found.trust
        principals = trust.document.spec.principals
        value = {
            "version": trust.version,
            "sha256": f"sha256:{trust.sha256}",
            "commit": found.accepted or "",
            "principals": [
                {
                    "name": name,
                    "roles": sorted(trust.roles_of(name)),
                    "keys": list(member.keys),
                    "emails": list(principals[name].emails),
                    "validAfter": format_time(member.valid_after) if member.valid_after else None,
                    "validBefore": format_time(member.valid_before) if member.valid_before else None,
                }
                for name, member in sorted(trust.members.items())
            ],
            "thresholds": {name: role.threshold for name, role in sorted(trust.document.spec.roles.items())},
        }
        options.answer(value, lambda: render.trust_text(value))
