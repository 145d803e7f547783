"""Trust rules 15 and 16 over the whole log: cosignatures, time-stamps and entries of public logs hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from controller.core.clocks import anchored_in_time
from controller.core.trust import CONTROLLER
from controller.errors import LockgateError, Refused
from controller.ledger.append import load_log
from controller.ledger.content import content_at
from controller.ledger.cosign import witnesses
from controller.ledger.cursors import Cursors
from controller.ledger.fold import CURSORS
from controller.ledger.log import Checkpoint, Tree, decode_base64, open_checkpoint
from controller.ledger.rekor import Logged, check_logged
from controller.ledger.timestamp import check_token
from controller.model.entry import Entry, Published, TimeAnchored, Witnessed, format_time
from controller.model.keys import key_id
from controller.model.order import AgentKey
from controller.uses.audit.findings import Finding, TimeMark, rule_of
from controller.uses.audit.whole_history import Answer, History
from controller.uses.rules.statement_checks import declared_at


def audit_transparency(history: History) -> Answer:
    """Every `witnessed`, `time-anchored` and `published` entry against the log that the tip holds."""
    tip = history.tips.evidence
    if tip is None or not history.facts.visible:
        return [], []
    audit = _Audit(history, tip)
    findings: list[Finding] = []
    for entry, commit in history.facts.visible:
        try:
            problems = list(audit.check(entry))
        except LockgateError as error:
            problems = [(error.code, error.said)]
        findings += [Finding(code, commit, entry.path, rule_of(code), what) for code, what in problems]
    return findings, []


class _Audit:
    def __init__(self, history: History, tip: str) -> None:
        self._history = history
        self._repo = history.repo
        self._tree = Tree(load_log(history.repo, tip).size, lambda path: content_at(history.repo, tip, path))
        self._removed = set(history.facts.repaired)
        past = history.past
        if past is None:
            self._first, commits = 0, history.repo.chain(tip)
        else:
            self._first, commits = past.entries, history.repo.chain_after(tip, past.evidence) or []
            self._removed |= {one.commit for one in past.refused}
        self._commits = [oid for oid in commits if oid not in self._removed]

    def check(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """(code, message) of whatever does not hold in one entry."""
        if isinstance(entry.detail, TimeAnchored):
            yield from self._anchored(entry, entry.detail)
        elif isinstance(entry.detail, Witnessed):
            yield from self._witnessed(entry, entry.detail)
        elif isinstance(entry.detail, Published):
            yield from self._published(entry, entry.detail)

    def _published(self, entry: Entry, detail: Published) -> Iterator[tuple[str, str]]:
        checkpoint = self._checkpoint(entry, detail.checkpoint)
        if checkpoint.size != detail.size:
            yield "rekor-entry-invalid", f"it names {detail.size} entries, its checkpoint has {checkpoint.size}"
        if self._sealed(checkpoint.size) != detail.run:
            yield "rekor-entry-invalid", f"{detail.run} is not the newest run that those entries seal"
        try:
            hashes = tuple(decode_base64(item) for item in detail.hashes)
            logged = Logged(detail.index, decode_base64(detail.body), hashes, detail.proof)
        except ValueError:
            yield "rekor-entry-invalid", "the entry is not base64"
            return
        pinned = [
            trust.document.spec.transparency_logs[detail.log]
            for trust in self._history.ground.trusts.get(entry.predicate.observed.trust_version, ())
            if detail.log in trust.document.spec.transparency_logs
        ]
        if len({log.origin for log in pinned}) != 1:
            yield "rekor-entry-invalid", f"Trust pins no log {detail.log}"
            return
        keys = [pem for log in pinned for pem in log.keys]
        submitters = self._controllers(entry).values()
        check_logged(logged, detail.checkpoint.encode(), submitters, pinned[0].origin, keys)

    def _anchored(self, entry: Entry, detail: TimeAnchored) -> Iterator[tuple[str, str]]:
        checkpoint = self._checkpoint(entry, detail.checkpoint)
        if checkpoint.size != detail.size:
            yield "time-anchor-invalid", f"it names {detail.size} entries, its checkpoint has {checkpoint.size}"
        if self._sealed(checkpoint.size) != detail.run:
            yield "time-anchor-invalid", f"{detail.run} is not the newest run that those entries seal"
        try:
            token = decode_base64(detail.token)
        except ValueError:
            yield "time-anchor-invalid", "the token is not base64"
            return
        pinned = [
            trust.document.spec.time_authorities[detail.authority].certificates
            for trust in self._history.ground.trusts.get(entry.predicate.observed.trust_version, ())
            if detail.authority in trust.document.spec.time_authorities
        ]
        certificates = tuple(pem for many in pinned for pem in many)
        time = check_token(token, detail.checkpoint.encode(), certificates)
        if time != detail.time:
            said = f"the token is of {format_time(time)}, the entry says {format_time(detail.time)}"
            yield "time-anchor-invalid", said
        late = anchored_in_time(time, self._at(checkpoint.size), entry.at)
        if late is not None:
            yield "clock-skew", late

    def _witnessed(self, entry: Entry, detail: Witnessed) -> Iterator[tuple[str, str]]:
        found: dict[tuple[str, int], datetime] = {}
        agents = self._agents(entry, {one.agent for one in detail.witnesses})
        certificates = {one.agent: one.certificate for one in detail.witnesses if one.certificate is not None}
        for text in detail.checkpoints:
            checkpoint = self._checkpoint(entry, text)
            if checkpoint.size < detail.size:
                yield "witness-invalid", f"a checkpoint has {checkpoint.size} entries, fewer than {detail.size}"
            for agent, time in witnesses(text.encode(), agents, certificates, entry.at).items():
                found[agent, checkpoint.size] = time
                late = anchored_in_time(time, self._at(checkpoint.size), entry.at)
                if late is not None:
                    yield "clock-skew", f"{agent} cosigned: {late}"
        named = {(one.agent, one.size): one.at for one in detail.witnesses}
        if named != found:
            wrong = sorted({agent for agent, _ in named.items() ^ found.items()})
            yield "witness-invalid", f"not cosigned as the entry says: {', '.join(agent for agent, _ in wrong)}"

    def _checkpoint(self, entry: Entry, text: str) -> Checkpoint:
        """A checkpoint that the controller signed, of this log, and before this entry; raises Refused."""
        checkpoint = open_checkpoint(text.encode(), self._history.ground.origin, self._controllers(entry))
        if not 0 < checkpoint.size <= entry.predicate.index or checkpoint.size > self._tree.size:
            raise Refused("log-inconsistent", f"the checkpoint of {checkpoint.size} entries is not of its past")
        if self._tree.root(checkpoint.size) != checkpoint.root:
            raise Refused("log-inconsistent", f"the checkpoint of {checkpoint.size} entries is of another log")
        return checkpoint

    def _controllers(self, entry: Entry) -> dict[str, str]:
        """The keys that were the controller's up to the entry's trust version, by key id."""
        version = entry.predicate.observed.trust_version
        return {
            key_id(key): key
            for trusts in self._history.ground.trusts.values()
            for trust in trusts
            if trust.version <= version
            for key in trust.keys_of_role(CONTROLLER)
            if not key.startswith("sk-")
        }

    def _agents(self, entry: Entry, names: set[str]) -> dict[str, AgentKey]:
        """The named agents' keys, as main declared them when the entry was made."""
        ask = declared_at(self._repo, entry.predicate.observed.main)
        return {name: key for name in names if (key := ask(name)) is not None}

    def _at(self, size: int) -> datetime:
        """When the newest of the first `size` entries was recorded: its commit bears its time."""
        return self._repo.commit(self._commit(size)).committer.at

    def _sealed(self, size: int) -> str | None:
        """The newest run that the first `size` entries seal, by the state derived from them."""
        data = content_at(self._repo, self._commit(size), CURSORS)
        mark = Cursors.model_validate_json(data).log.sealed if data is not None else None
        return mark.run if mark is not None else None

    def _commit(self, size: int) -> str:
        """The commit of the newest of the first `size` entries."""
        if size <= self._first:
            self._look_back()
        return self._commits[size - 1 - self._first]

    def _look_back(self) -> None:
        """Take in the commits of the verified past too: an entry speaks of a log from before its end."""
        assert self._history.past is not None
        earlier = self._repo.chain(self._history.past.evidence)
        self._commits = [*(oid for oid in earlier if oid not in self._removed), *self._commits]
        self._first = 0


def time_mark(history: History) -> TimeMark | None:
    """How far the log is time-stamped; None when it is not."""
    marks = [history.past.time] if history.past is not None and history.past.time is not None else []
    for entry, _ in history.facts.visible:
        if isinstance(entry.detail, TimeAnchored):
            one = entry.detail
            text = f"time-anchored to {one.size} entries at {format_time(one.time)} by {one.authority}"
            marks.append(TimeMark(one.size, text))
    return max(marks, key=lambda mark: mark.size, default=None)
