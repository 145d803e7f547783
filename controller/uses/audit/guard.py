"""Judging a push before it lands, by the rules that `verify` judges history by afterwards.

One implementation of each rule, three callers: the controller while it runs, `verify` afterwards, and this before.
What a push adds is judged on top of what stands; what stands is not judged again. The clock is that of the push.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property

from controller.core.accept import MainState, Step, Terms, genesis_state, judge_main, other_project, resume_state
from controller.core.incoming import RefUpdate, check_names
from controller.core.trust import TrustState
from controller.errors import LockgateError, Refused
from controller.ledger import fold
from controller.ledger.append import Ledger
from controller.ledger.backing import EvidenceBacking
from controller.model.history import Tips
from controller.model.places import TRUST_PATH
from controller.model.trustroot import TrustRoot
from controller.ports import Repo
from controller.uses.asked import judge_asked, read_asked
from controller.uses.audit.coming import Coming, Means, TrustCommits, TrustMemory
from controller.uses.audit.findings import Finding
from controller.uses.audit.object_audit import unreadable
from controller.uses.own import Line, cursors_at, line
from controller.uses.trust_chain import signed_versions

_TAKE_BACK = ("take it back", "revert it", "restore it")
_BY_CONTROLLER = "nothing landed: only the controller writes evidence, and with the origin's version of Lockgate"
_ANEW = "nothing landed: make the commits anew as the rules ask, and push again"


def guard(
    repo: Repo, root: TrustRoot, updates: Sequence[RefUpdate], means: Means, now: datetime
) -> tuple[Refused, ...]:
    """Why a push may not land; nothing when it may.

    `repo` holds the objects that the push brings, its refs are still as they stand. Raises what keeps the push
    from being judged: then it may not land either.
    """
    refused, rest = check_names(updates, root.refs)
    if refused or not rest:
        return refused
    incoming = {update.ref: update for update in rest}
    judging = _Push(repo, root, incoming, means, now)
    return tuple(error for ref in incoming for error in judging.judge(ref))


def prime(repo: Repo, root: TrustRoot, means: Means) -> None:
    """See that the repository is the trust root's, and remember where trust changed, so that the first push need
    not walk history. Raises Refused("genesis-mismatch")."""
    genesis_state(repo, root)
    main = repo.observe().main
    if main is not None:
        _trust_commits(repo, root, main, means.memory)


class _Push:
    """One push on top of what stands."""

    def __init__(
        self, repo: Repo, root: TrustRoot, incoming: dict[str, RefUpdate], means: Means, now: datetime
    ) -> None:
        self._repo, self._root, self._means = repo, root, means
        self._now = now.replace(microsecond=0)
        self._incoming = incoming
        self._before = repo.observe()
        self._genesis = genesis_state(repo, root)

    def judge(self, ref: str) -> list[Refused]:
        refs, update = self._root.refs, self._incoming[ref]
        judged = {refs.main: self._judge_main, refs.requests: self._judge_requests}
        try:
            return judged.get(ref, self._judge_evidence)(update)
        except Refused as error:
            return [error]

    # -- what stands, and what it becomes ------------------------------------------------------------------

    @cached_property
    def _after(self) -> Tips:
        """The tips when the push has landed."""
        refs, before = self._root.refs, self._before

        def tip(ref: str, now: str | None) -> str | None:
            return self._incoming[ref].new if ref in self._incoming else now

        return Tips(
            main=tip(refs.main, before.main),
            requests=tip(refs.requests, before.requests),
            evidence=tip(refs.evidence, before.evidence),
        )

    @cached_property
    def _trusts(self) -> dict[int, tuple[TrustState, ...]]:
        """Every signed trust version on main as it will stand."""
        repo, root, before, after = self._repo, self._root, self._before.main, self._after.main
        commits: list[str] = []
        if before is not None:
            commits += _trust_commits(repo, root, before, self._means.memory)
        if after is not None and after != before:
            if before is not None and not _leads(repo, after, before):
                commits = _from_genesis(repo, root, after)
            else:
                commits += [commit.id for commit in repo.first_parents(after, before)]
        return signed_versions(repo, root, commits, self._means.verify_ssh)

    @cached_property
    def _line(self) -> Line:
        """The evidence that stands, as far as it is the controller's."""
        tip = self._before.evidence
        return line(self._repo, self._trusts, tip, self._now) if tip is not None else Line(None)

    @cached_property
    def _start(self) -> MainState:
        """Main where the evidence that stands accepted it."""
        good = self._line.good
        if good is None:
            return self._genesis
        cursors = cursors_at(self._repo, good)
        if cursors.main is None:
            return self._genesis
        state = resume_state(self._repo, cursors.main, cursors.trust_version or None)
        if state.trust.sha256 not in {known.sha256 for known in self._trusts.get(state.trust.version, ())}:
            raise Refused(
                "trust-quorum",
                "the accepted tip's trust document does not follow from genesis",
                where=f"commit {cursors.main[:12]} {TRUST_PATH}",
                expected="a chain of versions signed by their owners",
                got="no such chain",
                cure="run `lockgate verify`",
            )
        return state

    def _main(self, evidence: str | None) -> MainState:
        """Main judged up to its coming tip, backed by the evidence at a commit of the controller."""
        assert self._after.main is not None
        ledger = Ledger()
        if evidence is not None:
            ledger = Ledger(evidence, fold.load_state(self._repo, evidence))
        cursors = ledger.state.cursors
        terms = Terms(
            self._root.project,
            self._root.refs.main,
            self._means.verify_ssh,
            acknowledged={one.commit: one.code for one in (*cursors.let_stand, *cursors.acknowledged)},
            observed=lambda _: self._now,
        )
        backing = EvidenceBacking(self._repo, ledger)
        return judge_main(self._repo, self._start, self._after.main, backing, terms)

    @cached_property
    def _main_now(self) -> MainState:
        evidence = self._incoming.get(self._root.refs.evidence)
        return self._main(evidence.new if evidence is not None else self._line.good)

    # -- the three branches --------------------------------------------------------------------------------

    def _judge_main(self, update: RefUpdate) -> list[Refused]:
        repo = self._repo
        assert update.new is not None
        fresh = self._fresh(update.new, update.old or self._root.genesis)
        judged = self._main_now
        refused = [
            _of_step(step, update.ref)
            for step in judged.steps
            if step.commit in fresh and step.refused is not None
        ]
        return refused or _of_findings(unreadable(repo, fresh), update.ref)

    def _fresh(self, new: str, old: str) -> list[str]:
        """The first-parent commits that a push adds to main. Where main was rewritten behind the hook's back, the
        accepted commit counts instead of what stands: that line may be pushed back."""
        repo, accepted = self._repo, self._start.accepted
        try:
            return [commit.id for commit in repo.first_parents(new, old)]
        except Refused:
            if _leads(repo, old, accepted):
                raise
            return [commit.id for commit in repo.first_parents(new, accepted)]

    def _judge_requests(self, update: RefUpdate) -> list[Refused]:
        repo = self._repo
        assert update.new is not None
        commits = _line_after(repo, update, "requests-rewound")
        if update.old is None and self._after.main is not None:
            main = set(repo.chain(self._after.main))
            commits = [oid for oid in commits if oid not in main]
        trust = self._main_now.trust if self._after.main is not None else self._start.trust
        seen = set() if update.old is None else _asked(repo, update.old)
        refused = []
        for oid in commits:
            asked = read_asked(repo, oid)
            verdict = judge_asked(repo, asked, trust, self._root.project, self._now, seen, self._after.evidence)
            if verdict.request is not None:
                seen.add(verdict.request.id)
            if not verdict.accepted:
                where = f"{update.ref} commit {oid[:12]}"
                cure = "nothing landed: ask again with `lockgate`, as somebody who may"
                refused.append(Refused(verdict.code, verdict.message, where=where, cure=cure))
        return refused

    def _judge_evidence(self, update: RefUpdate) -> list[Refused]:
        # Only the controller pushes there: nobody else waits for what this needs to be loaded.
        from controller.uses.audit.guard_evidence import evidence_findings

        assert update.new is not None
        _line_after(self._repo, update, "evidence-rewound")
        coming = Coming(
            repo=self._repo,
            root=self._root,
            means=self._means,
            tips=dataclasses.replace(self._after, evidence=update.new),
            trusts=self._trusts,
            good=self._line.good,
            start=self._start,
        )
        return _of_findings(evidence_findings(coming, lambda: self._main(update.new)), update.ref)


