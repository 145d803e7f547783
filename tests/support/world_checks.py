"""What holds of any recorded history, however it came about."""

from __future__ import annotations

from itertools import pairwise

from controller.core.artifacts import NAMES, artifacts_of
from controller.core.run import fold
from controller.ledger.canonical import digest
from controller.ledger.entry import artifact_path
from controller.model.entry import Entry
from tests.support.worlds import Theatre


def check_invariants(theatre: Theatre) -> None:
    """What holds of any recorded history, however it came about."""
    entries = theatre.entries
    assert [e.predicate.index for e in entries] == list(range(len(entries)))
    by_run: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.run is not None:
            by_run.setdefault(entry.run, []).append(entry)
    for run_id, own in by_run.items():
        assert [e.predicate.sequence for e in own] == list(range(1, len(own) + 1)), run_id
        sealed = [e for e in own if e.kind == "sealed"]
        assert len(sealed) <= 1
        assert not sealed or own[-1] is sealed[0]
        assert sealed or run_id in theatre.ledger.open_entries
        _check_orders(own)
        for value in [v for e in own if e.kind == "ordered" for v in e.detail.artifacts.values()]:
            assert digest(theatre.tree.paths[artifact_path(value)]) == value
        for one, other in pairwise(own):
            assert (one.kind, one.predicate.detail) != (other.kind, other.predicate.detail), f"twice: {one.path}"


def _check_orders(own: list[Entry]) -> None:
    run = fold(own[:1])
    touched: set[str] = set(run.opened.carried)
    ids: set[str] = set()
    for entry in own[1:]:
        if entry.kind == "ordered":
            detail = entry.detail
            assert run.inputs is not None and run.gates is not None
            assert detail.artifacts == artifacts_of(run, detail.action)
            assert set(detail.artifacts) == set(NAMES)
            if detail.action == "deploy":
                # Gates passed, for this stage, and were decided when the order was, or after the run rested.
                assert run.gates.aggregate in ("PASS", "WARN")
                assert run.gates.stage == detail.stage
                assert {o.target for o in detail.orders} <= set(run.inputs.stages[detail.stage].targets)
                touched |= {o.target for o in detail.orders}
            elif detail.action == "rollback":
                assert {o.target for o in detail.orders} <= touched
            assert not ids & {o.id for o in detail.orders}
            ids |= {o.id for o in detail.orders}
        run = fold([*own[: own.index(entry)], entry])
