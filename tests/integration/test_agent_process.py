"""Agents as processes of their own against a real hub: deploys, refusals, crashes, samples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controller.crashpoints import AGENT_POINTS
from controller.ledger.links import holds
from controller.model.link import deploy_link
from controller.model.order import OrderComponent, Sample, SamplingRequest
from tests.support.agents import RUN, World, component, fetch, make_world, service
from tests.support.waiting import until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    yield made
    made.close()


def test_deploys_switches_rolls_back_and_checks(world: World) -> None:
    world.declare("web-1")
    one = world.image("api", "v1", service("one"))
    two = world.image("api", "v2", service("two"))
    agent = world.agent("web-1")

    report = world.deploy("web-1", {"api": component(one)}, variables={"LEVEL": "info"})
    assert (report.status, report.code, report.healthy) == ("succeeded", "ok", True)
    assert report.components["api"].digest == one
    assert report.components["api"].running
    assert fetch(agent.endpoint("api")) == "one"
    linked = deploy_link(report.run, report.manifest_digest)
    assert holds(linked, report.link, world.key("web-1").public_key)
    first = world.order("web-1", {"api": component(one)})

    report = world.deploy("web-1", {"api": component(two)})
    assert report.status == "succeeded"
    assert fetch(agent.endpoint("api")) == "two"
    link = agent.directory / "current" / "api"
    assert link.resolve().name == two.removeprefix("sha256:")[:12]
    assert agent.sticker()["digests"] == {"api": two}

    checked = world.deploy("web-1", {"api": component(two)}, action="check")
    assert (checked.status, checked.sticker) == ("succeeded", report.sticker)
    wrong = world.deploy("web-1", {"api": component(one)}, action="check")
    assert (wrong.status, wrong.code) == ("failed", "digest-drift")
    assert checked.link is None and wrong.link is None

    back = world.deploy(
        "web-1",
        {"api": component(one)},
        action="rollback",
        release=first.release,
        manifest_digest=first.manifest_digest,
    )
    assert back.status == "succeeded"
    assert fetch(agent.endpoint("api")) == "one"
    assert agent.sticker()["manifestDigest"] == first.manifest_digest


def test_the_store_keeps_what_the_running_and_the_former_version_need(world: World) -> None:
    world.declare("web-1")
    agent = world.agent("web-1")
    images = [world.image("api", f"v{number}", service(str(number))) for number in (1, 2, 3)]
    held: list[set[str]] = []
    for image in images:
        assert world.deploy("web-1", {"api": component(image)}).status == "succeeded"
        held.append({path.name for path in (agent.directory / "store" / "blobs" / "sha256").iterdir()})
    one, two, three = (image.removeprefix("sha256:") for image in images)
    assert [{one, two, three} & names for names in held] == [{one}, {one, two}, {two, three}]
    assert len(held[1]) == len(held[2])
    # What is gone from the store is still unpacked: going back pulls nothing, and the store follows.
    marker = json.loads((agent.directory / "versions" / "api" / one[:12] / "image.json").read_bytes())
    assert marker["digest"] == images[0] and len(marker["blobs"]) >= 2
    assert world.deploy("web-1", {"api": component(images[0])}).status == "succeeded"
    assert fetch(agent.endpoint("api")) == "1"


def test_a_sick_version_leaves_the_former_one_running(world: World) -> None:
    world.declare("web-1")
    good = world.image("api", "v1", service("good"))
    sick = world.image("api", "v2", service("sick", sick=True))
    dead = world.image("api", "v3", {"server.py": b"raise SystemExit('cannot start')"})
    agent = world.agent("web-1")
    before = world.deploy("web-1", {"api": component(good)})
    endpoint = agent.endpoint("api")

    report = world.deploy("web-1", {"api": component(sick)}, deadline=datetime.now(UTC) + timedelta(seconds=1.5))
    assert (report.status, report.code) == ("failed", "unhealthy")
    report = world.deploy("web-1", {"api": component(dead)})
    assert (report.status, report.code) == ("failed", "start-failed")
    assert "cannot start" in report.message
    assert report.components["api"].digest == good
    assert report.sticker == before.sticker
    assert agent.endpoint("api") == endpoint
    assert fetch(endpoint) == "good"


def test_a_later_order_ends_the_waiting_for_a_sick_version(world: World) -> None:
    world.declare("web-1")
    good = world.image("api", "v1", service("good"))
    sick = world.image("api", "v2", service("sick", sick=True))
    agent = world.agent("web-1")
    world.deploy("web-1", {"api": component(good)})
    waiting = world.order("web-1", {"api": component(sick)})
    world.hub.deliver([world.prepare(waiting)])
    until("its start", lambda: _answers_any(agent.directory, "candidates"))
    back = world.deploy("web-1", {"api": component(good)}, action="rollback")
    assert back.status == "succeeded"
    assert world.report(waiting).code == "order-superseded"
    assert fetch(agent.endpoint("api")) == "good"
    assert len(_processes_in(agent.directory)) == 1


def _answers_any(directory: Path, part: str) -> bool:
    return bool(json.loads((directory / "services.json").read_bytes())[part])


def test_what_is_out_of_reach_is_tried_again_until_the_deadline(world: World) -> None:
    world.declare("web-1")
    api = world.image("api", "v1", service("one"))
    agent = world.agent("web-1")
    until("the start", lambda: "agent-started" in agent.codes())
    # A file where a folder must be: this host refuses, and says so.
    (agent.directory / "versions").write_text("")
    report = world.deploy("web-1", {"api": component(api)})
    assert (report.status, report.code) == ("failed", "target-io")
    (agent.directory / "versions").unlink()
    lost = OrderComponent(repository="127.0.0.1:1/api", digest=api, run=RUN)
    report = world.deploy("web-1", {"api": lost}, deadline=datetime.now(UTC) + timedelta(seconds=2))
    assert report.status == "failed"
    assert report.code.startswith("registry")
    assert world.deploy("web-1", {"api": component(api)}).status == "succeeded"


def test_bytes_that_do_not_match_the_digest_are_reported_and_not_run(world: World) -> None:
    world.declare("web-1")
    good = world.image("api", "v1", service("good"))
    bad = world.image("api", "v2", service("bad"))
    manifest = json.loads((world.images / "api/blobs/sha256" / bad.split(":")[1]).read_bytes())
    layer = manifest["layers"][0]["digest"]
    blob = world.images / "api/blobs/sha256" / layer.split(":")[1]
    raw = bytearray(blob.read_bytes())
    raw[len(raw) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(raw)
    agent = world.agent("web-1")
    world.deploy("web-1", {"api": component(good)})

    report = world.deploy("web-1", {"api": component(bad)})
    assert (report.status, report.code) == ("failed", "digest-mismatch")
    assert layer in report.message
    assert fetch(agent.endpoint("api")) == "good"


def test_migrations_run_first_and_once(world: World) -> None:
    world.declare("web-1")
    runs = world.path / "runs"
    api = world.image("api", "v1", service("one"))
    other = world.image("api", "v2", service("two"))
    migrate = world.image("migrate", "v1", {"go.sh": f"#!/bin/sh\necho ran >>{runs}\nexit $CODE\n".encode()})
    step = component(migrate, "migrate", role="migration", run={"command": ["./go.sh"]})
    agent = world.agent("web-1")

    failed = world.deploy("web-1", {"api": component(api), "migrate": step}, variables={"CODE": "4"})
    assert (failed.status, failed.code) == ("failed", "init-failed")
    assert "status 4" in failed.message
    assert (
        not (agent.directory / "endpoints.json").exists() or not agent.directory.joinpath("current/api").exists()
    )
    for digest in (api, other):
        done = world.deploy("web-1", {"api": component(digest), "migrate": step}, variables={"CODE": "0"})
        assert done.status == "succeeded"
    assert runs.read_text().count("ran") == 2


@pytest.mark.parametrize("point", AGENT_POINTS)
def test_killed_anywhere_the_order_still_ends_well_and_once(world: World, point: str) -> None:
    world.declare("web-1")
    runs = world.path / "runs"
    one = world.image("api", "v1", service("one"))
    two = world.image("api", "v2", service("two"))
    migrate = world.image("migrate", "v1", {"go.sh": f"#!/bin/sh\necho ran >>{runs}\n".encode()})
    step = component(migrate, "migrate", role="migration", run={"command": ["./go.sh"]})
    agent = world.agent("web-1", crash_at=f"{point}:2")
    assert world.deploy("web-1", {"api": component(one)}).status == "succeeded"
    endpoint = agent.endpoint("api")
    order = world.order("web-1", {"api": component(two), "migrate": step})
    world.hub.deliver([world.prepare(order)])
    assert agent.process.wait(15) == -9
    if AGENT_POINTS.index(point) < AGENT_POINTS.index("agent-switch-after"):
        assert fetch(endpoint) == "one"

    again = world.agent("web-1")
    report = world.report(order)
    assert report.status == "succeeded"
    assert fetch(again.endpoint("api")) == "two"
    assert again.sticker()["order"] == order.id
    assert runs.read_text() == "ran\n"
    lines = [line for line in again.journal() if line["order"] == order.id]
    assert [line["state"] for line in lines if "state" in line].count("received") == 1
    assert [line["state"] for line in lines if "state" in line].count("reported") == 1
    assert len(world.reports(order)) == 1
    with pytest.raises(OSError):
        fetch(endpoint)
    services = json.loads((again.directory / "services.json").read_bytes())
    assert not services["candidates"]
    assert not services["retiring"]
    assert _processes_in(again.directory) == {services["current"]["api"]["pid"]}


def _processes_in(directory: Path) -> set[int]:
    """Every process whose working directory lies below `directory`."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink().is_relative_to(directory):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_services_outlive_their_agent_and_are_adopted_and_supervised(world: World) -> None:
    world.declare("web-1")
    one = world.image("api", "v1", service("one"))
    agent = world.agent("web-1")
    world.deploy("web-1", {"api": component(one)})
    pid = json.loads((agent.directory / "services.json").read_bytes())["current"]["api"]["pid"]
    agent.stop()
    assert fetch(agent.endpoint("api")) == "one"

    again = world.agent("web-1")
    until("the adoption", lambda: "agent-started" in again.codes())
    services = json.loads((agent.directory / "services.json").read_bytes())
    assert services["current"]["api"]["pid"] == pid
    with pytest.raises(OSError):
        fetch(again.endpoint("api") + "/crash")
    until("a restart", lambda: _answers(again.endpoint("api")))
    services = json.loads((agent.directory / "services.json").read_bytes())
    assert services["current"]["api"]["pid"] != pid
    assert "service-ended" in again.codes()


