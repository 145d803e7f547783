"""The pass, readable as a table of contents.

A pass that finds nothing new has parsed nothing. What it decides is recorded by one push before anything is
done; a lost race throws the pass away. What is done follows from the record alone, so a crash anywhere is a
non-event: start again, fold, and go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from controller.core.accept import MainState, Terms
from controller.core.clocks import check_clock, out_of_time
from controller.core.decide import decide
from controller.core.gates import Question
from controller.core.pinned import run_documents
from controller.core.run import Run, fold
from controller.core.trust import TrustState
from controller.core.world import CompletedAt, Decision, Facts, RunDocuments, World
from controller.crashpoints import reached
from controller.errors import Conflict, Stalled
from controller.ledger import append, log
from controller.ledger import fold as derived
from controller.ledger.append import Ledger
from controller.model.entry import Entry, Observed
from controller.model.history import Tips
from controller.model.intent import Intent
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.reconcile.acting import Actor
from controller.reconcile.attendance import Attendance
from controller.reconcile.evidence import Evidence
from controller.reconcile.observing import MainView, new_requests, view_main
from controller.reconcile.parts import Parts
from controller.reconcile.restarting import LOST, Restarts
from controller.reconcile.visible import Visible
from controller.settings import tzdata_version
from controller.uses.view import Unanswered


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass came to: `idle` when nothing was recorded or done, `next_look` when time alone may change
    something."""

    idle: bool
    next_look: datetime | None
    recorded: tuple[Entry, ...] = ()


