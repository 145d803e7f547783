"""Rendering artifacts: the same inputs give the same bytes, and no value leaves the quotes it is written in."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.artifacts import COMPOSE, NAMES, SCRIPT, Templates, artifacts_of, plan, release_files
from controller.core.run import Run
from controller.errors import Invalid
from controller.ledger.canonical import canonical, digest
from controller.model.component import Component, ComponentSpec, Health
from controller.model.component import Run as RunSpec
from controller.model.entry import CompletedRun, Inputs, Opened, Pin, StagePlan
from controller.model.environment import Environment
from controller.model.lock import Candidates, LockedComponent, ReleaseLock, ReleaseLockSpec, manifest_digest
from controller.model.order import PLAN
from controller.model.strategy import Strategy
from controller.settings import artifact_templates

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
TEMPLATES = Templates(artifact_templates())
PIN = Pin(path="releases/shop-1.lock.yaml", blob="a" * 40, sha256=digest(b"lock"))
HEAD = {"apiVersion": "lockgate.dev/v1"}
HOSTILE = (
    '"; rm -rf / #',
    "'$(touch pwned)'",
    "`touch pwned`",
    "${HOME} $HOME $$ %s \\",
    "line\nbreak: [x]\n- y",
    "\r\n---\nimage: evil",
    "\u2028 \u0085 \ufeff \x7f \x00 \x1b[31m",
    "{{ release }} {% raw %} {#",
    "emoji \U0001f6a2 ünï",
    "- : & * ! | > ? @ , } ] yes no null ~ 1e3 0x1f",
    "",
    "x" * 3000,
)


def component(name: str, **run: Any) -> Component:
    spec = ComponentSpec(repository=f"registry.example.com/shop/{name}", run=RunSpec(**run))
    return Component.model_validate({**HEAD, "kind": "Component", "metadata": {"name": name}, "spec": spec})


def lock_of(roles: dict[str, str], repository: str = "registry.example.com/shop/{}") -> ReleaseLock:
    digests = {name: digest(name.encode()) for name in roles}
    locked = {
        name: LockedComponent(
            repository=repository.format(name),
            digest=digests[name],
            role=role,  # type: ignore[arg-type]
            media_type="application/vnd.oci.image.index.v1+json",
            candidates=Candidates(count=1, digest=digest(b"[]")),
        )
        for name, role in roles.items()
    }
    spec = ReleaseLockSpec(
        manifest_digest=manifest_digest(digests),
        release_digest=digest(b"release"),
        components=locked,
        resolved_at=AT,
        resolver="lockgate/0",
    )
    return ReleaseLock.model_validate(
        {**HEAD, "kind": "ReleaseLock", "metadata": {"name": "shop-1"}, "spec": spec}
    )


def environment(name: str = "prod", **variables: str) -> Environment:
    spec = {"strategy": "canary", "gates": "none", "variables": variables}
    return Environment.model_validate({**HEAD, "kind": "Environment", "metadata": {"name": name}, "spec": spec})


def rendered(components: dict[str, Component], lock: ReleaseLock, **variables: str) -> dict[str, bytes]:
    return release_files(TEMPLATES, "shop-1", environment(**variables), components, lock)


def compose(components: dict[str, Component], lock: ReleaseLock, **variables: str) -> dict[str, Any]:
    return dict(yaml.safe_load(rendered(components, lock, **variables)[COMPOSE]))


def plain(value: str) -> str:
    """What a container gets after Compose's interpolation: nothing in it is a variable any more."""
    assert "$" not in value.replace("$$", "")
    return value.replace("$$", "$")


PARTS, LOCK = {"api": component("api")}, lock_of({"api": "primary"})


def run_of(reason: str = "why", mode: str = "promotion", previous: CompletedRun | None = None) -> Run:
    opened = Opened(
        number=7,
        mode=mode,  # type: ignore[arg-type]
        cause="promotion",
        commit="c" * 40,
        slot=None,
        approvers=(),
        seen_lock=None,
        release="shop-1",
        reason=reason,
        ticket=None,
        requester="alice",
        authors=("alice",),
        not_before=None,
        expires=None,
        pins=(),
        previous=previous,
        supersedes=None,
        carried=(),
    )
    return Run("prod-7-cccccccc", "prod", "scheduled", opened, AT, AT)


# --- the compose lock --------------------------------------------------------------------------------------


