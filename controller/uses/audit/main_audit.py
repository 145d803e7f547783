"""Main, judged again from genesis by the controller's own code, and compared with what evidence says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from controller.core.accept import MainState, Terms, genesis_state, judge_main, resume_state
from controller.core.pathrules import LOCK
from controller.core.steps import UNBACKED, Step
from controller.core.trust import CONTROLLER, TrustState
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger.backing import lock_of
from controller.ledger.canonical import digest
from controller.ledger.fold import LockRecord
from controller.uses.acknowledged import ACKNOWLEDGED, told
from controller.uses.audit.findings import Finding, RefusedCommit, rule_of
from controller.uses.audit.object_audit import unreadable
from controller.uses.audit.observation import Observation
from controller.uses.audit.walked import Facts
from controller.uses.audit.whole_history import Answer, History
from controller.uses.slots import slots_of


class FactsBacking:
    """What the walked evidence says about the controller's own commits on main, and what came `before` it.

    Of the past only each release's last lock counts, and of reverts those of the environments' last runs: no
    controller asks for others.
    """

    def __init__(self, facts: Facts, before: Callable[[str], LockRecord | None]) -> None:
        self._locks = {(path, sha256) for path, sha256, _ in facts.locks}
        self._reverts = facts.reverts
        self._before = before

    def lock(self, path: str, sha256: str) -> bool:
        """Whether an entry records a lock of this path with these bytes (hex SHA-256)."""
        if (path, f"sha256:{sha256}") in self._locks:
            return True
        record = self._before(path)
        return record is not None and (record.path, record.sha256) == (path, f"sha256:{sha256}")

    def revert(self, run: str, path: str, blob: str | None) -> bool:
        """Whether the sealed run orders this slot back to this blob (None: removed)."""
        return (run, path) in self._reverts and self._reverts[run, path] == blob


def judge(history: History) -> MainState:
    """Main from genesis, or from where the verified past ends. Raises what keeps it from being judged."""
    repo, root, facts, past, tip = history.repo, history.root, history.facts, history.past, history.tips.main
    if tip is None:
        raise Refused("main-rewound", "main is gone")
    state = genesis_state(repo, root) if past is None else resume_state(repo, past.main)
    seen = Observation(repo, facts, history.ground.main, None if past is None else past.main)
    terms = Terms(
        root.project,
        root.refs.main,
        history.verify_ssh,
        acknowledged={one.commit: one.code for one in facts.acknowledged.values()},
        observed=seen,
    )
    return judge_main(repo, state, tip, FactsBacking(facts, partial(_recorded, history)), terms)


def audit_main(history: History) -> Answer:
    """Judge main; a refusal that evidence records is listed, every other one is a finding."""
    repo, facts, past, tip = history.repo, history.facts, history.past, history.tips.main
    if tip is None:
        return [Finding("main-rewound", "", "", rule_of("main-rewound"), "main is gone")], []
    try:
        trust = resume_state(repo, history.begin).trust
        judged = history.judged or judge(history)
    except LockgateError as error:
        return [Finding(error.code, tip, "", rule_of(error.code), f"{error.what} ({error.got})")], []
    findings: list[Finding] = []
    refused: list[RefusedCommit] = []
    for step in judged.steps:
        if step.refused is None:
            findings += _unfounded(step, facts)
            continue
        stood = facts.acknowledged.get(step.commit)
        if stood is not None and stood.code == step.refused:
            refused.append(RefusedCommit(step.commit, history.root.refs.main, ACKNOWLEDGED, told(stood)))
        elif step.commit in facts.refused:
            refused.append(RefusedCommit(step.commit, history.root.refs.main, step.refused, step.message))
        else:
            path = step.changes[0].path if len(step.changes) == 1 else ""
            findings.append(Finding(step.refused, step.commit, path, rule_of(step.refused), step.message))
    findings += compare(history, history.begin, trust, judged)
    if past is not None:
        findings += _locked_before(history, judged)
    fresh = () if past is not None else (history.root.genesis,)
    findings += unreadable(repo, (*fresh, *(step.commit for step in judged.steps)))
    return findings, refused


def _unfounded(step: Step, facts: Facts) -> list[Finding]:
    """A commit that the rules allow is not kept out. What evidence backs may have come to be backed later."""
    code, oid = facts.refused.get(step.commit, ("", ""))
    if not code or code in UNBACKED:
        return []
    text = f"evidence refuses {step.commit[:12]} as {code}, and the rules allow it"
    return [Finding("refusal-unfounded", oid, "", "main 6", text)]


def _recorded(history: History, path: str) -> LockRecord | None:
    """The lock that the verified past recorded for a lock file's release."""
    return lock_of(history.repo, history.past.evidence if history.past is not None else None, path)


def compare(history: History, start: str, trust: TrustState, judged: MainState) -> list[Finding]:
    """What evidence says of main against main as it was judged from `start`, an accepted commit, whose `trust`
    was in force then. `history.ground.main` holds first-parent commits from there on at least."""
    accepted = {start} | {step.commit for step in judged.newly}
    findings = _observations(history, accepted)
    findings += _moves(history, judged, accepted)
    findings += _versions(history, trust, judged)
    findings += _locks(history, judged.accepted)
    return findings


