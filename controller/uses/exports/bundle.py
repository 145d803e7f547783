"""Verification of what was exported: an audit pack by itself, the Git bundle in it by the rules of all history.

A pack stands on its own bytes and on the pinned root. Trust proves itself from the pinned genesis, the evidence
commits since the run opened are signed and linked, together with the peaks before them they make the root of the
signed checkpoint, and so nothing of the run, and no later event that names it, can be left out. What is wrong is a
finding, never an exception, and nothing of the pack is believed before it was checked.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pydantic import ValidationError

from controller.core.chain import Chain, walk_states
from controller.core.trust import CONTROLLER, TrustState, VerifySsh
from controller.errors import Invalid, LockgateError, Refused
from controller.ledger import dsse, log
from controller.ledger.append import header, seal_root
from controller.ledger.canonical import digest, parse_canonical
from controller.ledger.entry import artifact_digest, message_of, read_parts
from controller.ledger.receipt import check_receipt, read_receipt
from controller.model.entry import Entry, EntryRef, EvidenceRepaired, Inputs, Opened, Sealed
from controller.model.history import Commit
from controller.model.keys import key_id
from controller.model.trustroot import RootCheckpoint, TrustRoot
from controller.uses.audit.findings import Finding, rule_of
from controller.uses.audit.walked import blob_id, holds_controller
from controller.uses.exports.export import CHAIN, COMMITS, DOCUMENTS, EVIDENCE, FACTS, FORMAT, MANIFEST, Manifest
from controller.uses.exports.pack_checks import links_hold, nothing_else, readings_hold, reports_hold
from controller.uses.exports.packfile import Pack, check_sums, malformed
from controller.uses.rules.replay_checks import Ask, Replay

ParseCommit = Callable[[str, bytes], Commit]
"""(id, raw bytes) -> the commit, its signature checked. Raises LockgateError."""


@dataclass(frozen=True, slots=True)
class Header:
    """One evidence commit since the run opened, and what its trailers say; `place` is that of its file."""

    place: str
    commit: Commit
    index: int
    kind: str
    run: str | None
    digest: str
    about: str | None


@dataclass(slots=True)
class PackReport:
    """What checking a pack came to."""

    manifest: Manifest | None = None
    findings: list[Finding] = field(default_factory=list)
    commits: int = 0
    entries: int = 0

    @property
    def verified(self) -> bool:
        return not self.findings

    def find(self, code: str, path: str, message: str, commit: str = "") -> None:
        self.findings.append(Finding(code, commit, path, rule_of(code, "evidence 14"), message))


def verify_pack(
    pack: Pack,
    root: TrustRoot,
    *,
    verify_ssh: VerifySsh,
    parse_commit: ParseCommit,
    minimum: RootCheckpoint | None = None,
    ask: Ask | None = None,
) -> PackReport:
    """Check a pack from the pinned root; its Git bundle is not looked at. `minimum` is the least state of the log
    that is acceptable. Raises nothing but Unavailable."""
    report = PackReport()
    for path, message in check_sums(pack):
        report.find("pack-damaged", path, message)
    if report.findings:
        return report
    try:
        report.manifest = _manifest(pack)
        _Checker(pack, report.manifest, root, verify_ssh, parse_commit, ask, report).run(minimum)
    except (Invalid, Refused) as error:
        report.find(error.code, error.where if "/" in error.where else "", error.what)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        # Bytes that only somebody who means harm writes, and that nothing above has named yet.
        report.find("pack-malformed", "", f"the pack is not what its manifest says ({type(error).__name__})")
    return report


def _manifest(pack: Pack) -> Manifest:
    try:
        found = Manifest.model_validate_json(pack.files[MANIFEST], strict=False)
    except (KeyError, ValidationError) as error:
        raise malformed("its manifest.json does not read", MANIFEST) from error
    if found.format != FORMAT:
        raise malformed(f"its format is {found.format[:80]}", MANIFEST)
    if pack.top != f"lockgate-{found.run}" + ("" if found.sealed else "-unsealed"):
        raise malformed("its folder does not say what it is", MANIFEST)
    return found


class _Blobs:
    """The documents that the run pinned, by Git's id: all that deciding again reads."""

    def __init__(self, pack: Pack) -> None:
        self._found = {blob_id(data): data for path, data in pack.files.items() if path.startswith(DOCUMENTS)}

    def read(self, blob: str) -> bytes:
        if blob not in self._found:
            raise Refused("record-missing", "a document that the run pinned is not in the pack", where=blob)
        return self._found[blob]


