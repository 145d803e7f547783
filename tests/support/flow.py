"""One small shop as its users run it: a bare origin, a controller process, agent processes, short stages."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controller.adapters.git.repo import GitRepo
from controller.demo.processes import Processes
from controller.demo.stage import Stage, slot_file
from controller.wiring.people import commit_on, merge_branch
from tests.support.waiting import until

SOURCE = Path(__file__).parents[2] / "example-repo"
HEAD = "apiVersion: lockgate.dev/v1\n"
ONE_STAGE = "    - {percent: 100, minHealthyTime: 200ms, deadline: 10s}\n"


def environment(name: str, **spec: Any) -> str:
    """An Environment document; JSON is YAML."""
    body = {"order": 10, "strategy": name, "gates": "none", **spec}
    return f"{HEAD}kind: Environment\nmetadata: {{name: {name}}}\nspec: {json.dumps(body)}\n"


def strategy(name: str, stages: str = ONE_STAGE) -> str:
    """A Strategy document of these stages."""
    return f"{HEAD}kind: Strategy\nmetadata: {{name: {name}}}\nspec:\n  stages:\n{stages}"


class Flow:
    """A staged project with one component, `api`, and environments without gates, one for each agent's."""

    def __init__(
        self,
        folder: Path,
        agents: Mapping[str, str],
        *,
        files: Mapping[str, str] | None = None,
        repository: str = "oci-layout:api",
        origin: Path | None = None,
    ) -> None:
        self.agents = dict(agents)
        self.stage = Stage(folder)
        if origin is not None:
            self.stage.origin = origin
        source = folder / "source"
        _write_source(source, agents, repository, files or {})
        self.root = self.stage.build(source, list(agents))
        self.processes = Processes(self.stage)
        self.address = str(self.stage.origin)
        self.people = GitRepo(str(self.stage.origin), None)

    # -- what people do ----------------------------------------------------------------------------------

    def image(self, version: str, flaw: str = "") -> str:
        """Build api's image at v`version`; its digest."""
        return self.stage.image(version, flaw, components=("api",))["api"]

    def land(self, branch: str, files: Mapping[str, bytes | None], message: str = "Change") -> str:
        """alice commits on a branch, bob merges it; the merge's id."""
        commit_on(self.people, branch, self.stage.person("alice"), files, message)
        merge = f"Merge branch '{branch}'"
        return merge_branch(self.people, branch, self.stage.person("bob"), into="main", message=merge)

    def release(self, version: str) -> str:
        """Land a release of api at the tag v`version`; the release's name."""
        name = f"shop-{version}"
        spec = {"displayName": name, "mode": "pinned", "components": {"api": {"tag": f"v{version}"}}}
        text = f"{HEAD}kind: Release\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"
        self.land(f"release-{version}", {f"releases/{name}.yaml": text.encode()})
        return name

    def locked(self, release: str, seconds: float = 20.0) -> str:
        """Wait for the lock on main; its text."""
        path = f"releases/{release}.lock.yaml"
        return str(until(f"{path} on main", lambda: self.main_file(path), seconds))

    def promote(self, environment: str, release: str) -> None:
        """Land a promotion."""
        branch = f"promote-{environment}-{release}-{time.monotonic_ns()}"
        self.land(branch, {f"promotions/{environment}.yaml": slot_file(environment, release, "because")})

    def deploy(self, environment: str, version: str) -> str:
        """Build, release, lock, promote and complete a version; the release's name."""
        self.image(version)
        name = self.release(version)
        self.locked(name)
        self.promote(environment, name)
        self.ends(environment, name, "completed")
        return name

    # -- what can be seen --------------------------------------------------------------------------------

    def git(self, *arguments: str, check: bool = True) -> str:
        """Stock git in the origin."""
        done = subprocess.run(
            ["git", "-C", str(self.stage.origin), *arguments], capture_output=True, text=True, check=check
        )
        return done.stdout.strip()

    def tip(self, branch: str = "lockgate/evidence") -> str:
        """A branch's commit, "" when there is none."""
        return self.git("rev-parse", "-q", "--verify", f"refs/heads/{branch}", check=False)

    def main_file(self, path: str) -> str:
        return self.git("show", f"main:{path}", check=False)

    def state(self, environment: str) -> dict[str, Any]:
        """What the evidence says runs in an environment."""
        text = self.git("show", f"lockgate/evidence:state/{environment}.json", check=False)
        return dict(json.loads(text)) if text else {}

    def ends(self, environment: str, release: str, phase: str, seconds: float = 90.0) -> dict[str, Any]:
        """Wait until the environment's newest run is of `release` and `phase`; the environment's state."""

        def there() -> dict[str, Any] | None:
            state = self.state(environment)
            last = state.get("lastRun") or {}
            return state if (last.get("release"), last.get("phase")) == (release, phase) else None

        return dict(until(f"{environment}: {release} {phase}", there, seconds))

    def entries(self) -> list[dict[str, Any]]:
        """Every entry's statement, in the order they were recorded."""
        import base64

        found = []
        for path in self.git("ls-tree", "-r", "--name-only", "lockgate/evidence").splitlines():
            if path.endswith(".dsse.json"):
                envelope = json.loads(self.git("show", f"lockgate/evidence:{path}"))
                found.append(json.loads(base64.b64decode(envelope["payload"]))["predicate"] | {"path": path})
        return sorted(found, key=lambda entry: int(entry["index"]))

    def kinds(self) -> list[str]:
        """The kinds of the entries in order, from their paths."""
        return [entry["path"].rpartition("/")[2].partition("-")[2].split(".")[0] for entry in self.entries()]

    def health(self) -> dict[str, Any]:
        """What the state directory's health.json says."""
        try:
            return dict(json.loads((self.stage.state / "health.json").read_text()))
        except (OSError, ValueError):
            return {}

    def status(self) -> dict[str, Any]:
        """What GET /status answers."""
        with urllib.request.urlopen(f"http://{self.processes.address}/status", timeout=5) as answer:
            return dict(json.load(answer))

    def asks(self, *words: str) -> str:
        """What the command line prints for this repository; it must say yes."""
        from controller.cli.app import run

        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = run(["--repo", self.address, *words])
        assert code == 0, said.getvalue()
        return said.getvalue()

    def says(self, code: str, seconds: float = 15.0) -> dict[str, Any]:
        """Wait until the controller's health is `code` ("" when it is well), in the file and over HTTP."""
        until(f"health.json says {code!r}", lambda: self._health_is(self.health(), code), seconds)
        health = until(f"/status says {code!r}", lambda: self._health_of(code), seconds)
        return dict(health)

    def check_dense(self) -> None:
        """Nothing twice, nothing missing: the entries' indexes are 0, 1, 2 …"""
        indexes = [entry["index"] for entry in self.entries()]
        assert indexes == list(range(len(indexes)))

    def verify(self) -> None:
        """`lockgate verify` says yes to the whole history."""
        from controller.adapters.git import sshsig
        from controller.model.trustroot import TrustRoot
        from controller.uses.audit.verify import verify

        repo = GitRepo.read_only(str(self.stage.origin))
        try:
            answer = verify(repo, TrustRoot.load(self.stage.trust_root), verify_ssh=sshsig.verify)
        finally:
            repo.close()
        assert answer.verified, answer

    def _health_is(self, health: dict[str, Any], code: str) -> bool:
        return health.get("code") == code and (bool(code) or health.get("state") == "running")

    def _health_of(self, code: str) -> dict[str, Any] | None:
        health = self.status()["health"]
        return health if self._health_is(health, code) else None

    # -- processes ---------------------------------------------------------------------------------------

    def start(self, *, environ: Mapping[str, str] | None = None) -> None:
        """Start the controller and every agent."""
        self.processes.start_controller(environ, poll="1s")
        for name, where in self.agents.items():
            self.processes.start_agent(name, where, environ)

    def start_heard(self) -> None:
        """Start everything, and wait until every agent was heard: no stage then waits for a start."""
        self.start()
        until("every agent is heard", lambda: set(self.agents) <= set(self.status()["agents"]))

    def stop_controller(self) -> None:
        process = self.processes.controller
        assert process is not None
        process.terminate()
        process.wait(15)

    def kill_controller(self) -> None:
        process = self.processes.controller
        assert process is not None
        process.kill()
        process.wait(15)

    def log(self) -> str:
        return (self.stage.folder / "controller.log").read_text()

    def agent_log(self, name: str) -> str:
        return (self.stage.agents / name / "agent.log").read_text()

    def sticker(self, agent: str) -> dict[str, Any]:
        return dict(json.loads((self.stage.agents / agent / "lockgate.version.json").read_bytes()))

    def close(self) -> None:
        self.processes.stop()
        self.people.close()
        log = self.log()
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 500) :][:5000]