def test_a_service_that_has_just_been_restarted_is_waited_for(world: World) -> None:
    """An order for what runs already says how it is once it had its time to start, not in the midst of it."""
    world.declare("web-1")
    slow = {"server.py": b"import time; time.sleep(1)\n" + service("slow")["server.py"]}
    image = world.image("api", "v1", slow)
    agent = world.agent("web-1")
    world.deploy("web-1", {"api": component(image)})
    before = _pid(agent.directory)
    with pytest.raises(OSError):
        fetch(agent.endpoint("api") + "/crash")
    until("a restart", lambda: _pid(agent.directory) != before)
    report = world.deploy("web-1", {"api": component(image)})
    assert (report.status, report.healthy) == ("succeeded", True)
    assert len(_processes_in(agent.directory)) == 1


def _pid(directory: Path) -> int:
    return int(json.loads((directory / "services.json").read_bytes())["current"]["api"]["pid"])


def _answers(url: str) -> bool:
    try:
        return bool(fetch(url))
    except OSError:
        return False


def test_orders_of_others_are_refused(world: World) -> None:
    world.declare("web-1")
    api = world.image("api", "v1", service("one"))
    agent = world.agent("web-1", allow=["oci-layout:api"])
    stranger = world.key("stranger")
    unlisted = world.order("web-1", {"api": component(api)})
    elsewhere = world.order("web-1", {"api": component(api)}, environment="dev")
    misnamed = world.order("web-2", {"api": component(api)})
    world.hub.deliver(
        [
            world.prepare(unlisted, signer=stranger),
            world.prepare(elsewhere),
            world.prepare(misnamed, agent="web-1"),
        ]
    )
    until(
        "the refusals",
        lambda: (
            {"order-untrusted-signer", "order-foreign"} <= set(agent.codes())
            and agent.codes().count("order-foreign") == 2
        ),
    )
    late = world.order("web-1", {"api": component(api)}, deadline=datetime.now(UTC) - timedelta(seconds=1))
    world.hub.deliver([world.prepare(late)])
    assert world.report(late).code == "order-expired"
    ops = world.order("web-1", {"api": component(api, "ops/shell")})
    world.hub.deliver([world.prepare(ops)])
    assert world.report(ops).code == "order-not-allowed"
    assert not (agent.directory / "versions").exists()


