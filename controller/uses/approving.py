"""Collecting what shows an agent that people stand behind an order (`core.authority` is who judges it).

Nothing here decides anything: an object too few is a refusal at the agent, one too many costs bytes.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from controller.core.authority import vouches
from controller.core.chain import tree_entries
from controller.core.run import Run, fold
from controller.core.trust import TrustState
from controller.ledger.append import run_entries
from controller.model.entry import CompletedRun, Entry, Pin
from controller.model.history import Commit
from controller.model.order import Approving, Binding
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.view import run_folder_of

MOST_STEPS = 2_000
Vouchers = dict[tuple[str, str, str], str]
"""By accepted main, path and blob: the newest commit whose signer vouches for it, "" when there is none."""
_TREE = b"40000"
_PLACES = "environments/"
_KINDS = (_PLACES, "components/", "strategies/")


class Approvals:
    """What orders carry now, by the project's own history. `accepted` is the main that is acted on; `known`
    remembers who vouched, from one use to the next."""

    def __init__(
        self,
        repo: Repo,
        root: TrustRoot,
        trust: TrustState,
        accepted: str,
        now: datetime,
        known: Vouchers | None = None,
    ) -> None:
        self._repo, self._trust, self._accepted = repo, trust, accepted
        self._known = known if known is not None else {}
        self._here = root.project, root.refs.main, now

    def of_run(self, entries: Sequence[Entry], evidence: str, history: Sequence[CompletedRun]) -> Approving:
        """For the deploy and check orders of a run. One that was asked for by request goes back to what an earlier
        run was approved for."""
        made, run = Bundle(self._repo), fold(entries)
        if run.opened.cause == "request":
            made.request(run.opened.commit)
            made.rollback = run.opened.commit
            former = next((one for one in reversed(history) if one.release == run.opened.release), None)
            source = self._former(evidence, former) if former is not None else ()
        else:
            source = entries
        return self._fill(made, source, run.opened.pins)

    def of_rollback(self, previous: CompletedRun, evidence: str) -> Approving:
        """For orders that go back to what ran before."""
        return self._fill(Bundle(self._repo), self._former(evidence, previous), previous.pins)

    def _former(self, evidence: str, completed: CompletedRun) -> Sequence[Entry]:
        folder = run_folder_of(self._repo, evidence, completed.run)
        return run_entries(self._repo, evidence, folder) if folder is not None else ()

    def _fill(self, made: Bundle, source: Sequence[Entry], pins: Iterable[Pin]) -> Approving:
        promotion = None
        run = fold(source) if source else None
        if run is not None and run.opened.cause == "promotion":
            promotion = run.opened.commit
            self._promotion(made, run)
            made.binding = _binding(run, source)
        self._vouch(made, [pin for pin in pins if pin.path.startswith(_KINDS)], promotion)
        return made.approving()

    def _promotion(self, made: Bundle, run: Run) -> None:
        """The commit of the promotion with all that attributes it, the lock, and the requests that approve."""
        opened, slot = run.opened, f"promotions/{run.environment}.yaml"
        made.promotion = opened.commit
        made.step(opened.commit, slot)
        commit = self._repo.commit(opened.commit)
        lock = f"releases/{opened.release}.lock.yaml"
        if commit.parents:
            made.path(commit.parents[0], lock)
        if opened.slot is not None:
            made.blob(opened.slot.blob)
        if run.inputs is not None:
            made.blob(run.inputs.lock.blob)
        for approval in run.approvals:
            if approval.counted and approval.via == "request":
                made.approve(approval.commit)

    def _vouch(self, made: Bundle, pins: Sequence[Pin], promotion: str | None) -> None:
        """For every document, a commit of main by a person who may decide about it and in whose tree it stands:
        the promotion's own where it will do, since its objects go along anyway, else the newest."""
        wanted = {pin.path: pin.blob for pin in pins}
        names = [path.removeprefix(_PLACES) for path in wanted if path.startswith(_PLACES)]
        slot = f"promotions/{names[0]}" if names else ""
        if promotion is not None:
            self._take(made, promotion, wanted, slot)
        remembered = {path: self._known.get(self._key(path, wanted)) for path in wanted}
        for path, known in remembered.items():
            if known:
                self._take(made, known, wanted, slot)
            elif known is not None:
                wanted.pop(path, None)  # nobody was found: the agent will say so
        at: str | None = self._accepted
        for _ in range(MOST_STEPS):
            if not wanted or at is None:
                return
            parents = self._take(made, at, wanted, slot).parents
            at = parents[0] if parents else None
        self._known.update((self._key(path, wanted), "") for path in wanted)

    def _key(self, path: str, wanted: Mapping[str, str]) -> tuple[str, str, str]:
        return self._accepted, path, wanted[path]

    def _take(self, made: Bundle, oid: str, wanted: dict[str, str], slot: str) -> Commit:
        """Take the wanted documents for which this commit vouches."""
        commit = self._repo.commit(oid)
        for path in [path for path in wanted if vouches(commit, self._trust, path, slot, *self._here)]:
            file = self._repo.file(oid, path)
            if file is not None and file.blob == wanted[path]:
                self._known[self._key(path, wanted)] = made.vouched[path] = oid
                made.path(oid, path)
                made.blob(wanted.pop(path))
        return commit


