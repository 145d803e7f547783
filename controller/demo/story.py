"""The story `lockgate demo` plays: a promotion, a canary that fails, two attempts that are refused, an audit.

Every part is real: processes, keys, signatures, pushes, images, requests. What is shown is read back from the
repository by the same commands a person would use.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from controller.demo.processes import LOCKGATE, Load, Processes
from controller.demo.stage import Stage, release_file, slot_file
from controller.errors import LockgateError, Unavailable
from controller.ledger.content import content_at
from controller.wiring.people import Person, commit_on, merge_branch, restore
from controller.wiring.repos import GitRepo

AGENTS: Mapping[str, str] = {
    "dev-1": "dev",
    "staging-1": "staging",
    "staging-2": "staging",
    **{f"prod-{region}-{n}": "prod" for region in ("eu", "us") for n in range(1, 6)},
}
STAGES: Mapping[str, str] = {"prod": "; canary: 10 %, 50 %, 100 % of its ten targets"}
"""What is said of an environment's stages."""
QUIET, BUSY = 2.0, 20.0
"""Requests a second at each service: what dev and staging see, and what prod sees."""
PATIENCE = 40.0
FINDINGS = 6
"""Lines shown of what verify says of the tampered copy."""


class Story:
    """The steps, in order. `say` gets one line at a time."""

    def __init__(self, folder: Path, say: Callable[[str], None], keep: bool) -> None:
        self.stage = Stage(folder)
        self.keep = keep
        self.say = say
        self.processes = Processes(self.stage)
        self.begun = time.monotonic()
        self._repo: GitRepo | None = None
        self._step = 0

    @property
    def repo(self) -> GitRepo:
        assert self._repo is not None
        return self._repo

    def play(self) -> None:
        """All of it. Raises Unavailable("demo-failed") when anything is not as it must be."""
        try:
            self.set_up()
            self.release("shop-1.0.0", "1.0.0", "")
            for environment in ("dev", "staging", "prod"):
                self.promote(environment, "shop-1.0.0", "completed")
            self.release("shop-1.1.0", "1.1.0", "load")
            for environment in ("dev", "staging"):
                self.promote(environment, "shop-1.1.0", "completed")
            self.fail_in_prod("shop-1.1.0", "shop-1.0.0")
            self.refuse()
            self.audit()
        finally:
            self.processes.stop()
            if self._repo is not None:
                self._repo.close()
        self.close()

    # -- 1 to 3: a promotion -----------------------------------------------------------------------------

    def set_up(self) -> None:
        """Origin, keys, images, one controller and thirteen agents."""
        self._head("A bare origin, throw-away keys, a controller and 13 agents, each a process of its own")
        self.stage.image("1.0.0")
        root = self.stage.build()
        self._repo = self.stage.repo()
        self.processes.start_controller()
        self.processes.start_agents(AGENTS)
        self._line(f"origin {self.stage.origin}, genesis {root.genesis[:12]} pinned in trust-root.json")
        self._line(f"controller on {self.processes.address}; agents: {', '.join(AGENTS)}")

    def release(self, name: str, version: str, flaw: str) -> None:
        """A developer's signed branch adds a release with tags; a reviewer's signed merge lands it."""
        self._head(f"alice writes {name} with tags, bob merges it; the controller resolves tags to digests")
        self.stage.image(version, flaw)
        alice, bob = self._people("alice", "bob")
        files = {f"releases/{name}.yaml": release_file(name, version)}
        commit_on(self.repo, name, alice, files, f"Release {name}")
        merge_branch(self.repo, name, bob, into="main", message=f"Merge branch '{name}'")
        lock = f"releases/{name}.lock.yaml"
        self._wait(lambda: self._main_file(lock) is not None, f"{lock} was not committed")
        spec = yaml.safe_load(self._main_file(lock) or b"")["spec"]
        for component, found in spec["components"].items():
            self._line(f"{component:<7} {found['tag']} → {found['digest']}")
        self._line(f"{name} is from now on {spec['manifestDigest']}, whatever becomes of the tags")
        self._line(f"committed by the controller: {self._subject('main')}, {lock}")

    def promote(self, environment: str, release: str, phase: str) -> None:
        """alice promotes by a branch, bob approves by merging it; the run is followed to its end."""
        stages = STAGES.get(environment, "")
        self._head(f"alice promotes {release} to {environment}, bob approves by merging{stages}")
        rate = BUSY if environment == "prod" else QUIET
        places = [name for name, where in AGENTS.items() if where == environment]
        with Load(self.processes, places, rate=rate) as load:
            self._promote(environment, release)
            self._follow(environment, release, phase)
        answered = ", ".join(f"{count} × {code}" for code, count in sorted(load.answers.items()) if code)
        self._line(f"customers meanwhile: {answered}")

    # -- 4: a canary that fails --------------------------------------------------------------------------

    def fail_in_prod(self, release: str, former: str) -> None:
        """The release is healthy, and fails under prod's load: measured, rolled back, reverted, sealed."""
        before = self._stickers()
        self.promote("prod", release, "rolled_back")
        self._wait(lambda: former.encode() in (self._main_file("promotions/prod.yaml") or b""), "no slot revert")
        self._wait(lambda: self._accepted() == self.repo.observe().main, "the slot revert was not accepted")
        self._line(f"main: {self._subject('main')}")
        state = self._state("prod")
        after = self._stickers()
        moved = [name for name in before if before[name] != after[name]]
        same = [name for name in before if name not in moved]
        if len(moved) != 1 or state.get("release") != former:
            raise Unavailable(
                "demo-failed", f"{len(moved)} targets were touched, prod names {state.get('release')}"
            )
        self._line(f"{moved[0]} went to {release} and back to {former}; the other {len(same)} were never touched")

    # -- 5: refused --------------------------------------------------------------------------------------

    def refuse(self) -> None:
        """A promotion merged by its own author, and an unsigned push: refused, explained, taken back."""
        self._head(
            "Two attempts that must be refused: dave merges his own promotion to prod, somebody pushes unsigned"
        )
        tip, stickers = self._accepted(), self._stickers()
        dave, carol = self._people("dave", "carol")
        slot = slot_file("prod", "shop-1.1.0", "again, quickly")
        commit_on(
            self.repo, "dave-again", dave, {"promotions/prod.yaml": slot}, "Promote shop-1.1.0 to prod again"
        )
        merge_branch(self.repo, "dave-again", dave, into="main", message="Merge branch 'dave-again'")
        self._wait(lambda: len(self._refused()) == 1, "the self-approved merge was not refused")
        nobody = Person("nobody", "nobody@example.com", None)
        commit_on(self.repo, "main", nobody, {"README.md": b"owned\n"}, "A small fix, unsigned")
        self._wait(lambda: len(self._refused()) == 2, "the unsigned push was not refused")
        self._show("why", "prod")
        self._show("status")
        self._line("carol, a reviewer, takes both back with one signed revert")
        restore(self.repo, carol, to=tip, branch="main", message="Revert what nobody approved")
        self._wait(
            lambda: not self._refused() and self._accepted() == self.repo.observe().main, "main stands still"
        )
        if self._stickers() != stickers:
            raise Unavailable("demo-failed", "something was deployed that nobody approved")
        self._line("main goes on, and nothing was deployed")

    # -- 6: the audit ------------------------------------------------------------------------------------

    def audit(self) -> None:
        """verify says yes; one byte of a copy is changed, and it says no and where."""
        self._head("The audit: verify from the pinned root, then again with one byte of a copy changed")
        self.processes.stop()
        root = ("--trust-root", str(self.stage.trust_root))
        code, text = self._lockgate(str(self.stage.origin), "verify", *root)
        self._quote(text)
        if code != 0:
            raise Unavailable("demo-failed", "verify said no to what happened", got=text)
        copy = self.stage.folder / "tampered.git"
        subprocess.run(["git", "clone", "-q", "--mirror", str(self.stage.origin), str(copy)], check=True)
        path = tamper(copy)
        self._line(f"one byte changed in a copy, in {path}")
        code, text = self._lockgate(str(copy), "verify", *root)
        lines = text.splitlines()
        self._quote("\n".join(lines[:FINDINGS]))
        if len(lines) > FINDINGS:
            self._line(f"  … and {len(lines) - FINDINGS} lines more that follow from it")
        shutil.rmtree(copy)
        if code != 1 or path not in text:
            raise Unavailable("demo-failed", "verify did not find the changed byte", got=text)

    def close(self) -> None:
        """The timelines, and the commands to look further."""
        self._head("What happened, as Git tells it")
        code, text = self._lockgate(str(self.stage.origin), "-o", "json", "runs")
        runs = json.loads(text) if code == 0 else []
        for run in sorted(runs, key=lambda r: str(r["opened"])):
            if run["environment"] == "prod":
                self._show("timeline", run["run"])
        took = time.monotonic() - self.begun
        self.say(f"\nEverything above took {took:.0f} s.")
        if not self.keep:
            self.say("Play it again with --keep to look further yourself.")
            return
        self.say("Look further:")
        root, signers = f"--trust-root {self.stage.trust_root}", self.stage.folder / "allowed-signers"
        prod = max((str(run["run"]) for run in runs if run["environment"] == "prod"), default="RUN")
        for command in ("status", "why prod", f"targets {prod}", f"evidence {prod}", f"verify {root}"):
            self.say(f"  {program()} --repo {self.stage.origin} {command}")
        self.say("With git alone, and who may sign as the controller:")
        ask = f"trust allowed-signers --role controller {root}"
        self.say(f"  {program()} --repo {self.stage.origin} {ask} > {signers}")
        git = f"git -C {self.stage.origin} -c gpg.ssh.allowedSignersFile={signers}"
        self.say(f"  {git} log --show-signature lockgate/evidence")

    # -- helpers -----------------------------------------------------------------------------------------

    def _people(self, *names: str) -> tuple[Person, ...]:
        return tuple(self.stage.person(name) for name in names)

    def _promote(self, environment: str, release: str) -> None:
        alice, bob = self._people("alice", "bob")
        branch = f"promote-{environment}-{release}"
        slot = slot_file(environment, release, "monthly release")
        commit_on(self.repo, branch, alice, {f"promotions/{environment}.yaml": slot}, f"Promote {release}")
        merge_branch(self.repo, branch, bob, into="main", message=f"Merge branch '{branch}'")

    def _follow(self, environment: str, release: str, phase: str) -> None:
        """Show each entry of the run as it is recorded, until the run has ended as it must."""
        shown = self.repo.observe().evidence
        deadline = time.monotonic() + PATIENCE
        while True:
            tip = self.repo.observe().evidence
            if tip != shown and tip is not None:
                for commit in self.repo.first_parents(tip, shown):
                    subject = commit.message.partition("\n")[0]
                    if subject.startswith(f"{environment}: "):
                        self._line(f"{commit.id[:8]} {subject.removeprefix(f'{environment}: ')}")
                shown = tip
            last = self._state(environment).get("lastRun") or {}
            if last.get("release") == release and last.get("phase") == phase:
                return
            ended = last.get("release") == release and last.get("phase") not in ("open", None)
            if ended or time.monotonic() > deadline:
                got = f"{last.get('release')} {last.get('phase')}"
                raise Unavailable("demo-failed", f"{environment}: {release} is not {phase}", got=got)
            self.repo.wait(0.2)

    def _state(self, environment: str) -> dict[str, Any]:
        data = self._file(self.repo.observe().evidence, f"state/{environment}.json")
        return json.loads(data) if data else {}

    def _cursors(self) -> dict[str, Any]:
        data = self._file(self.repo.observe().evidence, "state/cursors.json")
        return json.loads(data) if data else {}

    def _refused(self) -> list[Any]:
        return list(self._cursors().get("refused", []))

    def _accepted(self) -> str:
        return str(self._cursors().get("main"))

    def _main_file(self, path: str) -> bytes | None:
        return self._file(self.repo.observe().main, path)

    def _file(self, commit: str | None, path: str) -> bytes | None:
        return content_at(self.repo, commit, path) if commit is not None else None

    def _stickers(self) -> dict[str, bytes]:
        """Every prod target's sticker, byte for byte."""
        names = [name for name, where in AGENTS.items() if where == "prod"]
        return {name: (self.stage.agents / name / "lockgate.version.json").read_bytes() for name in names}

    def _subject(self, branch: str) -> str:
        tip = getattr(self.repo.observe(), branch)
        return self.repo.commit(tip).message.partition("\n")[0]

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        self.processes.wait_for(ready, what, PATIENCE)

    def _lockgate(self, repo: str, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*LOCKGATE, "--repo", repo, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode, done.stdout or done.stderr

    def _show(self, *arguments: str) -> None:
        self._line(f"$ lockgate {' '.join(arguments)}")
        self._quote(self._lockgate(str(self.stage.origin), *arguments)[1])

    def _head(self, text: str) -> None:
        self._step += 1
        self.say(f"\n{self._step}. {text}  [{time.monotonic() - self.begun:.0f} s]")

    def _line(self, text: str) -> None:
        self.say(f"   {text}")

    def _quote(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self.say(f"     {line}")


def program() -> str:
    """How this program is called from here: by its name where that finds it, else by its path."""
    own = Path(sys.executable).parent / "lockgate"
    found = shutil.which("lockgate")
    if not own.exists() or (found is not None and Path(found).resolve() == own.resolve()):
        return "lockgate"
    here = Path.cwd()
    return str(own.relative_to(here) if own.is_relative_to(here) else own)


def tamper(repository: Path) -> str:
    """Change one byte of one recorded entry in a bare repository, the way a disk or an intruder would: in the
    stored object itself, its name left as it was. Returns the entry's path."""
    tree = _git(repository, "ls-tree", "-r", "lockgate/evidence").splitlines()
    rows = [line.split() for line in tree if line.endswith("-evaluated.dsse.json")]
    _, _, blob, path = rows[-1]
    data = subprocess.run(
        ["git", "-C", str(repository), "cat-file", "blob", blob], capture_output=True, check=True
    ).stdout
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 0x01
    for pack in (repository / "objects" / "pack").glob("*.pack"):
        moved = repository / pack.name
        pack.rename(moved)
        for other in (repository / "objects" / "pack").glob(f"{pack.stem}.*"):
            other.unlink()
        with moved.open("rb") as stream:
            subprocess.run(["git", "-C", str(repository), "unpack-objects", "-q"], stdin=stream, check=True)
        moved.unlink()
    loose = repository / "objects" / blob[:2] / blob[2:]
    loose.chmod(0o644)
    loose.write_bytes(zlib.compress(b"blob %d\0" % len(changed) + bytes(changed)))
    return path


def _git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def play(folder: Path, keep: bool) -> int:
    """Play the story in `folder`; 0 when everything was as it must be, 2 with the reason otherwise.

    `keep` says that the folder will stay, so that the closing screen can point into it.
    """
    story = Story(folder, lambda text: print(text, flush=True), keep)
    try:
        story.play()
    except LockgateError as error:
        print(f"lockgate: {error}", file=sys.stderr)
        return 2
    return 0
