"""Verification of the whole history from the pinned root: main, requests and evidence, every rule, every commit.

Nothing of what is verified is trusted: the root comes from outside, every signature is checked, derived files
are rebuilt and compared, and main is judged by the same code that the controller runs. What is found wrong is a
finding, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

from controller.core.accept import genesis_state
from controller.core.clocks import SKEW
from controller.core.trust import TrustState, VerifySsh
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger.log import CHECKPOINT, origin_of
from controller.ledger.rules import UNKNOWN
from controller.model.history import Commit, Tips
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.audit import segments
from controller.uses.audit.findings import REMOVED, Finding, RefusedCommit, VerifyReport, rule_of
from controller.uses.audit.main_audit import audit_main, judge
from controller.uses.audit.past import Past, facts_of, past_at, past_of
from controller.uses.audit.requests_audit import audit_requests
from controller.uses.audit.restart_audit import audit_restarts
from controller.uses.audit.transparency_audit import audit_transparency, time_mark
from controller.uses.audit.walked import Edge, Facts, Ground, edge_at
from controller.uses.audit.whole_history import Answer, History
from controller.uses.own import controls
from controller.uses.pinned import pinned_fault
from controller.uses.rules.replay_checks import Ask
from controller.uses.trust_chain import signed_versions

__all__ = ["HISTORY_CHECKS", "Finding", "History", "VerifyReport", "verify"]


HISTORY_CHECKS: tuple[Callable[[History], Answer], ...] = (
    audit_main,
    audit_requests,
    audit_transparency,
    audit_restarts,
)
"""Rules over more than one branch or entry. Each gets the walked history and returns findings and refused
commits; a new rule is one more function here."""


MOST_BACK = 10_000
"""How many commits before `since` are looked at for a push's end: only there the log is complete."""