def test_the_compose_lock_says_what_runs_where_and_after_what() -> None:
    health = Health(command=("check", "-x"), interval="10s", timeout="1500ms")  # type: ignore[arg-type]
    api = component("api", command=("python3", "serve.py"), ports={"http": 8080}, env={"MODE": "x"}, health=health)
    parts = {"api": api, "move": component("move"), "seed": component("seed"), "web": component("web")}
    lock = lock_of({"api": "primary", "move": "migration", "seed": "init", "web": "sidecar"})
    made = compose(parts, lock, MODE="y", LEVEL="info")
    assert made["name"] == "lockgate-prod"
    assert list(made["services"]) == ["move", "seed", "api", "web"]
    assert made["services"]["api"] == {
        "image": f"registry.example.com/shop/api@{digest(b'api')}",
        "restart": "unless-stopped",
        "command": ["python3", "serve.py"],
        "environment": ["LEVEL=info", "MODE=y", "PORT_HTTP=8080"],
        "ports": [{"target": 8080}],
        "healthcheck": {"test": ["CMD", "check", "-x"], "interval": "10000ms", "timeout": "1500ms"},
        "depends_on": {
            name: {"condition": "service_completed_successfully", "required": False} for name in ("move", "seed")
        },
        "labels": {
            "dev.lockgate.component": "api",
            "dev.lockgate.role": "primary",
            "dev.lockgate.release": "shop-1",
            "dev.lockgate.manifest": lock.spec.manifest_digest,
        },
    }
    assert made["services"]["seed"]["profiles"] == ["first"]
    assert made["services"]["seed"]["restart"] == "no"
    assert list(made["services"]["seed"]["depends_on"]) == ["move"]
    assert "depends_on" not in made["services"]["move"]


def test_images_of_layouts_come_from_a_registry_that_must_be_named() -> None:
    made = compose({"api": component("api")}, lock_of({"api": "primary"}, "oci-layout:shop/{}"))
    image = made["services"]["api"]["image"]
    assert image.startswith("${LOCKGATE_REGISTRY:?")
    assert image.endswith(f"}}/shop/api@{digest(b'api')}")


def test_an_environment_with_dots_is_a_project_name_that_compose_takes() -> None:
    files = release_files(TEMPLATES, "shop-1", environment("prod.eu"), PARTS, LOCK)
    assert yaml.safe_load(files[COMPOSE])["name"] == "lockgate-prod-eu"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_leaves_the_quotes_of_the_compose_lock(text: str) -> None:
    run: dict[str, Any] = {"env": {"A": text, f"K{text}": "v"}, "health": Health(http="/$HEALTH{x}'\"")}
    run |= {"command": ("run", text)} if text else {}
    made = compose({"api": component("api", **run)}, lock_of({"api": "primary"}), V=text)
    assert set(made) == {"name", "services"}
    assert list(made["services"]) == ["api"]
    service = made["services"]["api"]
    assert [plain(word) for word in service.get("command", ())] == (["run", text] if text else [])
    assert sorted(map(plain, service["environment"])) == sorted([f"A={text}", f"K{text}=v", f"V={text}"])
    assert plain(service["labels"]["dev.lockgate.health.http"]) == "/$HEALTH{x}'\""
    assert set(service) <= {"image", "restart", "command", "environment", "labels"}


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_from_the_compose_lock(text: str) -> None:
    made = compose({"api": component("api")}, lock_of({"api": "primary"}), V=text)
    assert [plain(line) for line in made["services"]["api"]["environment"]] == [f"V={text}"]


# --- the script ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text and text])
def test_nothing_leaves_the_quotes_of_the_script(text: str, tmp_path: Path) -> None:
    """Names and repositories are bound by patterns; were they not, they would still be words."""
    lock = lock_of({"api": "primary"}, "x")
    locked = lock.spec.components["api"].model_copy(update={"repository": text, "digest": text})
    spec = lock.spec.model_copy(update={"components": {text: locked}, "manifest_digest": text})
    script = release_files(
        TEMPLATES, text, environment(), {text: component("api")}, lock.model_copy(update={"spec": spec})
    )[SCRIPT].decode()
    head, _, tail = script.partition("\nsum=$(printf")
    calls = tail.partition("\nfetch ")[2]
    told = (
        "set -eu\n"
        + head[head.index("release=") : head.index("fail() {")]
        + "\nfetch() { printf '%s\\0' \"$@\"; }\n"
        + 'printf \'%s\\0\' "$release" "$manifest"\nfetch '
        + calls
    )
    done = subprocess.run(
        ["/bin/sh", "-c", told], cwd=tmp_path, capture_output=True, env={"HOME": "/h"}, check=True
    )
    assert done.stdout.decode().split("\0")[:5] == [text, text, text, text, text]
    assert list(tmp_path.iterdir()) == []


def test_a_word_with_nul_is_refused() -> None:
    lock = lock_of({"api": "primary"}, "a\0b{}")
    with pytest.raises(Invalid) as caught:
        rendered({"api": component("api")}, lock)
    assert caught.value.code == "template-invalid"


def test_the_script_reads_as_posix_shell() -> None:
    script = rendered({"api": component("api")}, lock_of({"api": "primary"}))[SCRIPT]
    subprocess.run(["/bin/sh", "-n"], input=script, check=True)
    assert b"fetch api registry.example.com/shop/api sha256:" in script


# --- the plan ------------------------------------------------------------------------------------------------


def strategy(**spec: Any) -> Strategy:
    stages = [
        {"percent": 10, "minHealthyTime": "5m", "deadline": "15m", "require": {"healthy": "95%"}},
        {"percent": 100, "pause": {"for": "10m"}},
    ]
    body = {"stages": stages, "verify": [{"http": {"path": "/healthz", "expect": 200}}], **spec}
    return Strategy.model_validate({**HEAD, "kind": "Strategy", "metadata": {"name": "canary"}, "spec": body})


