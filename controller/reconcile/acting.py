"""Act: carry out what is recorded. Every effect is idempotent and derived from recorded state."""

from __future__ import annotations

from collections.abc import Mapping

from controller.core.effects import Recorded, SlotRevert, agent_keys, orders_of, sampling, settled, slot_reverts
from controller.core.run import Run
from controller.core.transparency import sealed_unwitnessed, witnesses_of
from controller.core.world import RunDocuments
from controller.crashpoints import reached
from controller.errors import Conflict, Refused, Unavailable
from controller.ledger import dsse, fold
from controller.ledger.append import Ledger
from controller.ledger.canonical import canonical
from controller.ledger.entry import read
from controller.model.entry import CompletedRun, LockMade
from controller.model.history import NewCommit, Tips
from controller.model.intent import Intent
from controller.model.lock import release_digest
from controller.model.order import ORDER_TYPE, Approving, LogState, PreparedOrder
from controller.reconcile.observing import MainView
from controller.reconcile.parts import Parts
from controller.reconcile.reading import previous_target, target_of
from controller.uses.approving import Approvals, Vouchers
from controller.uses.own import previous_own

KEPT_VOUCHERS = 4096


class Actor:
    """Does what follows from the record."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._declared: str | None = None
        self._delivered: set[str] = set()
        self._vouchers: Vouchers = {}

    def act(
        self,
        ledger: Ledger,
        runs: Mapping[str, Run],
        documents: Mapping[str, RunDocuments],
        intent: Intent,
        view: MainView,
        tips: Tips,
    ) -> bool:
        """Everything that is due; says whether main was written (another pass is wanted then)."""
        self._show(ledger, intent)
        self._declare(intent)
        self._deliver(ledger, runs, documents, frozenset(agent_keys(intent)), view)
        self._parts.hub.sample(sampling(runs, documents, sorted(intent.agents)))
        self._acknowledge(runs)
        return self._write_main(ledger, runs, intent, view, tips)

    def _show(self, ledger: Ledger, intent: Intent) -> None:
        """Where witnesses are asked for, have the log shown to all of them once a run was sealed."""
        if sealed_unwitnessed(ledger.state.cursors) and witnesses_of(intent):
            self._parts.hub.show(ledger.log.size)

    def _declare(self, intent: Intent) -> None:
        if self._declared != intent.commit:
            self._parts.hub.declare(agent_keys(intent))
            self._declared = intent.commit

    def _deliver(
        self,
        ledger: Ledger,
        runs: Mapping[str, Run],
        documents: Mapping[str, RunDocuments],
        declared: frozenset[str],
        view: MainView,
    ) -> None:
        """Offer every recorded, unreported order; stop offering the others.

        A target whose agent is no longer declared gets none: its order stays unreported until the deadline.
        """
        prepared: list[PreparedOrder] = []
        current: set[str] = set()
        for run in runs.values():
            if run.ordered is None or not run.unreported or run.phase == "paused":
                continue
            ids = {line.id for line in run.ordered.orders if line.target in declared}
            current |= ids
            if ids <= self._delivered:
                continue
            back = run.opened.previous if run.ordered.action == "rollback" else None
            if back is not None:
                target = previous_target(self._parts.reader.document, back)
            else:
                target = target_of(documents[run.id])
            pinned, where = documents[run.id], self._where(ledger, run)
            witnesses = pinned.environment.spec.witnesses
            approving = self._approving(ledger, run, view, back)
            for order in orders_of(run, target, where, pinned.strategy, witnesses):
                if order.id not in ids or order.id in self._delivered:
                    continue
                payload = canonical(order.plain())
                envelope = dsse.sign(payload, ORDER_TYPE, self._parts.signer)
                prepared.append(
                    PreparedOrder(order.target, order.id, envelope, order.witnesses, order.log.size, approving)
                )
        if prepared:
            reached("deliver-before")
            self._parts.hub.deliver(prepared)
            reached("deliver-after")
        gone = self._delivered - current
        if gone:
            reached("cancel-before")
            self._parts.hub.cancel(sorted(gone))
            reached("cancel-after")
        self._delivered = current

    def _approving(self, ledger: Ledger, run: Run, view: MainView, back: CompletedRun | None) -> Approving:
        """The objects by which agents see that people stand behind a run's orders (trust rule 18)."""
        assert ledger.commit is not None
        parts, place = self._parts, ledger.state.environments.get(run.environment)
        if len(self._vouchers) > KEPT_VOUCHERS:
            self._vouchers.clear()
        state = view.state
        now = parts.clock.now()
        approvals = Approvals(parts.repo, parts.root, state.trust, state.accepted, now, self._vouchers)
        if back is not None:
            return approvals.of_rollback(back, ledger.commit)
        history = place.history if place is not None else ()
        return approvals.of_run(ledger.open_entries[run.id], ledger.commit, history)

    def _where(self, ledger: Ledger, run: Run) -> Recorded:
        """The entry that ordered the run's last batch, and the log as it stands now."""
        entry = next(e for e in reversed(ledger.open_entries[run.id]) if e.kind == "ordered")
        state = LogState(size=ledger.log.size, root="sha256:" + ledger.log.root.hex())
        return Recorded(entry.predicate.index, self._committed(ledger, entry.path), state, entry.predicate.at)

    def _committed(self, ledger: Ledger, path: str) -> str:
        """The commit that added an entry: the same for an order offered again after a restart.

        Walks back from the tip, as many commits as were recorded since.
        """
        assert ledger.commit is not None
        repo, commit = self._parts.repo, ledger.commit
        while (before := previous_own(repo, commit)) is not None and repo.file(before, path) is not None:
            commit = before
        return commit

    def _acknowledge(self, runs: Mapping[str, Run]) -> None:
        done = [s.digest for s in self._parts.hub.inbox() if settled(s, runs)]
        if done:
            reached("acknowledge-before")
            self._parts.hub.acknowledge(done)
            reached("acknowledge-after")

    def _write_main(
        self, ledger: Ledger, runs: Mapping[str, Run], intent: Intent, view: MainView, tips: Tips
    ) -> bool:
        """Commit locks and slot reverts to main, one commit for all locks, one for each revert.

        Only on top of exactly the main that was judged, and never while it stands still.
        """
        if view.stands_still or tips.main != view.state.accepted or ledger.commit is None:
            return False
        commits = [c for c in (self._locks(ledger, intent),) if c is not None]
        pending = frozenset(change.environment for change in ledger.state.cursors.pending)
        if not ledger.state.cursors.refused:
            reverts = slot_reverts(ledger.state.environments, runs, pending, intent)
            commits += [self._revert(ledger, revert) for revert in reverts]
        if not commits:
            return False
        try:
            reached("main-before")
            self._parts.repo.append(self._parts.root.refs.main, tips.main, commits, self._parts.signer)
            reached("main-after")
        except Conflict:
            return True  # somebody pushed to main: the next pass judges that first
        except Refused as error:
            raise Unavailable(
                error.code,
                "main does not take the controller's commit",
                where=self._parts.root.refs.main,
                got=error.what,
                cure="let the controller's key push lock files and slot reverts",
                retry_after=30,
            ) from error
        return True

    def _locks(self, ledger: Ledger, intent: Intent) -> NewCommit | None:
        """Every recorded lock whose file main does not have yet, as one commit."""
        assert ledger.commit is not None
        changes: dict[str, bytes | None] = {}
        at = None
        for name in sorted(set(intent.releases) - set(intent.locks)):
            record = fold.lookup_lock(self._parts.repo, ledger.commit, name)
            if record is None or intent.releases[name].path in intent.broken:
                continue
            file = self._parts.repo.file(ledger.commit, record.event)
            if file is None or self._parts.repo.file(intent.commit, record.path) is not None:
                continue
            made: LockMade = read(self._parts.repo.read(file.blob), record.event, None).detail
            if made.release_digest == release_digest(intent.releases[name].document):
                changes[record.path] = made.content.encode()
                at = ledger.state.cursors.at
        if not changes or at is None:
            return None
        names = ", ".join(path.removeprefix("releases/").removesuffix(".lock.yaml") for path in changes)
        return NewCommit(changes, f"Lock {names}\n\nLockgate-Kind: lock\n", at)

    def _revert(self, ledger: Ledger, revert: SlotRevert) -> NewCommit:
        content = self._parts.repo.read(revert.blob) if revert.blob is not None else None
        at = ledger.state.cursors.at
        assert at is not None
        back = revert.release or "nothing"
        message = (
            f"Take {revert.environment} back to {back}\n\n"
            f"{revert.run} was rolled back; this revert is the hold.\n\n"
            f"Lockgate-Run: {revert.run}\nLockgate-Kind: slot-revert\n"
        )
        return NewCommit({revert.path: content}, message, at)
