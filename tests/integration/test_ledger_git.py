"""Evidence in a real repository, as stock tools see it: git, jsonschema and securesystemslib."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from controller.adapters.git.repo import GitRepo
from controller.errors import Conflict, Invalid
from controller.ledger.append import EVIDENCE_REF, Ledger, load, prepare, write
from controller.ledger.canonical import canonical
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign
from controller.ledger.entry import read
from controller.ledger.fold import lookup_completed, lookup_lock
from controller.ledger.log import (
    CHECKPOINT,
    EMPTY_ROOT,
    Tree,
    leaf_hash,
    merkle_root,
    open_checkpoint,
    verify_consistency,
    verify_inclusion,
)
from controller.ledger.schemas import evidence_schemas
from controller.model import entry as e
from controller.model.keys import key_id
from controller.model.restart import Restart
from tests.support.evidence import git, sha
from tests.support.home import REQUESTS, Home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Every kind of entry at least once, in batches of several sizes."""
    home = Home(tmp_path_factory.mktemp("home"), agents=("a",))
    story = home.story
    home.release("shop-1")
    home.release("shop-2")
    home.batch(story.run("dev", "shop-1"))
    home.batch([story.refused(git("bad")), story.request(home.commit(REQUESTS, {"x": b"x"}, "ollie"))])
    for draft in story.run("dev", "shop-2", end="rolled_back"):
        home.batch([draft])
    moved = e.TagMoved(release="shop-1", component="api", tag="v1", locked=sha("a"), found=sha("b"))
    repaired = e.EvidenceRepaired(removed=(git("x"),), restored=git("y"))
    home.batch([story.draft("tag-moved", moved), story.draft("evidence-repaired", repaired)])
    home.batch(rare_events(home))
    drafts = story.run("dev", "shop-1", sealed=False)
    home.batch([*drafts, *interventions(home, drafts[0].run, drafts[-1].what)])
    return home


def rare_events(home: Home) -> list[e.Draft]:
    """Events of kinds that few projects ever see."""
    story = home.story
    witnessed = e.Witnessed(
        size=3, checkpoints=("shop/0\n",), witnesses=(e.Witness(agent="a", size=3, at=story.at),)
    )
    anchored = e.TimeAnchored(
        run="dev-1-0", size=3, checkpoint="shop/0\n", authority="tsa", token="AA==", time=story.at
    )
    published = e.Published(
        run="dev-1-0",
        size=3,
        checkpoint="shop/0\n",
        log="rekor",
        index=0,
        body="AA==",
        hashes=("AA==",),
        proof="log.example.com\n",
    )
    decision = e.ReplayedDecision(sequence=3, kind="gates", recorded=sha("d"), replayed=None, match=False)
    replayed = e.Replayed(
        run="dev-1-0",
        request=git("r"),
        by="ollie",
        reason="why",
        code="replayed",
        decisions=(decision,),
        total=1,
        matching=0,
        match=False,
    )
    acknowledged = e.MainAcknowledged(commit=git("bad"), code="signer-unknown", acknowledgements=())
    restart = Restart(
        number=1,
        project=home.root.project,
        genesis=home.root.genesis,
        trust_version=1,
        evidence=None,
        size=0,
        root=base64.b64encode(EMPTY_ROOT).decode(),
        lost=None,
        main=home.root.genesis,
        requests=story.requests,
        reason="the disk is gone",
        at=story.at,
    )
    restarted = e.EvidenceRestarted(restart=restart, digest=sha("restart"), signatures={"olga": "armor"})
    return [
        story.draft("witnessed", witnessed),
        story.draft("time-anchored", anchored),
        story.draft("published", published),
        story.draft("replayed", replayed),
        story.draft("main-acknowledged", acknowledged),
        story.draft("evidence-restarted", restarted),
    ]


def interventions(home: Home, run: str | None, what: e.What) -> list[e.Draft]:
    """What people do to a run."""
    story = home.story
    approval = e.Approval(
        principal="rita",
        key_id="k",
        via="merge",
        commit=git("m"),
        subject=sha("s"),
        at=story.at,
        expires=None,
        counted=True,
        code="ok",
        message="",
    )
    control = e.Control(verb="paused", request="r", by="ollie", reason="why", code="ok")
    rejection = e.Rejection(principal="rita", request="r", reason="no")
    return [
        story.draft("approval", approval, run, "dev", what),
        story.draft("control", control, run, "dev", what),
        story.draft("rejection", rejection, run, "dev", what),
    ]


