"""What rules over the whole history look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.core.accept import MainState
from controller.core.trust import VerifySsh
from controller.model.history import Tips
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.audit.findings import Finding, RefusedCommit, TimeMark
from controller.uses.audit.walked import Edge, Facts, Ground

if TYPE_CHECKING:
    from controller.uses.audit.past import Past


@dataclass(frozen=True, slots=True)
class History:
    """The walked history: what evidence says (`facts`), the state it ends in (`edge`), and the branches.

    With a `past` that was verified before, `facts` are of what came after it, and what it is still needed for.
    `judged` is what main came to, as far as it could be judged; `time` the newest time-stamp of the log.
    """

    repo: Repo
    root: TrustRoot
    tips: Tips
    verify_ssh: VerifySsh
    ground: Ground
    facts: Facts
    edge: Edge
    past: Past | None = None
    judged: MainState | None = None
    time: TimeMark | None = None

    @property
    def begin(self) -> str:
        """The accepted commit of main from which main is judged."""
        return self.past.main if self.past is not None else self.root.genesis


Answer = tuple[list[Finding], list[RefusedCommit]]
