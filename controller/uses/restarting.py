"""From lost evidence to a branch that goes on: what a restart on main must be, and what is recorded then."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.core.accept import MainState, Terms, judge_main, resume_state
from controller.core.parse import parse
from controller.core.restart import (
    Situation,
    Vouched,
    check_quorum,
    document_number,
    read_restart,
    restart_bytes,
    signature_of,
    unlike,
    untimely,
)
from controller.core.run import Run, fold
from controller.core.steps import Step
from controller.core.transitions import TRANSITIONS
from controller.core.trust import VerifySsh
from controller.errors import LockgateError, Refused, printable
from controller.ledger.append import Ledger, genesis_draft
from controller.ledger.backing import EvidenceBacking
from controller.ledger.canonical import digest
from controller.model.documents import ReleaseLock
from controller.model.entry import (
    Accepted,
    Actor,
    Control,
    Draft,
    EvidenceRestarted,
    MainRefused,
    Observed,
    What,
    When,
    Wire,
)
from controller.model.restart import (
    RESTART_FOLDER,
    Restart,
    RestartProof,
    VouchedCommit,
    VouchedLock,
    VouchedRevert,
    restart_path,
)
from controller.model.trustroot import TrustRoot
from controller.model.words import counted
from controller.ports import Repo
from controller.uses.pinned import pinned_fault
from controller.uses.slots import slots_of

RESTARTED = "evidence-restarted"
_CONTROLLER = Actor(principal="controller")


@dataclass(frozen=True, slots=True)
class Begun:
    """A restart that holds: the document, the owners' signatures, and main as it is judged with it."""

    restart: Restart
    signatures: Mapping[str, str]
    owners: frozenset[str]
    main: MainState


class Surviving(EvidenceBacking):
    """What surviving evidence says of the controller's commits on main."""

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Whether surviving evidence is known to order this revert: no; what is not accepted yet came later."""
        return False


@dataclass(slots=True)
class Asking:
    """A backing that says yes and remembers to what: the controller's commits that owners are to vouch for."""

    evidence: Surviving
    locks: dict[str, str] = field(default_factory=dict)
    reverts: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def lock(self, path: str, sha256: str) -> bool:
        """Yes; what evidence does not say is kept."""
        if not self.evidence.lock(path, sha256):
            self.locks[path] = sha256
        return True

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Yes, and kept."""
        self.reverts[run, path] = blob
        return True


def situation(root: TrustRoot, ledger: Ledger, remembered: str | None) -> Situation:
    """What there is, of the project and of its log, when the branch's tip is that of `ledger`."""
    size = ledger.log.size
    return Situation(
        project=root.project,
        genesis=root.genesis,
        evidence=ledger.commit,
        size=size,
        root=base64.b64encode(ledger.log.root).decode() if size else "",
        restarts=ledger.state.cursors.restarts,
        remembered=remembered,
    )


def newest_restart(repo: Repo, main: str) -> int | None:
    """The number of the newest restart that a commit of main holds."""
    numbers = [document_number(path) for path, _ in repo.files(main, f"{RESTART_FOLDER}/")]
    return max((number for number in numbers if number is not None), default=None)


def begin(
    repo: Repo, root: TrustRoot, ledger: Ledger, seen: Situation, tip: str, verify_ssh: VerifySsh, now: datetime
) -> Begun:
    """The restart that main holds for this situation, by which `ledger` may go on.

    Raises Refused: "restart-missing", "restart-mismatch" when it names another situation or breaks what the trust
    root pins, "restart-unsigned", and "restart-not-accepted" when main is not accepted with it. Invalid
    ("restart-malformed").
    """
    number = newest_restart(repo, tip)
    if number is None:
        raise Refused("restart-missing", "main holds no restart", where=f"{RESTART_FOLDER}/")
    restart = _document(repo, tip, number)
    wrong = unlike(restart, seen) or untimely(restart, now)
    if not wrong and ledger.commit is None and root.checkpoint is not None:
        wrong = f"the trust root pins a log of {root.checkpoint.size} entries, and none is left"
    wrong = wrong or (pinned_fault(repo, root, ledger.commit) if ledger.commit is not None else "")
    if wrong:
        raise _mismatch(number, wrong)
    main = judge(repo, root, ledger, restart, tip, verify_ssh, now)
    if main.accepted == (ledger.state.cursors.main or root.genesis) or _document_at(repo, main, number) != restart:
        stuck = main.refused[0] if main.refused else None
        raise Refused(
            "restart-not-accepted",
            "main is not accepted up to the restart",
            where=f"main at {(stuck.commit if stuck else tip)[:12]}",
            expected=f"{restart_path(number)} on accepted main",
            got=f"{stuck.refused}: {stuck.message}" if stuck else "another file there",
            cure="sign a restart that vouches for what main holds: `lockgate trust restart`",
        )
    if restart.main not in {step.commit for step in main.newly} | {ledger.state.cursors.main, root.genesis}:
        raise _mismatch(number, f"main does not hold {restart.main[:12]} as accepted")
    signatures = signatures_at(repo, main.accepted, number)
    owners = check_quorum(restart, signatures, main.trust, verify_ssh, now)
    return Begun(restart, signatures, owners, main)


