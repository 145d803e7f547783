"""A real controller in this process, on a clock of its own, whose view of the world a test may falsify.

What it then decides, records and signs is consistent in itself: it decided so, but from what was not so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from controller.adapters.clock import SystemClock
from controller.adapters.git import sshsig
from controller.adapters.git.keys import FileSigner, KeySigner
from controller.adapters.git.repo import GitRepo
from controller.core.world import World
from controller.ledger.links import sign_link
from controller.model.history import Tips
from controller.model.link import deploy_link
from controller.model.order import Report, Sample
from controller.ports import Signer
from controller.reconcile.reconciler import Reconciler
from controller.settings import tzdata_version
from controller.uses.audit.findings import VerifyReport
from controller.uses.audit.verify import verify
from controller.wiring.controller import Controller, ControllerSettings
from tests.support.flow import HEAD, Flow
from tests.support.hub_simulator import HubSimulator
from tests.support.waiting import until

Lie = Callable[[World], World]


class SetClock(SystemClock):
    """Stands still until it is moved on."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)

    def now(self) -> datetime:
        return self.at


class _Linking(HubSimulator):
    """Its agents sign the link of what they deployed, as agents do."""

    def _say(self, body: Report | Sample, agent: str) -> None:
        if isinstance(body, Report) and body.action == "deploy" and body.status == "succeeded":
            link = sign_link(deploy_link(body.run, body.manifest_digest or ""), self._signers[agent])
            body = body.model_copy(update={"link": link})
        super()._say(body, agent)


class Liar:
    """A shop, its people, and a controller that sees the world through `lie`."""

    def __init__(self, folder: Path, agents: Mapping[str, str], files: Mapping[str, str]) -> None:
        self.flow = Flow(folder, agents, files=files)
        stage = self.flow.stage
        self.clock = SetClock()
        settings = ControllerSettings(
            repo=self.flow.address,
            trust_root=stage.trust_root,
            signing_key=stage.keys / "controller",
            state_dir=stage.state,
            images=stage.images,
        )
        self._controller = Controller(settings, self.clock)
        self._signers: dict[str, Signer] = {name: FileSigner(stage.keys / name) for name in agents}
        self.hub = _Linking(self._signers, self.clock, lambda: None)
        self.lie: Lie = lambda world: world
        liar = self

        class Seeing(Reconciler):
            """Sees what it is told to see."""

            def world(self, tips: Tips) -> World:
                return liar.lie(super().world(tips))

        self._reconciler = Seeing(replace(self._controller.reconciler.parts, hub=self.hub))
        self._controller.reconciler = self._reconciler

    def settle(self, seconds: float = 0) -> None:
        """Time passes, and passes follow until nothing is left to do."""
        self.clock.at += timedelta(seconds=seconds)
        questions = self._controller.questions
        while not self._reconciler.reconcile().idle or questions.busy:
            until("questions are answered", lambda: not questions.busy)
            self.clock.at += timedelta(milliseconds=100)

    def rest(self, times: int = 6, seconds: float = 1) -> None:
        """Time passes with agents that measure."""
        for _ in range(times):
            self.clock.at += timedelta(seconds=seconds)
            self.hub.emit()
            self.settle()

    def land(self, path: str, text: str | None) -> str:
        """A change of main by its people."""
        name = f"change-{self.flow.git('rev-list', '--count', 'main')}"
        return self.flow.land(name, {path: text.encode() if text is not None else None})

    def add_agent(self, name: str, where: str) -> None:
        """Land one more agent, which does its work."""
        signer = self._signers[name] = KeySigner(ed25519.Ed25519PrivateKey.generate())
        spec = f"{{environment: {where}, publicKey: '{signer.public_key}'}}"
        self.land(f"agents/{name}.yaml", f"{HEAD}kind: Agent\nmetadata: {{name: {name}}}\nspec: {spec}\n")

    def promote(self, environment: str, version: str) -> None:
        """Land a release and, once it is locked, its promotion."""
        name = f"shop-{version}"
        if not self.flow.main_file(f"releases/{name}.yaml"):
            self.flow.image(version)
            self.flow.release(version)
            self.settle()
        self.flow.promote(environment, name)

    def phase(self, environment: str) -> str:
        """How far the environment's newest run is."""
        return str((self.flow.state(environment).get("lastRun") or {}).get("phase"))

    def verify(self, **more: Any) -> VerifyReport:
        """Verify with a fresh reader, as an auditor would."""
        repo = GitRepo.read_only(self.flow.address)
        try:
            return verify(repo, self.flow.root, verify_ssh=sshsig.verify, **more)
        finally:
            repo.close()

    def found(self, **more: Any) -> set[tuple[str, str]]:
        """(code, file name) of every finding."""
        return {(one.code, one.path.rpartition("/")[2]) for one in self.verify(**more).findings}

    def ends(self) -> list[str]:
        """The evidence commits that end what was pushed together, newest first, without the last."""
        found = self.flow.git("log", "--first-parent", "--format=%H", "lockgate/evidence", "--", "log/checkpoint")
        return found.split()[1:]

    def tzdata(self) -> str:
        """The time zone data that the controller names."""
        return tzdata_version()

    def close(self) -> None:
        self._controller.close()
        self.flow.people.close()


def freeze(name: str = "winter", environments: str = "['*']", when: str = "") -> str:
    """A freeze that is in force for ten years, or as `when` says."""
    when = when or "from: 2024-01-01T00:00:00Z, until: 2124-01-01T00:00:00Z"
    spec = f"{{environments: {environments}, {when}, reason: holidays}}"
    return f"{HEAD}kind: Freeze\nmetadata: {{name: {name}}}\nspec: {spec}\n"
