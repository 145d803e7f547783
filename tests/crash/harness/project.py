"""A small project with everything a run passes: two agents, two stages, gates, a release that fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from controller.demo.stage import Stage, slot_file
from controller.settings import data_dir
from controller.wiring.people import commit_on, merge_branch

AGENTS = ("dev-1", "dev-2")
GOOD, BAD = "shop-1.0.0", "shop-1.1.0"
ENVIRONMENT = """\
apiVersion: lockgate.dev/v1
kind: Environment
metadata: {name: dev}
spec:
  order: 10
  strategy: canary
  gates: [digests-pinned, promotion-freeze]
  onFailure: rollback
"""
STRATEGY = """\
apiVersion: lockgate.dev/v1
kind: Strategy
metadata: {name: canary}
spec:
  stages:
    - {percent: 50, minHealthyTime: 40ms, deadline: 20s, analysis: [errors]}
    - {percent: 100, minHealthyTime: 40ms, deadline: 20s, analysis: [errors]}
  analysis:
    errors: {source: agents, metric: error_rate, successWhen: 'value < 0.05', interval: 20ms, minSamples: 2}
"""
AGENT = """\
apiVersion: lockgate.dev/v1
kind: Agent
metadata: {name: NAME}
spec: {environment: dev, publicKey: '{{ keys["NAME"] }}', driver: process}
"""


def build(folder: Path, agents: Sequence[str] = AGENTS, strategy: str = STRATEGY) -> Stage:
    """The project's origin, keys and images below `folder`."""
    source = folder / "source"
    example = data_dir("example-repo")
    for name in ("lockgate.yaml", "trust/trust.yaml.j2", "components/api.yaml", ".gitattributes"):
        _copy(example / name, source / name)
    for name in ("digests-pinned", "promotion-freeze"):
        _copy(example / f"policies/{name}.yaml", source / f"policies/{name}.yaml")
    files = {"environments/dev.yaml": ENVIRONMENT, "strategies/canary.yaml": strategy}
    files |= {f"agents/{name}.yaml.j2": AGENT.replace("NAME", name) for name in agents}
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    stage = Stage(folder)
    stage.build(source)
    for version in ("1.0.0", "1.1.0"):
        stage.image(version, components=["api"])
    return stage


def _copy(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old, new)


def copy(stage: Stage, folder: Path) -> Stage:
    """A copy of a project as it stands, its keys and images shared: what does not change need not be copied."""
    for name in ("origin.git", "state", "agents"):
        if (stage.folder / name).exists():
            shutil.copytree(stage.folder / name, folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(stage.trust_root, folder / stage.trust_root.name)
    for name in ("keys", "images"):
        (folder / name).symlink_to(os.path.realpath(stage.folder / name))
    return Stage(folder)


def release(stage: Stage, name: str) -> None:
    """alice writes a release of one component, bob merges it."""
    version = name.removeprefix("shop-")
    text = (
        f"apiVersion: lockgate.dev/v1\nkind: Release\nmetadata: {{name: {name}}}\n"
        f"spec: {{mode: pinned, components: {{api: {{tag: v{version}}}}}}}\n"
    )
    _land(stage, name, {f"releases/{name}.yaml": text.encode()}, f"Release {name}")


def promote(stage: Stage, name: str, reason: str = "monthly release") -> None:
    """alice names a release in dev's slot, bob merges it."""
    _land(stage, f"dev-{name}", {"promotions/dev.yaml": slot_file("dev", name, reason)}, f"Promote {name}")


def _land(stage: Stage, branch: str, files: dict[str, bytes | None], message: str) -> None:
    repo = stage.repo()
    try:
        commit_on(repo, branch, stage.person("alice"), files, message)
        merge_branch(repo, branch, stage.person("bob"), into="main", message=f"Merge branch '{branch}'")
    finally:
        repo.close()
