"""What rules over the whole history look at."""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.trust import VerifySsh
from controller.model.history import Tips
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.evidence_walk import Edge, Facts, Ground
from controller.uses.findings import Finding, RefusedCommit


@dataclass(frozen=True, slots=True)
class History:
    """The walked history: what evidence says (`facts`), the state it ends in (`edge`), and the branches."""

    repo: Repo
    root: TrustRoot
    tips: Tips
    verify_ssh: VerifySsh
    ground: Ground
    facts: Facts
    edge: Edge


Answer = tuple[list[Finding], list[RefusedCommit]]