def judge(
    repo: Repo, root: TrustRoot, ledger: Ledger, restart: Restart, tip: str, verify_ssh: VerifySsh, now: datetime
) -> MainState:
    """Main from where surviving evidence accepted it, with what a restart vouches for."""
    backing = Vouched.of(Surviving(repo, ledger), restart.locks, restart.reverts)
    return judge_main(repo, _start(repo, root, ledger), tip, backing, _terms(root, verify_ssh, now, restart))


def propose(
    repo: Repo,
    root: TrustRoot,
    ledger: Ledger,
    tips: tuple[str, str | None],
    said: tuple[str, str | None, Mapping[str, str]],
    verify_ssh: VerifySsh,
    now: datetime,
) -> tuple[Restart, MainState]:
    """A restart for what there is: `tips` are those of main and requests, `said` the reason, the lost tip, and the
    refused commits of main (with their codes) that owners had let stand. With it, main as it is judged then."""
    asking = Asking(Surviving(repo, ledger))
    seen = situation(root, ledger, None)
    reason, lost, stood = said
    terms = _terms(root, verify_ssh, now, None, stood)
    main = judge_main(repo, _start(repo, root, ledger), tips[0], asking, terms)
    held = {change.path for step in main.newly for change in step.changes}
    locks = [
        vouched_lock(repo, main.accepted, path, sha) for path, sha in sorted(asking.locks.items()) if path in held
    ]
    number = (newest_restart(repo, main.accepted) or ledger.state.cursors.restarts) + 1
    restart = Restart(
        number=number,
        project=root.project,
        genesis=root.genesis,
        trust_version=main.trust.version,
        evidence=ledger.commit,
        size=seen.size,
        root=seen.root,
        lost=lost,
        main=main.accepted,
        requests=tips[1],
        locks=tuple(locks),
        reverts=tuple(
            VouchedRevert(run=run, path=path, blob=blob)
            for (run, path), blob in sorted(asking.reverts.items())
            if path in held
        ),
        acknowledged=tuple(VouchedCommit(commit=commit, code=code) for commit, code in sorted(stood.items())),
        reason=reason,
        at=now,
    )
    return restart, main


def drafts(repo: Repo, root: TrustRoot, ledger: Ledger, begun: Begun, now: datetime) -> list[Draft]:
    """What a restarted branch records first: how it goes on, what of main is accepted, and that open runs hold.

    Nobody knows what became of runs that were open at the last surviving entry, so people say how they go on. What
    was promoted before the restart is not promoted again.
    """
    restart, main = begun.restart, begun.main
    observed = Observed(main=main.accepted, requests=restart.requests, trust_version=main.trust.version)
    value = digest(restart_bytes(restart))
    found: list[Draft] = []
    if ledger.commit is None:
        refs = {"main": root.refs.main, "requests": root.refs.requests, "evidence": root.refs.evidence}
        first = genesis_draft(root.project, root.genesis, refs, now)
        detail = first.detail.model_copy(update={"restart": value})
        found.append(first.model_copy(update={"observed": observed, "detail": detail}))
    who = tuple(Actor(principal=name) for name in sorted(begun.owners))
    from_ = restart.evidence[:12] if restart.evidence else "nothing"
    text = f"Evidence goes on from {from_}, signed by {', '.join(sorted(begun.owners))}: {restart.reason}"
    signed = {name: begun.signatures[name] for name in sorted(begun.owners)}
    detail = EvidenceRestarted(restart=restart, digest=value, signatures=signed)
    found.append(_event(RESTARTED, detail, "RESTARTED", text, now, observed, who))
    found += [_refused(step, now, observed) for step in main.newly if step.refused is not None]
    found.append(_accepted(repo, root, ledger, begun, now, observed))
    for entries in ledger.open_entries.values():
        run = fold(entries)
        if (run.phase, "paused") in TRANSITIONS:
            found.append(_paused(ledger, run, restart.number, now, observed))
    return found


def _accepted(
    repo: Repo, root: TrustRoot, ledger: Ledger, begun: Begun, now: datetime, observed: Observed
) -> Draft:
    restart, main = begun.restart, begun.main
    places = {step.commit: place for place, step in enumerate(main.newly)}
    after = main.newly[places.get(restart.main, -1) + 1 :]
    stood = {one.commit for one in restart.acknowledged}
    detail = Accepted(
        previous=ledger.state.cursors.main or root.genesis,
        tip=main.accepted,
        commits=len(main.newly),
        cured=tuple(commit for step in main.newly for commit in step.cured),
        acknowledged=tuple(step.commit for step in main.newly if step.commit in stood),
        slots=slots_of(repo, restart.main, main.accepted, after),
    )
    text = f"main: accepted {main.accepted[:8]}, {counted(len(main.newly), 'commit')}"
    return _event("accepted", detail, "ACCEPTED", text, now, observed)


