"""The controller itself notices that a tag it locked means something else now, and says so once."""

from __future__ import annotations

from pathlib import Path

from tests.support.flow import flow
from tests.support.registry import running_registry
from tests.support.waiting import until

NAME = "shop/api"


def test_a_tag_that_moves_while_its_release_runs_is_recorded_once(tmp_path: Path) -> None:
    with (
        running_registry(tmp_path / "registry") as registry,
        flow(tmp_path / "shop", {"dev-1": "dev"}, repository=f"{registry.host}/{NAME}") as shop,
    ):
        options = ("--check-tags", "300ms")
        shop.processes.start_controller(poll="1s", options=options)
        shop.processes.start_agent("dev-1", "dev")
        locked = shop.image("1.0.0")
        registry.push(shop.stage.images, "api", "v1.0.0", to=NAME)
        name = shop.release("1.0.0")
        shop.locked(name)
        shop.promote("dev", name)
        shop.ends("dev", name, "completed")
        asked = registry.reads()
        until("three looks that found nothing", lambda: registry.reads() >= asked + 3)
        assert "tag-moved" not in shop.kinds()

        other = shop.image("1.0.0", "load")
        registry.push(shop.stage.images, "api", "v1.0.0", to=NAME)
        until("the moved tag is recorded", lambda: "tag-moved" in shop.kinds())
        entry = next(one for one in shop.entries() if one["kind"] == "tag-moved")
        fact = {"release": name, "component": "api", "tag": "v1.0.0", "locked": locked, "found": other}
        assert entry["detail"] == fact
        evidence = shop.tip()
        asked = registry.reads()
        until("three more looks", lambda: registry.reads() >= asked + 3)
        shop.stop_controller()
        shop.processes.start_controller(poll="1s", options=options)
        asked = registry.reads()
        until("three looks after a restart", lambda: registry.reads() >= asked + 3)
        assert shop.tip() == evidence
        assert shop.state("dev")["digests"] == {"api": locked} == shop.sticker("dev-1")["digests"]
        shop.verify()
