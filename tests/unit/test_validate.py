"""Documents together: what depends on what, and that assembling by steps changes nothing but the cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.core.parse import Parsed, parse
from controller.core.validate import assemble
from controller.model.intent import Intent
from controller.model.lock import release_digest
from tests.support.documents import INVALID, intent_of, read_case, valid_files

ENVIRONMENT = (
    b"apiVersion: lockgate.dev/v1\nkind: Environment\nmetadata: {name: e%d}\n"
    b"spec: {strategy: all-at-once, gates: none}\n"
)


def test_a_valid_project_is_whole() -> None:
    intent = intent_of(valid_files())
    assert (intent.diagnostics, intent.broken) == ((), frozenset())
    assert sorted(intent.environments) == ["dev", "prod"]
    assert [loaded.document.name for loaded in intent.agents_of("prod")] == ["prod-1"]
    wanted = release_digest(intent.releases["shop-1"].document)
    assert intent.locks["shop-1"].document.spec.release_digest == wanted
    assert intent.project is not None and intent.project.document.name == "shop"


@pytest.mark.parametrize(
    ("path", "stalled"),
    [
        ("strategies/canary.yaml", {"environments/prod.yaml", "promotions/prod.yaml"}),
        ("policies/soak.yaml", {"environments/prod.yaml", "promotions/prod.yaml"}),
        ("components/api.yaml", {"releases/shop-1.yaml", "promotions/prod.yaml"}),
        ("releases/shop-1.yaml", {"promotions/prod.yaml"}),
        ("releases/shop-1.lock.yaml", {"promotions/prod.yaml"}),
        ("promotions/prod.yaml", set()),
        ("agents/dev-1.yaml", {"environments/dev.yaml", "environments/prod.yaml", "promotions/prod.yaml"}),
    ],
)
def test_an_error_stalls_only_what_depends_on_it(path: str, stalled: set[str]) -> None:
    intent = intent_of({**valid_files(), path: b"kind: [\n"})
    assert intent.broken == stalled | {path}


def test_a_broken_agent_that_names_its_environment_stalls_only_that() -> None:
    files = valid_files()
    files["agents/dev-1.yaml"] = files["agents/dev-1.yaml"].replace(b"publicKey", b"key")
    assert intent_of(files).broken == {"agents/dev-1.yaml", "environments/dev.yaml"}


def test_owners_stand_in_for_every_role() -> None:
    files = valid_files()
    trust = files["trust/trust.yaml"].decode()
    rule = "freezes,components}/**', write: developers, approvals: {%s: 1}"
    assert rule % "reviewers" in trust
    files["trust/trust.yaml"] = trust.replace(rule % "reviewers", rule % "owners").encode()
    assert intent_of(files).diagnostics == ()


@pytest.mark.parametrize("path", sorted(INVALID.glob("*.case")), ids=lambda path: path.stem)
def test_assembling_by_steps_gives_the_same(path: Path) -> None:
    valid = intent_of(valid_files())
    case = read_case(path)
    whole = intent_of(case.files, case.modes)
    there = intent_of(case.files, case.modes, valid)
    back = intent_of(valid_files(), None, there)
    assert _facts(there) == _facts(whole)
    assert _facts(back) == _facts(valid)


def _facts(intent: Intent) -> tuple[object, ...]:
    return (
        intent.diagnostics,
        intent.broken,
        *(sorted(group) for group in (intent.environments, intent.agents, intent.releases, intent.policies)),
    )


def test_an_intent_serves_as_previous_twice() -> None:
    valid = intent_of(valid_files())
    files = {**valid_files(), "agents/dev-1.yaml": b"kind: [\n"}
    first, second = intent_of(files, None, valid), intent_of(files, None, valid)
    assert _facts(first) == _facts(second)
    assert _facts(valid) == _facts(intent_of(valid_files()))


def test_one_change_among_a_thousand_documents_touches_only_that() -> None:
    files: dict[str, tuple[str, Parsed]] = {
        path: (path, parse(path, data)) for path, data in valid_files().items()
    }
    for number in range(1_000):
        path = f"environments/e{number}.yaml"
        files[path] = (path, parse(path, ENVIRONMENT % number))
    intent = assemble("a" * 40, files)
    assert intent.diagnostics == ()
    path = "environments/e5.yaml"
    changed = {**files, path: ("other", parse(path, ENVIRONMENT % 5 + b"# changed\n"))}
    again = assemble("b" * 40, changed, intent)
    assert again.environments["e5"].blob == "other"
    assert all(
        again.environments[name] is intent.environments[name] for name in intent.environments if name != "e5"
    )


def test_a_locked_release_can_be_blocked() -> None:
    files = valid_files()
    path = "releases/shop-1.yaml"
    files[path] = files[path].replace(b"state: active", b"state: blocked\n  reason: CVE-2026-1")
    intent = intent_of(files)
    assert (intent.diagnostics, intent.releases["shop-1"].document.spec.state) == ((), "blocked")
