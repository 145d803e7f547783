"""Signed requests: what operators and reviewers ask of a running project."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from controller.cli.context import Context, context_of
from controller.cli.session import KeyOption, NameOption, RootOption, duration, person, writing
from controller.errors import Invalid, Refused, UsageError

if TYPE_CHECKING:
    from controller.model.entry import RequestJudged
    from controller.model.request import Verb
    from controller.uses.view import View
    from controller.wiring.repos import GitRepo

EnvironmentArgument = Annotated[str, typer.Argument(help="The environment.", metavar="ENV")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; recorded with the request.")]
TicketOption = Annotated[str | None, typer.Option("--ticket", help="A ticket that belongs to it.")]
ExpiresOption = Annotated[str, typer.Option("--expires-after", help="How long the request may still be acted on.")]
WaitOption = Annotated[
    str | None,
    typer.Option("--wait", help="Wait this long for the controller's verdict; exit code 1 when it is no."),
]
HELP = {
    "approve": "Approve the digests of the open run; bound to exactly what it will deploy.",
    "reject": "Refuse the open run: it ends rejected.",
    "pause": "Hold the open run where it is.",
    "resume": "Let a paused run go on; its gates are decided again.",
    "abort": "End the open run where it is; touched targets stay as they are.",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options of one request said."""

    verb: str
    environment: str
    reason: str | None
    ticket: str | None
    key: str | None
    name: str | None
    trust_root: Path | None
    expires_after: str
    wait: str | None
    run: str | None = None
    """The run, where it need not be the open one."""
    commit: str | None = None
    """The refused commit of main that an acknowledgement is about."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for verb in HELP:
        app.command(verb, help=HELP[verb])(_command(verb))
    app.command("rollback")(rollback)


def _command(verb: str) -> Callable[..., None]:
    def command(
        context: typer.Context,
        environment: EnvironmentArgument,
        reason: ReasonOption = None,
        ticket: TicketOption = None,
        key: KeyOption = None,
        name: NameOption = None,
        trust_root: RootOption = None,
        expires_after: ExpiresOption = "1h",
        wait: WaitOption = None,
    ) -> None:
        wish = Wish(verb, environment, reason, ticket, key, name, trust_root, expires_after, wait)
        send(context_of(context), wish)

    return command


def rollback(
    context: typer.Context,
    environment: EnvironmentArgument,
    preview: Annotated[bool, typer.Option("--preview", help="Show what it would do, and write nothing.")] = False,
    reason: ReasonOption = None,
    ticket: TicketOption = None,
    key: KeyOption = None,
    name: NameOption = None,
    trust_root: RootOption = None,
    expires_after: ExpiresOption = "1h",
    wait: WaitOption = None,
) -> None:
    """Go back: an open run's touched targets to what ran before, else the environment to its former release."""
    options = context_of(context)
    if preview:
        show_preview(options, environment, trust_root)
        return
    wish = Wish("rollback", environment, reason, ticket, key, name, trust_root, expires_after, wait)
    send(options, wish)


def show_preview(options: Context, environment: str, trust_root: Path | None) -> None:
    """Answer `rollback --preview`. Raises Refused("no-rollback-target")."""
    from controller.cli import render
    from controller.cli.session import viewing
    from controller.uses.status import preview

    with viewing(options, trust_root) as found:
        answer = preview(found, environment)
        if answer is None:
            raise _no_target(environment)
        options.answer(answer, lambda: render.preview_text(answer))


def send(options: Context, wish: Wish) -> None:
    """Check what can be known here, push the signed request, and wait for its verdict if asked to."""
    from controller.uses.view import project_of, view
    from controller.wiring.people import Ask, request

    reason = needed_reason(wish.reason)
    lasts = duration("--expires-after", wish.expires_after)
    patience = duration("--wait", wish.wait) if wish.wait is not None else None
    with writing(options, wish.trust_root) as repo:
        found = view(repo)
        run, binds, code = _about(found, wish)
        who = person(found.trust, wish.key, wish.name)
        ask = Ask(
            verb=cast("Verb", wish.verb),
            environment=wish.environment,
            reason=reason,
            run=run,
            ticket=wish.ticket,
            binds=binds,
            code=code,
            expires_after=lasts,
        )
        made, commit = request(repo, who, project_of(found), ask)
        judged = _verdict(repo, found, commit, patience) if patience is not None else None
    value: dict[str, Any] = {
        "request": made,
        "commit": commit,
        "verb": wish.verb,
        "environment": wish.environment,
        "run": run,
        "verdict": None if judged is None else "accepted" if judged.accepted else "refused",
        "code": judged.code if judged is not None else None,
        "message": judged.message if judged is not None else None,
    }
    options.answer(value, lambda: _words(value, patience is not None))
    if judged is not None and not judged.accepted:
        raise typer.Exit(1)


