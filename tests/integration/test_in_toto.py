"""Stock in-toto-verify over recorded runs: yes for what completed, no for whatever was touched."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from controller.adapters.attest.layout import countersign, make_layout, merge, signed_by
from controller.adapters.git.keys import KeySigner
from controller.errors import Invalid
from controller.ledger.append import load, prepare, write
from controller.ledger.canonical import digest
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign
from controller.ledger.links import sign_link
from controller.model import entry as e
from controller.model.keys import key_id
from controller.model.layout import LayoutTerms
from controller.model.link import STEPS, approve_link, deploy_link
from tests.support.evidence import sha
from tests.support.home import Home
from tests.support.stock import checkout, in_toto_verify, payload_of, pem, sealed_folders

OWNERS = ("olga", "otto")
TARGETS = ("a", "b", "c")


def dissenting(home: Home, drafts: list[e.Draft]) -> list[e.Draft]:
    """The run as the controller records it when agent c signed the link of something else."""
    place = next(i for i, draft in enumerate(drafts) if draft.kind == "deployed")
    results = tuple(
        result.model_copy(update={"link": None}) if result.target == "c" else result
        for result in drafts[place].detail.results
    )
    detail = drafts[place].detail.model_copy(update={"results": results})
    return [*drafts[:place], drafts[place].model_copy(update={"detail": detail}), *drafts[place + 1 :]]


@dataclass(frozen=True)
class Audit:
    """A project with runs to look at, and the owners' keys."""

    home: Home
    folder: Path
    runs: dict[str, Path]
    keys: list[Path]

    def terms(self, **changes: Any) -> LayoutTerms:
        agents = {name: signer.public_key for name, (_, signer) in self.home.story.agents.items()}
        known: dict[str, Any] = {
            "controllers": {"controller": (self.home.controller.public_key,)},
            "agents": agents,
        }
        return LayoutTerms(project="shop", **({**known, "deployed_by": 2} | changes))

    def layout(self, place: Path, by: tuple[str, ...] = OWNERS, **changes: Any) -> Path:
        data = make_layout(self.terms(**changes), [self.home.people[name] for name in by])
        place.write_bytes(data)
        return place

    def says(self, place: Path, run: str, **changes: Any) -> tuple[int, str]:
        layout = self.layout(place.with_name("layout.json"), **changes)
        done = in_toto_verify(place, self.runs[run], layout, self.keys)
        return done.returncode, done.stderr


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """dev-1 completed; dev-2 rolled back; dev-3 completed, approved by rita, with a dissenting agent; dev-4 is a
    requested rollback that completed."""
    folder = tmp_path_factory.mktemp("audit")
    home = Home(folder, agents=TARGETS)
    for release in ("shop-1", "shop-2"):
        home.release(release)
    home.batch(home.story.run("dev", "shop-1", targets=TARGETS))
    home.batch(home.story.run("dev", "shop-2", end="rolled_back", targets=TARGETS))
    link, story = home.story.link, home.story
    story.link = lambda run, target, release: (  # type: ignore[method-assign]
        sign_link(deploy_link(run, sha("else")), story.agents["c"][1])
        if target == "c"
        else link(run, target, release)
    )
    third = dissenting(home, story.run("dev", "shop-2", targets=TARGETS))
    home.batch(home.approve(third, "rita"))
    home.story.link = link  # type: ignore[method-assign]
    home.batch(home.story.run("dev", "shop-1", mode="rollback", targets=TARGETS))
    runs = {name.rsplit("-", 1)[0]: path for name, path in sealed_folders(home.origin).items()}
    keys = [pem(folder / f"{name}.pem", home.people[name].public_key) for name in OWNERS]
    return Audit(home, folder, runs, keys)


@pytest.fixture
def place(audit: Audit, tmp_path: Path) -> Path:
    """A clean checkout of the first run."""
    return checkout(audit.home.origin, audit.runs["dev-1"], tmp_path / "checkout")


def test_completed_runs_pass_and_others_do_not(audit: Audit, tmp_path: Path) -> None:
    for run, code in (("dev-1", 0), ("dev-3", 0), ("dev-4", 0), ("dev-2", 1)):
        where = checkout(audit.home.origin, audit.runs[run], tmp_path / run / "checkout")
        assert audit.says(where, run)[0] == code, run
    links = {path.name.split(".")[0] for path in (tmp_path / "dev-2" / "checkout").rglob("*.link")}
    assert links == {*STEPS} - {"deploy", "verify"}
    report = audit.home.verify()
    assert report.findings == ()


