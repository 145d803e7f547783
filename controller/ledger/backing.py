"""What evidence says about the controller's own commits on main (`core.steps.Backing`): the one place for it."""

from __future__ import annotations

from controller.ledger.append import Ledger
from controller.ledger.fold import EnvironmentState, LockRecord, lookup_lock
from controller.ports import Repo

REVERTING = frozenset({"rolled_back", "rollback_failed", "completed"})
"""The phases of a sealed run after which its slot is put back to what runs."""


class EvidenceBacking:
    """Backing from the evidence tip: locks by path, reverts by the environments' last sealed runs."""

    def __init__(self, repo: Repo, ledger: Ledger) -> None:
        self._repo = repo
        self._ledger = ledger

    def lock(self, path: str, sha256: str) -> bool:
        """Whether an entry records a lock of this path with these bytes (hex SHA-256)."""
        record = lock_of(self._repo, self._ledger.commit, path)
        return record is not None and (record.path, record.sha256) == (path, f"sha256:{sha256}")

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Whether a sealed run orders this slot back to this blob (None: removed)."""
        return (run, path, blob) in map(revert_of, self._ledger.state.environments.values())


def lock_of(repo: Repo, evidence: str | None, path: str) -> LockRecord | None:
    """What an evidence commit's tree records of the lock whose file on main is at `path`."""
    release = path.rpartition("/")[2].removesuffix(".lock.yaml")
    return lookup_lock(repo, evidence, release) if evidence is not None else None


def revert_of(place: EnvironmentState) -> tuple[str, str, str | None] | None:
    """(run, slot path, blob) that the controller may put back on main after the environment's last run."""
    last = place.last_run
    if last is None or last.slot is None or last.phase not in REVERTING:
        return None
    return last.run, last.slot.path, place.slot.blob if place.slot is not None else None