def _about(found: View, wish: Wish) -> tuple[str | None, str | None, str | None]:
    """The run a request is about, what it binds to, and with which code. Raises as `check`, `refused_commit`."""
    from controller.core.requests import COMMIT
    from controller.uses.acknowledged import refused_commit

    if wish.commit is not None:
        commit, code = refused_commit(found.state.cursors, wish.commit)
        return None, f"{COMMIT}{commit}", code
    if wish.run is not None:
        return wish.run, None, None
    return *check(found, wish.verb, wish.environment), None


def needed_reason(reason: str | None) -> str:
    """The reason. Raises UsageError("reason-missing")."""
    if reason is None or not reason.strip():
        raise UsageError(
            "reason-missing",
            "every intervention says why",
            where="--reason",
            expected="a sentence for those who read the record",
            got="none",
            cure='add --reason "…"',
        )
    return reason


def check(found: View, verb: str, environment: str) -> tuple[str | None, str | None]:
    """The run a request is about and what an approval binds to, refusing early what cannot be done now.

    The controller judges again when it reads the request. Raises Invalid("environment-unknown"),
    Refused("run-not-open" | "action-not-safe" | "approval-without-lock" | "no-rollback-target").
    """
    from controller.core.transitions import ACTIONS, LINKING
    from controller.uses.status import actions

    found.environment(environment)
    run = found.runs.get(environment)
    if run is None:
        if verb != "rollback":
            raise Refused(
                "run-not-open",
                f"{environment} has no open run to {verb}",
                expected="an open run",
                got="none",
                cure=f"see `lockgate status {environment}`",
            )
        if verb not in actions(found, environment):
            raise _no_target(environment)
        return None, None
    safe = ACTIONS.get(run.phase, ())
    links = verb == "approve" and run.phase in LINKING and any(one.counted for one in run.approvals)
    if verb not in safe and not links:
        raise Refused(
            "action-not-safe",
            f"{run.id} is {run.phase} and cannot {verb}",
            expected=", ".join(safe) or "nothing: it is rolling back",
            got=verb,
            cure=f"see `lockgate status {environment}`",
        )
    if verb == "rollback" and run.opened.previous is None:
        raise _no_target(environment)
    if verb != "approve":
        return run.id, None
    if run.inputs is None:
        raise Refused(
            "approval-without-lock",
            f"{run.opened.release} is not locked yet: there are no digests to approve",
            expected="a lock",
            got="none",
            cure=f"see `lockgate why {environment}`",
        )
    return run.id, run.inputs.approval_subject


def _no_target(environment: str) -> Refused:
    return Refused(
        "no-rollback-target",
        f"{environment} has no completed release before the one it runs",
        expected="a release to go back to",
        got="none",
        cure="promote a good release instead",
    )


def _verdict(repo: GitRepo, found: View, commit: str, patience: timedelta) -> RequestJudged | None:
    """Follow the evidence until the request's verdict is there, or patience ends."""
    from controller.ledger.entry import read
    from controller.model.entry import RequestJudged
    from controller.uses.view import evidence_tip

    seen, end = found.tips.evidence, time.monotonic() + patience.total_seconds()
    while True:
        tip = evidence_tip(repo)
        if tip is not None and tip != seen:
            for change in repo.changes(seen, tip):
                if change.new is None or change.old is not None or not change.path.endswith("-request.dsse.json"):
                    continue
                detail = read(repo.read(change.new.blob), change.path, None).detail
                if isinstance(detail, RequestJudged) and detail.commit == commit:
                    return detail
            seen = tip
        left = end - time.monotonic()
        if left <= 0:
            return None
        repo.wait(min(left, 1.0))


def _words(value: dict[str, Any], waited: bool) -> str:
    whole = value["environment"] == "*"
    look = "lockgate status" if whole else f"lockgate status {value['environment']}"
    about = f"{value['verb']} {'main' if whole else value['environment']}"
    about += f" ({value['run']})" if value["run"] else ""
    text = f"asked: {about}, request {value['request']}"
    if value["verdict"] is not None:
        return f"{text}\n{value['verdict']}: {value['code']}: {value['message']}"
    if waited:
        return f"{text}\nno verdict yet: see that the controller runs, then `{look}`"
    return f"{text}\nthe controller records its verdict; see `{look}`"


def known_release(found: View, release: str) -> None:
    """Raises Invalid("release-unknown") for a release that accepted main does not have."""
    if release not in found.intent.releases:
        names = sorted(found.intent.releases)
        broken = f"releases/{release}.yaml" in {d.path for d in found.intent.diagnostics}
        raise Invalid(
            "release-unknown",
            f"releases/{release}.yaml does not validate"
            if broken
            else "there is no such release on accepted main",
            where=release,
            expected=", ".join(names[-8:]) or "a release",
            got=release,
            cure="see `lockgate validate`" if broken else f"merge releases/{release}.yaml first",
        )
