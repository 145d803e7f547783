"""A run as the controller would draft it, entry by entry: each draft is folded, so that none is illegal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from controller.core import run as runs
from controller.core.approvals import approval_subject
from controller.core.artifacts import artifacts_of
from controller.core.inputs import document_input
from controller.core.rolling import chosen_verdict, verdict_of
from controller.core.rollout import DEFAULT_DEADLINE, order_targets, stages_for
from controller.core.world import RunDocuments
from controller.ledger.canonical import canonical, digest
from controller.ledger.entry import artifact_path, run_id
from controller.model import entry as e
from controller.model.order import PLAN, ComponentState, Report, order_id, statement_of

if TYPE_CHECKING:
    from tests.support.evidence import Story

Action = Literal["deploy", "check", "rollback"]


class RunStory:
    """One run; `drafts` are its entries so far. With documents pinned it decides as the controller does."""

    def __init__(self, story: Story, env: str, release: str, mode: str, targets: tuple[str, ...]) -> None:
        self.story, self.env, self.release, self.mode = story, env, release, mode
        self.number = story.numbers[env] = story.numbers.get(env, 0) + 1
        self.lock, self.digests = story.locks[release], story.components[release]
        self.manifest = story.manifests[release]
        self.targets = targets
        self.drafts: list[e.Draft] = []
        self.run: runs.Run | None = None
        self.named: dict[str, str] = {}

    @property
    def so_far(self) -> runs.Run:
        assert self.run is not None
        return self.run

    @property
    def what(self) -> e.What:
        return e.What(
            release=self.release,
            manifest_digest=self.manifest,
            environment=self.env,
            targets=self.targets,
            digests=self.digests,
        )

    def add(
        self,
        kind: str,
        detail: e.Wire,
        result: str = "PASS",
        files: Mapping[str, bytes] | None = None,
        how: Mapping[str, Any] | None = None,
    ) -> None:
        """Draft one entry; raises what the controller's own fold raises for one that may not come here."""
        first = e.What(release=self.release, environment=self.env, targets=self.targets)
        what = first if kind == "opened" else self.what
        if isinstance(detail, e.RolledBack):
            what = what.model_copy(update={"targets": tuple(result.target for result in detail.results)})
        draft = self.story.draft(kind, detail, self.id, self.env, what, result, files, how)
        self.run = runs.open_run(draft) if self.run is None else runs.apply(self.run, draft)
        self.story.fold(draft)
        self.drafts.append(draft)

    def open(self, commit: str | None) -> None:
        story, env = self.story, self.env
        change: e.SlotChange | None = None
        if commit is None:
            commit, change = story.promote(env, self.release)
        fake = story.sha(env + self.release)
        slot = change.pin if change else e.Pin(path=f"promotions/{env}.yaml", blob=fake[7:47], sha256=fake)
        self.slot, self.id = slot, run_id(env, self.number, commit)
        if story.documents:
            self.targets = order_targets(commit, self.targets)
        self.pins = tuple(pin for pin, _ in (*story.pinned(env, self.release), *story.agents.values()))
        detail = e.Opened(
            number=self.number,
            mode=self.mode,
            cause="promotion",
            commit=commit,
            slot=slot,
            approvers=change.approvers if change else (),
            seen_lock=change.seen_lock if change else self.lock.blob,
            release=self.release,
            reason="monthly",
            ticket=change.ticket if change else None,
            requester="dave",
            authors=("dave",),
            not_before=None,
            expires=None,
            pins=self.pins if story.documents else (slot, *self.pins),
            previous=story.last.get(env),
            supersedes=None,
            carried=(),
        )
        self.add("opened", detail)

    def decide(self) -> None:
        """Inputs and gates."""
        story = self.story
        stages = (e.StagePlan(percent=100, targets=self.targets),)
        subject = story.sha("subject")
        values: dict[str, Any] = {"lock": {"run": self.id}}
        if story.documents:
            found = story.run_documents(self.env, self.release)
            stages = stages_for(found.strategy, self.mode, self.targets)
            subject = self._subject(found)
            parts = {
                "release": found.release,
                "lock": found.lock,
                "environment": found.environment,
                "strategy": found.strategy,
            }
            values = {name: document_input(one) for name, one in parts.items() if one}
            values["previous"] = story.state.environments[self.env].wire()
        files = {name: canonical(value) for name, value in values.items()}
        digests = {name: digest(data) for name, data in files.items()}
        made = story.rendered(self.so_far, stages)
        self.named = {name: digest(data) for name, data in made.items()}
        detail = e.Inputs(
            lock=self.lock,
            manifest_digest=self.manifest,
            approval_subject=subject,
            targets=self.targets,
            stages=stages,
            files=digests,
            missing=(),
            digest=digest(canonical(digests)),
            artifacts=self.named,
            templates=story.templates,
        )
        beside = {f"inputs/{name}.json": data for name, data in files.items()}
        stored = {artifact_path(digest(data)): data for data in made.values()}
        self.add("inputs", detail, files=beside | stored, how={"artifacts": self.named})
        self.add("gates", *story.gates(self.release, self.targets))

    def _subject(self, found: RunDocuments) -> str:
        pins = {pin.path: pin.blob for pin in self.pins}
        return approval_subject(
            project=self.story.project,
            promotion_commit=self.so_far.opened.commit,
            slot_blob=self.slot.blob,
            lock_sha256=self.lock.sha256,
            environment_blob=pins[f"environments/{self.env}.yaml"],
            strategy_blob=pins[f"strategies/{found.environment.spec.strategy}.yaml"],
            policy_blobs=(),
            trust_version=self.story.version,
            targets=self.targets,
        )

    def order(self, action: Action, stage: int) -> None:
        back = self.story.last.get(self.env) if action == "rollback" else None
        orders = tuple(
            e.OrderLine(id=order_id(self.id, stage, 1, target, action), target=target) for target in self.targets
        )
        artifacts = artifacts_of(self.so_far, action)
        detail = e.Ordered(
            stage=stage,
            attempt=1,
            action=action,
            manifest_digest=back.manifest_digest if back else self.manifest,
            components=self.story.components[back.release] if back else self.digests,
            artifacts=artifacts,
            orders=orders,
            deadline=self.story.at + self.story.step + DEFAULT_DEADLINE,
        )
        self.add("ordered", detail, how={"artifacts": artifacts})

    def results(self, ok: bool = True) -> tuple[tuple[e.TargetResult, ...], bytes]:
        """What every target said of the last orders; those without an agent's key say it unsigned."""
        ordered = self.so_far.ordered
        assert ordered is not None
        found, lines = [], b""
        for line in ordered.orders:
            said: dict[str, Any] = {"report": None}
            if line.target in self.story.agents:
                data = self.report(line.target, ok)
                lines += data + b"\n"
                said = {"report": digest(data)}
                if ok and ordered.action == "deploy":
                    said["link"] = self.story.link(self.id, line.target, self.release)
            found.append(
                e.TargetResult(
                    order=line.id,
                    target=line.target,
                    result="succeeded" if ok else "failed",
                    code="ok" if ok else "unhealthy",
                    message="",
                    manifest_digest=ordered.manifest_digest,
                    healthy=ok,
                    **said,
                )
            )
        return tuple(found), lines

    def report(self, target: str, ok: bool) -> bytes:
        """The signed statement of a target's agent about the last orders."""
        ordered = self.so_far.ordered
        assert ordered is not None
        deploys = ordered.action == "deploy"
        self.story.spoken += 1
        body = Report(
            order=order_id(self.id, ordered.stage, 1, target, ordered.action),
            run=self.id,
            stage=ordered.stage,
            attempt=1,
            target=target,
            action=ordered.action,
            sequence=self.story.spoken,
            status="succeeded" if ok else "failed",
            code="ok" if ok else "unhealthy",
            message="",
            release=self.release,
            manifest_digest=ordered.manifest_digest,
            plan=self.story.follows or ordered.artifacts[PLAN],
            components={
                name: ComponentState(digest=value, running=True) for name, value in ordered.components.items()
            },
            healthy=ok,
            link=self.story.link(self.id, target, self.release) if deploys and ok else None,
            started=self.story.at + self.story.skew,
            finished=self.story.at + self.story.skew,
        )
        return self.story.signed(target, statement_of(body))

    def roll_out(self, ok: bool) -> None:
        """One stage: ordered, deployed and judged."""
        self.order("deploy", 0)
        results, lines = self.results(ok)
        self.add("deployed", e.Deployed(stage=0, attempt=1, results=results), files=_reports("stage-1", lines))
        self.add("evaluated", self._verdict(ok))

    def _verdict(self, ok: bool) -> e.Evaluated:
        run, now = self.so_far, self.story.at + self.story.step
        verdict: str | None = "passed" if ok else "failed"
        criteria: tuple[e.Criterion, ...] = (
            e.Criterion(name="errors", state="passed", value=0.001, samples=6, failures=0, message="below 0.01"),
        )
        if self.story.documents:
            judged = verdict_of(run, self.story.run_documents(self.env, self.release), {}, now)
            verdict, criteria = chosen_verdict(judged), judged.criteria
        if self.story.lie:
            verdict = "passed"
        return e.Evaluated(
            stage=run.stage,
            attempt=1,
            verdict=verdict,
            criteria=criteria,
            since=run.evaluating_since or now,
            statements=digest(b""),
        )

    def finish(self, end: str, sealed: bool) -> None:
        """Verification or rollback, and the seal."""
        story, last = self.story, self.story.last.get(self.env)
        phase = end
        if end == "completed":
            self.order("check", 1)
            results, lines = self.results()
            detail = e.Verified(results=results, ok=True, message="all")
            self.add("verified", detail, files=_reports("verify", lines))
        else:
            control = e.Control(verb="rollback", request=None, by="controller", reason="bad", code="stage-failed")
            self.add("control", control)
            if last is None or self.mode == "rollback":
                phase = "rollback_failed"
                self.add("rolled-back", e.RolledBack(to=None, results=(), ok=False))
            else:
                self.order("rollback", 2)
                results, lines = self.results()
                back = e.RolledBack(to=last, results=results, ok=True)
                self.add("rolled-back", back, files=_reports("rollback", lines))
        if not sealed:
            return
        left = runs.whereabouts(self.so_far)
        sealing = e.Sealed(
            phase=phase,
            reason="all checks passed",
            code="ok",
            back=left.back,
            failed=left.failed,
            silent=left.silent,
        )
        self.add("sealed", sealing, phase.upper())
        if end == "completed":
            story.last[self.env] = e.CompletedRun(
                run=self.id,
                release=self.release,
                manifest_digest=self.manifest,
                slot=self.slot,
                pins=(*self.so_far.opened.pins, self.lock),
                artifacts=self.named,
            )


def _reports(label: str, lines: bytes) -> dict[str, bytes]:
    return {f"reports/{{nnn}}-{label}.jsonl": lines} if lines else {}