def _observations(history: History, accepted: set[str]) -> list[Finding]:
    """What evidence acted on is accepted main, and acceptance only moves on."""
    facts, positions = history.facts, history.ground.main
    findings = []
    last = -1
    for tip, oid in facts.accepted:
        if tip not in accepted:
            text = f"evidence accepts {tip[:12]}, which the rules refuse or main does not hold"
            findings.append(Finding("main-not-accepted", oid, "", rule_of("main-not-accepted"), text))
        elif positions[tip] < last:
            text = f"evidence accepts {tip[:12]}, older than what was accepted before"
            findings.append(Finding("main-rewound", oid, "", rule_of("main-rewound"), text))
        last = max(last, positions.get(tip, -1))
    for (main, _), oid in facts.observed.items():
        if main not in accepted:
            text = f"an entry was made from {main[:12]}, which is not accepted main"
            findings.append(Finding("main-not-accepted", oid, "", rule_of("main-not-accepted"), text))
    return findings


def _moves(history: History, judged: MainState, accepted: set[str]) -> list[Finding]:
    """What evidence says that main brought, step by step, is what it brought: above all the promotions."""
    positions, findings = history.ground.main, []
    for move, oid in history.facts.moves:
        previous = move.previous or ""
        if previous not in accepted or move.tip not in accepted:
            continue  # found above
        first, last = positions[previous], positions[move.tip]
        steps = [step for step in judged.newly if first < positions[step.commit] <= last]
        cured = tuple(commit for step in steps for commit in step.cured)
        said = (move.commits, move.cured, move.slots)
        brought = [slots_of(history.repo, previous, move.tip, steps)]
        for place in _restarts(history, first, last):
            # What landed before a restart of evidence is not promoted again.
            after = [step for step in steps if positions[step.commit] > place[0]]
            brought.append(slots_of(history.repo, place[1], move.tip, after))
        if said not in [(len(steps), cured, slots) for slots in brought]:
            text = f"main brought other promotions to {move.tip[:12]} than evidence says"
            findings.append(Finding("slots-mismatch", oid, "", rule_of("slots-mismatch"), text))
    return findings


def _restarts(history: History, first: int, last: int) -> list[tuple[int, str]]:
    """The commits of main, with their places after `first` up to `last`, up to which restarts vouch for it."""
    ends = (detail.restart.main for detail, _, _, _ in history.facts.restarts)
    places = [(history.ground.main.get(end, -1), end) for end in ends]
    return [place for place in places if first < place[0] <= last]


def _versions(history: History, first: TrustState, judged: MainState) -> list[Finding]:
    """Entries name the trust version of the main they were made from, and its keys signed them."""
    facts = history.facts
    trusts: dict[int, TrustState] = {first.version: first}
    changes: list[tuple[int, int]] = [(0, first.version)]
    for step in judged.newly:
        if step.refused is None and step.new_trust is not None:
            trusts[step.new_trust.version] = step.new_trust
            changes.append((history.ground.main[step.commit], step.new_trust.version))
    findings = []
    for (main, version), oid in facts.observed.items():
        position = history.ground.main.get(main, -1)
        expected = max((v for place, v in changes if place <= position), default=first.version)
        if version != expected:
            text = f"trust version {version} is not that of main {main[:12]}, which is {expected}"
            findings.append(Finding("observed-unknown", oid, "", rule_of("observed-unknown"), text))
    for (key, version), (oid, path) in facts.keys.items():
        if not _is_controllers(trusts, key, version):
            text = f"signed by a key that is not the controller's in accepted trust version {version}"
            findings.append(Finding("foreign-evidence", oid, path, rule_of("foreign-evidence"), text))
    return findings


def _is_controllers(trusts: Mapping[int, TrustState], key: str, version: int) -> bool:
    trust = trusts.get(version)
    owner = trust.owner_of(key) if trust is not None else None
    return trust is not None and owner is not None and trust.holds(owner, CONTROLLER)


def _locks(history: History, accepted: str) -> list[Finding]:
    """A lock file on accepted main equals the lock that evidence recorded."""
    findings = []
    for path, (sha256, oid) in {path: (sha256, oid) for path, sha256, oid in history.facts.locks}.items():
        try:
            file = history.repo.file(accepted, path)
            if file is not None and digest(history.repo.read(file.blob)) != sha256:
                text = "the lock on main is not the one that was recorded"
                findings.append(Finding("lock-mismatch", oid, path, rule_of("lock-mismatch"), text))
        except (Refused, Invalid) as error:
            findings.append(Finding(error.code, accepted, path, rule_of(error.code), error.what))
    return findings


def _locked_before(history: History, judged: MainState) -> list[Finding]:
    """The same for the lock files that main changed since, where the lock was recorded in the past."""
    said = {path for path, _, _ in history.facts.locks}
    changed = {change.path for step in judged.newly for change in step.changes if LOCK.fullmatch(change.path)}
    findings = []
    for path in sorted(changed - said):
        file = history.repo.file(judged.accepted, path)
        record = _recorded(history, path)
        if file is None:
            continue
        if record is None or (record.path, record.sha256) != (path, digest(history.repo.read(file.blob))):
            text = "the lock on main is not the one that was recorded"
            findings.append(Finding("lock-mismatch", judged.accepted, path, rule_of("lock-mismatch"), text))
    return findings