def envelopes(home: Home) -> Iterator[tuple[str, bytes]]:
    tip = home.ledger.commit or ""
    for path, file in home.repo.files(tip):
        if path.endswith(".dsse.json"):
            yield path, home.repo.read(file.blob)


def statements(home: Home) -> Iterator[dict[str, Any]]:
    for path, data in envelopes(home):
        entry = read(data, path, None)
        assert entry.path == path
        yield json.loads(Envelope.from_dict(json.loads(data)).payload)


def test_stock_git_accepts_the_branch(home: Home, tmp_path: Path) -> None:
    copy = tmp_path / "copy.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(home.origin), str(copy)], check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"controller {home.controller.public_key}\n")

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(copy), *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("fsck", "--strict", "--full")
    run("-c", f"gpg.ssh.allowedSignersFile={allowed}", "verify-commit", EVIDENCE_REF, f"{EVIDENCE_REF}~7")
    signed = run("-c", f"gpg.ssh.allowedSignersFile={allowed}", "log", "--format=%G? %GS", EVIDENCE_REF)
    assert set(signed.split("\n")[:-1]) == {"G controller"}
    assert run("rev-list", "--merges", EVIDENCE_REF) == ""
    records = ("--", "runs", "events", "artifacts")
    assert run("log", "--no-renames", "--diff-filter=a", "--name-only", "--format=", EVIDENCE_REF, *records) == ""
    trailers = run(
        "log", "-1", "--format=%(trailers:key=Lockgate-Entry,valueonly)%(trailers:key=Lockgate-Kind)", EVIDENCE_REF
    )
    assert trailers.split() == [str(home.ledger.state.cursors.index - 1), "Lockgate-Kind:", "rejection"]


def test_securesystemslib_verifies_every_envelope(home: Home) -> None:
    key = SSlibKey.from_crypto(load_ssh_public_key(home.controller.public_key.encode()))
    count = 0
    for path, data in envelopes(home):
        Envelope.from_dict(json.loads(data)).verify([key], 1)
        read(data, path, {key.keyid: home.controller.public_key})
        count += 1
    assert count == home.ledger.state.cursors.index


def test_every_kind_is_there_and_stock_jsonschema_accepts_it(home: Home) -> None:
    published = Path(__file__).parents[2] / "schemas"
    schemas = {name: json.loads((published / name).read_text()) for name in evidence_schemas()}
    assert schemas == evidence_schemas()
    seen = set()
    for statement in statements(home):
        kind = statement["predicate"]["kind"]
        schema = schemas[f"evidence/{kind}.schema.json"]
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(statement, schema, jsonschema.Draft202012Validator)
        seen.add(kind)
    assert seen == set(e.KINDS)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from places(value, (*path, place))