class _Checker:
    """One pack under examination."""

    def __init__(
        self,
        pack: Pack,
        manifest: Manifest,
        root: TrustRoot,
        verify_ssh: VerifySsh,
        parse_commit: ParseCommit,
        ask: Ask | None,
        report: PackReport,
    ) -> None:
        self.pack, self.manifest, self.root, self.report = pack, manifest, root, report
        self._parse = parse_commit
        self._origin = log.origin_of(root.project, root.genesis)
        self._replay = Replay(_Blobs(pack), ask)  # type: ignore[arg-type]
        self._verify_ssh = verify_ssh
        self._trusts: list[TrustState] = []

    def run(self, minimum: RootCheckpoint | None) -> None:
        """Every rule, in the order in which one rests on another."""
        manifest, root = self.manifest, self.root
        if (manifest.project, manifest.genesis) != (root.project, root.genesis):
            what = f"the pack is of {manifest.project} from {manifest.genesis[:12]}, not of the pinned root"
            self.report.find("genesis-mismatch", MANIFEST, what)
            return
        links = Chain.loads(self.pack.files.get(CHAIN, b"")).links
        self._trusts = walk_states(root, links, self._verify_ssh)
        headers = self._headers()
        envelopes = dict(self._envelopes())
        self._log(headers, minimum)
        self._complete(headers, envelopes)
        own = sorted(
            (entry for entry in envelopes.values() if entry.run == manifest.run),
            key=lambda entry: entry.predicate.sequence or 0,
        )
        self._run(own)
        self._beside(own)
        self._receipts(envelopes)
        commits = {one.digest: one.commit.id for one in headers}
        for found in (
            nothing_else(self.pack, own, envelopes),
            reports_hold(self.pack, own),
            links_hold(self.pack, own, self._controller_keys()),
            readings_hold(self.pack, manifest, own, envelopes, commits, self._trusts, links[-1].document),
        ):
            for code, path, message in found:
                self.report.find(code, path, message)

    def _controller_keys(self) -> dict[str, str]:
        keys = [key for trust in self._trusts for key in trust.keys_of_role(CONTROLLER)]
        return {key_id(key): key for key in keys}

    # --- the chain of commits ----------------------------------------------------------------------------

    def _headers(self) -> list[Header]:
        """The commits, each the child of the one before; those of others only where a repair names them."""
        found: list[Header] = []
        before: str | None = None
        foreign: dict[str, str] = {}
        for path in sorted(p for p in self.pack.files if p.startswith(COMMITS)):
            oid = path.rpartition("-")[2].removesuffix(".commit")
            commit = self._parse(oid, self.pack.files[path])
            self.report.commits += 1
            if before is not None and commit.parents != (before,):
                self.report.find("chain-broken", path, "the commit does not follow the one before it", oid)
            before = oid
            facts = FACTS.search(commit.message)
            own = commit.signature == "good" and commit.key is not None and commit.malformed is None
            at = commit.committer.at
            if not own or not any(holds_controller(trust, commit.key or "", at) for trust in self._trusts):
                foreign[oid] = path
            elif facts is None:
                self.report.find("trailers-mismatch", path, "the commit does not say which entry it brings", oid)
            else:
                named = facts["run"], facts["digest"], facts["about"]
                found.append(Header(path, commit, int(facts["index"]), facts["kind"], *named))
        self._foreign(foreign)
        if before != self.manifest.evidence:
            self.report.find("chain-broken", MANIFEST, "the commits do not end where the manifest says")
        return found

    def _foreign(self, foreign: Mapping[str, str]) -> None:
        repaired: set[str] = set()
        for path, data in self.pack.files.items():
            if foreign and path.endswith("-evidence-repaired.dsse.json"):
                detail = read_parts(dsse.split(data), digest(data), path)[0].detail
                if isinstance(detail, EvidenceRepaired):
                    repaired |= {*detail.removed}
        for oid, path in foreign.items():
            if oid not in repaired:
                self.report.find("foreign-evidence", path, "the commit is not the controller's", oid)

    def _log(self, headers: list[Header], minimum: RootCheckpoint | None) -> None:
        """The peaks before the run and the entries since make the root that the controller signed."""
        manifest = self.manifest
        data = self.pack.files.get(EVIDENCE + log.CHECKPOINT, b"")
        said = log.open_checkpoint(data, self._origin, self._controller_keys())
        indexes = [one.index for one in headers]
        if indexes != list(range(manifest.opened, manifest.opened + len(indexes))):
            self.report.find("index-gap", COMMITS, "the entries since the run opened are not dense")
        peaks = tuple((peak.height, bytes.fromhex(peak.hash)) for peak in manifest.peaks)
        heights = [
            height for height in reversed(range(manifest.opened.bit_length())) if manifest.opened >> height & 1
        ]
        if [height for height, _ in peaks] != heights:
            self.report.find("log-mismatch", MANIFEST, "the peaks are not those of a log of that size")
            return
        edge = log.Log(manifest.opened, peaks)
        leaves = [log.leaf_hash(log.digest_bytes(one.digest)) for one in headers]
        wanted = minimum.size if minimum is not None else 0
        if minimum is not None and manifest.opened <= wanted <= manifest.opened + len(leaves):
            known = edge.append(leaves[: wanted - manifest.opened])[0].root
            if known != base64.b64decode(minimum.root):
                what = f"the log's root over {wanted} entries is not the one that was asked for"
                self.report.find("checkpoint-mismatch", log.CHECKPOINT, what)
        edge = edge.append(leaves)[0]
        if (edge.size, edge.root) != (said.size, said.root) or said.size != manifest.size:
            self.report.find(
                "log-mismatch", log.CHECKPOINT, "the entries since the run opened do not make its root"
            )
        if said.size < wanted:
            what = f"the log has {said.size} entries, at least {wanted} were asked for: an older state"
            self.report.find("checkpoint-mismatch", log.CHECKPOINT, what)

    # --- entries -----------------------------------------------------------------------------------------

    def _envelopes(self) -> Iterator[tuple[str, Entry]]:
        """Every entry in the pack whose signature is a controller's, by its envelope's digest."""
        keys = self._controller_keys()
        for path in sorted(self.pack.files):
            if not path.startswith(EVIDENCE) or not path.endswith(".dsse.json"):
                continue
            data, name = self.pack.files[path], path.removeprefix(EVIDENCE)
            try:
                parts = dsse.split(data)
                entry, _ = read_parts(parts, digest(data), name)
                key = keys.get(parts.keyid, "")
                if not any(holds_controller(trust, key, entry.at) for trust in self._trusts if key):
                    raise Refused(
                        "envelope-signature", "the entry is signed by a key that is not the controller's"
                    )
                dsse.check(parts, {parts.keyid: key})
            except (Refused, Invalid) as error:
                self.report.find(error.code, path, error.what)
                continue
            self.report.entries += 1
            yield entry.digest, entry

    def _complete(self, headers: list[Header], envelopes: Mapping[str, Entry]) -> None:
        """Whatever the commits say of the run is here, and says the same as they do."""
        run, known = self.manifest.run, {one.digest: one for one in headers}
        for one in headers:
            entry = envelopes.get(one.digest)
            if entry is not None and message_of(entry) != one.commit.message:
                self.report.find("trailers-mismatch", one.place, "the commit says something else than its entry")
            if entry is None and run in (one.run, one.about):
                what = f"the {one.kind} entry {one.index}, which names the run, is not in the pack"
                self.report.find("record-missing", one.place, what, one.commit.id)
        for value, entry in envelopes.items():
            if entry.predicate.index >= self.manifest.opened and value not in known:
                self.report.find("record-misplaced", entry.path, "no commit of the evidence branch brought it")

    def _run(self, own: list[Entry]) -> None:
        """The run's entries in their chain, closed by the seal."""
        previous: str | None = None
        refs: list[EntryRef] = []
        sealed = False
        if not own or not isinstance(own[0].detail, Opened) or own[0].predicate.index != self.manifest.opened:
            self.report.find("sequence-gap", MANIFEST, "the run does not begin with its first entry")
            return
        folder = str(PurePosixPath(own[0].path).parent)
        if self.pack.files.get(f"{EVIDENCE}{folder}/run.json") != header(own[0]):
            self.report.find(
                "record-misplaced", f"{folder}/run.json", "the header is not what the first entry says"
            )
        for place, entry in enumerate(own, 1):
            wanted = f"{folder}/{place:03d}-{entry.kind}.dsse.json"
            if entry.path != wanted or entry.predicate.sequence != place:
                self.report.find("sequence-gap", entry.path, f"{wanted} belongs here")
            if entry.predicate.previous != previous:
                self.report.find("chain-broken", entry.path, "it does not link to the run's entry before it")
            if isinstance(entry.detail, Sealed):
                sealed = True
                if (entry.detail.entries, entry.detail.root) != (tuple(refs), seal_root(refs)):
                    self.report.find("seal-mismatch", entry.path, "the seal is not over the run's entries")
            previous = entry.digest
            refs.append(EntryRef(sequence=place, kind=entry.kind, digest=entry.digest))
        if sealed != self.manifest.sealed:
            self.report.find("seal-mismatch", MANIFEST, "the pack does not say whether the run is sealed")

    def _beside(self, own: list[Entry]) -> None:
        """Inputs, reports and artifacts are what the entries say, and every decision comes out again."""
        for path, data in self.pack.files.items():
            named = artifact_digest(path.removeprefix(EVIDENCE))
            if named is not None and digest(data) != named:
                self.report.find("digest-mismatch", path, "the artifact is not what its name says")
        for entry in own:
            folder = f"{EVIDENCE}{PurePosixPath(entry.path).parent}/"
            files = {p.removeprefix(folder): d for p, d in self.pack.files.items() if p.startswith(folder)}
            if isinstance(entry.detail, Inputs):
                for name, expected in entry.detail.files.items():
                    held = files.get(f"inputs/{name}.json")
                    if held is None or digest(held) != expected:
                        self.report.find(
                            "digest-mismatch", f"{folder}inputs/{name}.json", "not what was decided from"
                        )
            wanted = f"reports/{entry.predicate.sequence or 0:03d}-"
            seen = {n: d for n, d in files.items() if n.startswith(("inputs/gates-", wanted))}
            reports = [data for name, data in seen.items() if name.startswith("reports/")]
            for order, report in _reported(entry):
                if report not in {digest(line) for data in reports for line in data.splitlines()}:
                    self.report.find("report-mismatch", entry.path, f"the report of {order} is not on record")
            for code, path, message in self._replay.check(entry, seen):
                self.report.find(code, path, message)
            self._replay.add(entry)

    def _receipts(self, envelopes: Mapping[str, Entry]) -> None:
        """Every entry, also one from before the run, is in the log at its index."""
        keys = self._controller_keys()
        for value, entry in envelopes.items():
            path = f"receipts/{entry.predicate.index:06d}.tlog-proof"
            try:
                receipt = read_receipt(self.pack.files.get(path, b""))
                if receipt.index != entry.predicate.index:
                    raise Refused("log-inconsistent", "the receipt is for another entry")
                check_receipt(receipt, value, self._origin, keys)
            except (Refused, Invalid) as error:
                self.report.find(error.code, path, error.what)


