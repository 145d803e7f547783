"""Evidence as the controller would draft it: whole runs and events, with plausible details."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from controller.core import artifacts
from controller.core.artifacts import Templates
from controller.core.gates import Gate, decide_gates, decision_digest, gate_names
from controller.core.parse import parse
from controller.core.run import Run
from controller.core.world import RunDocuments
from controller.ledger import fold
from controller.ledger.canonical import canonical, digest
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign
from controller.ledger.links import sign_link
from controller.ledger.rules import RULES
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
from controller.model.order import PLAN
from controller.model.request import Request
from controller.ports import Signer
from controller.settings import artifact_templates
from tests.support.run_story import RunStory

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
        self.version = 1
        self.at, self.step = at, step
        self.numbers: dict[str, int] = {}
        self.last: dict[str, e.CompletedRun] = {}
        self.locks: dict[str, e.Pin] = {}
        self.components: dict[str, dict[str, str]] = {}
        self.content: dict[str, bytes] = {}
        self.manifests: dict[str, str] = {}
        self.release_digests: dict[str, str] = {}
        self.agents: dict[str, tuple[e.Pin, Signer]] = {}
        self.documents: dict[str, tuple[e.Pin, bytes]] = {}
        """What runs pin besides agents, by path; with any, runs are decided as the controller does."""
        self.land: Callable[[str, str], tuple[str, e.SlotChange]] | None = None
        """Lands a promotion on main and has it accepted: the commit and the slot's change."""
        self.state = fold.State()
        """What the entries drafted so far add up to, of runs alone unless somebody sets it after recording."""
        self.project = "shop"
        self.mode = "promotion"
        self.spoken = 0
        self.skew = timedelta(0)
        """How far agents' clocks are off."""
        self.lie = False
        """Whether stages pass whatever their targets said."""
        self.follows = ""
        """The plan that agents say they followed instead of the one ordered."""

    sha = staticmethod(sha)

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
            observed=e.Observed(main=self.main, requests=self.requests, trust_version=self.version),
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

    def accepted(
        self,
        tip: str,
        commits: int = 1,
        slots: tuple[e.SlotChange, ...] = (),
        cured: tuple[str, ...] = (),
    ) -> e.Draft:
        detail = e.Accepted(previous=self.main, tip=tip, commits=commits, slots=slots, cured=cured)
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

    def judged(
        self, commit: str, request: Request, by: e.Actor, accepted: bool = True, code: str = "request-accepted"
    ) -> e.Draft:
        """The verdict on a request that somebody signed."""
        self.requests = commit
        detail = e.RequestJudged(
            commit=commit,
            request=request.id,
            verb=request.verb,
            environment=request.environment,
            run=request.run,
            accepted=accepted,
            code=code,
            message=f"{by.principal} may {request.verb}" if accepted else "no",
            reason=request.reason,
        )
        draft = self.draft("request", detail, result="ACCEPTED" if accepted else "REFUSED")
        return draft.model_copy(update={"who": (by,)})

    def lock(self, release: str) -> e.Draft:
        """A lock entry; `content[release]` is the file that main gets."""
        components = {name: sha(f"{release}/{name}") for name in ("api", "web", "worker")}
        manifest = manifest_digest(components)
        content = lock_file(release, components, self.at, self.release_digests.get(release))
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
            release_digest=self.release_digests.get(release, sha(f"{release}.yaml")),
            sha256=digest(content),
            components=components,
            content=content.decode(),
        )
        what = e.What(release=release, manifest_digest=manifest, digests=components)
        return self.draft("lock", detail, what=what)

    def pinned(self, env: str, release: str) -> list[tuple[e.Pin, bytes]]:
        """What a run pins besides agents: not the documents of other environments and releases."""
        own = {f"environments/{env}.yaml", f"releases/{release}.yaml"}
        return [
            known
            for path, known in self.documents.items()
            if path in own or not path.startswith(("environments/", "releases/"))
        ]

    def run_documents(self, env: str, release: str) -> RunDocuments:
        """The pinned documents of a run, parsed."""
        found: dict[str, Any] = {
            pin.path: parse(pin.path, data).document for pin, data in self.pinned(env, release)
        }
        place = found[f"environments/{env}.yaml"]
        lock = self.locks[release]
        return RunDocuments(
            environment=place,
            strategy=found[f"strategies/{place.spec.strategy}.yaml"],
            policies={},
            policy_pins={},
            components={d.name: d for path, d in found.items() if path.startswith("components/")},
            release=found[f"releases/{release}.yaml"],
            agents=tuple(sorted(self.agents)),
            lock=cast("ReleaseLock", parse(lock.path, self.content[release]).document),
            lock_pin=lock,
        )

    def rendered(self, run: Run, stages: tuple[e.StagePlan, ...]) -> dict[str, bytes]:
        """The artifacts of a run, by name."""
        if not self.documents:
            return {PLAN: canonical({"run": run.id})}
        release = run.opened.release
        found, pin = self.run_documents(run.environment, release), self.locks[release]
        place, lock = found.environment, found.lock
        assert lock is not None
        files = artifacts.release_files(TEMPLATES, release, place, found.components, lock)
        return {**files, PLAN: artifacts.plan(TEMPLATES, run, place, found.strategy, lock, pin, stages, files)}

    @property
    def templates(self) -> dict[str, str]:
        return TEMPLATES.digests if self.documents else {PLAN: sha("another version's")}

    def gates(self, release: str, targets: tuple[str, ...]) -> tuple[e.Gates, str, dict[str, bytes]]:
        """The gates entry, its result and its file; with documents it holds every gate that they ask for."""
        if not self.documents:
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
            return gates_of(verdict), "PASS", {"inputs/gates-01.json": canonical({"freeze": {"freezes": []}})}
        detail, files = self.decided(release, targets)
        return detail, detail.aggregate, files

    def decided(
        self, release: str, targets: tuple[str, ...], **other: Mapping[str, Any]
    ) -> tuple[e.Gates, dict[str, bytes]]:
        """What the built-in gates say of these inputs, `other` in place of what lets a release pass."""
        seen: dict[str, Mapping[str, Any]] = {
            "release-active": {"release": release, "state": "active", "reason": None},
            "promotes-from": {"release": release, "completed": {}},
            "freeze": {"freezes": []},
            "window": {"windows": []},
            "schedule": {"notBefore": None, "preconditions": []},
            "targets": {"targets": list(targets)},
            "secrets": {"references": []},
        } | other
        rollback = self.mode == "rollback"
        gates = [Gate(name, name, "block", {}, seen[name], None) for name, _ in gate_names({}, rollback)]
        decided = decide_gates(gates, 0, {}, self.at + self.step, {})
        return decided.detail, {"inputs/gates-01.json": decided.inputs}

    def fold(self, draft: e.Draft) -> None:
        """Add a run's draft to what the entries so far add up to, as recording it would."""
        predicate = SimpleNamespace(**{**draft.__dict__, "rules": RULES, "index": self.state.cursors.index})
        entry = SimpleNamespace(predicate=predicate, detail=draft.detail, path="", run=draft.run, at=draft.at)
        self.state = fold.apply(self.state, cast("e.Entry", entry))

    def signed(self, target: str, statement: Any) -> bytes:
        """A statement in an envelope by a target's agent."""
        return sign(canonical(statement), STATEMENT_PAYLOAD, self.agents[target][1])

    def link(self, run: str, target: str, release: str) -> LinkSignature:
        """The signature of a target's agent over the in-toto link of its deployment."""
        return sign_link(deploy_link(run, self.manifests[release]), self.agents[target][1])

    def promote(self, env: str, release: str) -> tuple[str, e.SlotChange | None]:
        """The commit that a run is for, and the slot's change, where there is a repository to land it in."""
        return self.land(env, release) if self.land is not None else (self.main, None)

    def run(
        self,
        env: str,
        release: str,
        end: str = "completed",
        mode: str = "promotion",
        targets: tuple[str, ...] = (),
        sealed: bool = True,
        commit: str | None = None,
    ) -> list[e.Draft]:
        """A run of nine entries from opened to sealed (ten with a rollback)."""
        if release not in self.locks:
            raise KeyError(f"lock {release} first")
        self.mode = mode
        made = RunStory(self, env, release, mode, targets or tuple(self.agents) or ("a", "b"))
        made.open(commit)
        made.decide()
        made.roll_out(end == "completed")
        made.finish(end, sealed)
        return made.drafts


def gates_of(*verdicts: e.Verdict) -> e.Gates:
    """A gates detail with the decision digest that its verdicts add up to."""
    return e.Gates(stage=0, aggregate="PASS", verdicts=verdicts, decision=decision_digest(verdicts))


def lock_file(release: str, components: Mapping[str, str], at: datetime, of: str | None = None) -> bytes:
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
        release_digest=of or sha(f"{release}.yaml"),
        components=locked,
        resolved_at=at,
        resolver="lockgate",
    )
    values = {"apiVersion": "lockgate.dev/v1", "kind": "ReleaseLock", "metadata": {"name": release}, "spec": spec}
    return lock_bytes(ReleaseLock.model_validate(values))
