"""Commits of people: a promotion on a branch, a signed merge, and the revert that sets main going again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.ask import EnvironmentArgument, ReasonOption, TicketOption, known_release, needed_reason
from controller.cli.context import context_of
from controller.cli.session import KeyOption, NameOption, RootOption, duration, now, person, writing
from controller.errors import Invalid, LockgateError

if TYPE_CHECKING:
    from controller.cli.linking import Linked
    from controller.core.accept import MainState
    from controller.uses.view import View
    from controller.wiring.people import Person
    from controller.wiring.repos import GitRepo

LinkWaitOption = Annotated[
    str | None,
    typer.Option(
        "--link-wait",
        help="Sign the in-toto link of your approval, and wait this long for the run (0s: not). "
        "By default 30s where the layout demands it.",
    ),
]
SCHEMA_LINE = "# yaml-language-server: $schema=https://lockgate.dev/schemas/v1/promotion.schema.json\n"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("promote")(promote)
    app.command("merge")(merge)
    app.command("restore-main")(restore_main)


def promote(
    context: typer.Context,
    environment: EnvironmentArgument,
    release: Annotated[str, typer.Argument(help="The release.", metavar="RELEASE")],
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    branch: Annotated[
        str | None, typer.Option("--branch", help="The branch to write; by default promote/ENV-RELEASE.")
    ] = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
) -> None:
    """Ask for a release in an environment: its slot, as a signed commit on a branch to be reviewed."""
    from controller.uses.view import view
    from controller.wiring.people import propose

    why = needed_reason(reason)
    options = context_of(context)
    with writing(options, trust_root) as repo:
        found = view(repo)
        found.environment(environment)
        known_release(found, release)
        _promotable(found, release)
        who = person(found.trust, key, name)
        path, data = f"promotions/{environment}.yaml", slot_bytes(environment, release, why, ticket)
        _changes_something(found, path, data)
        where = branch or f"promote/{environment}-{release}"
        title = f"Promote {release} to {environment}\n\n{why}\n" + (f"\nTicket: {ticket}\n" if ticket else "")
        commit = propose(repo, where, who, {path: data}, title)
        following = _next(found, environment, release, where, who.name)
    value = {"environment": environment, "release": release, "branch": where, "commit": commit, "next": following}
    text = f"{release} to {environment}: {path} written on {where} ({commit[:8]})\nnext: {following}"
    options.answer(value, lambda: text)


def slot_bytes(environment: str, release: str, reason: str, ticket: str | None) -> bytes:
    """The file of a promotion slot."""
    import yaml

    spec = {"release": release, "reason": reason} | ({"ticket": ticket} if ticket else {})
    document = {
        "apiVersion": "lockgate.dev/v1",
        "kind": "Promotion",
        "metadata": {"name": environment},
        "spec": spec,
    }
    return (SCHEMA_LINE + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=4096)).encode()


def _promotable(found: View, release: str) -> None:
    spec = found.intent.releases[release].document.spec
    if spec.state in ("blocked", "archived"):
        raise Invalid(
            f"release-{spec.state}",
            f"{release} is {spec.state}: {spec.reason}",
            where=f"releases/{release}.yaml",
            expected="an active release",
            got=spec.state,
            cure="promote another release",
        )


def _changes_something(found: View, path: str, data: bytes) -> None:
    there = found.repo.file(found.tips.main, path) if found.tips.main is not None else None
    if there is not None and found.repo.read(there.blob) == data:
        raise Invalid(
            "promotion-unchanged",
            "main's slot says exactly this already",
            where=path,
            expected="another release, reason or ticket",
            got="the same",
            cure="see `lockgate status`, or give another --reason to run it again",
        )


def _next(found: View, environment: str, release: str, branch: str, author: str) -> str:
    """What the author does now, in one line."""
    slot = f"promotions/{environment}.yaml"
    needed = found.trust.approvals_for(slot)
    roles = ", ".join(f"{number} of {role}" for role, number in sorted(needed.items()))
    by = f"by {roles}, who is not {author}" if roles else "by anybody who may write it"
    text = f"open a pull request of {branch}, to be merged {by}; without a host: lockgate merge {branch} --key KEY"
    if release not in found.intent.locks:
        text += f"; {release} is not locked yet: merged before its lock is on main, the merge approves nothing"
    if found.state.cursors.refused:
        text += "; main stands still: see `lockgate status`"
    return text


@dataclass(frozen=True, slots=True)
class Landing:
    """How a commit on main is judged: accepted, or what holds main back, and whom it counts as approvals of."""

    accepted: bool
    code: str | None
    message: str | None
    approves: tuple[str, ...]


def merge(
    context: typer.Context,
    branch: Annotated[str, typer.Argument(help="The branch to merge into main.", metavar="BRANCH")],
    message: Annotated[str | None, typer.Option("--message", "-m", help="The merge commit's message.")] = None,
    link_wait: LinkWaitOption = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
) -> None:
    """Merge a branch into main as a reviewer: a signed merge, for origins without a host.

    Where Trust says `mergeApproval: trailer`, its message says that it approves here. Where the in-toto layout
    demands your own link of the approval, it is signed too, once the run that the merge opens is on record.
    """
    from controller.cli.linking import words
    from controller.core.attribution import approving_message
    from controller.uses.view import project_of, trust_at, view
    from controller.wiring.people import merge_branch

    options = context_of(context)
    with writing(options, trust_root) as repo:
        found = view(repo)
        trust = trust_at(repo, found.accepted)
        who = person(trust, key, name)
        _something_to_merge(repo, found, branch)
        text = approving_message(trust, message or f"Merge branch '{branch}'", project_of(found), repo.main)
        commit = merge_branch(repo, branch, who, into=repo.main, message=text)
        landing = judge(repo, found, commit)
        linked = _links(repo, commit, who, landing, link_wait)
    value = _landed(commit, branch, landing, linked)
    text = f"merged {branch} into main as {commit[:8]}\n{_meaning(landing)}"
    options.answer(value, lambda: text + words(linked))


def _links(repo: GitRepo, merge: str, who: Person, landing: Landing | None, link_wait: str | None) -> list[Linked]:
    """The links that go with a merge which approves: those demanded, or all where patience was asked for."""
    from controller.cli import linking

    patience = linking.PATIENCE if link_wait is None else duration("--link-wait", link_wait)
    if landing is None or not landing.accepted or not landing.approves or not patience:
        return []
    environments = linking.promoted(repo, merge)
    if link_wait is None:
        environments = linking.demanded(repo, merge, environments, who)
    return linking.add_links(repo, merge, environments, who, patience)


def _something_to_merge(repo: GitRepo, found: View, branch: str) -> None:
    tip = repo.known(branch)
    if tip is not None and found.tips.main is not None and repo.is_ancestor(tip, found.tips.main):
        raise Invalid(
            "nothing-to-merge",
            "main has all of this branch already",
            where=branch,
            expected="a commit that main does not have",
            got=tip[:12],
            cure="see `lockgate status`",
        )


def restore_main(
    context: typer.Context,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit's message.")] = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
) -> None:
    """Set main going again: a signed commit after which main equals what was last accepted.

    It takes back everything since, also good commits that landed while main stood still: merge those again.
    """
    from controller.uses.view import view
    from controller.wiring.people import restore

    options = context_of(context)
    with writing(options, trust_root) as repo:
        found = view(repo)
        accepted = found.accepted
        if not found.state.cursors.refused or accepted is None:
            raise Invalid(
                "main-not-refused",
                "main does not stand still: there is nothing to take back",
                expected="a refused commit on record",
                got="none",
                cure="see `lockgate status`; the controller records a refusal when it reads main",
            )
        who = person(found.trust, key, name)
        refused = ", ".join(one.commit[:8] for one in found.state.cursors.refused)
        text = message or f"Restore main to {accepted[:8]}\n\nTakes back what was refused: {refused}\n"
        commit = restore(repo, who, to=accepted, branch=repo.main, message=text)
        landing = judge(repo, found, commit)
    value = _landed(commit, "main", landing)
    options.answer(value, lambda: f"main restored to {accepted[:8]} by {commit[:8]}\n{_meaning(landing)}")


def judge(repo: GitRepo, found: View, tip: str) -> Landing | None:
    """How main's rules judge it at `tip`, by the controller's own code; None when that cannot be told."""
    from controller.core.accept import Terms, genesis_state, judge_main, resume_state
    from controller.ledger.append import Ledger
    from controller.ledger.backing import EvidenceBacking
    from controller.model.trustroot import TrustRoot
    from controller.uses.view import project_of
    from controller.wiring.repos import verify_ssh

    try:
        project = project_of(found)
        backing = EvidenceBacking(repo, Ledger(found.tips.evidence, found.state))
        if found.state.cursors.main is not None:
            state = resume_state(repo, found.state.cursors.main)
        else:
            state = genesis_state(repo, TrustRoot(project=project, genesis=repo.chain(tip)[0]))
        at = now().replace(microsecond=0)
        terms = Terms(project, repo.main, verify_ssh, observed=lambda _: at)
        judged = judge_main(repo, state, tip, backing, terms)
    except LockgateError:
        return None
    return _landing(judged, tip)


def _landing(judged: MainState, tip: str) -> Landing:
    own = next((step for step in judged.steps if step.commit == tip), None)
    held = own if own is not None and own.refused is not None else next(iter(judged.refused), None)
    return Landing(
        accepted=judged.accepted == tip,
        code=held.refused if held is not None else None,
        message=held.message if held is not None else None,
        approves=own.approvals if own is not None else (),
    )


def _landed(commit: str, branch: str, landing: Landing | None, linked: Sequence[Linked] = ()) -> dict[str, Any]:
    return {
        "commit": commit,
        "branch": branch,
        "accepted": landing.accepted if landing is not None else None,
        "code": landing.code if landing is not None else None,
        "message": landing.message if landing is not None else None,
        "approves": list(landing.approves) if landing is not None else [],
        "links": [asdict(one) for one in linked],
    }


def _meaning(landing: Landing | None) -> str:
    if landing is None:
        return "the controller judges it next; see `lockgate status`"
    if landing.accepted:
        if landing.approves:
            return f"main's rules accept it; it counts as the approval of {', '.join(landing.approves)}"
        return "main's rules accept it; it counts as nobody's approval"
    return (
        f"warning: main stands still there: {landing.code}: {landing.message}; nothing is deployed from it, and "
        "somebody else who may must take it back: lockgate restore-main --key KEY"
    )
