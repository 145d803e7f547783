"""Models, their schemas, and the files that are published with the package."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import jinja2
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from ci.generate_schemas import main as generate
from ci.generate_schemas import wanted
from controller.core.parse import parse
from controller.model.base import format_duration, parse_duration
from controller.model.diagnostic import Diagnostic
from controller.model.documents import (
    KINDS,
    ReleaseLock,
    lock_bytes,
    manifest_digest,
    path_kind,
    path_name,
    path_of,
)
from controller.model.places import model_of
from controller.model.schema import document_schema
from tests.support.documents import intent_of, valid_files
from tests.support.history import ssh_key

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_has_its_place(kind: str) -> None:
    path = path_of(kind, {"Project": "lockgate", "Trust": "trust"}.get(kind, "a.b-1"))
    assert path_kind(path) == kind
    assert path_of(kind, path_name(path)) == path
    assert model_of(kind) is KINDS[kind]


@pytest.mark.parametrize(
    "path", ["README.md", "trust/1/alice.sig", "agents/a/b.yaml", "agents/.yaml", "agents", "feeds/x.yaml"]
)
def test_other_paths_hold_no_document(path: str) -> None:
    assert path_kind(path) is None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_schema_is_a_schema_and_knows_no_null(kind: str) -> None:
    schema = document_schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"].startswith("https://lockgate.dev/schemas/v1/")
    text = json.dumps(schema)
    assert '"null"' not in text
    assert "patternProperties" not in text


def test_published_schemas_are_up_to_date() -> None:
    assert generate(["--check"]) == 0
    assert len(wanted()) >= len(KINDS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30m", timedelta(minutes=30)),
        ("1h30m", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        ("500ms", timedelta(milliseconds=500)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value
    assert format_duration(value) == text


@pytest.mark.parametrize("text", ["", "5", "m", "1m1h", "-1s", "1.5h", "1 h", "1h\n", "٣m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_documents_are_frozen() -> None:
    document = parse("environments/dev.yaml", valid_files()["environments/dev.yaml"]).document
    assert document is not None
    with pytest.raises(ValidationError):
        document.metadata.name = "other"


def test_a_manifest_digest_names_digests_only() -> None:
    # sha256 of {"a":"1","b":"2"}, as `printf | sha256sum` gives it.
    expected = "sha256:21f76dfbfe6dfe21f762080ef484112cf2952974cef30741fd1931e1c6d92112"
    assert manifest_digest({"b": "2", "a": "1"}) == expected == manifest_digest({"a": "1", "b": "2"})


def test_a_lock_is_written_and_read_back_the_same() -> None:
    data = valid_files()["releases/shop-1.lock.yaml"]
    lock = parse("releases/shop-1.lock.yaml", data).document
    assert isinstance(lock, ReleaseLock)
    assert lock_bytes(lock) == data
    turned = lock.spec.model_copy(update={"components": dict(reversed(lock.spec.components.items()))})
    assert lock_bytes(lock.model_copy(update={"spec": turned})) == data


def test_a_diagnostic_has_the_contract_shape() -> None:
    diagnostic = Diagnostic("a.yaml", 3, "error", "code", "what", "do")
    assert diagnostic.to_json() == {
        "severity": "error",
        "code": "code",
        "path": "a.yaml",
        "line": 3,
        "message": "what",
        "cure": "do",
    }


class _Keys(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return ssh_key(name)


@pytest.mark.parametrize(("folder", "agents"), [("example-repo", 13), ("templates/scaffold", 0)])
def test_what_the_package_brings_is_valid(folder: str, agents: int) -> None:
    files = {}
    for path in (ROOT / folder).rglob("*"):
        if path.is_file():
            name, data = str(path.relative_to(ROOT / folder)), path.read_bytes()
            if name.endswith(".j2"):
                template = jinja2.Template(
                    data.decode(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
                )
                name, data = name[:-3], template.render(keys=_Keys(), project="shop", owner="ann").encode()
            files[name] = data
    intent = intent_of(files)
    assert intent.diagnostics == ()
    assert intent.project is not None and intent.trust is not None
    assert len(intent.agents) == agents