def test_an_agent_of_another_root_takes_nothing(world: World, tmp_path: Path) -> None:
    world.declare("web-1")
    other = tmp_path / "other"
    other.mkdir()
    foreign = make_world(other)
    try:
        agent = world.agent("web-1", trust_root=str(foreign.root_file))
        world.hub.deliver([world.prepare(world.order("web-1", {}))])
        until("the refusal", lambda: "genesis-mismatch" in agent.codes())
        assert not (agent.directory / "journal.jsonl").read_bytes()
    finally:
        foreign.close()


def test_samples_count_what_happened_between_them(world: World) -> None:
    world.declare("web-1")
    bad = world.image("api", "v1", service("bad", fails=True))
    agent = world.agent("web-1")
    world.deploy("web-1", {"api": component(bad)})
    world.hub.acknowledge([s.digest for s in world.hub.inbox()])
    with pytest.raises(OSError):
        fetch(agent.endpoint("api"))
    world.hub.sample({"web-1": SamplingRequest(run="prod-1-0123abcd", stage=1, interval_seconds=0.1)})
    until("a first sample", lambda: world.hub.inbox())
    for _ in range(5):
        with pytest.raises(OSError):
            fetch(agent.endpoint("api"))
    bodies = until(
        "five requests", lambda: (lambda b: b if sum(s.requests for s in b) >= 5 else None)(_samples(world))
    )
    assert sum(s.requests for s in bodies) == sum(s.errors for s in bodies) == 5
    assert all(s.healthy and s.run == "prod-1-0123abcd" for s in bodies)
    assert any(s.latency_p95 is not None and s.latency_p95 <= 0.1 for s in bodies)
    world.hub.sample({"web-1": None})
    world.hub.acknowledge([s.digest for s in world.hub.inbox()])
    last = [s.sequence for s in bodies]
    assert last == sorted(set(last))


