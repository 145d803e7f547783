"""Approvals of more than one person and role, as people give them: the command line, a controller, agents."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from controller.adapters.hub.http import HttpHub
from controller.cli.app import run
from controller.demo.stage import slot_file
from controller.wiring.controller import Controller
from controller.wiring.people import commit_on, merge_branch
from tests.support.flow import SOURCE, Flow, environment, strategy
from tests.support.light_agent import LightAgent
from tests.support.site import Site, change_trust
from tests.support.waiting import until

TRUST = (SOURCE / "trust" / "trust.yaml.j2").read_text()
MATRIX = {"count": 2, "roles": {"reviewers": 1, "operators": 1}, "expiresAfter": "48h"}
STAGE = "    - {percent: 100, minHealthyTime: 200ms, deadline: 5s}\n"
FILES = {
    "strategies/prod.yaml": strategy("prod", STAGE),
    "environments/prod.yaml": environment("prod", approvals=MATRIX),
    "trust/trust.yaml.j2": TRUST.replace("replay]\n        reviewers", "replay, approve]\n        reviewers"),
}


class Shop:
    """prod with one agent, whose memory of what it saw approved can be lost."""

    def __init__(self, folder: Path, files: Mapping[str, str] = FILES) -> None:
        self.flow = Flow(folder, {"web-1": "prod"}, files=files)
        self.stage = self.flow.stage
        self.controller: Controller = Site(folder).controller(listen="127.0.0.1:0")
        self.thread = threading.Thread(target=self.controller.run, daemon=True)
        self.thread.start()
        self.agents = 0
        self.agent: LightAgent | None = None
        self.fresh()

    def fresh(self) -> LightAgent:
        """An agent of the same name and key that remembers nothing."""
        self.leave()
        self.agents += 1
        hub: HttpHub = self.controller.hub
        until("the hub listens", lambda: hub._socket is not None)
        agent = LightAgent(
            self.stage.folder / f"web-1-{self.agents}",
            name="web-1",
            environment="prod",
            key=self.stage.keys / "web-1",
            trust_root=self.stage.trust_root,
            url=hub.address,
        )
        agent.start()
        self.agent = agent
        return agent

    def leave(self) -> None:
        """The agent's host goes away."""
        if self.agent is not None:
            self.agent.stop()
            self.agent = None

    def say(self, *words: str, by: str = "", fails: bool = False) -> str:
        """What the command line prints."""
        key = ["--key", str(self.stage.keys / by)] if by else []
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(["--repo", self.flow.address, *words, *key])
        assert (code != 0) is fails, said.getvalue()
        return said.getvalue()

    def lock(self, version: str) -> str:
        self.flow.image(version)
        name = self.flow.release(version)
        self.flow.locked(name)
        return name

    def promote(self, release: str, by: str = "alice") -> str:
        self.say("promote", "prod", release, "--reason", "because", by=by)
        return f"promote/prod-{release}"

    def phase(self, wanted: str) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            (row,) = json.loads(self.say("-o", "json", "status", "prod"))
            return row if row["phase"] == wanted else None

        return dict(until(f"prod is {wanted}", there))

    def close(self) -> None:
        self.leave()
        self.controller.stop()
        self.thread.join(20)
        self.flow.people.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with opened(tmp_path_factory.mktemp("approvals")) as made:
        yield made


@contextlib.contextmanager
def opened(folder: Path, files: Mapping[str, str] = FILES) -> Iterator[Shop]:
    """A shop whose controller says what it does to a file."""
    before = structlog.get_config()
    with (folder / "controller.log").open("w") as log:
        # The controller runs beside the commands here: its lines are none of their answers.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log), cache_logger_on_first_use=False)
        made = Shop(folder, files)
        yield made
        made.close()
        structlog.configure(**before)