@contextlib.contextmanager
def flow(folder: Path, agents: Mapping[str, str], **options: Any) -> Iterator[Flow]:
    """A staged shop whose processes end with the block."""
    made = Flow(folder, agents, **options)
    try:
        yield made
    finally:
        made.close()


def _write_source(source: Path, agents: Mapping[str, str], repository: str, files: Mapping[str, str]) -> None:
    shutil.copytree(SOURCE, source)
    for folder in ("environments", "strategies", "policies", "freezes", "agents"):
        shutil.rmtree(source / folder)
    for name in ("web", "worker"):
        (source / "components" / f"{name}.yaml").unlink()
    component = source / "components" / "api.yaml"
    component.write_text(component.read_text().replace("oci-layout:api", repository))
    texts: dict[str, str] = {}
    for name in sorted(set(agents.values())):
        texts[f"environments/{name}.yaml"] = environment(name)
        texts[f"strategies/{name}.yaml"] = strategy(name)
    for agent, where in agents.items():
        spec = f"spec:\n  environment: {where}\n  publicKey: '{{{{ keys[\"{agent}\"] }}}}'\n  driver: process\n"
        texts[f"agents/{agent}.yaml.j2"] = f"{HEAD}kind: Agent\nmetadata:\n  name: {agent}\n{spec}"
    for path, text in {**texts, **files}.items():
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_text(text)