def _samples(world: World) -> list[Sample]:
    return [s.body for s in world.hub.inbox() if isinstance(s.body, Sample)]


def test_a_repeated_order_is_answered_from_the_journal(world: World) -> None:
    world.declare("web-1")
    api = world.image("api", "v1", service("one"))
    agent = world.agent("web-1")
    order = world.order("web-1", {"api": component(api)})
    world.hub.deliver([world.prepare(order)])
    world.report(order)
    first = world.reports(order)[0]
    world.hub.acknowledge([first.digest])
    address = world.hub.address.removeprefix("http://")
    until("the acknowledgement", lambda: agent.journal()[-1].get("state") == "acknowledged")
    world.hub.stop()

    # A controller that starts anew knows nothing of the report and asks again.
    world.hub = _restarted(world, address)
    world.declare("web-1")
    world.hub.deliver([world.prepare(order)])
    world.report(order)
    assert [s.digest for s in world.reports(order)] == [first.digest]
    assert [line.get("state") for line in agent.journal()].count("received") == 1


def _restarted(world: World, address: str) -> object:
    old = world.hub
    hub = type(old)(
        address,
        signer=world.controller,
        clock=old._clock,
        wake=world.woken.set,
        trust_links=old._trust_links,
        trust_version=lambda: 1,
        log=world.log.book,
    )
    hub.start()
    return hub


def test_an_agent_is_small_and_starts_fast(world: World) -> None:
    world.declare("web-1")
    agent = world.agent("web-1")
    until("the first poll", lambda: "web-1" in world.hub.seen())
    figures = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, figures[11:13])) / os.sysconf("SC_CLK_TCK")
    api = world.image("api", "v1", service("one"))
    world.deploy("web-1", {"api": component(api)})
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    print(f"agent: first poll after {used:.2f} s of processor time, resident {resident:.0f} MB after a deploy")
    assert used < 3
    assert resident < 90


def test_one_directory_has_one_agent(world: World) -> None:
    world.declare("web-1")
    agent = world.agent("web-1")
    until("the start", lambda: "agent-started" in agent.codes())
    second = world.agent("web-1")
    assert second.process.wait(10) != 0
    assert "directory-taken" in second.log.read_text()


def test_the_environment_of_a_service_holds_nothing_of_the_agents(world: World) -> None:
    world.declare("web-1")
    dump = b"import os\nopen('env.txt','w').write(repr(dict(os.environ)))\n"
    api = world.image("api", "v1", {"server.py": dump + service("x")["server.py"]})
    os.environ["SECRET_OF_THE_AGENT"] = "hunter2"
    try:
        agent = world.agent("web-1")
    finally:
        del os.environ["SECRET_OF_THE_AGENT"]
    world.deploy("web-1", {"api": component(api, run={**RUN, "env": {"A": "1"}})}, variables={"A": "2", "B": "3"})
    text = (agent.directory / "current" / "api" / "rootfs" / "env.txt").read_text()
    assert "'A': '2'" in text
    assert "'B': '3'" in text
    assert "hunter2" not in text
