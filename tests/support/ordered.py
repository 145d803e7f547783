"""A project whose controllers the test drives: a run has ordered, and no agent will ever answer."""

from __future__ import annotations

from pathlib import Path

from tests.support.flow import Flow, strategy
from tests.support.site import EVIDENCE, Site

PATIENT = "    - {percent: 100, minHealthyTime: 1s, deadline: 1h}\n"


def ordered(folder: Path) -> tuple[Flow, Site]:
    """A release is locked, and a run in dev has ordered its deployment."""
    shop = Flow(folder, {"dev-1": "dev"}, files={"strategies/dev.yaml": strategy("dev", PATIENT)})
    site = Site(folder)
    assert site.settle() == ""
    shop.image("1.0.0")
    name = shop.release("1.0.0")
    assert site.settle() == ""
    shop.promote("dev", name)
    assert site.settle() == ""
    assert site.git("show", f"{EVIDENCE}:open/dev")
    return shop, site


def released(site: Site, version: str) -> str:
    """alice releases, bob merges; there is something to record then."""
    people = site.stage.repo()
    try:
        flow = Flow.__new__(Flow)
        flow.stage, flow.people = site.stage, people
        return flow.release(version)
    finally:
        people.close()
