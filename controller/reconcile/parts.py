"""What a reconciler is made of: wiring puts it together, and each stage of a pass takes what it needs from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from controller.core.artifacts import Templates
from controller.model.trustroot import TrustRoot
from controller.ports import AgentHub, Clock, Repo, Signer
from controller.reconcile.attendance import Presence
from controller.reconcile.logbook import LogBook
from controller.reconcile.observing import Memory
from controller.reconcile.questions import Questions
from controller.reconcile.reading import Reader


@dataclass(frozen=True, slots=True)
class Parts:
    """What wiring puts together."""

    repo: Repo
    root: TrustRoot
    signer: Signer
    clock: Clock
    hub: AgentHub
    questions: Questions
    reader: Reader
    memory: Memory
    presence: Presence
    templates: Templates
    verify_ssh: Callable[[str, bytes, str], str]
    log: LogBook
    check_tags: timedelta = timedelta(0)
