"""Setting the stage: keys, a bare origin with the shop's files, image layouts, and the people of the story."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import jinja2

from controller.model.link import LAYOUT_PATH
from controller.model.trustroot import TrustRoot
from controller.settings import data_dir
from controller.uses.images import build_layout
from controller.uses.layout import first_terms
from controller.wiring.attest import make_layout
from controller.wiring.making import FileSigner, generate_key, swap, write_commit
from controller.wiring.people import Person, commit_on, merge_branch, now
from controller.wiring.repos import GitRepo

PEOPLE = ("alice", "dave", "bob", "carol", "olga", "olivia", "oscar")
"""alice and dave develop, bob and carol review, olga operates, olivia and oscar own."""
COMPONENTS = ("api", "worker", "web")


class Stage:
    """A folder with everything the story needs: `origin.git`, `trust-root.json`, `keys/`, `images/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.origin = folder / "origin.git"
        self.trust_root = folder / "trust-root.json"
        self.keys = folder / "keys"
        self.images = folder / "images"
        self.state = folder / "state"
        self.agents = folder / "agents"

    def person(self, name: str) -> Person:
        """Somebody of the story, with their key."""
        return Person(name, f"{name}@example.com", FileSigner(self.keys / name))

    def repo(self) -> GitRepo:
        """The origin, opened as people push to it."""
        return GitRepo(str(self.origin), None)

    def build(self, source: Path | None = None, agents: Iterable[str] | None = None) -> TrustRoot:
        """Make the origin from `example-repo/` (or `source`): genesis by an owner, the files by a developer,
        merged by a reviewer. Returns the pinned root, which is also written beside the origin."""
        files = self._render(source or data_dir("example-repo"), agents)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.origin)], check=True)
        repo = self.repo()
        owners = [FileSigner(self.keys / name) for name in ("olivia", "oscar")]
        files[LAYOUT_PATH] = make_layout(first_terms("shop", files), owners)
        first = {p: d for p, d in files.items() if p == "lockgate.yaml" or p.startswith("trust/")}
        owner = self.person("olivia")
        genesis = write_commit(
            repo,
            (),
            first,
            message="Begin the shop's release control",
            author=owner.author,
            when=now(),
            signer=owner.signer,
        )
        swap(repo, repo.main, None, genesis)
        owned = {".gitattributes": files.pop(".gitattributes")} if ".gitattributes" in files else {}
        if owned:
            commit_on(repo, "attributes", self.person("oscar"), owned, "Say how Git treats the files")
            merge_branch(repo, "attributes", owner, into="main", message="Merge branch 'attributes'")
        rest = {p: d for p, d in files.items() if p not in first}
        commit_on(repo, "setup", self.person("alice"), rest, "Describe the shop: components, environments, agents")
        merge_branch(repo, "setup", self.person("bob"), into="main", message="Merge branch 'setup'")
        root = TrustRoot(project="shop", genesis=genesis)
        root.save(self.trust_root)
        repo.close()
        return root

    def image(self, version: str, flaw: str = "", components: Iterable[str] = COMPONENTS) -> dict[str, str]:
        """Build every component's image at a version; component → digest."""
        program = (Path(__file__).parent / "service.py").read_bytes()
        made = {}
        for name in components:
            settings = f"{name} {version}\n".encode()
            env = f"SHOP_VERSION = {version!r}\nSHOP_FLAW = {flaw if name == 'api' else ''!r}\n".encode()
            start = (
                b"import os, runpy\nfrom settings import SHOP_FLAW, SHOP_VERSION\n"
                b"os.environ |= {'SHOP_VERSION': SHOP_VERSION, 'SHOP_FLAW': SHOP_FLAW}\n"
                b"runpy.run_path('service.py', run_name='__main__')\n"
            )
            files = {"server.py": start, "service.py": program, "settings.py": env, "VERSION": settings}
            made[name] = build_layout(self.images, name, f"v{version}", files)
        return made

    def _render(self, source: Path, agents: Iterable[str] | None) -> dict[str, bytes]:
        """The repository's files, keys filled in; agents not named are left out."""
        wanted = set(agents) if agents is not None else None
        paths = [p for p in sorted(source.rglob("*")) if p.is_file()]
        names = [p.name.removesuffix(".yaml.j2") for p in paths if p.parent.name == "agents"]
        keys = self._keys([*PEOPLE, "controller", *(n for n in names if wanted is None or n in wanted)])
        files = {}
        for path in paths:
            name = str(path.relative_to(source))
            if (
                name.startswith("agents/")
                and wanted is not None
                and path.name.removesuffix(".yaml.j2") not in wanted
            ):
                continue
            text = path.read_text()
            if name.endswith(".j2"):
                name = name.removesuffix(".j2")
                # The files are YAML: HTML's escapes would corrupt them.
                environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
                text = environment.from_string(text).render(keys=keys)
            files[name] = text.encode()
        return files

    def _keys(self, names: Iterable[str]) -> Mapping[str, str]:
        self.keys.mkdir(parents=True, exist_ok=True)
        return {name: generate_key(self.keys / name, name).public_key for name in names}


def release_file(name: str, version: str) -> bytes:
    """A release of every component at a version's tag."""
    components = "".join(f"    {c}: {{tag: v{version}}}\n" for c in COMPONENTS)
    return (
        "# yaml-language-server: $schema=https://lockgate.dev/schemas/v1/release.schema.json\n"
        "apiVersion: lockgate.dev/v1\nkind: Release\n"
        f"metadata:\n  name: {name}\nspec:\n  displayName: Shop {version}\n  mode: pinned\n"
        f"  components:\n{components}"
    ).encode()


def slot_file(environment: str, release: str, reason: str) -> bytes:
    """A promotion slot."""
    return (
        "# yaml-language-server: $schema=https://lockgate.dev/schemas/v1/promotion.schema.json\n"
        "apiVersion: lockgate.dev/v1\nkind: Promotion\n"
        f"metadata:\n  name: {environment}\nspec:\n  release: {release}\n  reason: {json.dumps(reason)}\n"
    ).encode()


def prepare(folder: Path) -> TrustRoot:
    """A stage to play on by hand: origin, keys, and images of a sound version and of one that fails under load."""
    stage = Stage(folder)
    stage.image("1.0.0")
    stage.image("1.1.0", "load")
    return stage.build()
