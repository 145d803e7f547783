"""What the controller asks others for and has no good answer to: releases to be resolved, a public log's entry."""

from __future__ import annotations

from controller.core.parse import parse
from controller.ledger.fold import State
from controller.model.documents import PROJECT_PATH
from controller.model.project import Project
from controller.ports import Repo
from controller.uses.view import Unanswered, View


def _asked(found: View, question: str) -> list[Unanswered]:
    """What is asked in vain, as far as the controller was asked about it."""
    asked = found.health.unanswered if found.health is not None else ()
    return [one for one in asked if one.type == question]


def unresolved(found: View) -> list[Unanswered]:
    """Releases that the controller tries to lock and cannot, as far as it was asked."""
    return _asked(found, "resolve")


def unresolved_text(held: Unanswered) -> str:
    """Why a release is not locked, in one line."""
    since = f"since {held.since[11:19]} UTC"
    if held.code == "answer-pending":
        return f"{held.release} is being resolved {since}: its registries have not answered yet"
    return f"{held.release} cannot be resolved {since}: {held.code}: {held.message}"


def names_a_log(repo: Repo, state: State) -> bool:
    """Whether the project of accepted main has its checkpoints published."""
    main = state.cursors.main
    file = repo.file(main, PROJECT_PATH) if main is not None else None
    document = parse(PROJECT_PATH, repo.read(file.blob)).document if file is not None else None
    return isinstance(document, Project) and document.spec.publication is not None


def unpublished(found: View) -> str | None:
    """That and why the newest seal is not published yet, in one line; None where it is, or nobody asked for it.

    Nothing waits for it.
    """
    project, seal = found.intent.project, found.state.cursors.log.sealed
    publication = project.document.spec.publication if project is not None else None
    if publication is None or seal is None:
        return None
    from controller.core.transparency import PUBLISH, sealed_unpublished  # deciding hangs on it; seldom asked

    if not sealed_unpublished(found.state.cursors):
        return None
    text = f"{seal.run} is not submitted to the public log {publication.log}"
    held = next(iter(_asked(found, PUBLISH)), None)
    if held is None:
        return f"{text} yet; nothing waits for it (the controller knows more: --controller or --state-dir)"
    since = f"since {held.since[11:19]} UTC"
    if held.code == "answer-pending":
        return f"{text} yet: no answer {since}; nothing waits for it"
    return f"{text} {since}: {held.code}: {held.message}; nothing waits for it" + (
        f" → {held.cure}" if held.cure else ""
    )
