"""Every way to tamper with a history, and the codes under which each is found."""

from __future__ import annotations

import json
import subprocess

from controller.ledger.append import EVIDENCE_REF, prepare
from controller.ledger.canonical import canonical, digest
from controller.ledger.dsse import STATEMENT_PAYLOAD, sign, split
from controller.model import entry as e
from controller.model.history import NewCommit
from controller.model.trustroot import TrustRoot
from tests.support.evidence import gates_of, git, sha
from tests.support.home import MAIN, REQUESTS, Home
from tests.support.tamper import (
    Tamper,
    commit_as,
    edited,
    edited_run,
    event,
    record_path,
    reseal,
    rewrite,
    set_at,
    with_record,
)


def accept_unauthorised(home: Home) -> None:
    home.batch([home.story.request(home.commit(REQUESTS, {"requests/x": b"x"}, "mallory"), accepted=True)])


def lose_requests(home: Home) -> None:
    home.batch([home.story.request(home.commit(REQUESTS, {"requests/x": b"x"}, "mallory"))])
    home.git("update-ref", "-d", REQUESTS)


def accept_what_is_refused(home: Home) -> None:
    bad = home.commit(MAIN, {"releases/evil.yaml": b"x"}, "mallory", "Evil")
    home.batch([home.story.refused(bad), home.story.accepted(bad)])


def rewind_main(home: Home) -> None:
    old = home.git("rev-parse", f"{MAIN}~1").strip()
    home.git("update-ref", MAIN, old)


def other_genesis(home: Home) -> None:
    home.root = TrustRoot(project="shop", genesis=home.git("rev-parse", f"{MAIN}~1").strip())


def other_project(home: Home) -> None:
    home.root = TrustRoot(project="other", genesis=home.root.genesis)


def delete_evidence(home: Home) -> None:
    home.git("update-ref", "-d", EVIDENCE_REF)


def lock_by_nobody(home: Home) -> None:
    home.commit(MAIN, {"releases/shop-1.lock.yaml": b"other"}, "controller", "Lock again")
    home.batch([home.story.accepted(home.tips[MAIN] or "")])


def unsigned(home: Home) -> None:
    tree = home.git("rev-parse", f"{EVIDENCE_REF}^{{tree}}").strip()
    oid = home.git(
        "-c", "user.name=x", "-c", "user.email=x@example.com", "commit-tree", tree, "-p", EVIDENCE_REF, "-m", "x"
    )
    home.git("update-ref", EVIDENCE_REF, oid.strip())


def broken_signature(home: Home) -> None:
    raw = home.git("cat-file", "commit", EVIDENCE_REF)
    changed = raw.replace("Lockgate-Kind", "Lockgate-Kinb")
    oid = subprocess.run(
        ["git", "-C", str(home.origin), "hash-object", "-t", "commit", "-w", "--stdin"],
        input=changed.encode(),
        capture_output=True,
        check=True,
    ).stdout
    home.git("update-ref", EVIDENCE_REF, oid.decode().strip())


def swapped_seal(home: Home) -> None:
    run = next(iter(home.ledger.open_entries))
    sealed = home.story.draft("sealed", e.Sealed(phase="denied", reason="no", code="no"), run, "dev")

    def edit(statement: dict) -> None:
        statement["predicate"]["detail"]["root"] = sha("other")

    rewrite(home, [sealed], lambda new: reseal(home, new, edit))