def test_two_of_two_roles(shop: Shop) -> None:
    release = shop.lock("1.0.0")
    shop.say("merge", shop.promote(release), by="bob")
    row = shop.phase("awaiting_approval")
    (waiting,) = row["waitingFor"]
    assert "1 more approval of operators needed" in waiting
    assert "olga may approve" in waiting
    assert "carol" not in waiting and "bob" not in waiting
    assert "olga may approve" in shop.say("why", "prod")
    # Neither who asked for it, nor who approved it, nor another reviewer fills the operators' place; who approved
    # by the merge may add the link of their approval, once.
    shop.say("approve", "prod", "--reason", "my link", "--wait", "20s", by="bob")
    assert "1 more approval of operators needed" in shop.phase("awaiting_approval")["waitingFor"][0]
    for name, code in (("alice", "action-out-of-scope"), ("bob", "already-approved")):
        assert code in shop.say("approve", "prod", "--reason", "me", "--wait", "20s", by=name, fails=True)
    shop.say("approve", "prod", "--reason", "me too", "--wait", "20s", by="carol")
    assert "operators" in shop.phase("awaiting_approval")["waitingFor"][0]
    shop.say("approve", "prod", "--reason", "tested", "--wait", "20s", by="olga")
    shop.flow.ends("prod", release, "completed")
    shop.flow.verify()


def test_agents_that_remember_nothing_go_back_by_what_they_are_shown(shop: Shop) -> None:
    release = shop.lock("1.1.0")
    shop.say("merge", shop.promote(release), by="bob")
    shop.phase("awaiting_approval")
    shop.say("approve", "prod", "--reason", "tested", "--wait", "20s", by="olga")
    shop.flow.ends("prod", release, "completed")
    agent = shop.fresh()
    shop.say("rollback", "prod", "--reason", "too slow", "--wait", "20s", by="olga")
    shop.flow.ends("prod", "shop-1.0.0", "completed")
    assert not [line for line in agent.said if line.startswith("order-")]
    shop.flow.verify()


def test_a_new_agent_is_shown_what_approved_the_former_release(shop: Shop) -> None:
    """Its predecessor never answered, so its targets go back to what this agent never ran."""
    release = shop.lock("1.1.1")
    shop.leave()
    shop.say("merge", shop.promote(release), by="bob")
    shop.phase("awaiting_approval")
    shop.say("approve", "prod", "--reason", "tested", "--wait", "20s", by="olga")
    shop.phase("rolling_back")
    agent = shop.fresh()
    shop.flow.ends("prod", release, "rolled_back")
    assert (agent.directory / "executions.log").read_text().strip().endswith("/web-1/rollback")
    shop.flow.verify()


def test_a_merge_says_where_it_approves(shop: Shop) -> None:
    """`mergeApproval: trailer`: a signed merge of the same commits for another project or ref approves nothing."""
    change_trust(shop.stage, lambda text: text.replace("mergeApproval: signature", "mergeApproval: trailer"))
    people = shop.flow.people
    release = shop.lock("1.2.0")
    branch = shop.promote(release)
    for message in ("Merge", "Merge\n\nLockgate-Approve: other refs/heads/main\n"):
        merge_branch(people, branch, shop.stage.person("bob"), into="main", message=message)
        until("main stands still", lambda: "approval-missing" in shop.say("status"))
        shop.say("restore-main", by="carol")
        until("main goes on", lambda: "approval-missing" not in shop.say("status"))
        branch = shop.promote(release)
    assert "counts as the approval of bob" in shop.say("merge", branch, by="bob")
    shop.phase("awaiting_approval")
    shop.say("approve", "prod", "--reason", "tested", "--wait", "20s", by="olga")
    shop.flow.ends("prod", release, "completed")


def test_promotions_that_land_unmerged_are_approved_by_requests_alone(tmp_path: Path) -> None:
    """As where a host squashes: what lands approves nothing, and agents go by the requests."""
    rule = "    - {match: '{promotions,environments}/prod.yaml', write"
    alone = (
        rule.replace("{promotions,environments}/prod.yaml", "promotions/prod.yaml")
        + ": [developers, reviewers]}\n"
    )
    trust = FILES["trust/trust.yaml.j2"].replace(rule, alone + rule)
    two = environment("prod", approvals={"count": 2, "roles": {"reviewers": 1}})
    with opened(tmp_path, {**FILES, "trust/trust.yaml.j2": trust, "environments/prod.yaml": two}) as shop:
        release = shop.lock("1.0.0")
        files: dict[str, bytes | None] = {"promotions/prod.yaml": slot_file("prod", release, "because")}
        commit_on(shop.flow.people, "main", shop.stage.person("alice"), files, "Promote (#7)")
        shop.phase("awaiting_approval")
        for name in ("bob", "carol"):
            shop.say("approve", "prod", "--reason", "tested", "--wait", "20s", by=name)
        shop.flow.ends("prod", release, "completed")
        memory = json.loads((shop.stage.folder / "web-1-1" / "approved.json").read_text())
        assert len(memory["approvals"]) == 2
        shop.flow.verify()
