"""Walking a long evidence branch with every core: consecutive segments side by side, joined by their edges.

Each worker is a fork of this process, so that the open repository needs no second opening; where forking is
impossible or unsafe (another system, other threads) the branch is walked in one go, with the same answer.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

from controller.errors import LockgateError, Stalled
from controller.ledger.log import CHECKPOINT
from controller.ports import Repo
from controller.uses.audit.evidence_walk import Walk
from controller.uses.audit.findings import Finding, rule_of
from controller.uses.audit.walked import Edge, Facts, Ground, edge_at

Progress = Callable[[int, int], None]
SEGMENT = 400
"""A branch shorter than this many commits per core is not worth another process."""
_STEP = 100


def walk(
    repo: Repo, ground: Ground, edge: Edge, last: str | None, commits: Sequence[str], progress: Progress | None
) -> tuple[Facts, list[Finding], Edge]:
    """Walk `commits` from `edge`, on as many cores as there are. Findings are in the order of the branch."""
    try:
        cuts = _cuts(repo, commits)
    except LockgateError:
        cuts = []
    edges: list[tuple[Edge, str | None]] = [(edge, last)]
    for cut in cuts:
        try:
            edges.append((edge_at(repo, commits[cut - 1]), commits[cut - 1]))
        except LockgateError:
            # The tree there is not to be trusted: let the walk from the start say why.
            cuts, edges = [], edges[:1]
            break
    parts = [list(commits[a:b]) for a, b in zip([0, *cuts], [*cuts, len(commits)], strict=True)]
    if len(parts) == 1:
        return _walk_one(repo, ground, edge, last, parts[0], progress)
    facts, findings, end = _walk_side_by_side(repo, ground, edges, parts, progress)
    if findings:
        # A cut may have fallen among foreign commits that were removed again: one walk says what holds.
        return _walk_one(repo, ground, edge, last, commits, progress)
    return facts, findings, end


def _cuts(repo: Repo, commits: Sequence[str]) -> list[int]:
    """Where segments begin: after commits that end a batch, because only there the log is complete."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    count = min(cores, len(commits) // SEGMENT)
    if count < 2 or threading.active_count() > 1 or "fork" not in multiprocessing.get_all_start_methods():
        return []
    cuts: list[int] = []
    for part in range(1, count):
        place = len(commits) * part // count
        while place < len(commits) and not _ends_batch(repo, commits[place - 2], commits[place - 1]):
            place += 1
        if place < len(commits) and (not cuts or place > cuts[-1]):
            cuts.append(place)
    return cuts


def _ends_batch(repo: Repo, before: str, commit: str) -> bool:
    """Whether `commit` ends a batch: it changed the checkpoint."""
    return repo.file(before, CHECKPOINT) != repo.file(commit, CHECKPOINT)


def _walk_one(
    repo: Repo, ground: Ground, edge: Edge, last: str | None, commits: Sequence[str], progress: Progress | None
) -> tuple[Facts, list[Finding], Edge]:
    walker = Walk(repo, ground, edge, last)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None and (done % _STEP == 0 or done == len(commits)):
            progress(done, len(commits))

    end = walker.run(commits, step)
    return walker.facts, walker.findings, end


def _walk_side_by_side(
    repo: Repo,
    ground: Ground,
    edges: Sequence[tuple[Edge, str | None]],
    parts: Sequence[Sequence[str]],
    progress: Progress | None,
) -> tuple[Facts, list[Finding], Edge]:
    context = multiprocessing.get_context("fork")
    total = sum(map(len, parts))
    done = [0] * len(parts)
    pipes: list[Connection] = []
    workers = []

    def advance(place: int, count: int) -> None:
        done[place] = count
        if progress is not None:
            progress(sum(done), total)

    for place in range(1, len(parts)):
        receive, send = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(send, repo, ground, *edges[place], parts[place]), daemon=True)
        worker.start()
        send.close()
        pipes.append(receive)
        workers.append(worker)
    results: dict[int, tuple[Facts, list[Finding], Edge]] = {}
    try:
        results[0] = _walk_one(repo, ground, *edges[0], parts[0], lambda count, _: advance(0, count))
        open_pipes = {pipe: place + 1 for place, pipe in enumerate(pipes)}
        while open_pipes:
            for pipe in wait(list(open_pipes)):
                assert isinstance(pipe, Connection)
                place = open_pipes[pipe]
                try:
                    message = pipe.recv()
                except EOFError:
                    raise Stalled(
                        "verify-interrupted",
                        "a verification process ended early",
                        cure="run it again; if it ends again, look at the machine's memory",
                    ) from None
                if isinstance(message, int):
                    advance(place, message)
                else:
                    results[place] = message
                    del open_pipes[pipe]
    finally:
        for worker in workers:
            if len(results) < len(parts):
                worker.terminate()
            worker.join()
    return _join([results[place] for place in range(len(parts))], edges)


def _work(
    pipe: Connection, repo: Repo, ground: Ground, edge: Edge, last: str | None, commits: Sequence[str]
) -> None:
    pipe.send(_walk_one(repo, ground, edge, last, commits, lambda count, _: pipe.send(count)))
    pipe.close()


def _join(
    results: Sequence[tuple[Facts, list[Finding], Edge]], edges: Sequence[tuple[Edge, str | None]]
) -> tuple[Facts, list[Finding], Edge]:
    facts, findings = Facts(), []
    for place, (found, problems, end) in enumerate(results):
        facts.join(found)
        findings += problems
        if place + 1 < len(results) and end != edges[place + 1][0]:
            commit = edges[place + 1][1] or ""
            # The tree claims another past than the entries add up to.
            findings.append(
                Finding(
                    "state-mismatch",
                    commit,
                    "state/cursors.json",
                    rule_of("state-mismatch"),
                    "the derived state is not what the entries before it add up to",
                )
            )
    return facts, findings, results[-1][2]