class Bundle:
    """Objects, each once."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._commits: dict[str, bytes] = {}
        self._trees: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}
        self.vouched: dict[str, str] = {}
        self.promotion: str | None = None
        self.binding: Binding | None = None
        self.requests: list[str] = []
        self.rollback: str | None = None

    def approving(self) -> Approving:
        """Everything that was collected."""
        return Approving(
            commits=_texts(self._commits),
            trees=_texts(self._trees),
            blobs=_texts(self._blobs),
            vouched=self.vouched,
            promotion=self.promotion,
            binding=self.binding,
            requests=self.requests,
            rollback=self.rollback,
        )

    def commit(self, oid: str) -> Commit:
        """Add a commit."""
        self._commits[oid] = self._repo.raw(oid)[1]
        return self._repo.commit(oid)

    def blob(self, oid: str) -> None:
        """Add a blob."""
        self._blobs[oid] = self._repo.read(oid)

    def path(self, commit: str, path: str) -> None:
        """Add a commit and its trees as far as the path leads."""
        tree: str | None = self.commit(commit).tree
        for part in path.encode().split(b"/"):
            if tree is None:
                return
            self._trees[tree] = self._repo.raw(tree)[1]
            mode, oid = (tree_entries(self._trees[tree]) or {}).get(part, (b"", ""))
            tree = oid if mode == _TREE else None

    def step(self, oid: str, path: str) -> None:
        """Add what `judge_step` reads to judge a commit by one path: its parents, what it brings, and where that
        left the line it came back to."""
        commit = self.commit(oid)
        for here in (oid, *commit.parents):
            self.path(here, path)
        if len(commit.parents) != 2:
            return
        first, second = commit.parents
        brought = self._repo.brought(first, second)
        self._merge(first, second, path)
        left = {parent for one in brought for parent in one.parents} - {one.id for one in brought}
        self._lead(first, left or {second})
        for one in brought:
            for each in (one.id, *one.parents):
                self.path(each, path)
            if len(one.parents) == 2:
                self._merge(*one.parents, path)

    def _merge(self, one: str, two: str, path: str) -> None:
        for base in self._repo.merge_bases(one, two):
            self.path(base, path)
            self._lead(one, {base})
            self._lead(two, {base})

    def _lead(self, tip: str, targets: set[str]) -> None:
        """Add the commits of a shortest way from `tip` back to each of these ancestors."""
        left, child, queue = set(targets), {tip: ""}, deque([tip])
        while queue and left:
            at = queue.popleft()
            if at in left:
                left.discard(at)
                back = at
                while back:
                    self.commit(back)
                    back = child[back]
            for parent in self._repo.commit(at).parents:
                if parent not in child:
                    child[parent] = at
                    queue.append(parent)

    def request(self, oid: str) -> None:
        """Add a request's commit and file, and that its parent had no such file."""
        commit = self._repo.commit(oid)
        parent = commit.parents[0] if commit.parents else None
        for change in self._repo.changes(parent, oid):
            self.path(oid, change.path)
            if parent is not None:
                self.path(parent, change.path)
            if change.new is not None:
                self.blob(change.new.blob)

    def approve(self, oid: str) -> None:
        """Add a request that approves."""
        self.request(oid)
        self.requests.append(oid)


def _binding(run: Run, entries: Sequence[Entry]) -> Binding | None:
    """What the run's approvalSubject was made from."""
    opened, inputs = run.opened, run.inputs
    recorded = next((entry for entry in entries if entry.kind == "inputs"), None)
    pins = {pin.path: pin.blob for pin in opened.pins}
    strategy = next((blob for path, blob in pins.items() if path.startswith("strategies/")), None)
    if inputs is None or recorded is None or strategy is None:
        return None
    return Binding(
        promotion_commit=opened.commit,
        slot=opened.slot.blob if opened.slot else "",
        lock=inputs.lock.sha256,
        environment=pins[f"environments/{run.environment}.yaml"],
        strategy=strategy,
        policies=sorted(blob for path, blob in pins.items() if path.startswith("policies/")),
        trust_version=recorded.predicate.observed.trust_version,
        targets=sorted(inputs.targets),
    )


def _texts(objects: dict[str, bytes]) -> list[str]:
    return [base64.b64encode(objects[oid]).decode() for oid in sorted(objects)]