def _refused(step: Step, now: datetime, observed: Observed) -> Draft:
    detail = MainRefused(
        commit=step.commit,
        code=step.refused or "",
        message=step.message,
        paths=tuple(printable(change.path) for change in step.changes),
        signer=step.signer,
    )
    who = (Actor(principal=step.signer),) if step.signer else ()
    text = f"main: {step.commit[:8]} refused, {step.refused}"
    return _event("main-refused", detail, "REFUSED", text, now, observed, who)


def _event(
    kind: str,
    detail: Wire,
    result: str,
    summary: str,
    now: datetime,
    observed: Observed,
    who: Sequence[Actor] = (_CONTROLLER,),
) -> Draft:
    return Draft(
        kind=kind,
        run=None,
        environment=None,
        at=now,
        observed=observed,
        result=result,
        summary=summary,
        who=tuple(who),
        what=What(),
        when=When(decided=now),
        detail=detail,
    )


def _paused(ledger: Ledger, run: Run, number: int, now: datetime, observed: Observed) -> Draft:
    opened = ledger.state.open_run(run.id)
    reason = f"evidence was lost, and went on by restart {number}: nobody knows what became of this run"
    return Draft(
        kind="control",
        run=run.id,
        environment=run.environment,
        at=now,
        observed=observed,
        result="PAUSED",
        summary=f"{run.environment}: {run.opened.release} paused: {reason}",
        who=(_CONTROLLER,),
        what=What(
            release=run.opened.release,
            manifest_digest=run.inputs.manifest_digest if run.inputs is not None else None,
            environment=run.environment,
            targets=run.inputs.targets if run.inputs is not None else (),
            digests=opened.digests if opened is not None else {},
        ),
        why={"code": RESTARTED},
        when=When(decided=now),
        detail=Control(verb="paused", request=None, by="controller", reason=reason, code=RESTARTED),
    )


def _start(repo: Repo, root: TrustRoot, ledger: Ledger) -> MainState:
    cursors = ledger.state.cursors
    return resume_state(repo, cursors.main or root.genesis, cursors.trust_version or None)


def _terms(
    root: TrustRoot,
    verify_ssh: VerifySsh,
    now: datetime,
    restart: Restart | None,
    stood: Mapping[str, str] | None = None,
) -> Terms:
    vouched = {one.commit: one.code for one in restart.acknowledged} if restart is not None else dict(stood or {})
    at = now.replace(microsecond=0)
    return Terms(root.project, root.refs.main, verify_ssh, acknowledged=vouched, observed=lambda _: at)


def vouched_lock(repo: Repo, main: str, path: str, sha256: str) -> VouchedLock:
    """What owners vouch for by naming a lock file of main with these bytes (hex SHA-256)."""
    file = repo.file(main, path)
    document = parse(path, repo.read(file.blob)).document if file is not None else None
    if not isinstance(document, ReleaseLock):
        raise Refused("lock-unbacked", "a lock on main does not read", where=path, cure="take it back first")
    release = path.rpartition("/")[2].removesuffix(".lock.yaml")
    return VouchedLock(
        release=release,
        path=path,
        manifest_digest=document.spec.manifest_digest,
        sha256=f"sha256:{sha256}",
        components={name: one.digest for name, one in document.spec.components.items()},
    )


def _document(repo: Repo, commit: str, number: int) -> Restart:
    path = restart_path(number)
    file = repo.file(commit, path)
    if file is None or file.mode != 0o100644:
        raise Refused("restart-missing", "main holds no such restart", where=path)
    return read_restart(repo.read(file.blob), path)


def _document_at(repo: Repo, main: MainState, number: int) -> Restart | None:
    try:
        return _document(repo, main.accepted, number)
    except LockgateError:
        return None


def restart_proof(repo: Repo, commit: str, number: int) -> RestartProof:
    """A restart that a commit of main holds, as agents are shown it. Raises Refused, Invalid."""
    return RestartProof(restart=_document(repo, commit, number), signatures=signatures_at(repo, commit, number))


def signatures_at(repo: Repo, commit: str, number: int) -> dict[str, str]:
    """The signatures over a restart that a commit's tree holds, by principal."""
    found: dict[str, str] = {}
    for path, file in repo.files(commit, f"{RESTART_FOLDER}/{number}/"):
        names = signature_of(path)
        if names is not None and names[0] == number:
            found[names[1]] = repo.read(file.blob).decode("ascii", "replace")
    return found


def _mismatch(number: int, why: str) -> Refused:
    return Refused(
        "restart-mismatch",
        f"restart {number} does not fit what is lost: {why}",
        where=restart_path(number),
        cure="have owners sign one that does: `lockgate trust restart`",
    )