def test_a_dissenting_agent_does_not_veto_and_stays_on_record(audit: Audit, tmp_path: Path) -> None:
    where = checkout(audit.home.origin, audit.runs["dev-3"], tmp_path / "checkout")
    agents = {name: key_id(signer.public_key) for name, (_, signer) in audit.home.story.agents.items()}
    found = {path.name for path in where.rglob("deploy.*.link")}
    assert found == {f"deploy.{agents[name][:8]}.link" for name in ("a", "b")}
    lines = next(where.rglob("*-stage-1.jsonl")).read_bytes().splitlines()
    said = [payload_of(line)["predicate"] for line in lines]
    assert {one["target"]: one["link"]["keyid"] for one in said} == agents
    assert audit.says(where, "dev-3", deployed_by=2)[0] == 0
    assert audit.says(where, "dev-3", deployed_by=3)[0] == 1


def test_a_layout_can_demand_the_reviewers_own_link(audit: Audit, tmp_path: Path) -> None:
    people = audit.home.people
    reviewers = {name: (people[name].public_key,) for name in ("rita", "ruth")}
    for run, code in (("dev-3", 0), ("dev-1", 1)):
        where = checkout(audit.home.origin, audit.runs[run], tmp_path / run / "checkout")
        assert audit.says(where, run, approvers=reviewers)[0] == code
        assert audit.says(where, run, approvers=reviewers, approved_by=2)[0] == 1
        assert audit.says(where, run, approvers={"ruth": reviewers["ruth"]})[0] == 1


def test_a_controller_that_was_restarted_seals_alike(tmp_path: Path) -> None:
    sealed = []
    for name, restarts in (("one", False), ("two", True)):
        (tmp_path / name).mkdir()
        home = Home(tmp_path / name, agents=("a", "b"))
        home.release("shop-1")
        for draft in home.story.run("dev", "shop-1"):
            if restarts:
                home.ledger = load(home.repo, home.ledger.commit or "")
            home.batch([draft])
        assert home.verify().findings == ()
        (folder,) = sealed_folders(home.origin).values()
        sums = home.git("show", f"lockgate/evidence:{folder}/links/SHA256SUMS")
        sealed.append([line.rsplit("/", 1)[1].split(".")[0] for line in sums.splitlines()])
    assert sealed[0] == sealed[1]


# --- tampering ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A checkout that somebody tampers with."""

    audit: Audit
    place: Path

    @property
    def folder(self) -> Path:
        return self.place / self.audit.runs["dev-1"]

    def one(self, pattern: str) -> Path:
        (found,) = self.folder.glob(pattern)
        return found

    def other(self, pattern: str) -> Path:
        """A file of another completed run of the same environment."""
        where = self.place.with_name("other")
        if not where.exists():
            checkout(self.audit.home.origin, self.audit.runs["dev-3"], where)
        return next(iter((where / self.audit.runs["dev-3"]).glob(pattern)))


def change(pattern: str) -> Callable[[Scene], None]:
    """One byte of a file is another."""

    def do(scene: Scene) -> None:
        path = scene.one(pattern)
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])

    return do


def remove(pattern: str) -> Callable[[Scene], None]:
    return lambda scene: scene.one(pattern).unlink()


def swap(step: str) -> Callable[[Scene], None]:
    """The link of a step is that of another run, as its signer made it."""

    def do(scene: Scene) -> None:
        for path in scene.folder.glob(f"links/{step}.*.link"):
            path.write_bytes(
                scene.other(f"links/{path.name}" if step != "deploy" else "links/deploy.*").read_bytes()
            )

    return do


def other_lock(scene: Scene) -> None:
    lock = scene.place / "releases" / "shop-1.lock.yaml"
    lock.write_bytes(lock.read_bytes().replace(b"sha256:", b"sha256:0", 1))


def no_lock(scene: Scene) -> None:
    (scene.place / "releases" / "shop-1.lock.yaml").unlink()


def one_more_file(scene: Scene) -> None:
    (scene.folder / "inputs" / "waiver.json").write_bytes(b"{}")


def entry_with_its_sum(scene: Scene) -> None:
    path, sums = scene.one("003-gates*"), scene.one("links/SHA256SUMS")
    before = digest(path.read_bytes())[7:]
    change("003-gates*")(scene)
    sums.write_text(sums.read_text().replace(before, digest(path.read_bytes())[7:]))


