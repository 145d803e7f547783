"""A controller, put together."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller import __version__
from controller.adapters.clock import SystemClock
from controller.adapters.gates.cel import CelWorker
from controller.adapters.git import sshsig
from controller.adapters.git.blobcache import BlobCache
from controller.adapters.git.repo import GitRepo
from controller.adapters.hub.http import HttpHub
from controller.adapters.registries import Registries
from controller.adapters.registries.oci import OciRegistry
from controller.adapters.registries.oci_auth import docker_config_credentials
from controller.adapters.rekor import RekorSubmitter
from controller.adapters.signers import open_signer
from controller.adapters.tsa import TimeStamper
from controller.core.artifacts import Templates
from controller.core.declared import Declared
from controller.errors import Unavailable
from controller.ledger.canonical import digest
from controller.loop import HealthFile, Loop
from controller.model.entry import LockMade
from controller.model.lock import lock_bytes
from controller.model.order import Report
from controller.model.restart import RestartProof
from controller.model.trustroot import TrustRoot
from controller.ports import Clock, Registry, Signer
from controller.reconcile.attendance import Presence
from controller.reconcile.logbook import LogBook
from controller.reconcile.observing import FileMemory
from controller.reconcile.parts import Parts
from controller.reconcile.questions import Answerer, Questions
from controller.reconcile.reading import Reader
from controller.reconcile.reconciler import Reconciler
from controller.settings import artifact_templates, docker_config
from controller.uses.declared import declaration
from controller.uses.replay import replay_run
from controller.uses.resolve import check, pinned_by, resolve
from controller.uses.restarting import restart_proof
from controller.uses.trust_chain import build_chain
from controller.wiring.state_dir import StateDir

RESOLVER = f"lockgate/{__version__}"


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What a controller is started with."""

    repo: str
    trust_root: Path
    signing_key: str | Path
    state_dir: Path
    listen: str | None = None
    poll: timedelta = timedelta(seconds=30)
    check_tags: timedelta = timedelta(minutes=5)
    images: Path | None = None
    git_timeout: float = 60.0
    log_key: str | None = None


def open_registry(images: Path | None) -> Registries:
    """Registries over HTTP (credentials from the Docker configuration) and image layouts below `images`."""
    return Registries(oci=OciRegistry(credentials=docker_config_credentials(docker_config())), images_dir=images)