def _reported(entry: Entry) -> Iterator[tuple[str, str]]:
    for result in getattr(entry.detail, "results", ()):
        if result.report is not None:
            yield result.order, result.report


def same_as_history(pack: Pack, content: Callable[[str], bytes | None]) -> Iterator[Finding]:
    """What the pack's evidence says otherwise than the Git bundle beside it; `content` reads a path there."""
    for path, data in pack.files.items():
        if path.startswith(EVIDENCE) and content(path.removeprefix(EVIDENCE)) != data:
            what = "the file is not what the Git bundle holds"
            yield Finding("record-changed", "", path, rule_of("record-changed"), what)


def read_minimum(data: bytes) -> RootCheckpoint:
    """The least acceptable state of the log: a checkpoint as a signed note, or {"size", "root"} as in a trust
    root. Raises Invalid("checkpoint-malformed")."""
    try:
        value = parse_canonical(data.strip()) if data.lstrip().startswith(b"{") else None
        if isinstance(value, dict):
            return RootCheckpoint.model_validate(value)
    except (LockgateError, ValidationError):
        raise Invalid("checkpoint-malformed", "this is no checkpoint", where="--min-checkpoint") from None
    said = log.read_checkpoint(data)
    return RootCheckpoint(size=said.size, root=base64.b64encode(said.root).decode())