def put(statement: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(statement)
    node = changed
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    return changed


MAYBE = {"run", "environment", "sequence", "previous"}
"""Members of the predicate that not every entry has."""


def test_schema_and_reader_refuse_the_same_mutations(home: Home) -> None:
    """Every value of one entry a kind, replaced by an object nobody declared."""
    checked = 0
    done: set[str] = set()
    schemas = evidence_schemas()
    for path, data in envelopes(home):
        statement = json.loads(Envelope.from_dict(json.loads(data)).payload)
        kind = statement["predicate"]["kind"]
        if kind in done:
            continue
        done.add(kind)
        validator = jsonschema.Draft202012Validator(schemas[f"evidence/{kind}.schema.json"])
        for place in list(places(statement))[1:]:
            if {"why", "how"} & set(place) or place[-1] in ("digests", "components", "files", "refs"):
                continue  # maps whose keys are not fixed
            changed = put(statement, place, {"nobody": ["declared"]})
            with pytest.raises(jsonschema.ValidationError):
                validator.validate(changed)
            checked += 1
        envelope = json.loads(data)
        for name in statement["predicate"].keys() - MAYBE:
            less = copy.deepcopy(statement)
            del less["predicate"][name]
            with pytest.raises(jsonschema.ValidationError):
                validator.validate(less)
            with pytest.raises(Invalid):
                read(sign(canonical(less), STATEMENT_PAYLOAD, home.controller), path, None)
        assert envelope["payloadType"] == STATEMENT_PAYLOAD
    assert checked > 500


def test_loading_finds_what_appending_left(home: Home) -> None:
    loaded = load(home.repo, home.ledger.commit or "")
    assert (loaded.state, loaded.log, loaded.chains) == (home.ledger.state, home.ledger.log, home.ledger.chains)
    assert loaded.open_entries == home.ledger.open_entries
    assert [item.commit for item in home.ledger.recorded][-1] == home.ledger.commit


def test_lookups_read_by_path(home: Home) -> None:
    tip = home.ledger.commit or ""
    lock = lookup_lock(home.repo, tip, "shop-1")
    assert lock is not None
    assert lock.manifest_digest == home.story.manifests["shop-1"]
    assert lookup_lock(home.repo, tip, "shop-9") is None
    done = lookup_completed(home.repo, tip, "dev", lock.manifest_digest)
    assert done is not None
    assert done.release == "shop-1"
    assert lookup_completed(home.repo, tip, "prod", lock.manifest_digest) is None


def test_proofs_from_the_tiles_in_the_tree(home: Home) -> None:
    tip = home.ledger.commit or ""

    def tile(path: str) -> bytes | None:
        file = home.repo.file(tip, path)
        return home.repo.read(file.blob) if file is not None else None

    keys = {key_id(home.controller.public_key): home.controller.public_key}
    checkpoint = open_checkpoint(tile(CHECKPOINT) or b"", home.origin_line, keys)
    assert checkpoint.size == home.ledger.state.cursors.index
    tree = Tree(checkpoint.size, tile)
    for path, data in envelopes(home):
        entry = read(data, path, None)
        index = entry.predicate.index
        leaf = leaf_hash(bytes.fromhex(entry.digest[7:]))
        verify_inclusion(index, checkpoint.size, leaf, checkpoint.root, tree.inclusion(index))
    old = prepare(home.ledger, [home.story.accepted(home.story.main)], home.controller, home.origin_line).ledger
    assert old.log.size == checkpoint.size + 1
    verify_consistency(5, checkpoint.size, root_of(home, 5), checkpoint.root, tree.consistency(5))


def root_of(home: Home, size: int) -> bytes:
    found = sorted((read(data, path, None) for path, data in envelopes(home)), key=lambda x: x.predicate.index)
    return merkle_root(bytes.fromhex(entry.digest[7:]) for entry in found[:size])


def test_a_lost_race_writes_nothing(home: Home) -> None:
    before = home.git("rev-parse", EVIDENCE_REF)
    prepared = prepare(Ledger(), [home.story.accepted(home.story.main)], home.controller, home.origin_line)
    with pytest.raises(Conflict) as caught:
        write(home.repo, prepared, git("elsewhere"), home.controller)
    assert caught.value.code == "ref-moved"
    assert home.git("rev-parse", EVIDENCE_REF) == before


def test_reading_costs_the_same_however_long_the_branch(tmp_path: Path) -> None:
    """load() reads the same number of objects after ten times as many entries."""
    counts = []
    for runs in (3, 60):
        folder = tmp_path / str(runs)
        folder.mkdir()
        home = Home(folder)
        home.release("shop-1")
        for _ in range(runs):
            home.batch(home.story.run("dev", "shop-1"))
        home.batch(home.story.run("dev", "shop-1", sealed=False))
        repo = GitRepo.read_only(home.origin)
        calls = [0]
        real = repo.read

        def counted(blob: str, real: Any = real, calls: list[int] = calls) -> bytes:
            calls[0] += 1
            return real(blob)

        repo.read = counted  # type: ignore[method-assign]
        load(repo, home.ledger.commit or "")
        repo.close()
        counts.append(calls[0])
    assert abs(counts[0] - counts[1]) <= 1  # one more incomplete tile at most
