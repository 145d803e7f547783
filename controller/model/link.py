"""Classic in-toto links (https://github.com/in-toto/docs/blob/v1.0/in-toto-spec.md, 4.4): the payloads, and
their places in a run's folder.

Artifacts are named by their path in the repository or, where there is no file, by one word: `manifest` (the
release's digests), `run` (its id), `inputs`, `decision`, `subject` (what is approved), `images/<component>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

RESOLVE, INPUTS, GATES, APPROVE, DEPLOY, VERIFY, SEAL = STEPS = (
    "resolve",
    "inputs",
    "gates",
    "approve",
    "deploy",
    "verify",
    "seal",
)
"""The steps of every run that completes, in order."""
SUMS = "links/SHA256SUMS"
"""The list of a run's files, in the form of sha256sum(1), below the run's folder."""
LAYOUT_PATH = "trust/layout.json"
"""Where the owners' layout stands on main; `trust/layout/<environment>.json` takes precedence for its runs."""


class LinkSignature(BaseModel):
    """Somebody's signature over the link of their step. The link itself follows from the run, so that only this
    travels: with an agent's report, or a reviewer's request."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    keyid: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    sig: Annotated[str, Field(pattern="^[A-Za-z0-9+/]{1,2048}={0,2}$")]


def link(name: str, materials: Mapping[str, str], products: Mapping[str, str]) -> dict[str, Any]:
    """A link's payload; artifacts are given as `sha256:<hex>` or bare hex."""
    return {
        "_type": "link",
        "name": name,
        "materials": _artifacts(materials),
        "products": _artifacts(products),
        "byproducts": {},
        "command": [],
        "environment": {},
    }


def approve_link(subject: str) -> dict[str, Any]:
    """What an approver signs: the approval subject, taken in and let through."""
    return link(APPROVE, {"subject": subject}, {"subject": subject})


def deploy_link(run: str, manifest: str) -> dict[str, Any]:
    """What an agent signs after a deployment: it was told this release in this run, and runs it.

    Equal for all targets of a run, so that a threshold can be asked of them; what differs stands in the reports.
    """
    return link(DEPLOY, {"manifest": manifest, "run": run_digest(run)}, {"manifest": manifest})


def run_digest(run: str) -> str:
    """The artifact `run`: sha256 over the run's id."""
    return "sha256:" + hashlib.sha256(run.encode()).hexdigest()


def link_name(step: str, keyid: str) -> str:
    """The place of a link below its run's folder, as in-toto looks for it."""
    return f"links/{step}.{keyid[:8]}.link"


def _artifacts(named: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"sha256": value.removeprefix("sha256:")} for name, value in sorted(named.items())}