def other_gates(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    gates = drafts[2].detail.model_copy(update={"decision": sha("other")})
    home.batch([*drafts[:2], drafts[2].model_copy(update={"detail": gates}), *drafts[3:]])


def other_verdict(home: Home) -> None:
    """A gate that passes although what it saw denies, recorded with consistent digests."""
    drafts = home.story.run("dev", "shop-1")
    freeze = {"freezes": [{"name": "winter", "reason": "holidays", "active": True, "until": None}]}
    denied, files = home.story.decided("shop-1", drafts[1].detail.targets, freeze=freeze)
    (passed,) = [one for one in drafts[2].detail.verdicts if one.gate == "freeze"]
    said = passed.model_copy(update={"inputs": digest(canonical(freeze))})
    verdicts = [said if one.gate == "freeze" else one for one in denied.verdicts]
    change = {"detail": gates_of(*verdicts), "files": files}
    home.batch([*drafts[:2], drafts[2].model_copy(update=change), *drafts[3:]])


def omitted_gate(home: Home) -> None:
    """The freeze gate is left out, of the verdicts and of what they saw, with a digest that fits."""
    drafts = home.story.run("dev", "shop-1")
    seen = json.loads(drafts[2].files["inputs/gates-01.json"])
    del seen["freeze"]
    detail = gates_of(*(one for one in drafts[2].detail.verdicts if one.gate != "freeze"))
    change = {"detail": detail, "files": {"inputs/gates-01.json": canonical(seen)}}
    home.batch([*drafts[:2], drafts[2].model_copy(update=change), *drafts[3:]])


def lying_stage(home: Home) -> None:
    """A stage passes although its targets failed, and the run goes on."""
    home.story.lie = True
    home.batch(home.story.run("dev", "shop-1", end="rolled_back"))


def completed_unverified(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    home.batch([*drafts[:6], drafts[8]])


def completed_after_failing(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    failed = drafts[7].detail.model_copy(update={"ok": False})
    home.batch([*drafts[:7], drafts[7].model_copy(update={"detail": failed}), drafts[8]])


def without_environment(home: Home) -> None:
    """A run that leaves its environment out of its pins, and with it what the environment asks for."""
    drafts = home.story.run("dev", "shop-1")
    pins = tuple(pin for pin in drafts[0].detail.pins if pin.path != "environments/dev.yaml")
    opened = drafts[0].model_copy(update={"detail": drafts[0].detail.model_copy(update={"pins": pins})})
    home.batch([opened, *drafts[1:]])


def softer_environment(home: Home) -> None:
    """A run that pins an environment which main never held."""
    path = "environments/dev.yaml"
    data = home.story.documents[path][1] + b"# soft\n"
    home.commit("refs/heads/soft", {path: data}, "controller")
    home.know(home.tips["refs/heads/soft"] or "", {path: data})
    home.batch(home.story.run("dev", "shop-1"))


def promoted_by_nobody(home: Home) -> None:
    home.batch(home.story.run("dev", "shop-1", commit=home.story.main))


def unasked_pause(home: Home) -> None:
    entry = next(iter(home.ledger.open_entries.values()))[-1].predicate
    control = e.Control(verb="paused", request="request-1", by="dave", reason="why", code="requested")
    home.batch([home.story.draft("control", control, entry.run, entry.environment, entry.what)])


def accept_no_request(home: Home) -> None:
    entry = next(iter(home.ledger.open_entries.values()))[-1].predicate
    commit, request = home.ask("pause", "dev", entry.run, "dave")
    judged = home.story.judged(commit, request, home.actor("dave"))
    control = e.Control(verb="paused", request=request.id, by="dave", reason=request.reason, code="requested")
    paused = home.story.draft("control", control, entry.run, entry.environment, entry.what)
    nameless = judged.model_copy(update={"detail": judged.detail.model_copy(update={"request": None})})
    home.batch([nameless, paused])


def other_gate_inputs(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    files = {"inputs/gates-01.json": canonical({"freeze": {"freezes": [], "more": 1}})}
    home.batch([*drafts[:2], drafts[2].model_copy(update={"files": files}), *drafts[3:]])


def no_gate_inputs(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    home.batch([*drafts[:2], drafts[2].model_copy(update={"files": {}}), *drafts[3:]])


def other_digests(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    what = drafts[4].what.model_copy(update={"digests": {"api": sha("evil")}})
    home.batch([*drafts[:4], drafts[4].model_copy(update={"what": what}), *drafts[5:]])


def other_inputs(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    drafts[1] = drafts[1].model_copy(update={"files": {**drafts[1].files, "inputs/lock.json": b"{}"}})
    home.batch(drafts)


def other_lock(home: Home) -> None:
    lock = home.story.lock("shop-3")
    detail = lock.detail.model_copy(update={"components": {**lock.detail.components, "api": sha("evil")}})
    home.batch([lock.model_copy(update={"detail": detail})])


def forged_report(home: Home) -> None:
    pin, _ = home.story.agents["a"]
    home.story.agents["a"] = (pin, home.people["mallory"])
    home.batch(home.story.run("dev", "shop-1"))


def missing_report(home: Home) -> None:
    drafts = home.story.run("dev", "shop-1")
    drafts[4] = drafts[4].model_copy(update={"files": {}})
    home.batch(drafts)


def foreign_key_envelope(home: Home) -> None:
    def change(new: dict) -> dict:
        (path,) = [name for name in new if name.endswith(".dsse.json")]
        return {**new, path: sign(split(new[path]).payload, STATEMENT_PAYLOAD, home.people["mallory"])}

    rewrite(home, event(home), change)


def bad_envelope_signature(home: Home) -> None:
    def change(new: dict) -> dict:
        (path,) = [name for name in new if name.endswith(".dsse.json")]
        value = json.loads(new[path])
        value["signatures"][0]["sig"] = "A" * 86 + "=="
        return {**new, path: canonical(value)}

    rewrite(home, event(home), change)


def loose_payload(home: Home) -> None:
    rewrite(home, event(home), lambda new: reseal(home, new, lambda _: None, lambda s: json.dumps(s).encode()))


def spaced_envelope(home: Home) -> None:
    def change(new: dict) -> dict:
        (path,) = [name for name in new if name.endswith(".dsse.json")]
        return {**new, path: new[path] + b"\n"}

    rewrite(home, event(home), change)


def two_entries(home: Home) -> None:
    first, second = prepare(home.ledger, [*event(home), *event(home)], home.controller, home.origin_line).commits
    home.repo.append(
        EVIDENCE_REF,
        home.ledger.commit,
        [NewCommit({**first.changes, **second.changes}, "x", second.at)],
        home.controller,
    )


def stale_log(home: Home) -> None:
    rewrite(home, event(home), lambda new: {k: v for k, v in new.items() if not k.startswith("log/")})


def other_checkpoint(home: Home) -> None:
    old = home.git("show", f"{EVIDENCE_REF}:log/checkpoint").encode()
    rewrite(home, event(home), lambda new: {**new, "log/checkpoint": old})


def unsigned_checkpoint(home: Home) -> None:
    def change(new: dict) -> dict:
        return {
            **new,
            "log/checkpoint": new["log/checkpoint"].replace(b"\n\n", b"\n\n", 1)[:-30] + b"A" * 28 + b"=\n",
        }

    rewrite(home, event(home), change)


def merge_commit(home: Home) -> None:
    tree = home.git("rev-parse", f"{EVIDENCE_REF}^{{tree}}").strip()
    parents = ("-p", EVIDENCE_REF, "-p", MAIN)
    oid = home.git("-c", "user.name=x", "-c", "user.email=x@example.com", "commit-tree", tree, *parents, "-m", "x")
    home.git("update-ref", EVIDENCE_REF, oid.strip())


TAMPERINGS: dict[str, tuple[Tamper, set[str]]] = {
    "request of a stranger accepted": (accept_unauthorised, {"signer-unknown", "request-mismatch"}),
    "requests branch deleted": (lose_requests, {"requests-rewound"}),
    "refused commit of main accepted": (accept_what_is_refused, {"main-not-accepted"}),
    "main force-pushed back": (rewind_main, {"main-not-accepted"}),
    "same trust, other genesis": (other_genesis, {"genesis-mismatch"}),
    "other project's root": (other_project, {"genesis-mismatch", "checkpoint-signature", "inputs-mismatch"}),
    "evidence deleted": (delete_evidence, {"evidence-missing", "lock-unbacked"}),
    "lock on main written again": (lock_by_nobody, {"lock-rewritten", "main-not-accepted"}),
    "evidence commit by a stranger": (commit_as("mallory", {"events/x": b"x"}), {"foreign-evidence"}),
    "evidence commit by a reviewer": (commit_as("rita", {"events/x": b"x"}), {"foreign-evidence"}),
    "unsigned evidence commit": (unsigned, {"foreign-evidence"}),
    "merge on the evidence branch": (merge_commit, {"foreign-evidence"}),
    "commit message edited": (broken_signature, {"signature-invalid"}),
    "record edited": (with_record("003-gates.dsse.json", b"{}"), {"record-changed"}),
    "record deleted": (with_record("003-gates.dsse.json", None), {"record-changed"}),
    "report edited": (with_record("-stage-1.jsonl", b""), {"record-changed"}),
    "file outside every room": (
        lambda home: rewrite(home, event(home), lambda new: {**new, "notes.txt": b"x"}),
        {"record-misplaced"},
    ),
    "file of another run": (
        lambda home: rewrite(
            home, event(home), lambda new: {**new, record_path(home, "run.json")[:-8] + "inputs/x.json": b"{}"}
        ),
        {"record-misplaced"},
    ),
    "artifact under another name": (
        lambda home: rewrite(home, event(home), lambda new: {**new, f"artifacts/sha256/aa/aa{'0' * 62}": b"x"}),
        {"digest-mismatch"},
    ),
    "commit without an entry": (
        lambda home: rewrite(
            home, event(home), lambda new: {k: v for k, v in new.items() if not k.startswith("events/")}
        ),
        {"entry-count", "log-mismatch"},
    ),
    "two entries in one commit": (two_entries, {"entry-count", "log-mismatch"}),
    "index left out": (edited(set_at(["index"], 999)), {"index-gap", "log-mismatch"}),
    "sequence left out": (
        edited_run(set_at(["sequence"], 99)),
        {"sequence-gap", "trailers-mismatch", "log-mismatch"},
    ),
    "chain cut": (
        edited_run(set_at(["previous"], sha("x"))),
        {"chain-broken", "trailers-mismatch", "log-mismatch"},
    ),
    "run that is not open": (
        edited_run(set_at(["run"], "dev-9-00000000")),
        {"run-not-open", "log-mismatch"},
    ),
    "unknown member": (edited(set_at(["extra"], 1)), {"entry-invalid", "log-mismatch"}),
    "time in another spelling": (
        edited(set_at(["at"], "2026-01-05T10:00:00+00:00")),
        {"entry-invalid", "log-mismatch"},
    ),
    "time back-dated": (
        edited(set_at(["at"], "2025-01-05T10:00:00.000000Z")),
        {"record-misplaced", "clock-rewound", "trailers-mismatch", "state-mismatch", "log-mismatch"},
    ),
    "trust version that never was": (
        edited(set_at(["observed", "trustVersion"], 2)),
        {"envelope-signature", "log-mismatch"},
    ),
    "observed main that is no commit": (
        edited(set_at(["observed", "main"], git("nowhere"))),
        {"what-mismatch", "main-not-accepted", "trailers-mismatch", "log-mismatch"},
    ),
    "summary unlike the message": (
        lambda home: rewrite(home, event(home), lambda new: new, "Nothing happened\n"),
        {"trailers-mismatch"},
    ),
    "seal over other entries": (
        swapped_seal,
        {
            "seal-mismatch",
            "link-mismatch",
            "trailers-mismatch",
            "log-mismatch",
            "transition-illegal",
            "what-mismatch",
        },
    ),
    "verdicts under another decision": (other_gates, {"gates-mismatch"}),
    "gate that should have waited": (other_verdict, {"decision-mismatch", "inputs-mismatch"}),
    "gate omitted": (omitted_gate, {"decision-mismatch"}),
    "stage passed that failed": (lying_stage, {"verdict-mismatch"}),
    "completed without a verification": (completed_unverified, {"transition-illegal"}),
    "completed after a verification that failed": (completed_after_failing, {"transition-illegal"}),
    "environment not pinned": (
        without_environment,
        {"pin-mismatch", "decision-mismatch", "artifact-mismatch", "verdict-mismatch"},
    ),
    "environment pinned that main never held": (softer_environment, {"pin-mismatch"}),
    "run of no promotion": (promoted_by_nobody, {"promotion-unbacked"}),
    "pause that nobody asked for": (unasked_pause, {"control-unbacked"}),
    "accepted request that is not named": (accept_no_request, {"request-mismatch"}),
    "gate inputs exchanged": (other_gate_inputs, {"digest-mismatch"}),
    "gate inputs left out": (no_gate_inputs, {"digest-mismatch"}),
    "digests that no lock holds": (other_digests, {"lock-mismatch"}),
    "inputs exchanged": (other_inputs, {"digest-mismatch"}),
    "lock entry unlike its content": (other_lock, {"lock-mismatch", "what-mismatch"}),
    "report of another key": (forged_report, {"report-signature", "link-mismatch"}),
    "report left out": (missing_report, {"report-mismatch"}),
    "envelope by another key": (foreign_key_envelope, {"envelope-signature", "log-mismatch"}),
    "envelope signature broken": (bad_envelope_signature, {"envelope-signature", "log-mismatch"}),
    "payload not canonical": (loose_payload, {"not-canonical", "log-mismatch"}),
    "envelope not canonical": (spaced_envelope, {"not-canonical", "log-mismatch"}),
    "state edited": (
        lambda home: rewrite(home, event(home), lambda new: {**new, "state/dev.json": b"{}"}),
        {"state-mismatch"},
    ),
    "cursors edited": (
        lambda home: rewrite(home, event(home), lambda new: {**new, "state/cursors.json": b"{}"}),
        {"state-mismatch"},
    ),
    "open run forgotten": (
        lambda home: rewrite(home, event(home), lambda new: {**new, "open/dev": None}),
        {"state-mismatch"},
    ),
    "log left behind": (stale_log, {"log-mismatch"}),
    "old checkpoint kept": (other_checkpoint, {"log-mismatch"}),
    "checkpoint signature broken": (unsigned_checkpoint, {"checkpoint-signature"}),
    "tile edited": (
        lambda home: rewrite(
            home, event(home), lambda new: {k: b"\0" * len(v) if v and "tile" in k else v for k, v in new.items()}
        ),
        {"log-mismatch"},
    ),
}