class Reconciler:
    """The controller's one writer. Not thread-safe: one pass at a time."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.ledger = Ledger()
        self.main: MainState | None = None
        self.view: MainView | None = None
        self.intent: Intent | None = None
        self.runs: dict[str, Run] = {}
        self.documents: dict[str, RunDocuments] = {}
        self.attendance = Attendance(parts.presence)
        self._actor = Actor(parts)
        self._visible = Visible(parts.repo, parts.log)
        self._requests_seen: dict[str, datetime] = {}
        """Ids of judged requests until they expire: an expired one is refused for that already."""
        self._asked: tuple[Question, ...] = ()
        self._evidence = Evidence(parts.repo, parts.root, parts.memory, parts.verify_ssh)
        self._restarts = Restarts(parts.repo, parts.root, parts.signer, parts.verify_ssh)
        self._last: tuple[Any, ...] | None = None
        self._seen: tuple[Any, ...] | None = None
        self._next_look: datetime | None = None
        self._now = parts.clock.now()
        self._terms = Terms(
            parts.root.project,
            parts.root.refs.main,
            parts.verify_ssh,
            # Git keeps whole seconds: verification has no more to go by.
            observed=lambda _: self._now.replace(microsecond=0),
        )

    def reconcile(self) -> Outcome:
        """One pass. Raises Conflict when a rival was first (just run another), Unavailable when the origin does
        not answer, Stalled when a person must act."""
        begun = self.parts.clock.now()
        try:
            outcome = self._pass(begun)
        except Conflict:
            raise
        except Exception:
            self.attendance.failed(begun)
            raise
        self._attend()
        return outcome

    def _pass(self, begun: datetime) -> Outcome:
        tips = self.observe()
        self.attendance.looked(begun, self.parts.clock.now())
        if self.nothing_new(tips):
            return Outcome(True, self._next_look)
        self._seen = self._signature(tips)
        self.read(tips)
        world = self.world(tips)
        decision = self.decide(world)
        recorded = self.record(decision, world)
        self._remember_requests(world)
        acted = self.act(tips)
        return self.remember(decision, recorded, acted)

    # -- the stages --------------------------------------------------------------------------------------

    def observe(self) -> Tips:
        """The tips of the three branches; remote origins are fetched."""
        return self.parts.repo.observe()

    def nothing_new(self, tips: Tips) -> bool:
        """Whether neither the branches, nor agents, nor answers, nor the clock have anything to say."""
        due = self._next_look is not None and self.parts.clock.now() >= self._next_look
        return not due and self._last == self._signature(tips)

    def read(self, tips: Tips) -> None:
        """Evidence, main and its documents, as of the tips; lost evidence goes on only as owners signed."""
        remembered = self.ledger.commit or self.parts.memory.evidence_seen()
        try:
            self._read(tips)
        except Stalled as stalled:
            if stalled.code not in LOST:
                raise
            now = self.parts.clock.now()
            self.ledger = self._restarts.go_on(tips, remembered, stalled, now, self._check_signer)
            assert self.ledger.commit is not None
            self._evidence.restarted(self.ledger.commit)
            self._visible.restart()
            self._reload()
            self._read(replace(tips, evidence=self.ledger.commit))

    def _read(self, tips: Tips) -> None:
        parts = self.parts
        if tips.main is None:
            raise no_main(parts.root)
        before = self.ledger
        locks = before.commit is None and _has_locks(parts.repo, tips.main)
        known = self.main.trust if self.main is not None else None
        self.ledger = self._evidence.load(tips, before, known, locks, parts.clock.now())
        if self.ledger is not before or self.ledger.commit is None:
            self._reload()
        self._now = self._time()
        self.view = view_main(parts.repo, parts.root, self.ledger, self.main, tips.main, self._terms)
        self._evidence.check_effects(self.ledger, self.view.state.steps)
        self.main = self.view.state
        self._check_signer(self.main.trust)
        self.intent = parts.reader.intent(self.main.accepted)

    def world(self, tips: Tips) -> World:
        """Everything the decision is made from, as values."""
        assert self.intent is not None and self.view is not None and self.main is not None
        parts, now = self.parts, self._now
        trust = self.main.trust
        by_id = {run.id: run for run in self.runs.values()}
        self.documents = self._pinned_documents(self.intent)
        return World(
            project=parts.root.project,
            now=now,
            observed=Observed(main=self.main.accepted, requests=tips.requests, trust_version=trust.version),
            intent=self.intent,
            templates=parts.templates,
            trust=trust,
            state=self.ledger.state,
            runs=self.runs,
            documents=self.documents,
            facts=self._facts(),
            cured=self.view.cured,
            accepted=self.view.accepted,
            log=self._visible.facts(self.ledger, self.intent),
            tzdata=tzdata_version(),
            demands=parts.reader.demands(self.intent),
            refused=self.view.refused,
            requests=tuple(
                new_requests(
                    parts.repo,
                    self.ledger,
                    tips.requests,
                    trust,
                    parts.root.project,
                    now,
                    set(self._requests_seen),
                )
            ),
            inbox=tuple(s for s in parts.hub.inbox() if not out_of_time(s.body, now, by_id.get(s.body.run or ""))),
            answers=parts.questions.answers(),
            check_tags=parts.check_tags,
            absences=self.attendance.absences(parts.clock.now(), self.ledger.state.cursors.at),
        )

    def decide(self, world: World) -> Decision:
        """Decide; when quick answers arrive, decide again with them."""
        decision = decide(world)
        while decision.questions and self.parts.questions.ask(decision.questions):
            again = replace(world, answers=self.parts.questions.answers())
            if again.answers == world.answers:
                break
            world = again
            decision = decide(world)
        return decision

    def record(self, decision: Decision, world: World) -> tuple[Entry, ...]:
        """Every decided entry as a signed commit, in one compare-and-swap push; foreign commits that stand on
        the branch are removed by the first of them."""
        parts = self.parts
        drafts = [*self._evidence.repair(world.observed, world.now), *decision.drafts]
        if self.ledger.commit is None:
            refs = {"main": parts.root.refs.main, "requests": parts.root.refs.requests}
            refs["evidence"] = parts.root.refs.evidence
            at = drafts[0].at if drafts else parts.clock.now()
            drafts = [append.genesis_draft(parts.root.project, parts.root.genesis, refs, at), *drafts]
        if not drafts:
            return ()
        origin = log.origin_of(parts.root.project, parts.root.genesis)
        prepared = append.prepare(self.ledger, drafts, parts.signer, origin)
        reached("record-before")
        self.ledger = append.write(
            parts.repo, prepared, self._evidence.tip(self.ledger), parts.signer, parts.root.refs.evidence
        )
        reached("record-after")
        self._adopt()
        return self.ledger.recorded

    def act(self, tips: Tips) -> bool:
        """Do what the record demands, all of it, whether recorded now or before; say whether main was written."""
        assert self.intent is not None and self.view is not None
        return self._actor.act(self.ledger, self.runs, self.documents, self.intent, self.view, tips)

    def remember(self, decision: Decision, recorded: tuple[Entry, ...], acted: bool) -> Outcome:
        """Close the pass: what was seen, and when to look again."""
        if self.ledger.commit is not None and recorded:
            reached("remember-before")
            self.parts.memory.remember_evidence(self.ledger.commit)
            reached("remember-after")
        self._asked = decision.questions
        self._next_look = self._earliest(decision)
        # What came in while this pass ran is news for the next one: only what was decided from is remembered.
        self._last = None if recorded or acted else self._seen
        return Outcome(not recorded and not acted, self._next_look, recorded)

    def _attend(self) -> None:
        """Keep that everything could be looked at and recorded just now."""
        now = self.parts.clock.now()
        oldest = min((run.opened_at for run in self.runs.values()), default=None)
        self.attendance.there(now, oldest)

    def unanswered(self) -> tuple[Unanswered, ...]:
        """What the last pass that got through needed to know and nobody could tell; callable from any thread."""
        return self.parts.questions.unanswered(self._asked)

    # -- folding -----------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Take over a ledger that was read: main is judged anew from where it was accepted."""
        self.main = None
        self._take_over()

    def _take_over(self) -> None:
        """The open runs are folded from their entries, whether these were read or have just been recorded."""
        self._visible.show(self.ledger)
        runs = map(fold, self.ledger.open_entries.values())
        self.runs = {run.environment: run for run in runs}

    def _adopt(self) -> None:
        """Take over what was just recorded, as after a restart."""
        self._take_over()
        assert self.intent is not None
        self.documents = self._pinned_documents(self.intent)

    def _pinned_documents(self, intent: Intent) -> dict[str, RunDocuments]:
        read = self.parts.reader.document
        return {run.id: run_documents(read, run, intent) for run in self.runs.values()}

    def _time(self) -> datetime:
        """The one time of a pass, by which keys are judged and which its entries bear. It never goes back.

        Raises Stalled("clock-skew") when this machine's clock cannot be right.
        """
        now, last, hub = self.parts.clock.now(), self.ledger.state.cursors.at, self.parts.hub
        skews = hub.skewed()
        check_clock(now, last, skews, len(skews.keys() | hub.seen().keys()))
        return max(now, last) if last is not None else now

    def _check_signer(self, trust: TrustState) -> None:
        """What a key that is not the controller's would record, everybody would refuse."""
        key = self.parts.signer.public_key
        if key not in trust.keys_of_role("controller", self.parts.clock.now()):
            raise Stalled(
                "signer-not-controller",
                "this controller's key does not hold the role controller",
                where="trust/trust.yaml",
                expected="a key of the role controller, valid now",
                got=key,
                cure="start with the controller's --signing-key, or have the owners give this key the role",
            )

    def _facts(self) -> Facts:
        """Lookups in the evidence tree for the environments and releases this pass is about."""
        assert self.intent is not None and self.view is not None
        commit = self.ledger.commit
        if commit is None:
            return Facts()
        accepted = self.view.accepted.slots if self.view.accepted is not None else ()
        changes = [*self.ledger.state.cursors.pending, *accepted]
        releases = {change.release for change in changes} | set(self.intent.releases) - set(self.intent.locks)
        releases |= {place.release for place in self.ledger.state.environments.values() if place.release}
        found = {name: derived.lookup_lock(self.parts.repo, commit, name) for name in sorted(releases)}
        # An open run is asked by the documents it pinned, a slot change by those on main: both count.
        wanted: set[tuple[str, str]] = set()
        for documents in self.documents.values():
            if documents.lock is not None:
                manifest = documents.lock.spec.manifest_digest
                wanted |= {(before, manifest) for before in documents.environment.spec.promotes_from}
        for change in changes:
            place, lock = self.intent.environments.get(change.environment), self.intent.locks.get(change.release)
            if place is not None and lock is not None:
                manifest = lock.document.spec.manifest_digest
                wanted |= {(before, manifest) for before in place.document.spec.promotes_from}
        completed: dict[tuple[str, str], CompletedAt] = {}
        for before, manifest in sorted(wanted):
            record = derived.lookup_completed(self.parts.repo, commit, before, manifest)
            if record is not None:
                completed[before, manifest] = CompletedAt(record.run, record.at)
        return Facts({name: lock.index for name, lock in found.items() if lock is not None}, completed)

    def _signature(self, tips: Tips) -> tuple[Any, ...]:
        inbox = self.parts.hub.inbox()
        last = inbox[-1].digest if inbox else ""
        skewed = frozenset(self.parts.hub.skewed())
        return tips, len(inbox), last, skewed, self.parts.questions.version, self.parts.log.version

    def _remember_requests(self, world: World) -> None:
        """Only what was recorded counts as judged: a pass that was thrown away judges its requests again."""
        judged = {v.request.id: v.request.expires for _, v in world.requests if v.request is not None}
        kept = {**self._requests_seen, **judged}
        self._requests_seen = {name: until for name, until in kept.items() if until > world.now}

    def _earliest(self, decision: Decision) -> datetime | None:
        now = self.parts.clock.now()
        retry = self.parts.questions.retry_at(question.key for question in decision.questions)
        again = None
        if retry is not None:
            again = now + timedelta(seconds=max(0.0, retry - self.parts.clock.monotonic()))
        return min((t for t in (decision.next_look, again) if t is not None), default=None)


def _has_locks(repo: Repo, main: str) -> bool:
    return any(path.endswith(".lock.yaml") for path, _ in repo.files(main, "releases"))


def no_main(root: TrustRoot) -> Stalled:
    """The error for an origin without the branch the root names."""
    return Stalled(
        "main-missing",
        "the origin has no main branch",
        where=root.refs.main,
        expected="the branch that the trust root names",
        got="nothing",
        cure="push main, or use the trust root of this repository",
    )
