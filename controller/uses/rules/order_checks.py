"""Orders while verifying: what was ordered rests on gates that passed and on approvals that were there before it.

The controller's own functions decide; what they decide from is what stands on record before the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controller.core.approvals import stricter, tally_of_run
from controller.core.demand import lacking
from controller.core.parse import parse
from controller.core.run import Run, whereabouts
from controller.core.trust import TrustState
from controller.errors import LockgateError
from controller.model.documents import Environment
from controller.model.entry import Entry, Ordered, Pin, Sealed
from controller.model.environment import Approvals
from controller.ports import Repo
from controller.uses.layout import demand_at
from controller.uses.rules.main_documents import MainDocuments
from controller.uses.rules.subject import Problem

WITHOUT_GATES = "order-without-gates"
WITHOUT_APPROVAL = "order-without-approval"


class Orders:
    """`trusts` are the trust documents by version, each a candidate until main is judged."""

    def __init__(self, repo: Repo, trusts: Mapping[int, tuple[TrustState, ...]]) -> None:
        self._repo = repo
        self._trusts = trusts
        self._main = MainDocuments(repo)

    def check(self, entry: Entry, run: Run | None) -> Iterator[Problem]:
        """What does not hold of one entry; `run` is its run before it, None where that cannot be followed."""
        detail = entry.detail
        if run is None:
            return
        if isinstance(detail, Ordered) and detail.action == "deploy":
            yield from self._deploy(entry, detail, run)
        elif isinstance(detail, Sealed):
            left = whereabouts(run)
            if (detail.back, detail.failed, detail.silent) != (left.back, left.failed, left.silent):
                yield "seal-mismatch", entry.path, "the targets that it names are not as their reports left them"

    def _deploy(self, entry: Entry, detail: Ordered, run: Run) -> Iterator[Problem]:
        gates = run.gates
        if gates is None or gates.stage != detail.stage or gates.aggregate not in ("PASS", "WARN"):
            said = (
                "none were decided"
                if gates is None
                else f"they gave {gates.aggregate} for stage {gates.stage + 1}"
            )
            text = f"stage {detail.stage + 1} was ordered without its gates: {said}"
            yield WITHOUT_GATES, entry.path, text
        if detail.stage == run.stage:
            return  # the rest of a stage, after its migrations: approvals are counted once, at its start
        missing = self._missing(entry, run)
        if missing:
            text = ", ".join(f"{number} of {role}" for role, number in sorted(missing.items()))
            yield WITHOUT_APPROVAL, entry.path, f"stage {detail.stage + 1} was ordered without approvals: {text}"
        main = entry.predicate.observed.main
        if detail.stage == 0 and run.opened.cause == "promotion" and main is not None:
            missed = lacking(demand_at(self._repo, main, run.environment), run.approvals)
            if missed:
                text = f"it was ordered without {missed} of the approvers' links that the layout demands"
                yield WITHOUT_APPROVAL, entry.path, text

    def _missing(self, entry: Entry, run: Run) -> Mapping[str, int]:
        """The approvals that the run's pinned environment asks for and that did not count when it was ordered."""
        pin = next((p for p in run.opened.pins if p.path == f"environments/{run.environment}.yaml"), None)
        try:
            document = self._main.document(pin) if pin is not None else None
        except LockgateError:
            return {}  # that it cannot be read is a finding of its own
        if pin is None or not isinstance(document, Environment):
            return {}
        missing: Mapping[str, int] = {}
        for trust in self._trusts.get(entry.predicate.observed.trust_version, ()):
            asked = stricter(document.spec.approvals, self._live(entry, pin, trust))
            counted = tally_of_run(run, asked, trust, entry.at)
            if counted.satisfied:
                return {}
            missing = counted.missing
        return missing

    def _live(self, entry: Entry, pin: Pin, trust: TrustState) -> Approvals | None:
        """What main's own document asked for when the entry was made; None where it is the pinned one or counts
        for nothing: it does not validate, or names a role that there was not."""
        main = entry.predicate.observed.main
        try:
            file = self._repo.file(main, pin.path) if main is not None else None
            if file is None or file.blob == pin.blob:
                return None
            document = parse(pin.path, self._repo.read(file.blob), file.mode).document
        except LockgateError:
            return None
        if not isinstance(document, Environment) or not document.spec.approvals.roles.keys() <= trust.roles.keys():
            return None
        return document.spec.approvals
