"""Where a decision is written down: drafts in order, and the runs as they stand after each of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.core.gates import Question
from controller.core.run import Run, apply, open_run
from controller.core.world import Decision, RunDocuments, World
from controller.model.entry import Actor, Draft, Opened, What, When, Wire

CONTROLLER = Actor(principal="controller")


class Desk:
    """The pass's own state. Every draft is folded at once, by the same fold that reads records back, so that
    a decision can go on from what it just decided."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = world.now
        self.runs: dict[str, Run] = dict(world.runs)
        self.documents: dict[str, RunDocuments] = dict(world.documents)
        self.numbers: dict[str, int] = dict(world.state.cursors.runs)
        self.acknowledging = world.state.cursors.acknowledging
        self.settled: set[str] = set()
        """Environments whose run ended in this pass: what runs there is known only once that is recorded."""
        self._drafts: list[Draft] = []
        self._questions: dict[str, Question] = {}
        self._looks: list[datetime] = []

    def event(
        self,
        kind: str,
        detail: Wire,
        result: str,
        summary: str,
        *,
        who: tuple[Actor, ...] = (CONTROLLER,),
        what: What | None = None,
        why: Mapping[str, Any] | None = None,
        when: When | None = None,
    ) -> None:
        """Draft an entry that belongs to no run."""
        self._drafts.append(
            Draft(
                kind=kind,
                run=None,
                environment=what.environment if what else None,
                at=self.now,
                observed=self.world.observed,
                result=result,
                summary=summary,
                who=who,
                what=what or What(),
                why=dict(why or {}),
                when=when or When(decided=self.now),
                detail=detail,
            )
        )

    def open(self, run_id: str, environment: str, detail: Opened, documents: RunDocuments, summary: str) -> Run:
        """Draft the `opened` entry of a new run."""
        who = tuple(Actor(principal=p) for p in (detail.requester,) if p) or (CONTROLLER,)
        what = What(release=detail.release, environment=environment, targets=documents.agents)
        draft = self._draft(run_id, environment, "opened", detail, "OPENED", summary, who, what, None, None, None)
        run = open_run(draft)
        self.runs[environment] = run
        self.documents[run_id] = documents
        self.numbers[environment] = detail.number
        return run

    def record(
        self,
        run: Run,
        kind: str,
        detail: Wire,
        result: str,
        summary: str,
        *,
        who: tuple[Actor, ...] = (CONTROLLER,),
        targets: tuple[str, ...] | None = None,
        why: Mapping[str, Any] | None = None,
        how: Mapping[str, Any] | None = None,
        when: When | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Run:
        """Draft an entry of a run and return the run as it stands after it."""
        what = self._what(run, targets)
        draft = self._draft(
            run.id, run.environment, kind, detail, result, summary, who, what, why, how, when, files
        )
        after = apply(run, draft)
        if after.is_open:
            self.runs[run.environment] = after
        else:
            del self.runs[run.environment]
            if after.phase != "superseded":
                self.settled.add(run.environment)
        return after

    def ask(self, question: Question) -> None:
        self._questions[question.key] = question

    def look_at(self, when: datetime | None) -> None:
        """Ask for another pass at an instant, even when nothing happens until then."""
        if when is not None:
            self._looks.append(when)

    def decision(self) -> Decision:
        return Decision(tuple(self._drafts), tuple(self._questions.values()), min(self._looks, default=None))

    def _what(self, run: Run, targets: tuple[str, ...] | None) -> What:
        documents = self.documents[run.id]
        lock = documents.lock
        return What(
            release=run.opened.release,
            manifest_digest=lock.spec.manifest_digest if lock else None,
            environment=run.environment,
            targets=targets if targets is not None else (run.inputs.targets if run.inputs else documents.agents),
            digests={name: c.digest for name, c in lock.spec.components.items()} if lock else {},
        )

    def _draft(
        self,
        run_id: str,
        environment: str,
        kind: str,
        detail: Wire,
        result: str,
        summary: str,
        who: tuple[Actor, ...],
        what: What,
        why: Mapping[str, Any] | None,
        how: Mapping[str, Any] | None,
        when: When | None,
        files: Mapping[str, bytes] | None = None,
    ) -> Draft:
        draft = Draft(
            kind=kind,
            run=run_id,
            environment=environment,
            at=self.now,
            observed=self.world.observed,
            result=result,
            summary=f"{environment}: {summary}",
            who=who,
            what=what,
            why=dict(why or {}),
            how=dict(how or {}),
            when=when or When(decided=self.now),
            detail=detail,
            files=dict(files or {}),
        )
        self._drafts.append(draft)
        return draft