def _trust_commits(repo: Repo, root: TrustRoot, tip: str, memory: TrustMemory) -> list[str]:
    """The commits of main up to `tip` that change the trust document: those remembered, and those since."""
    known = memory.load()
    commits: list[str] | None = None
    if known is not None:
        try:
            commits = [commit.id for commit in repo.first_parents(tip, known.tip)]
        except LockgateError:
            known = None  # remembered of another main
    if known is None or commits is None:
        known, commits = TrustCommits(root.genesis, ()), _from_genesis(repo, root, tip)
    before = _trust_blob(repo, known.tip)
    found = list(known.commits)
    for oid in commits:
        blob = _trust_blob(repo, oid)
        if blob != before:
            found.append(oid)
        before = blob
    if tip != known.tip:
        memory.save(TrustCommits(tip, tuple(found)))
    return found


def _leads(repo: Repo, tip: str, old: str) -> bool:
    """Whether first parents lead from `tip` to `old`."""
    try:
        repo.first_parents(tip, old)
    except Refused:
        return False
    return True


def _from_genesis(repo: Repo, root: TrustRoot, tip: str) -> list[str]:
    chain = repo.chain(tip)
    if root.genesis not in chain:
        raise other_project(root, f"a main that begins with {chain[0][:12]}")
    return chain[chain.index(root.genesis) + 1 :]


