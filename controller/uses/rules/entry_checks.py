"""What must hold for each evidence entry besides its place: a registry of checks, one rule a function.

Each check gets one entry with everything its commit added and says what is wrong as (code, path, message).
A rule that looks at single entries is one more function in ENTRY_CHECKS, with the kinds that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial

from controller.core.gates import decision_digest
from controller.core.parse import parse
from controller.core.rolling import result_of
from controller.errors import LockgateError
from controller.ledger.append import header
from controller.ledger.canonical import canonical, digest
from controller.ledger.entry import artifact_digest, descriptors, subjects, test_result
from controller.model.entry import (
    KINDS,
    TEST_RESULT,
    Deployed,
    Evaluated,
    Gates,
    Inputs,
    LockMade,
    Opened,
    Ordered,
    Replayed,
    RolledBack,
    Sealed,
    TargetResult,
    Verified,
    Wire,
    predicate_type,
)
from controller.model.lock import ReleaseLock
from controller.model.order import Report
from controller.uses.rules.input_checks import decided_now, stale
from controller.uses.rules.link_checks import links_hold
from controller.uses.rules.said import said
from controller.uses.rules.seen import Seen
from controller.uses.rules.statement_checks import statement_problem
from controller.uses.rules.subject import Problem, Subject
from controller.uses.rules.time_checks import times_agree
from controller.uses.rules.what_checks import what_problems

_BESIDE = re.compile(r"(inputs|reports|logs|links)/[A-Za-z0-9._-]+")


def records_belong(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """Beside its entry a commit adds only files of the same run, and artifacts named by their digest and entry."""
    entry, folder = subject.entry, subject.place.folder
    named = set(entry.detail.artifacts.values()) if isinstance(entry.detail, Inputs) else set()
    for path in subject.records:
        artifact = artifact_digest(path)
        if artifact is not None:
            if digest(subject.blobs[path]) != artifact:
                yield "digest-mismatch", path, "the artifact is not what its name says"
            elif artifact not in named:
                yield "record-misplaced", path, "no entry names this artifact"
        elif path == f"{folder}/run.json":
            if not isinstance(entry.detail, Opened) or subject.blobs[path] != header(entry):
                yield "record-misplaced", path, "the run's header is not what its first entry says"
        elif path != entry.path and not (
            folder is not None and path.startswith(f"{folder}/") and _BESIDE.fullmatch(path[len(folder) + 1 :])
        ):
            yield "record-misplaced", path, "the file belongs to another entry or to none"
    if isinstance(entry.detail, Opened) and f"{folder}/run.json" not in subject.blobs:
        yield "record-misplaced", f"{folder}/run.json", "the run has no header"


def subject_holds(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """The statement's subject, and the vetted predicate's members, follow from the rest of the entry."""
    entry, lock = subject.entry, subject.place.lock
    named = subjects(entry.predicate.what.digests, entry.detail, lock)
    named = named or [(entry.path, digest(canonical(entry.predicate.detail)))]
    if subject.statement["subject"] != descriptors(named):
        yield "subject-mismatch", entry.path, "the subject is not what the entry is about"
    if predicate_type(entry.kind) == TEST_RESULT:
        said, expected = subject.statement["predicate"], test_result(entry.kind, entry.detail, lock)
        if any(said.get(name) != value for name, value in expected.items()):
            yield "subject-mismatch", entry.path, "the test result is not what the detail says"


def digests_are_the_locks(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """What a run deploys is what the lock of its release says, component by component."""
    entry, detail = subject.entry, subject.entry.detail
    what = entry.predicate.what
    if entry.predicate.run is None or what.release is None or not what.digests:
        return
    found = seen.lock(subject, what.release)
    if found is None:
        yield "lock-mismatch", entry.path, f"no entry records a lock of {what.release}"
        return
    record, components = found
    if what.digests != components or what.manifest_digest != record.manifest_digest:
        yield "lock-mismatch", entry.path, f"the digests are not those of the lock of {what.release}"
    elif isinstance(detail, Inputs) and (detail.lock.path, detail.lock.sha256) != (record.path, record.sha256):
        yield "lock-mismatch", entry.path, f"the inputs name another lock than that of {what.release}"
    elif isinstance(detail, Ordered) and detail.action != "rollback" and detail.components != components:
        yield "lock-mismatch", entry.path, "the orders are not for what the lock says"


def lock_is_its_content(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """A lock entry says of its content what the content says."""
    detail = subject.entry.detail
    if not isinstance(detail, LockMade):
        return
    seen.made(detail.release)
    content = detail.content.encode()
    document = parse(detail.path, content).document
    if digest(content) != detail.sha256 or not isinstance(document, ReleaseLock):
        yield "lock-mismatch", subject.entry.path, "the content is no lock, or not the one its digest names"
        return
    spec = document.spec
    if (spec.manifest_digest, {name: item.digest for name, item in spec.components.items()}) != (
        detail.manifest_digest,
        detail.components,
    ):
        yield "lock-mismatch", subject.entry.path, "the entry's digests are not those of its content"


def inputs_are_committed(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """The input files hash to what the inputs entry says."""
    detail = subject.entry.detail
    if not isinstance(detail, Inputs):
        return
    if detail.digest != digest(canonical(detail.files)):
        yield "digest-mismatch", subject.entry.path, "the inputs digest is not over the files' digests"
    for name, expected in detail.files.items():
        path = f"{subject.place.folder}/inputs/{name}.json"
        if path not in subject.blobs or digest(subject.blobs[path]) != expected:
            yield "digest-mismatch", path, "the input file is missing or not what the entry says"


def decision_holds(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """The decision digest follows from the verdicts."""
    detail = subject.entry.detail
    if isinstance(detail, Gates) and detail.decision != decision_digest(detail.verdicts):
        yield "gates-mismatch", subject.entry.path, "the decision digest is not over these verdicts"


def orders_are_backed(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """Orders follow gates that passed and approvals that counted; a seal names the targets as they were left."""
    yield from seen.orders.check(subject.entry, subject.run)


def reports_are_the_agents(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """Agents' statements are recorded verbatim, signed by the pinned agents, and named by their digest."""
    detail, run = subject.entry.detail, subject.run
    files = list(subject.beside("reports"))
    lines = {digest(line): line for _, data in files for line in data.split(b"\n") if line}
    if isinstance(detail, (Deployed, RolledBack, Verified)):
        yield from _results_hold(subject, detail.results, lines, run.ordered if run is not None else None)
    elif isinstance(detail, Evaluated):
        if digest(b"".join(data for _, data in files)) != detail.statements:
            yield "report-mismatch", subject.entry.path, "the statements are not those the verdict was made from"
    elif files:
        yield "record-misplaced", files[0][0], "this kind of entry has no reports"
    if not lines:
        return
    predicate = subject.entry.predicate
    since = run.opened_at if run is not None else predicate.at
    pinned, declared = seen.pinned(subject), seen.declared(subject)
    for line in lines.values():
        problem = statement_problem(line, pinned.get, declared, predicate.run, since, predicate.at)
        if problem is not None:
            yield "report-signature", files[0][0], problem


