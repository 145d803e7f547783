"""A release from a real registry all the way: resolved, locked, pulled by digest in a canary, verified."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.demo.processes import LOCKGATE
from tests.support.flow import Flow, environment, flow, strategy
from tests.support.registry import RunningRegistry, running_registry, skopeo

NAME = "shop/api"
AGENTS = {f"dev-{number}": "dev" for number in (1, 2, 3, 4)}
CANARY = "".join(
    f"    - {{percent: {percent}, minHealthyTime: 200ms, deadline: 10s}}\n" for percent in (25, 50, 100)
)
FILES = {"environments/dev.yaml": environment("dev"), "strategies/dev.yaml": strategy("dev", CANARY)}
LOGIN = ("robot", "open-sesame")


@pytest.fixture(params=["anonymous", "basic auth"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRegistry]:
    user, password = LOGIN if request.param == "basic auth" else ("", "")
    with running_registry(tmp_path / "registry", user=user, password=password) as running:
        yield running


def _login(folder: Path, registry: RunningRegistry) -> dict[str, str]:
    """An environment in which `docker login` was done for the registry, or none is needed."""
    folder.mkdir()
    auth = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
    auths = {registry.host: {"auth": auth}} if registry.user else {}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return {"DOCKER_CONFIG": str(folder)}


def _inspect(registry: RunningRegistry, tag: str) -> str:
    """The digest that a stock tool finds at a tag."""
    login = ["--creds", f"{registry.user}:{registry.password}"] if registry.user else []
    image = f"docker://{registry.host}/{NAME}:{tag}"
    return skopeo("inspect", "--tls-verify=false", *login, "--format", "{{.Digest}}", image).strip()


def _check(shop: Flow, environ: dict[str, str]) -> tuple[int, list[dict[str, object]]]:
    """`lockgate resolve --check` of every release: exit code and answers."""
    command = [*LOCKGATE, "--repo", str(shop.stage.origin), "-o", "json", "resolve", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, **environ})
    assert "Traceback" not in done.stderr, done.stderr
    answers = json.loads(done.stdout)
    return done.returncode, answers if isinstance(answers, list) else [answers]


def _leaks(shop: Flow, registry: RunningRegistry) -> list[str]:
    """Where a secret stands (of a key: its private part): in any object of the origin, in logs, caches and
    stickers, or anywhere else in the project's folder but where it is kept."""
    keys = [path for path in shop.stage.keys.iterdir() if not path.suffix]
    secrets = {"".join(path.read_text().splitlines()[1:-1])[216:256].encode(): path.name for path in keys}
    if registry.password:
        login = f"{registry.user}:{registry.password}".encode()
        secrets |= {registry.password.encode(): "the password", base64.b64encode(login): "the login"}
    objects = subprocess.run(
        ["git", "-C", str(shop.stage.origin), "cat-file", "--batch-all-objects", "--batch"],
        capture_output=True,
        check=True,
    ).stdout
    files = [path for path in shop.stage.folder.rglob("*") if path.is_file() and path not in keys]
    assert len(secrets) > len(AGENTS) and b"lockgate" in objects and len(files) > len(AGENTS)
    found = [f"{name} in an object" for secret, name in secrets.items() if secret in objects]
    for path in files:
        data = path.read_bytes()
        # A key's file has lines of 70 characters.
        found += [f"{name} in {path}" for secret, name in secrets.items() if secret in data.replace(b"\n", b"")]
    return found


def test_a_release_goes_all_the_way_from_a_real_registry(tmp_path: Path, registry: RunningRegistry) -> None:
    environ = _login(tmp_path / "docker", registry)
    repository = f"{registry.host}/{NAME}"
    with flow(tmp_path / "shop", AGENTS, files=FILES, repository=repository) as shop:
        shop.start(environ=environ)
        built = shop.image("1.0.0")
        registry.push(shop.stage.images, "api", "v1.0.0", to=NAME)
        name = shop.release("1.0.0")
        assert built in shop.locked(name)
        # What runs comes from the registry alone: the layout it was pushed from is gone.
        shop.stage.images.rename(shop.stage.images.with_name("elsewhere"))
        assert _check(shop, environ)[0] == 0
        shop.promote("dev", name)
        state = shop.ends("dev", name, "completed")
        found = _inspect(registry, "v1.0.0")
        assert found == built and state["digests"] == {"api": found}
        for agent in AGENTS:
            sticker = shop.sticker(agent)
            assert sticker["release"] == name
            assert sticker["digests"] == {"api": found}
        ordered = [entry["detail"] for entry in shop.entries() if entry["kind"] == "ordered"]
        steps = [(one["action"], len(one["orders"])) for one in ordered]
        assert steps == [("deploy", 1), ("deploy", 1), ("deploy", 2), ("check", 4)]
        shop.check_dense()
        shop.verify()
        assert _leaks(shop, registry) == []


def test_a_tag_moved_after_its_lock_deploys_what_was_locked(tmp_path: Path, registry: RunningRegistry) -> None:
    environ = _login(tmp_path / "docker", registry)
    repository = f"{registry.host}/{NAME}"
    with flow(tmp_path / "shop", {"dev-1": "dev"}, repository=repository) as shop:
        shop.start(environ=environ)
        locked = shop.image("1.0.0")
        registry.push(shop.stage.images, "api", "v1.0.0", to=NAME)
        name = shop.release("1.0.0")
        shop.locked(name)
        other = shop.image("1.0.0", "load")
        registry.push(shop.stage.images, "api", "v1.0.0", to=NAME)
        assert other != locked and _inspect(registry, "v1.0.0") == other
        code, answers = _check(shop, environ)
        assert code == 1
        assert answers[0]["moved"] == [
            {"component": "api", "repository": repository, "tag": "v1.0.0", "locked": locked, "now": other}
        ]
        shop.promote("dev", name)
        assert shop.ends("dev", name, "completed")["digests"] == {"api": locked}
        assert shop.sticker("dev-1")["digests"] == {"api": locked}
        shop.verify()