def _trust_blob(repo: Repo, commit: str) -> str | None:
    try:
        file = repo.file(commit, TRUST_PATH)
    except Refused:
        return None  # judging main says what is wrong there
    return file.blob if file is not None else None


def _line_after(repo: Repo, update: RefUpdate, code: str) -> list[str]:
    """The first-parent commits that the push adds, oldest first; refused with `code` when it takes any away."""
    assert update.new is not None
    try:
        return [commit.id for commit in repo.first_parents(update.new, update.old)]
    except Refused as error:
        if error.code not in ("main-rewound", "main-not-first-parent"):
            raise
        raise Refused(
            code,
            "the push takes away or moves aside what the branch holds",
            where=update.ref,
            expected=f"first parents that lead to {(update.old or '')[:12]}",
            got=update.new[:12],
            cure="fetch, and add to what is there",
        ) from error


def _asked(repo: Repo, tip: str) -> set[str]:
    """The ids of the requests that a commit's tree holds."""
    return {path.rpartition("/")[2].removesuffix(".json") for path, _ in repo.files(tip, "requests")}


def _of_step(step: Step, ref: str) -> Refused:
    cure = _ANEW if not step.cure or step.cure.startswith(_TAKE_BACK) else f"nothing landed: {step.cure}"
    where = step.where if step.commit[:12] in step.where else f"commit {step.commit[:12]}: {step.where}"
    return Refused(
        step.refused or "", step.message, where=f"{ref} {where}", expected=step.expected, got=step.got, cure=cure
    )


def _of_findings(findings: Sequence[Finding], ref: str) -> list[Refused]:
    """Findings as refusals, each once."""
    return [
        Refused(
            finding.code,
            finding.message,
            where=" ".join(filter(None, (ref, f"commit {finding.commit[:12] or '-'}", finding.path))),
            expected=f"what the rule asks: {finding.rule}",
            got="a push that `lockgate verify` would find fault with",
            cure=_BY_CONTROLLER if "evidence" in ref else _ANEW,
        )
        for finding in dict.fromkeys(findings)
    ]