class Controller:
    """A controller with its parts: `run` until `stop`, or `run_once`."""

    def __init__(self, settings: ControllerSettings, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.root = TrustRoot.load(settings.trust_root)
        signer = open_signer(settings.signing_key)
        self._state_dir = StateDir(settings.state_dir)
        self.repo = GitRepo(
            settings.repo,
            settings.state_dir,
            main=self.root.refs.main,
            requests=self.root.refs.requests,
            evidence=self.root.refs.evidence,
            timeout=settings.git_timeout,
        )
        self.health = HealthFile(settings.state_dir, self.clock)
        self._cache = BlobCache(settings.state_dir / "blobs.sqlite", f"{__version__}-1")
        self._cel = CelWorker()
        self._registry = open_registry(settings.images)
        self.log = LogBook(self.root, signer)
        self.hub = HttpHub(
            settings.listen or "127.0.0.1:0",
            signer=signer,
            clock=self.clock,
            wake=self.repo.wake,
            trust_links=self._trust_links,
            trust_version=self._trust_version,
            status=self.status,
            log=self.log,
            declared=self._declared,
            restarts=lambda: self.reconciler.ledger.state.cursors.restarts,
            restart=self._restart,
        )
        self._listening = settings.listen is not None
        reader = Reader(self.repo, self._cache)
        self.questions = Questions(self._answerers(signer, settings.log_key), self.clock, self.repo.wake)
        self.reconciler = Reconciler(
            Parts(
                repo=self.repo,
                root=self.root,
                signer=signer,
                clock=self.clock,
                hub=self.hub,
                questions=self.questions,
                reader=reader,
                memory=FileMemory(settings.state_dir),
                presence=Presence(settings.state_dir),
                templates=Templates(artifact_templates()),
                verify_ssh=sshsig.verify,
                log=self.log,
                check_tags=settings.check_tags,
            )
        )
        self.loop = Loop(
            self.reconciler,
            self.repo,
            self.clock,
            self.health,
            poll=settings.poll,
            maintain=self.repo.maintain,
        )
        self._chain: tuple[str, list[Any]] | None = None
        self._chain_lock = threading.Lock()

    def run(self) -> None:
        """Listen for agents and reconcile until `stop`."""
        self.hub.start()
        self._cel.warm()
        try:
            self.loop.run()
        finally:
            self.close()

    def run_once(self) -> None:
        """Passes until nothing is left to do now. Raises what kept it from going on."""
        self.health.once = True
        if self._listening:
            self.hub.start()
        try:
            error = self.loop.run_until_quiet()
        finally:
            self.close()
        if error is not None:
            raise error

    def stop(self) -> None:
        """End `run` soon; for signal handlers too: they interrupt the loop anywhere, also while it holds a lock
        that stopping needs, so the stopping is done by a thread of its own."""
        threading.Thread(target=self.loop.stop, name="stop", daemon=True).start()

    def close(self) -> None:
        """Release everything; whatever is recorded goes on at the next start."""
        self.hub.stop()
        self.questions.close()
        self._cel.close()
        self._registry.close()
        self._cache.close()
        self.repo.close()
        self._state_dir.close()

    def _answerers(self, signer: Signer, log_key: str | None) -> dict[str, Answerer]:
        """What answers each type of question; `log_key` signs for the public log instead of `signer`."""
        return {
            "cel": self._cel.ask,
            "resolve": self._resolver(self._registry),
            "tags": self._tag_checker(self._registry),
            "time-stamp": TimeStamper(self.clock).ask,
            "publish": RekorSubmitter(signer if log_key is None else open_signer(log_key), self.clock).ask,
            "replay": self._replayer,
        }

    def status(self) -> Mapping[str, Any]:
        """What GET /status answers."""
        ledger = self.reconciler.ledger
        return {
            "health": self.health.view(),
            "evidence": ledger.commit,
            "accepted": ledger.state.cursors.main,
            "open": {run.environment: run.phase for run in self.reconciler.runs.values()},
            "agents": {name: at.isoformat() for name, at in self.hub.seen().items()},
            "refused": dict(self.hub.refused()),
            "awaited": self._awaited(),
            "obstacles": {name: one.plain() for name, one in self.hub.obstacles().items()},
            "unwitnessed": {order: list(counts) for order, counts in self.hub.unwitnessed().items()},
            "unanswered": [asdict(one) for one in self.reconciler.unanswered()],
        }

    def _awaited(self) -> dict[str, list[str]]:
        """By environment, the targets whose reports an open run still waits for."""
        said = {(s.body.order, s.agent) for s in self.hub.inbox() if isinstance(s.body, Report)}
        return {
            run.environment: [o.target for o in run.ordered.orders if (o.id, o.target) not in said]
            for run in self.reconciler.runs.values()
            if run.ordered is not None and run.unreported
        }

    def _declared(self) -> Declared:
        """What proves the project's agents to those that check witnesses."""
        main = self.reconciler.main
        if main is None:
            raise Unavailable("not-ready", "the controller has not read main yet", retry_after=1)
        return declaration(self.repo, main.accepted, main.trust)

    def _restart(self) -> RestartProof:
        """The restart that the evidence went through last, with its owners' signatures."""
        main, number = self.reconciler.main, self.reconciler.ledger.state.cursors.restarts
        if main is None or not number:
            raise Unavailable("not-ready", "there is no restart to show", retry_after=1)
        return restart_proof(self.repo, main.accepted, number)

    def _trust_version(self) -> int:
        main = self.reconciler.main
        return main.trust.version if main is not None else 0

    def _trust_links(self) -> list[Any]:
        """The trust chain up to the accepted tip, as JSON values; rebuilt when main moved on."""
        main = self.reconciler.main
        if main is None:
            raise Unavailable("not-ready", "the controller has not read main yet", retry_after=1)
        with self._chain_lock:
            if self._chain is None or self._chain[0] != main.accepted:
                chain = build_chain(self.repo, self.root, main.accepted, sshsig.verify)
                self._chain = (main.accepted, [link.model_dump(mode="json") for link in chain.links])
            return self._chain[1]

    def _resolver(self, registry: Registry) -> Answerer:
        """Answers `resolve` questions from the intent they were asked about."""

        def answer(payload: Mapping[str, Any]) -> dict[str, Any]:
            intent = self.reconciler.intent
            loaded = intent.releases.get(payload["release"]) if intent is not None else None
            if intent is None or loaded is None or loaded.sha256 != payload["sha256"]:
                return {"error": "unavailable", "message": "main moved on; the question is asked again"}
            places = self.reconciler.ledger.state.environments
            lock = resolve(
                loaded,
                intent.components,
                registry,
                pinned=pinned_by(loaded.document, intent, places),
                resolver_version=RESOLVER,
                now=self.clock.now(),
            )
            data = lock_bytes(lock)
            made = LockMade(
                release=lock.metadata.name,
                path=f"releases/{lock.metadata.name}.lock.yaml",
                manifest_digest=lock.spec.manifest_digest,
                release_digest=lock.spec.release_digest,
                sha256=digest(data),
                components={name: c.digest for name, c in lock.spec.components.items()},
                content=data.decode(),
            )
            return {"lock": made.wire()}

        return answer

    def _tag_checker(self, registry: Registry) -> Answerer:
        """Answers `tags` questions: which tags of a release moved since its lock."""

        def answer(payload: Mapping[str, Any]) -> dict[str, Any]:
            intent, name = self.reconciler.intent, payload["release"]
            loaded = intent.releases.get(name) if intent is not None else None
            lock = intent.locks.get(name) if intent is not None else None
            if loaded is None or lock is None or lock.sha256 != payload["lock"]:
                return {"error": "unavailable", "message": "main moved on; the question is asked again"}
            moved = check(lock.document, loaded, registry).moved
            return {
                "moved": [
                    {"component": one.component, "tag": one.tag, "locked": one.locked, "found": one.now}
                    for one in moved
                ]
            }

        return answer

    def _replayer(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answers `replay` questions: a run decided again, at the tip that this controller knows."""
        tip = self.reconciler.ledger.commit
        if tip is None:
            return {"error": "unavailable", "message": "there is no evidence yet"}
        reader = GitRepo.read_only(self.repo.gitdir)
        try:
            return dict(replay_run(reader, tip, payload["run"], self._cel.ask))
        finally:
            reader.close()