NEEDS_ALL_EVIDENCE = frozenset(
    {
        "foreign-evidence",
        "lock-unbacked",
        "main-not-accepted",
        "observed-unknown",
        "request-unjudged",
        "revert-unbacked",
    }
)
"""What looks wrong on main and requests, or by them, when the evidence of it was not read: it is damaged, which is
said, or owners restarted evidence after where the walk begins."""


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a repository: what it is held against, and how."""

    repo: Repo
    root: TrustRoot
    tips: Tips
    verify_ssh: VerifySsh
    ask: Ask | None
    progress: Callable[[int, int], None] | None

    def ground(self, trusts: dict[int, tuple[TrustState, ...]], main: dict[str, int], intact: bool) -> Ground:
        root = self.root
        origin = origin_of(root.project, root.genesis)
        return Ground(root.project, root.genesis, origin, trusts, main, self.ask, intact)

    def history(self, ground: Ground, facts: Facts, edge: Edge, past: Past | None = None) -> History:
        """With what main came to, where it can be judged, and how far the log is time-stamped."""
        history = History(self.repo, self.root, self.tips, self.verify_ssh, ground, facts, edge, past)
        try:
            judged = judge(history)
        except LockgateError:
            judged = None  # the audit of main says why
        return replace(history, judged=judged, time=time_mark(history))


Told = tuple[VerifyReport, Past | None]
"""An answer, and what it leaves for the next look."""


def verify(
    repo: Repo,
    root: TrustRoot,
    *,
    verify_ssh: VerifySsh,
    run: str | None = None,
    since: str | None = None,
    ask: Ask | None = None,
    progress: Callable[[int, int], None] | None = None,
    past: Past | None = None,
    keep: Callable[[Past], None] | None = None,
    notice: Callable[[str], None] | None = None,
    now: datetime | None = None,
) -> VerifyReport:
    """Verify main, requests and evidence from genesis.

    `run` keeps only the findings about one run; `since` walks only the evidence after a commit that was
    verified before (from the end of the push before it, where it stands in the midst of one), and what was not
    accepted of main and requests by then. `ask` answers the questions of gates outside the core
    (`CelWorker.ask`); without it their verdicts are not made again. `progress(done, total)` counts evidence
    commits. With a `past`, only what came after it is looked at, and everything as soon as that
    is not clean: a past never changes an answer, and `notice` is told when the branches do not hold it. `keep`
    gets the past that a clean answer leaves. Entries later than `now` are found where it is given. Raises
    Invalid("run-not-found"), Invalid("commit-not-found") for a `since` off the branch, and Unavailable when the
    origin does not answer.
    """
    look = _Look(repo, root, repo.observe(), verify_ssh, ask, progress)
    told: Told | None = None
    if past is not None and run is None and since is None:
        with suppress(Refused, Invalid):
            told = _go_on(look, past, notice)
    report, left = told or _anew(look, run, since)
    ahead = _ahead(look.repo, look.tips.evidence, now) if now is not None else None
    if ahead is not None:
        report, left = replace(report, verified=False, findings=(*report.findings, ahead)), None
    if keep is not None and left is not None and run is None and since is None:
        keep(left)
    return report


def _anew(look: _Look, run: str | None, since: str | None) -> Told:
    """The answer from genesis. Raises as `verify`."""
    repo, root, tips = look.repo, look.root, look.tips
    findings: list[Finding] = []
    try:
        if tips.main is None:
            raise Refused(
                "genesis-mismatch", f"the repository has no {root.refs.main}: it is not the one of this trust root"
            )
        positions = {oid: place for place, oid in enumerate(repo.chain(tips.main))}
        if root.genesis not in positions:
            raise Refused("genesis-mismatch", "main does not descend from the pinned genesis commit")
        genesis_state(repo, root)
    except (Refused, Invalid) as error:
        finding = Finding(error.code, root.genesis, _path(error), rule_of(error.code), error.what)
        return VerifyReport(False, 0, 0, 0, (), (finding,)), None
    trust: list[str] = []
    trusts = signed_versions(repo, root, positions, look.verify_ssh, trust)
    objects = repo.intact()
    ground = look.ground(trusts, positions, objects is not None)
    facts, edge = Facts(), Edge()
    commits: list[str] = []
    broken: Finding | None = None
    if tips.evidence is None:
        what = "there is no evidence"
        rule = rule_of("evidence-missing")
        findings.append(Finding("evidence-missing", "", root.refs.evidence, rule, what))
    else:
        commits, broken = _readable(repo, tips.evidence)
        if broken is None or since is not None:
            last, begin = _begin(repo, commits, since, trusts)
        else:
            findings.append(broken)
            last, begin = _begin_after(repo, commits)
        facts, found, edge = segments.walk(repo, ground, begin, last, _after(commits, last), look.progress)
        findings += found
    past = None
    if since is not None and last is not None and not facts.restarts:
        # What a restart vouches for may be older: then main is judged from genesis, as far as that goes.
        with suppress(Refused, Invalid):  # neither then, if events before there cannot be read
            past = past_at(repo, root.refs.evidence, positions, last, begin)
        if past is not None:
            walked, facts = facts, facts_of(past, begin)
            facts.join(walked)
    history = look.history(ground, facts, edge, past)
    # What this program does not know may be the reason of anything on main: that it does not is what it says.
    unknown = any(one.code == UNKNOWN for one in findings)
    found, refused = _audit(history) if not unknown else ([], [])
    if broken is not None or (since is not None and past is None):
        found = [finding for finding in found if finding.code not in NEEDS_ALL_EVIDENCE]
    findings += found
    if run is not None:
        if run not in facts.run_ids and not unknown:
            raise Invalid("run-not-found", f"there is no run {run}", cure="list them with `lockgate runs`")
        findings = [f for f in findings if f"/{run}/" in f.path or not f.path or f.code == UNKNOWN]
    unique = tuple(dict.fromkeys(_in_order(findings, positions, commits)))
    report = _report(history, len(commits), refused, unique)
    return report, past_of(history, report, trust, objects)


def _go_on(look: _Look, past: Past, notice: Callable[[str], None] | None) -> Told | None:
    """The answer and what it leaves, from what came after a verified past; None when it takes a whole walk: the
    branches do not hold that past, an object that was written since is damaged, or what came after is not clean.
    Raises as reading does."""
    repo, root, tips = look.repo, look.root, look.tips
    objects = repo.intact(past.objects)
    if objects is None:
        return None
    lines = [
        (tips.main, past.main, root.refs.main),
        (tips.evidence, past.evidence, root.refs.evidence),
        (tips.requests, past.requests, root.refs.requests),
    ]
    after: list[list[str]] = []
    for tip, end, ref in lines:
        fresh = repo.chain_after(tip, end) if tip is not None and end is not None else None
        if fresh is None and end is not None:
            if notice is not None:
                notice(f"{ref} does not hold {end[:12]}, which was verified before")
            return None
        if fresh is None and tip is not None:
            return None  # the first requests: their branch may have begun on main, which takes all of main to tell
        after.append(fresh or [])
    main, evidence, _ = after
    positions = {oid: place for place, oid in enumerate([past.main, *main])}
    trust: list[str] = []
    trusts = signed_versions(repo, root, [*past.trust, *main], look.verify_ssh, trust)
    ground = look.ground(trusts, positions, intact=True)
    begin = edge_at(repo, past.evidence)
    facts = facts_of(past, begin)
    facts.entries, facts.runs = past.entries, past.runs
    found, findings, edge = segments.walk(repo, ground, begin, past.evidence, evidence, look.progress)
    moved = any(move.previous not in positions for move, _ in found.moves)
    if found.restarts or moved or not found.acknowledged.keys() <= positions.keys():
        return None  # what was judged before may count differently now
    facts.join(found)
    history = look.history(ground, facts, edge, past)
    problems, refused = _audit(history)
    if findings or problems or history.judged is None:
        return None
    report = _report(history, past.commits + len(evidence), refused, ())
    return report, past_of(history, report, trust, objects)


def _audit(history: History) -> Answer:
    """What rules over more than one branch or entry say."""
    findings = _pinned_checkpoint(history.repo, history.root, history.tips.evidence)
    refused: list[RefusedCommit] = []
    for check in HISTORY_CHECKS:
        found, listed = check(history)
        findings += found
        refused += listed
    return findings, refused


def _report(
    history: History, commits: int, refused: list[RefusedCommit], findings: tuple[Finding, ...]
) -> VerifyReport:
    facts, refs, past = history.facts, history.root.refs, history.past
    removed = [RefusedCommit(oid, refs.evidence, *REMOVED) for oid in facts.repaired]
    order = {ref: place for place, ref in enumerate((refs.main, refs.requests, refs.evidence))}
    before = past.refused if past is not None else ()
    listed = sorted((*before, *refused, *removed), key=lambda one: order.get(one.ref, len(order)))
    said = history.time.text if history.time is not None else "not time-anchored"
    return VerifyReport(not findings, commits, facts.entries, facts.runs, tuple(listed), findings, said)


def _ahead(repo: Repo, tip: str | None, now: datetime) -> Finding | None:
    """The first of the commits at the branch's end that are dated after `now`, by a clock that is not the
    controller's: entries bear their commits' times, and times never go back."""
    found: list[Commit] = []
    with suppress(Refused):
        while tip is not None and (commit := repo.commit(tip)).committer.at > now + SKEW:
            found.append(commit)
            tip = commit.parents[0] if commit.parents else None
    if not found:
        return None
    first = found[-1]
    at = f"{first.committer.at:%Y-%m-%d %H:%M:%S}Z"
    text = f"{len(found)} entries, from {at} on, are ahead of this machine's clock, {now:%Y-%m-%d %H:%M:%S}Z"
    return Finding("clock-skew", first.id, "", rule_of("clock-skew"), text)


def _pinned_checkpoint(repo: Repo, root: TrustRoot, tip: str | None) -> list[Finding]:
    """The log reaches the size that the trust root pins, and has the pinned root there."""
    code, what = "checkpoint-mismatch", pinned_fault(repo, root, tip)
    return [Finding(code, tip or "", CHECKPOINT, rule_of(code), what)] if what else []


def _in_order(findings: list[Finding], main: dict[str, int], evidence: list[str]) -> list[Finding]:
    """Main first, then evidence, each in the order of its commits; other commits at the end."""
    places: dict[str, tuple[int, int]] = {oid: (1, place) for place, oid in enumerate(evidence)}
    places |= {oid: (0, place) for oid, place in main.items()}
    return sorted(findings, key=lambda f: (places.get(f.commit, (2, 0)), f.path, f.code, f.message))


def _begin(
    repo: Repo, commits: list[str], since: str | None, trusts: Mapping[int, Sequence[TrustState]]
) -> tuple[str | None, Edge]:
    """Where the walk begins, and the edge there: at `since`, or before it where a push ended. At a commit of
    somebody else, which was removed again, nothing ended."""
    if since is None:
        return None, Edge()
    found = [oid for oid in commits if oid.startswith(since)]
    if len(found) != 1:
        cure = "see its commits with: git log lockgate/evidence"
        raise Invalid("commit-not-found", f"{since} names no commit of the evidence branch", cure=cure)
    place = commits.index(found[0])
    for oid in reversed(commits[max(0, place - MOST_BACK) : place + 1]):
        with suppress(LockgateError):
            commit = repo.commit(oid)
            if commit.key is not None and controls(chain(*trusts.values()), commit.key, commit.committer.at):
                return oid, edge_at(repo, oid)
    if place < MOST_BACK:
        return None, Edge()  # it stands in the first push
    raise Invalid(
        "commit-not-found",
        f"verification cannot begin after {since}: no tree before it says where the log stood",
        cure="leave --since out",
    )


def _readable(repo: Repo, tip: str) -> tuple[list[str], Finding | None]:
    """The commits from the tip down to the first that cannot be read, oldest first, and what is wrong there."""
    try:
        return repo.chain(tip), None
    except Refused:
        found: list[str] = []
        at: str | None = tip
    while at is not None:
        try:
            parents = repo.commit(at).parents
        except Refused as error:
            what = "evidence before here cannot be read, and nothing that rests on it was judged"
            said = _finding(error, at)
            return found[::-1], Finding(said.code, at, said.path, said.rule, f"{said.message}: {what}")
        found.append(at)
        at = parents[0] if parents else None
    return found[::-1], None


def _begin_after(repo: Repo, commits: list[str]) -> tuple[str | None, Edge]:
    """Where the walk can begin in a branch whose start cannot be read: the first commit whose tree says
    everything. What stands before it is not verified, which the finding about the damage covers."""
    for oid in commits:
        try:
            return oid, edge_at(repo, oid)
        except LockgateError:
            continue
    return (commits[-1], Edge()) if commits else (None, Edge())


def _after(commits: list[str], last: str | None) -> list[str]:
    return commits if last is None else commits[commits.index(last) + 1 :]


def _path(error: LockgateError) -> str:
    return error.where if "/" in error.where and " " not in error.where else ""


def _finding(error: LockgateError, commit: str) -> Finding:
    return Finding(
        error.code, commit, _path(error), rule_of(error.code), f"{error.what} ({error.got or error.where})"
    )
