"""Settings that nothing acts on: whoever sets one is told, with the line it stands in."""

from __future__ import annotations

import pytest

from controller.core.unheeded import unheeded
from tests.support.documents import intent_of, valid_files, written

EXAMPLE = [
    "agents/prod-1.yaml:10 not-acted-on: this version does not act on spec.driver: "
    "agents run components as processes",
    "environments/prod.yaml:19 not-acted-on: this version does not act on spec.secrets: "
    "components run without them",
    "lockgate.yaml:10 not-acted-on: this version does not act on spec.quotas: nothing is counted",
    "promotions/prod.yaml:12 not-acted-on: this version does not act on spec.schedule.preconditions: "
    "the promotion begins without them",
    "strategies/canary.yaml:13 not-acted-on: this version does not act on spec.analysis.latency.source: "
    "it stays unknown, and unknown does not pass",
    "strategies/canary.yaml:14 not-acted-on: this version does not act on spec.analysis.latency.judge: "
    "it stays unknown, and unknown does not pass",
    "strategies/canary.yaml:15 not-acted-on: this version does not act on spec.analysis.latency.baseline: "
    "values are compared with numbers alone",
]


def test_the_valid_project_sets_some() -> None:
    found = unheeded(intent_of(valid_files()))
    assert [written(one) for one in found] == EXAMPLE
    assert {one.severity for one in found} == {"warning"}


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("lockgate.yaml", "offline: false", "offline: true", "spec.offline: registries are asked as always"),
        (
            "environments/prod.yaml",
            "autoPromote: false",
            "autoPromote: true",
            "spec.autoPromote: releases come here by promotion alone",
        ),
        (
            "strategies/canary.yaml",
            "- {percent: 100}",
            "- {percent: 100, maxParallel: 2}",
            "spec.stages[2].maxParallel: all targets of a stage are told at once; make more stages",
        ),
        (
            "agents/dev-1.yaml",
            "spec:\n",
            "spec:\n  driverConfig: {network: host}\n",
            "spec.driverConfig: the driver has no settings",
        ),
    ],
)
def test_what_is_set_is_told(path: str, old: str, new: str, expected: str) -> None:
    files = valid_files()
    text = files[path].decode()
    assert old in text
    files[path] = text.replace(old, new, 1).encode()
    said = [one for one in unheeded(intent_of(files)) if one.path == path]
    assert f"this version does not act on {expected}" in [one.message for one in said]
    assert all(one.line for one in said)