def planned(run: Run, stages: tuple[StagePlan, ...], **spec: Any) -> bytes:
    lock = lock_of({"api": "primary", "move": "migration"})
    return plan(TEMPLATES, run, environment(), strategy(**spec), lock, PIN, stages, {"x": b"y"})


STAGES = (StagePlan(percent=10, targets=("b",)), StagePlan(percent=100, targets=("a", "c")))


def test_the_plan_is_canonical_and_says_who_gets_what_in_which_order() -> None:
    back = CompletedRun(run="prod-6-bbbbbbbb", release="shop-0", manifest_digest=digest(b"0"), slot=None)
    data = planned(run_of(previous=back), STAGES)
    made = json.loads(data)
    assert data == canonical(made)
    assert (made["run"], made["release"], made["environment"]) == ("prod-7-cccccccc", "shop-1", "prod")
    assert [(c["name"], c["first"]) for c in made["components"]] == [("move", True), ("api", False)]
    assert made["stages"] == [
        {
            "stage": 1,
            "percent": 10,
            "targets": ["b"],
            "minHealthyTime": "5m",
            "deadline": "15m",
            "require": {"healthy": "95%"},
            "analysis": [],
        },
        {
            "stage": 2,
            "percent": 100,
            "targets": ["a", "c"],
            "deadline": "10m",
            "pause": {"for": "10m"},
            "analysis": [],
        },
    ]
    assert made["previous"] == {"run": back.run, "release": "shop-0", "manifestDigest": back.manifest_digest}
    assert made["verify"] == [{"http": {"path": "/healthz", "expect": 200}}]
    assert made["artifacts"] == {"x": digest(b"y")}


def test_the_plan_of_a_rollback_is_one_plain_stage() -> None:
    made = json.loads(planned(run_of(mode="rollback"), (StagePlan(percent=100, targets=("a",)),)))
    assert made["stages"] == [{"stage": 1, "percent": 100, "targets": ["a"], "deadline": "10m"}]
    assert made["previous"] is None


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_leaves_the_quotes_of_the_plan(text: str) -> None:
    stages = (StagePlan(percent=10, targets=(text,)), StagePlan(percent=100, targets=()))
    run = replace(run_of(), id=text)
    made = json.loads(planned(run, stages))
    assert (made["run"], made["stages"][0]["targets"], made["kind"]) == (text, [text], "DeployPlan")
    assert len(made) == 15


# --- rendering -----------------------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_bytes_whatever_their_order() -> None:
    names = ("api", "web", "move")
    roles = {"api": "primary", "web": "sidecar", "move": "migration"}
    one = rendered({n: component(n, env={"A": "1", "B": "2"}) for n in names}, lock_of(roles), X="1", Y="2")
    back = dict(reversed(roles.items()))
    other = rendered(
        {n: component(n, env={"B": "2", "A": "1"}) for n in reversed(names)}, lock_of(back), Y="2", X="1"
    )
    assert one == other
    assert planned(run_of(), STAGES) == planned(run_of(), STAGES)
    # Neither names the run, so that two runs of a release share them.
    assert all(b"prod-7" not in data for data in one.values())


@pytest.mark.parametrize(
    "source",
    [
        b"{{ release }}",
        b"{{ missing | yaml }}",
        b"{{ release | upper }}",
        b"{% broken",
        b"\xff",
        b"{{ ''.__class__ }}",
    ],
)
def test_a_template_that_forgets_to_quote_or_does_not_fit_is_refused(source: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        bad = Templates({**TEMPLATES.sources, COMPOSE: source})
        release_files(bad, "shop-1", environment(), PARTS, LOCK)
    assert caught.value.code == "template-invalid"


def test_templates_are_complete_and_known_by_their_digests() -> None:
    assert set(TEMPLATES.digests) == set(NAMES)
    assert TEMPLATES.digests[PLAN] == digest(TEMPLATES.sources[PLAN])
    with pytest.raises(Invalid):
        Templates({PLAN: b"{}"})


def test_orders_carry_the_runs_own_artifacts_and_a_rollback_those_it_goes_back_to() -> None:
    now, then = digest(b"now"), digest(b"then")
    own = {COMPOSE: now, PLAN: now}
    back = CompletedRun(
        run="r", release="s", manifest_digest=then, slot=None, artifacts={COMPOSE: then, SCRIPT: then, PLAN: then}
    )
    inputs = Inputs(
        lock=PIN,
        manifest_digest=now,
        approval_subject=now,
        targets=("a",),
        stages=(),
        files={},
        missing=(),
        digest=now,
        artifacts=own,
    )
    run = replace(run_of(previous=back), inputs=inputs)
    assert artifacts_of(run, "deploy") == artifacts_of(run, "check") == own
    assert artifacts_of(run, "rollback") == {COMPOSE: then, SCRIPT: then, PLAN: now}
    assert artifacts_of(replace(run, inputs=None), "rollback") == {COMPOSE: then, SCRIPT: then}