def signed_by_another(scene: Scene) -> None:
    """The seal says something else, under the controller's name and by another key."""
    path = scene.one("links/seal.*")
    forged = json.loads(sign(base64.b64decode(json.loads(path.read_bytes())["payload"]), STATEMENT_PAYLOAD,
                             scene.audit.home.people["mallory"]))  # fmt: skip
    forged["signatures"][0]["keyid"] = json.loads(path.read_bytes())["signatures"][0]["keyid"]
    path.write_text(json.dumps(forged))


def one_agent_for_all(scene: Scene) -> None:
    """One agent's link under every agent's name."""
    first, *rest = sorted(scene.folder.glob("links/deploy.*"))
    for path in rest:
        path.write_bytes(first.read_bytes())


def one_agents_link(scene: Scene) -> None:
    """One of three, where two suffice: the layout would not miss it, the checksums do."""
    sorted(scene.folder.glob("links/deploy.*"))[0].unlink()


def another_number(scene: Scene) -> None:
    """The whole run once more, as another one."""
    shutil.move(scene.folder, scene.folder.with_name("dev-9-00000000"))
    (scene.folder / "links").mkdir(parents=True)
    for path in scene.folder.with_name("dev-9-00000000").glob("links/*.link"):
        shutil.copy(path, scene.folder / "links")


def another_run(scene: Scene) -> None:
    """Everything but the links is another run's."""
    for path in scene.folder.rglob("*.json*"):
        path.unlink()
    for path in scene.other("run.json").parent.rglob("*.json*"):
        to = scene.folder / path.relative_to(scene.other("run.json").parent)
        shutil.copy(path, to)


TAMPERINGS: dict[str, Callable[[Scene], None]] = {
    "lock changed": other_lock,
    "lock gone": no_lock,
    "header changed": change("run.json"),
    "input changed": change("inputs/lock.json"),
    "input gone": remove("inputs/lock.json"),
    "gate inputs changed": change("inputs/gates-01.json"),
    "file added": one_more_file,
    "opened changed": change("001-opened*"),
    "inputs entry changed": change("002-inputs*"),
    "gates entry changed": change("003-gates*"),
    "gates entry and its checksum changed": entry_with_its_sum,
    "order gone": remove("004-ordered*"),
    "order changed": change("004-ordered*"),
    "deployment changed": change("005-deployed*"),
    "report changed": change("reports/005-stage-1.jsonl"),
    "report gone": remove("reports/005-stage-1.jsonl"),
    "verification changed": change("008-verified*"),
    "seal changed": change("009-sealed*"),
    "seal gone": remove("009-sealed*"),
    "checksums changed": change("links/SHA256SUMS"),
    "checksums gone": remove("links/SHA256SUMS"),
    **{f"link of {step} of another run": swap(step) for step in STEPS},
    "link by another key": signed_by_another,
    "link gone": remove("links/verify.*"),
    "one agent's link for all": one_agent_for_all,
    "one agent's link gone": one_agents_link,
    "run under another number": another_number,
    "another run under these links": another_run,
}


@pytest.mark.parametrize("how", list(TAMPERINGS))
def test_tampering_is_refused_by_the_stock_command(audit: Audit, place: Path, how: str) -> None:
    TAMPERINGS[how](Scene(audit, place))
    code, words = audit.says(place, "dev-1")
    assert code == 1, words
    assert "Traceback" not in words


# --- the layout --------------------------------------------------------------------------------------------


def test_owners_sign_and_everybody_asked_must_have(audit: Audit, place: Path) -> None:
    for by, code in ((OWNERS, 0), (("olga",), 1), (("olga", "mallory"), 1)):
        assert audit.says(place, "dev-1", by=by)[0] == code


def test_an_expired_layout_verifies_nothing(audit: Audit, place: Path) -> None:
    assert audit.says(place, "dev-1", expires=datetime.fromisoformat("2026-01-01T00:00:00+00:00"))[0] == 1


