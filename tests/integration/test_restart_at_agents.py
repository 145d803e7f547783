"""Agents go back to an older log by their owners' restart alone, and by each one once (trust rules 14 and 16)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.adapters.git.keys import FileSigner
from controller.core.restart import restart_bytes
from controller.model.restart import Restart, RestartProof
from controller.model.trustroot import RootCheckpoint, TrustRoot
from tests.integration.test_log_at_agents import complains, controller_with, other_log, seen
from tests.support.agents import World, make_world
from tests.support.logs import MemoryLog
from tests.support.waiting import until


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path)
    made.declare("web-1", "web-2")
    yield made
    made.close()


def restart(
    world: World, log: MemoryLog | None, number: int = 1, by: str = "owner", **more: object
) -> RestartProof:
    """A restart that goes on from what `log` holds (None: from nothing), signed by a key of the world."""
    root = TrustRoot.load(world.root_file)
    said: dict[str, object] = {
        "number": number,
        "project": root.project,
        "genesis": root.genesis,
        "trust_version": 1,
        "evidence": "a" * 40 if log is not None else None,
        "size": log.log.size if log is not None else 0,
        "root": base64.b64encode(log.log.root).decode() if log is not None else "",
        "lost": None,
        "main": "b" * 40,
        "requests": None,
        "reason": "the disk died",
        "at": datetime.now(UTC),
    }
    made = Restart.model_validate({**said, **more})
    signer = FileSigner(world.path / f"{by}.key")
    return RestartProof(restart=made, signatures={"olga": signer.sign_ssh(restart_bytes(made), "lockgate-trust")})


def goes_on(world: World, log: MemoryLog, proof: RestartProof, number: int = 1) -> None:
    """The controller comes back with a log that went through so many restarts."""
    controller_with(world, log, restarts=lambda: number, restart=lambda: proof)


def test_an_agent_goes_back_where_owners_say_and_on_from_there(world: World) -> None:
    world.log.record(5)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("the checkpoint is kept", lambda: seen(agent) == 6)
    proof = restart(world, other_log(world, shared=3, size=3))
    goes_on(world, other_log(world, shared=3, size=5, flavour="after"), proof)
    until("the restarted log is followed", lambda: seen(agent) == 5)
    assert (agent.directory / "log-conflict-1.json").exists(), "what was seen of both logs is kept"

    agent.kill()
    again = world.agent("web-1", poll_seconds=1.0)
    world.log.record(3)
    until("it is followed over the agent's restart", lambda: seen(again) == 8)

    goes_on(world, other_log(world, shared=3, size=9, flavour="again"), proof)
    complains(world, again)
    assert seen(again) == 8, "each restart leads back once"
    second = restart(world, other_log(world, shared=3, size=3), number=2)
    goes_on(world, other_log(world, shared=3, size=9, flavour="again"), second, 2)
    until("the second restart is followed", lambda: seen(again) == 9)


def test_where_nothing_is_left_the_log_begins_anew(world: World) -> None:
    world.log.record(5)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("the checkpoint is kept", lambda: seen(agent) == 6)
    goes_on(world, other_log(world, shared=0, size=2, flavour="new"), restart(world, None))
    until("the new log is followed", lambda: seen(agent) == 2)


def test_an_agent_that_followed_the_restarted_log_is_not_led_back_by_it(world: World) -> None:
    log = other_log(world, shared=3, size=7, flavour="after")
    proof = restart(world, other_log(world, shared=3, size=3))
    goes_on(world, log, proof)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("the log is followed", lambda: seen(agent) == 7)
    until("the restart is known", lambda: (agent.directory / "log-restart.json").exists())
    goes_on(world, other_log(world, shared=3, size=9, flavour="forged"), proof)
    complains(world, agent)
    assert seen(agent) == 7


TRICKS = ["not-an-owner", "another-project", "other-document", "another-root", "another-log"]


@pytest.mark.parametrize("trick", TRICKS)
def test_a_restart_that_owners_did_not_sign_for_this_log_is_refused(world: World, trick: str) -> None:
    world.log.record(5)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("the checkpoint is kept", lambda: seen(agent) == 6)
    survivor = other_log(world, shared=3, size=3)
    match trick:
        case "not-an-owner":
            proof = restart(world, survivor, by="controller")
        case "another-project":
            proof = restart(world, survivor, genesis="c" * 40)
        case "other-document":
            made = restart(world, survivor)
            changed = made.restart.model_copy(update={"number": 2})
            proof = RestartProof(restart=changed, signatures=made.signatures)
        case "another-root":
            proof = restart(world, other_log(world, shared=0, size=3, flavour="else"))
        case _:
            proof = restart(world, survivor)
    after = other_log(world, shared=2 if trick == "another-log" else 3, size=5, flavour="after")
    goes_on(world, after, proof, proof.restart.number)
    unsigned = trick in ("not-an-owner", "other-document")
    until("the refusal", lambda: ("restart-unsigned" if unsigned else "log-inconsistent") in agent.codes())
    until("the controller is told", lambda: world.hub.refused().get("web-1") == "log-inconsistent")
    assert seen(agent) != after.log.size


def test_a_restart_before_the_pinned_checkpoint_is_refused(world: World) -> None:
    world.log.record(5)
    root = TrustRoot.load(world.root_file)
    pinned = RootCheckpoint(size=world.log.log.size, root=base64.b64encode(world.log.log.root).decode())
    root.model_copy(update={"checkpoint": pinned}).save(world.root_file)
    agent = world.agent("web-1", poll_seconds=1.0)
    until("the checkpoint is kept", lambda: seen(agent) == 6)
    proof = restart(world, other_log(world, shared=3, size=3))
    goes_on(world, other_log(world, shared=3, size=9, flavour="after"), proof)
    complains(world, agent)
    assert seen(agent) == 6
