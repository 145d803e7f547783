"""Worlds for scenarios of the pure core: documents as files, agents as scripts, a manual clock, the real ledger.

A `Theatre` does what the controller's shell does, in memory: it builds a World from parsed YAML, asks `decide`,
appends the drafts by the real ledger, reads the runs back from the entries, and lets scripted agents answer what
the record demands. So the state evolves exactly as in the product; `lines` tell it entry by entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.git.keys import KeySigner
from controller.core.absence import Absence
from controller.core.artifacts import Templates
from controller.core.decide import decide
from controller.core.effects import Recorded, orders_of, sampling, settled, slot_reverts
from controller.core.gates import Question
from controller.core.pinned import run_documents
from controller.core.requests import RequestVerdict, judge_request, write_request
from controller.core.run import Run, fold
from controller.core.trust import TrustState
from controller.core.validate import assemble
from controller.core.world import CompletedAt, Decision, Facts, RunDocuments, World
from controller.ledger import append
from controller.ledger.append import Ledger
from controller.ledger.canonical import canonical, digest
from controller.model.entry import Accepted, Draft, Entry, MainRefused, Observed, SlotChange
from controller.model.history import Change, Commit, Person, TreeFile
from controller.model.intent import Intent
from controller.model.lock import release_digest
from controller.model.order import AgentStatement, LogState, Order, Report, Sample, statement_of
from controller.model.request import Request
from controller.reconcile.reading import previous_target, target_of
from controller.settings import artifact_templates
from tests.support.history import ssh_key
from tests.support.world_agents import Agent
from tests.support.world_documents import (
    blob_id,
    document,
    git,
    lock_made,
    parsed,
    project,
    slot_change,
)
from tests.support.world_tree import Reader, Tree

TEMPLATES = Templates(artifact_templates())
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SIGNER = KeySigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"throw-away key of the scenarios."))
MOST_PASSES = 60


class Theatre:
    """One project and its controller. `files` is accepted main; `now` moves only by `wait` and `run`."""

    def __init__(
        self,
        agents: int = 10,
        strategy: Mapping[str, Any] | None = None,
        approvals: Mapping[str, Any] | None = None,
        gates: Any = "none",
        roles: Mapping[str, str] | None = None,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        **environment: Any,
    ) -> None:
        self.now = START
        self.tick = timedelta(seconds=10)
        self.reader = Reader()
        self.tree = Tree()
        self.ledger = Ledger()
        self.entries: list[Entry] = []
        self.lines: list[str] = []
        self.roles = dict(roles or {})
        self.inbox: list[AgentStatement] = []
        self.answers: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, str] = {}
        """The tags that components are locked at; the others are locked by digest alone."""
        self.check_tags = timedelta(0)
        self.absences: list[Absence] = []
        self.answer: Callable[[Question], dict[str, Any] | None] = lambda question: {"value": True}
        self.agents: dict[str, Agent] = {}
        self.requests: list[tuple[Commit, RequestVerdict]] = []
        self.pending_slots: list[SlotChange] = []
        self.refused: list[MainRefused] = []
        self.waiting_main: str | None = None
        self.waiting_requests: str | None = None
        self.count = 0
        self.main = self.accepted = self._commit()
        self.requests_tip: str | None = None
        self.seen: set[str] = set()
        self.facts_lock: dict[str, int] = {}
        self.facts_completed: dict[tuple[str, str], CompletedAt] = {}
        self.previous: Intent | None = None
        self._folded: tuple[Ledger, dict[str, Run]] | None = None
        self.crash = False
        """Whether every pass begins with a restart: all it knows is read back from the evidence tree."""
        self.files = project(strategy, policies or {}, gates=gates, approvals=dict(approvals or {}), **environment)
        self.declare("staging", "staging-1")
        for number in range(1, agents + 1):
            self.declare("prod", f"prod-{number}")
        self.trust = TrustState.parse(self.files["trust/trust.yaml"])
        genesis = append.genesis_draft("shop", self.main, {"main": "refs/heads/main"}, self.now)
        self._append([genesis])
        self.lines.clear()

    # -- what people do ------------------------------------------------------------------------------------

    def declare(self, environment: str, name: str) -> None:
        self.files[f"agents/{name}.yaml"] = document(
            "Agent", name, environment=environment, publicKey=ssh_key(f"agent {name}")
        )
        self.agents[name] = Agent(name, environment)

    def land(
        self,
        files: Mapping[str, bytes | None],
        author: str = "alice",
        merger: str = "bob",
        by_controller: bool = False,
    ) -> str:
        """A merge on main that is accepted; changed slots become slot changes."""
        commit = self._commit()
        before = dict(self.files)
        for path, data in files.items():
            if data is None:
                self.files.pop(path, None)
            else:
                self.files[path] = data
        for path, data in sorted(files.items()):
            if path.startswith("promotions/") and data is not None and not by_controller:
                self.pending_slots.append(slot_change(commit, path, data, author, merger, before, self.now))
        self.waiting_main = commit
        return commit

    def refuse(self, code: str = "self-approval") -> None:
        """A commit of main that the path rules do not allow: main stands still before it."""
        commit = self._commit()
        self.refused.append(MainRefused(commit=commit, code=code, message="not so", paths=("x",), signer="alice"))

    def release(self, name: str, **spec: Any) -> dict[str, bytes | None]:
        components = {
            c: {"tag": f"v-{name}", **({"role": self.roles[c]} if c in self.roles else {})}
            for c in ("api", "worker")
        }
        return {f"releases/{name}.yaml": document("Release", name, components=components, **spec)}

    def asking_for(self, approvals: Mapping[str, Any]) -> dict[str, bytes | None]:
        """The environment's document with other approvals, everything else as it is."""
        spec = yaml.safe_load(self.files["environments/prod.yaml"])["spec"]
        spec["approvals"] = dict(approvals)
        return {"environments/prod.yaml": document("Environment", "prod", **spec)}

    def trusts(self, edit: Callable[[bytes], bytes]) -> None:
        """Another trust document is in force, under the same version."""
        self.files["trust/trust.yaml"] = edit(self.files["trust/trust.yaml"])
        self.trust = TrustState.parse(self.files["trust/trust.yaml"])

    def slot(self, environment: str, release: str, reason: str = "why", **spec: Any) -> dict[str, bytes | None]:
        return {
            f"promotions/{environment}.yaml": document(
                "Promotion", environment, release=release, reason=reason, **spec
            )
        }

    def promote(self, release: str, environment: str = "prod", author: str = "alice", merger: str = "bob") -> str:
        """Land the release (locked by the controller first) and then its promotion; nothing is run yet."""
        if f"releases/{release}.yaml" not in self.files:
            self.land(self.release(release))
            self.settle()
        return self.land(self.slot(environment, release), author, merger)

    def complete(self, release: str, environment: str = "prod") -> None:
        """Promote and run to the end, with every agent well."""
        self.promote(release, environment)
        self.run()
        place = self.ledger.state.environments[environment]
        assert place.release == release, self.lines[-5:]

    def ask(self, verb: str, by: str, environment: str = "prod", **more: Any) -> None:
        """A signed request, judged by trust as the controller would."""
        name = f"request-{self.count + 1:04}"
        request = Request(
            id=name,
            project="shop",
            verb=verb,  # type: ignore[arg-type]
            environment=environment,
            reason=more.pop("reason", f"{verb}, please"),
            at=self.now,
            expires=self.now + timedelta(hours=1),
            **more,
        )
        path, data = write_request(request)
        who = Person(by, f"{by}@example.com", self.now)
        commit = Commit(
            self._commit(), git("tree"), (), who, who, f"Ask {verb}", signature="good", key=ssh_key(by)
        )
        change = Change(path, None, TreeFile(blob_id(data), 0o100644))
        verdict = judge_request(commit, [change], data, self.trust, "shop", self.now, self.seen)
        self.seen.add(name)
        self.requests.append((commit, verdict))
        self.waiting_requests = commit.id

    # -- the controller's passes ---------------------------------------------------------------------------

    @property
    def runs(self) -> dict[str, Run]:
        if self._folded is None or self._folded[0] is not self.ledger:
            runs = [fold(entries) for entries in self.ledger.open_entries.values()]
            self._folded = (self.ledger, {run.environment: run for run in runs})
        return dict(self._folded[1])

    @property
    def subject(self) -> str:
        inputs = self.runs["prod"].inputs
        assert inputs is not None
        return inputs.approval_subject

    def intent(self) -> Intent:
        files = {}
        for path, data in self.files.items():
            self.reader.blobs[blob_id(data)] = data
            files[path] = (blob_id(data), parsed(path, data))
        self.previous = assemble(self.main, files, self.previous)
        return self.previous

    def world(self) -> World:
        intent = self.intent()
        accepted = None
        if self.waiting_main is not None:
            accepted = Accepted(
                previous=self.accepted, tip=self.waiting_main, commits=1, slots=tuple(self.pending_slots)
            )
        runs = self.runs
        standing = {r.commit for r in self.ledger.state.cursors.refused}
        return World(
            project="shop",
            now=self.now,
            observed=Observed(
                main=self.waiting_main or self.accepted, requests=self.requests_tip, trust_version=1
            ),
            intent=intent,
            templates=TEMPLATES,
            trust=self.trust,
            state=self.ledger.state,
            runs=runs,
            documents=self.documents(runs, intent),
            facts=Facts(dict(self.facts_lock), dict(self.facts_completed)),
            accepted=accepted,
            refused=tuple(r for r in self.refused if r.commit not in standing),
            requests=tuple(self.requests),
            inbox=tuple(self.inbox),
            answers=dict(self.answers),
            check_tags=self.check_tags,
            absences=tuple(self.absences),
        )

    def documents(self, runs: Mapping[str, Run], intent: Intent) -> dict[str, RunDocuments]:
        return {run.id: run_documents(self.reader.document, run, intent) for run in runs.values()}

    def decided(self) -> Decision:
        """Decide, twice for the same world, until no question is answered any more."""
        while True:
            world = self.world()
            decision = decide(world)
            assert shown(decision) == shown(decide(world)), "the same world, two decisions"
            fresh = False
            for question in decision.questions:
                given = self._answered(question)
                if given is not None and self.answers.get(question.key) != given:
                    self.answers[question.key] = given
                    fresh = True
            if not fresh:
                return decision

    def pass_(self) -> bool:
        """One pass: observe, decide, record, act. Says whether anything was recorded or done to main."""
        if self.crash:
            self.restart()
        decision = self.decided()
        self._append(decision.drafts)
        self.next_look = decision.next_look
        return self.act() or bool(decision.drafts)

    def restart(self) -> None:
        """Forget the process: the ledger is read back from the tree, and decides the same."""
        before = self.ledger
        self.ledger = append.load(self.tree, "tip")  # type: ignore[arg-type]
        assert self.ledger.state == before.state.forget_written()
        assert self.ledger.open_entries == before.open_entries
        assert self.ledger.log.root == before.log.root
        assert self.ledger.chains == before.chains

    def settle(self) -> None:
        """Passes until nothing is left to do now; then another decision has nothing to say."""
        for _ in range(MOST_PASSES):
            if not self.pass_():
                assert not self.decided().drafts
                return
        raise AssertionError("no quiet after many passes:\n" + "\n".join(self.lines[-20:]))

    def run(self, most: timedelta = timedelta(minutes=30)) -> None:
        """Settle and let time pass, until no run is open, or `most` is over."""
        until = self.now + most
        self.settle()
        while self.runs and self.now < until:
            self.wait(self.tick)

    def wait(self, span: timedelta) -> None:
        """Let time pass: agents send one sample, then the controller settles."""
        self.now += span
        self.sample()
        self.settle()

    def absent(self, span: timedelta) -> None:
        """Let time pass in which the controller neither hears anybody nor records anything."""
        self.absences.append(Absence(self.now, self.now + span))
        self.now += span
        self.settle()

    # -- acting: what follows from the record ----------------------------------------------------------------

    def act(self) -> bool:
        """Deliver, acknowledge, write locks and reverts to main; all of it idempotent."""
        intent = self.intent()
        runs = self.runs
        documents = self.documents(runs, intent)
        wrote = False
        for run in runs.values():
            orders = self.orders(run, documents[run.id])
            assert orders == self.orders(run, documents[run.id])
            for order in orders:
                wrote |= self._deliver(order)
        done = [s for s in self.inbox if settled(s, runs)]
        self.inbox = [s for s in self.inbox if s not in done]
        assert not any(settled(s, runs) for s in self.inbox)
        changes: dict[str, bytes | None] = {}
        for name in set(intent.releases) - set(intent.locks):
            made = next((x.detail for x in self.entries if x.kind == "lock" and x.detail.release == name), None)
            if made is not None and made.release_digest == release_digest(intent.releases[name].document):
                changes[made.path] = made.content.encode()
        reverts = slot_reverts(
            self.ledger.state.environments,
            runs,
            frozenset(c.environment for c in self.ledger.state.cursors.pending),
            intent,
        )
        for revert in reverts:
            data = self.reader.blobs[revert.blob] if revert.blob is not None else None
            changes[revert.path] = data
            self.lines.append(f"{self.clock()} main: {revert.path} back to {revert.release}, for {revert.run}")
        if changes and not self.ledger.state.cursors.refused:
            self.land(changes, by_controller=True)
            return True
        return wrote

    def orders(self, run: Run, documents: RunDocuments) -> list[Order]:
        if run.ordered is None or not run.unreported:
            return []
        rollback = run.ordered.action == "rollback" and run.opened.previous is not None
        target = previous_target(self.reader.document, run.opened.previous) if rollback else target_of(documents)  # type: ignore[arg-type]
        log = LogState(size=self.ledger.log.size, root="sha256:" + self.ledger.log.root.hex())
        index = self.ledger.state.cursors.index - 1
        return orders_of(run, target, Recorded(index, git("evidence"), log, self.now))

    def _deliver(self, order: Order) -> bool:
        agent = self.agents[order.target]
        if order.id in agent.executed:
            return False
        code = agent.orders(order, len(agent.executed))
        if code is None:
            return False
        agent.executed.append(order.id)
        self.say(agent.name, agent.report(order, code, self.now))
        return True

    def say(self, agent: str, body: Report | Sample) -> None:
        """A statement arrives, unsigned: who said it is the hub's to know."""
        envelope = canonical(statement_of(body))
        kind = "report" if isinstance(body, Report) else "sample"
        self.inbox.append(AgentStatement(agent, kind, digest(envelope), envelope, body))  # type: ignore[arg-type]

    def sample(self) -> None:
        """One sample of every agent that is asked for samples now."""
        runs, intent = self.runs, self.intent()
        wanted = sampling(runs, self.documents(runs, intent), sorted(intent.agents))
        for name, request in wanted.items():
            agent = self.agents[name]
            if request is None or agent.mute:
                continue
            self.say(name, agent.sample(request, self.now))

    # -- inside ----------------------------------------------------------------------------------------------

    def _commit(self) -> str:
        self.count += 1
        return git(f"commit {self.count}")

    def _answered(self, question: Question) -> dict[str, Any] | None:
        if question.type == "resolve":
            asked = release_digest(self.intent().releases[question.payload["release"]].document)
            return {"lock": lock_made(question.payload, asked, self.tags, self.roles).wire()}
        return self.answer(question)

    def _append(self, drafts: Any) -> None:
        prepared = append.prepare(self.ledger, list(drafts), SIGNER, "shop/x")
        for commit in prepared.commits:
            self.tree.write(commit.changes)
        for record in prepared.ledger.state.locks.values():
            self.facts_lock[record.release] = record.index
        for (environment, manifest), done in prepared.ledger.state.completed.items():
            self.facts_completed[environment, manifest] = CompletedAt(done.run, done.at)
        state = prepared.ledger.state.forget_written()
        self.ledger = Ledger(
            "tip", state, prepared.ledger.log, prepared.ledger.chains, prepared.ledger.open_entries
        )
        if self.waiting_main is not None and any(d.kind == "accepted" for d in drafts):
            self.main = self.accepted = self.waiting_main
            self.waiting_main, self.pending_slots = None, []
        if self.requests and any(d.kind == "request" for d in drafts):
            self.requests, self.requests_tip = [], self.waiting_requests
        for entry in prepared.entries:
            self.entries.append(entry)
            self.lines.append(f"{self.clock()} {entry.kind} {entry.predicate.result}  {entry.predicate.summary}")

    def clock(self) -> str:
        seconds = int((self.now - START).total_seconds())
        return f"{seconds // 60:4}:{seconds % 60:02}"


def shown(decision: Decision) -> bytes:
    """A decision as canonical bytes."""

    def plain(draft: Draft) -> dict[str, Any]:
        value = draft.model_dump(mode="json", by_alias=True, exclude={"detail", "files"})
        return value | {"detail": draft.detail.wire(), "files": {k: digest(v) for k, v in draft.files.items()}}

    return canonical(
        {
            "drafts": [json.loads(json.dumps(plain(d))) for d in decision.drafts],
            "questions": [q.key for q in decision.questions],
            "look": decision.next_look.isoformat() if decision.next_look else None,
        }
    )
