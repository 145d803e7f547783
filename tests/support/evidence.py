"""Evidence as the controller would draft it: whole runs and events, with plausible details."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.core import artifacts
from controller.core.artifacts import Templates
from controller.core.gates import Gate, decide_gates, decision_digest, gate_names
from controller.core.parse import parse
from controller.core.run import Run
from controller.ledger.canonical import canonical, digest
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign
from controller.ledger.entry import artifact_path, run_id
from controller.ledger.links import sign_link
from controller.model import entry as e
from controller.model.link import LinkSignature, deploy_link
from controller.model.lock import (
    Candidates,
    LockedComponent,
    ReleaseLock,
    ReleaseLockSpec,
    lock_bytes,
    manifest_digest,
)
from controller.model.order import PLAN, ComponentState, Report, order_id, statement_of
from controller.ports import Signer
from controller.settings import artifact_templates

TEMPLATES = Templates(artifact_templates())
START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
WHO = (e.Actor(principal="controller", key_id="c" * 64),)


def sha(text: str) -> str:
    return digest(text.encode())


def git(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


class Story:
    """Drafts in order. Every draft advances the clock by `step`; `observed` follows the accepted tip."""

    def __init__(
        self, genesis: str = git("genesis"), at: datetime = START, step: timedelta = timedelta(seconds=1)
    ) -> None:
        self.genesis = self.main = genesis
        self.requests: str | None = None
        self.at, self.step = at, step
        self.numbers: dict[str, int] = {}
        self.last: dict[str, e.CompletedRun] = {}
        self.locks: dict[str, e.Pin] = {}
        self.components: dict[str, dict[str, str]] = {}
        self.content: dict[str, bytes] = {}
        self.manifests: dict[str, str] = {}
        self.agents: dict[str, tuple[e.Pin, Signer]] = {}
        self.documents: dict[str, tuple[e.Pin, bytes]] = {}
        """What runs pin besides agents, by path; with any, their artifacts are rendered as the controller does."""

    def draft(
        self,
        kind: str,
        detail: e.Wire,
        run: str | None = None,
        env: str | None = None,
        what: e.What | None = None,
        result: str = "RECORDED",
        files: Mapping[str, bytes] | None = None,
        how: Mapping[str, Any] | None = None,
        **why: Any,
    ) -> e.Draft:
        self.at += self.step
        return e.Draft(
            kind=kind,
            run=run,
            environment=env,
            at=self.at,
            observed=e.Observed(main=self.main, requests=self.requests, trust_version=1),
            result=result,
            summary=f"{env or 'project'}: {kind} für {run or 'all'}",
            who=WHO,
            what=what or e.What(),
            why=why,
            how=dict(how or {}),
            when=e.When(decided=self.at),
            detail=detail,
            files=dict(files or {}),
        )

    def accepted(self, tip: str, commits: int = 1, slots: tuple[e.SlotChange, ...] = ()) -> e.Draft:
        detail = e.Accepted(previous=self.main, tip=tip, commits=commits, slots=slots)
        draft = self.draft("accepted", detail)
        self.main = tip
        return draft.model_copy(update={"observed": draft.observed.model_copy(update={"main": tip})})

    def refused(self, commit: str, code: str = "self-approval") -> e.Draft:
        detail = e.MainRefused(
            commit=commit, code=code, message="no", paths=("promotions/prod.yaml",), signer=None
        )
        return self.draft("main-refused", detail, result="REFUSED")

    def request(self, commit: str, accepted: bool = False) -> e.Draft:
        self.requests = commit
        detail = e.RequestJudged(
            commit=commit,
            request=None,
            verb=None,
            environment=None,
            run=None,
            accepted=accepted,
            code="ok" if accepted else "request-malformed",
            message="no file of a request",
            reason=None,
        )
        return self.draft("request", detail, result="ACCEPTED" if accepted else "REFUSED")

    def lock(self, release: str) -> e.Draft:
        """A lock entry; `content[release]` is the file that main gets."""
        components = {name: sha(f"{release}/{name}") for name in ("api", "web", "worker")}
        manifest = manifest_digest(components)
        content = lock_file(release, components, self.at)
        path = f"releases/{release}.lock.yaml"
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.locks[release] = e.Pin(path=path, blob=blob, sha256=digest(content))
        self.content[release] = content
        self.components[release] = components
        self.manifests[release] = manifest
        detail = e.LockMade(
            release=release,
            path=path,
            manifest_digest=manifest,
            release_digest=sha(f"{release}.yaml"),
            sha256=digest(content),
            components=components,
            content=content.decode(),
        )
        what = e.What(release=release, manifest_digest=manifest, digests=components)
        return self.draft("lock", detail, what=what)

    def rendered(self, run: str, env: str, opened: e.Opened, stages: tuple[e.StagePlan, ...]) -> dict[str, bytes]:
        """The artifacts of a run, by name."""
        if not self.documents:
            return {PLAN: canonical({"run": run})}
        found = {path: parse(path, data).document for path, (_, data) in self.documents.items()}
        place: Any = found[f"environments/{env}.yaml"]
        strategy: Any = found[f"strategies/{place.spec.strategy}.yaml"]
        components: Any = {
            d.name: d for path, d in found.items() if path.startswith("components/") and d is not None
        }
        pin = self.locks[opened.release]
        lock: Any = parse(pin.path, self.content[opened.release]).document
        files = artifacts.release_files(TEMPLATES, opened.release, place, components, lock)
        before = Run(run, env, "scheduled", opened, self.at, self.at)
        return {**files, PLAN: artifacts.plan(TEMPLATES, before, place, strategy, lock, pin, stages, files)}

    def gates(
        self, release: str, targets: tuple[str, ...], verdict: e.Verdict
    ) -> tuple[e.Gates, dict[str, bytes]]:
        """The gates entry and its file; with documents it holds every gate that they ask for."""
        if not self.documents:
            return gates_of(verdict), {"inputs/gates-01.json": canonical({"freeze": {"freezes": []}})}
        seen: dict[str, dict[str, Any]] = {
            "release-active": {"release": release, "state": "active", "reason": None},
            "promotes-from": {"release": release, "completed": {}},
            "freeze": {"freezes": []},
            "window": {"windows": []},
            "schedule": {"notBefore": None, "preconditions": []},
            "targets": {"targets": list(targets)},
            "secrets": {"references": []},
        }
        gates = [Gate(name, name, "block", {}, seen[name], None) for name, _ in gate_names({}, False)]
        decided = decide_gates(gates, 0, {}, self.at, {})
        return decided.detail, {"inputs/gates-01.json": decided.inputs}

    def report(self, run: str, target: str, release: str, digests: Mapping[str, str], plan: str) -> bytes:
        """The signed statement of a target's agent that it deployed."""
        body = Report(
            order=order_id(run, 0, 1, target, "deploy"),
            run=run,
            stage=0,
            attempt=1,
            target=target,
            action="deploy",
            sequence=1,
            status="succeeded",
            code="ok",
            message="",
            release=release,
            manifest_digest=self.manifests[release],
            plan=plan,
            components={name: ComponentState(digest=value, running=True) for name, value in digests.items()},
            healthy=True,
            link=self.link(run, target, release),
            started=self.at,
            finished=self.at,
        )
        return sign(canonical(statement_of(body)), STATEMENT_PAYLOAD, self.agents[target][1])

    def link(self, run: str, target: str, release: str) -> LinkSignature:
        """The signature of a target's agent over the in-toto link of its deployment."""
        return sign_link(deploy_link(run, self.manifests[release]), self.agents[target][1])

    def run(
        self,
        env: str,
        release: str,
        end: str = "completed",
        mode: str = "promotion",
        targets: tuple[str, ...] = ("a", "b"),
        sealed: bool = True,
        commit: str | None = None,
    ) -> list[e.Draft]:
        """A run of eight entries from opened to sealed (12 with a rollback)."""
        if release not in self.locks:
            raise KeyError(f"lock {release} first")
        number = self.numbers[env] = self.numbers.get(env, 0) + 1
        commit = commit or self.main
        run, manifest, lock = run_id(env, number, commit), self.manifests[release], self.locks[release]
        digests = self.components[release]
        what = e.What(release=release, manifest_digest=manifest, environment=env, targets=targets, digests=digests)
        pin = e.Pin(path=f"promotions/{env}.yaml", blob=git(env + release), sha256=sha(env + release))
        opened = e.Opened(
            number=number,
            mode=mode,
            cause="promotion",
            commit=commit,
            slot=pin,
            approvers=(),
            seen_lock=lock.blob,
            release=release,
            reason="monthly",
            ticket=None,
            requester="alice",
            authors=("alice",),
            not_before=None,
            expires=None,
            pins=(pin, *(known for known, _ in (*self.agents.values(), *self.documents.values()))),
            previous=self.last.get(env),
            supersedes=None,
            carried=(),
        )
        stages = (e.StagePlan(percent=100, targets=targets),)
        made = self.rendered(run, env, opened, stages)
        named = {name: digest(data) for name, data in made.items()}
        templates = TEMPLATES.digests if self.documents else {PLAN: sha("another version's")}
        stored = {artifact_path(digest(data)): data for data in made.values()}
        input_file = canonical({"run": run})
        inputs = e.Inputs(
            lock=lock,
            manifest_digest=manifest,
            approval_subject=sha("subject"),
            targets=targets,
            stages=stages,
            files={"lock": digest(input_file)},
            missing=(),
            digest=digest(canonical({"lock": digest(input_file)})),
            artifacts=named,
            templates=templates,
        )
        verdict = e.Verdict(
            gate="freeze",
            type="freeze",
            level="block",
            verdict="PASS",
            code="not-frozen",
            message="no freeze is in force",
            inputs=digest(canonical({"freezes": []})),
            policy=None,
        )
        sealing = e.Sealed(phase=end, reason="all checks passed", code="ok")

        def results(action: str, ok: bool = True) -> tuple[e.TargetResult, ...]:
            return tuple(
                e.TargetResult(
                    order=order_id(run, 0, 1, target, action),
                    target=target,
                    result="succeeded" if ok else "failed",
                    code="ok",
                    message="",
                    report=None,
                    manifest_digest=manifest,
                    healthy=ok,
                )
                for target in targets
            )

        orders = tuple(e.OrderLine(id=order_id(run, 0, 1, target, "deploy"), target=target) for target in targets)
        criterion = e.Criterion(
            name="errors", state="passed", value=0.001, samples=6, failures=0, message="below 0.01"
        )
        known = [target for target in targets if target in self.agents]
        said = {target: self.report(run, target, release, digests, named[PLAN]) for target in known}
        lines = b"".join(line + b"\n" for line in said.values())
        deployed = tuple(
            result.model_copy(
                update={"report": digest(said[result.target]), "link": self.link(run, result.target, release)}
                if result.target in said
                else {}
            )
            for result in results("deploy")
        )
        reports = {"reports/{nnn}-stage-1.jsonl": lines} if lines else {}
        steps: list[tuple[str, e.Wire, dict[str, bytes]]] = [
            ("opened", opened, {}),
            ("inputs", inputs, {"inputs/lock.json": input_file, **stored}),
            ("gates", *self.gates(release, targets, verdict)),
            (
                "ordered",
                e.Ordered(
                    stage=0,
                    attempt=1,
                    action="deploy",
                    manifest_digest=manifest,
                    components=digests,
                    artifacts=named,
                    orders=orders,
                    deadline=self.at + timedelta(hours=1),
                ),
                {},
            ),
            ("deployed", e.Deployed(stage=0, attempt=1, results=deployed), reports),
            (
                "evaluated",
                e.Evaluated(
                    stage=0,
                    attempt=1,
                    verdict="passed" if end == "completed" else "failed",
                    criteria=(criterion,),
                    since=self.at,
                    statements=digest(b""),
                ),
                {},
            ),
        ]
        if end == "completed":
            steps.append(("verified", e.Verified(results=results("check"), ok=True, message="all"), {}))
        elif end == "rolled_back":
            back = e.RolledBack(to=self.last.get(env), results=results("rollback"), ok=True)
            steps.append(("rolled-back", back, {}))
        if sealed:
            steps.append(("sealed", sealing, {}))
        drafts = [
            self.draft(
                kind,
                detail,
                run,
                env,
                what if kind != "opened" else e.What(release=release, environment=env, targets=targets),
                end.upper() if kind == "sealed" else "PASS",
                files,
                {"artifacts": named} if kind in ("inputs", "ordered") else {},
            )
            for kind, detail, files in steps
        ]
        if end == "completed" and sealed:
            self.last[env] = e.CompletedRun(
                run=run, release=release, manifest_digest=manifest, slot=pin, pins=(pin, lock), artifacts=named
            )
        return drafts


def gates_of(*verdicts: e.Verdict) -> e.Gates:
    """A gates detail with the decision digest that its verdicts add up to."""
    return e.Gates(stage=0, aggregate="PASS", verdicts=verdicts, decision=decision_digest(verdicts))


def lock_file(release: str, components: Mapping[str, str], at: datetime) -> bytes:
    """The lock of a release, as the controller would commit it."""
    locked = {
        name: LockedComponent(
            repository=f"registry.example.com/{name}",
            digest=value,
            media_type="application/vnd.oci.image.manifest.v1+json",
            candidates=Candidates(count=1, digest=sha("tags")),
        )
        for name, value in components.items()
    }
    spec = ReleaseLockSpec(
        manifest_digest=manifest_digest(components),
        release_digest=sha(f"{release}.yaml"),
        components=locked,
        resolved_at=at,
        resolver="lockgate",
    )
    values = {"apiVersion": "lockgate.dev/v1", "kind": "ReleaseLock", "metadata": {"name": release}, "spec": spec}
    return lock_bytes(ReleaseLock.model_validate(values))