def _results_hold(
    subject: Subject, results: tuple[TargetResult, ...], lines: Mapping[str, bytes], ordered: Ordered | None
) -> Iterator[Problem]:
    for result in results:
        if result.report is None:
            if result.result != "unreported":
                yield "report-mismatch", subject.entry.path, f"{result.target} is {result.result} by no report"
            continue
        line = lines.get(result.report)
        if line is None:
            yield "report-mismatch", subject.entry.path, f"the report of {result.target} is not on record"
            continue
        try:
            statement = said(line).statement
        except (LockgateError, ValueError) as error:
            yield "report-mismatch", subject.entry.path, f"the report of {result.target} cannot be read: {error}"
            continue
        if not isinstance(statement.body, Report):
            yield "report-mismatch", subject.entry.path, f"what {result.target} said is no report"
        elif ordered is not None:
            # What the controller makes of a report; links are held against their own rule.
            made = result_of(statement, ordered, None)
            if made != result.model_copy(update={"link": None}):
                yield "report-mismatch", subject.entry.path, f"{result.target} reported something else"


Check = Callable[[Seen, Subject], Iterator[Problem]]


def artifacts_stand(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """The artifacts that an entry names stand under their digests, and are what its inputs render to."""
    entry = subject.entry
    yield from seen.artifacts.check(subject.commit.id, entry, subject.blobs, subject.run)


def inputs_are_true(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """What a run's inputs and gates were made from is what was so then."""
    entry, folder = subject.entry, f"{subject.place.folder}/"
    yield from stale(entry, seen.accepted)
    if isinstance(entry.detail, Opened):
        yield from seen.truth.opened(entry, entry.detail)
    elif isinstance(entry.detail, (Inputs, Gates, Ordered)):
        run, begun = subject.run, seen.passes.begun
        trusts = seen.trusts.get(entry.predicate.observed.trust_version, ())
        if run is not None and begun is not None and trusts and not decided_now(entry, run):
            files = {path.removeprefix(folder): data for path, data in subject.blobs.items()}
            yield from seen.truth.check(entry, run, begun, trusts[0], files)


def decisions_replay(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """Gates and stages come out again as recorded, from what was committed."""
    entry, folder = subject.entry, f"{subject.place.folder}/"
    if isinstance(entry.detail, (Gates, Evaluated)):
        files = {
            path.removeprefix(folder): subject.blobs[path] for path in subject.records if path.startswith(folder)
        }
        yield from seen.replay.check(entry, files)
    seen.replay.add(entry)


def replays_hold(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """A recorded replay was asked for, and says what comes out."""
    yield from seen.replays(subject.commit.id, subject.entry.path, subject.entry.detail)


def people_asked(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """What people are said to have asked for, they asked for; and they got the answer that the rules give."""
    entry = subject.entry
    trusts = seen.trusts.get(entry.predicate.observed.trust_version, ())
    yield from seen.asked.judged(entry, trusts)
    yield from seen.asked.check(entry, subject.run)
    seen.asked.add(entry)
    yield from seen.answers.check(entry, trusts, partial(seen.replay.opened, subject.commit.id))


def it_is_about_that(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """What an entry says it is about follows from the rest of it and from what was before it."""
    entry, begun = subject.entry, seen.passes.begun
    run = None if isinstance(entry.detail, Opened) else subject.run
    yield from what_problems(entry, run, begun.state if begun is not None else None, seen.accepted)


def pins_hold(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """A run pins main's documents, all that it needs, and its inputs follow from them."""
    yield from seen.pinned_files.check(subject.entry, subject.run)


def steps_are_legal(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """A run goes only where the controller's own state machine lets it, for the reasons that it has."""
    why = seen.replay.illegal(subject.entry)
    if why is not None:
        yield "transition-illegal", subject.entry.path, why


_ANY: tuple[type[Wire], ...] = (Wire,)
ENTRY_CHECKS: tuple[tuple[Check, tuple[type[Wire], ...]], ...] = (
    (records_belong, _ANY),
    (subject_holds, _ANY),
    (digests_are_the_locks, _ANY),
    (lock_is_its_content, (LockMade,)),
    (it_is_about_that, _ANY),
    (people_asked, _ANY),
    (pins_hold, (Opened, Inputs, Ordered)),
    (steps_are_legal, _ANY),
    (inputs_are_committed, (Inputs,)),
    (decision_holds, (Gates,)),
    (orders_are_backed, (Ordered, Sealed)),
    (reports_are_the_agents, _ANY),
    (times_agree, (Deployed, Evaluated, RolledBack, Verified)),
    (links_hold, _ANY),
    (artifacts_stand, (Inputs, Ordered)),
    (inputs_are_true, _ANY),
    (decisions_replay, _ANY),
    (replays_hold, (Replayed,)),
)
"""Every rule over single entries with the details that it is about, in the order findings are reported."""


@cache
def checks_of(kind: str) -> tuple[Check, ...]:
    """The rules about entries of this kind."""
    return tuple(check for check, about in ENTRY_CHECKS if issubclass(KINDS[kind], about))