def test_signatures_of_a_layout_add_up(audit: Audit, tmp_path: Path) -> None:
    people = audit.home.people
    names = {people[name].public_key: name for name in (*OWNERS, "mallory")}
    first, second = (audit.layout(tmp_path / name, by=(name,)).read_bytes() for name in OWNERS)
    assert signed_by(merge(second, first), names) == ["olga", "otto"]
    assert signed_by(countersign(first, [people["otto"]]), names) == ["olga", "otto"]
    other = audit.layout(tmp_path / "other", by=("olga",), deployed_by=1).read_bytes()
    assert signed_by(merge(second, other), names) == ["otto"]
    with pytest.raises(Invalid, match="layout-malformed"):
        countersign(b"{}", [people["otto"]])
    with pytest.raises(Invalid, match="layout-threshold"):
        make_layout(audit.terms(deployed_by=4), [people["otto"]])


def test_keys_of_other_kinds_sign_links_too(audit: Audit, tmp_path: Path) -> None:
    """An ECDSA key signs the layout, and a layout that names one more controller still holds."""
    owner = KeySigner(ec.generate_private_key(ec.SECP256R1()))
    where = checkout(audit.home.origin, audit.runs["dev-1"], tmp_path / "checkout")
    terms = audit.terms(
        controllers={"old": (owner.public_key,), "controller": (audit.home.controller.public_key,)}
    )
    (tmp_path / "layout.json").write_bytes(make_layout(terms, [owner]))
    key = pem(tmp_path / "owner.pem", owner.public_key)
    assert in_toto_verify(where, audit.runs["dev-1"], tmp_path / "layout.json", [key]).returncode == 0


# --- our own verification says the same --------------------------------------------------------------------


def rewritten(home: Home, change: Callable[[dict[str, bytes | None]], None]) -> None:
    """A completed run whose seal the controller's key wrote with other files beside it."""
    drafts = home.story.run("dev", "shop-1", targets=TARGETS)
    prepared = prepare(home.ledger, drafts, home.controller, home.origin_line)
    change(prepared.commits[-1].changes)  # type: ignore[arg-type]
    home.ledger = write(home.repo, prepared, home.ledger.commit, home.controller)


def _path(changes: dict[str, Any], part: str) -> str:
    return next(path for path in sorted(changes) if f"/links/{part}" in path)


def without(part: str) -> Callable[[dict[str, bytes | None]], None]:
    def do(changes: dict[str, bytes | None]) -> None:
        del changes[_path(changes, part)]

    return do


def with_space(part: str) -> Callable[[dict[str, bytes | None]], None]:
    def do(changes: dict[str, bytes | None]) -> None:
        path = _path(changes, part)
        changes[path] = (changes[path] or b"") + b"\n"

    return do


def one_more_link(changes: dict[str, bytes | None]) -> None:
    path = _path(changes, "approve")
    changes[path.replace("approve", "extra")] = changes[path]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("resolve"), {"link-missing", "link-mismatch"}),
        (without("deploy"), {"link-missing", "link-mismatch"}),
        (without("seal"), {"link-missing"}),
        (without("SHA256SUMS"), {"link-missing"}),
        (with_space("gates"), {"link-mismatch"}),
        (with_space("SHA256SUMS"), {"link-mismatch"}),
        (one_more_link, {"link-mismatch"}),
    ],
)
def test_verify_finds_links_that_are_not_the_runs(tmp_path: Path, change: Any, expected: set[str]) -> None:
    home = Home(tmp_path, agents=TARGETS)
    home.release("shop-1")
    rewritten(home, change)
    assert {finding.code for finding in home.verify().findings} == expected


def test_verify_finds_links_by_those_who_may_not_sign_them(tmp_path: Path) -> None:
    home = Home(tmp_path, agents=("a", "b"))
    home.release("shop-1")
    drafts = home.story.run("dev", "shop-1")
    forged = sign_link(approve_link(drafts[1].detail.approval_subject), home.people["mallory"])
    home.batch(home.approve(drafts, "rita", forged))
    codes = {finding.code for finding in home.verify().findings}
    assert codes == {"link-mismatch", "request-malformed"}
    home.story.link = lambda run, target, release: forged  # type: ignore[method-assign]
    home.batch(home.story.run("dev", "shop-1"))
    paths = {finding.path.rpartition("/")[2] for finding in home.verify().findings}
    assert "005-deployed.dsse.json" in paths


def test_verify_finds_a_link_that_was_left_out(tmp_path: Path) -> None:
    home = Home(tmp_path, agents=TARGETS)
    home.release("shop-1")
    home.batch(dissenting(home, home.story.run("dev", "shop-1", targets=TARGETS)))
    assert {finding.code for finding in home.verify().findings} == {"link-missing"}
