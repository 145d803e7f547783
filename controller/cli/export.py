"""`export`: a run's audit pack, alone or with the whole history; and checking one (`verify --bundle`)."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli.context import Context, context_of
from controller.cli.session import RootOption, load_root, reading
from controller.errors import Invalid, Refused
from controller.model.words import counted

if TYPE_CHECKING:
    from controller.model.trustroot import RootCheckpoint, TrustRoot
    from controller.uses.audit.findings import Finding, VerifyReport
    from controller.uses.exports.export import ExportAnswer
    from controller.uses.exports.packfile import Pack


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="The run.", metavar="RUN")],
    out: Annotated[Path, typer.Option("--out", help="The file to write; one that is there is replaced.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Also a run that is still open; marked as unsealed everywhere.")
    ] = False,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="For auditors: with the whole history as a Git bundle.")
    ] = False,
    at: Annotated[
        str | None, typer.Option("--at", help="As of this evidence commit, for the bytes of an earlier export.")
    ] = None,
    trust_root: RootOption = None,
) -> None:
    """Write everything about a run to one file; the same run at the same commit gives the same bytes."""
    from dataclasses import replace

    from controller.uses.exports.export import ExportAnswer, audit_pack, source
    from controller.uses.exports.packfile import SUMS, sums, write_pack
    from controller.wiring.bundles import bundle_tips, private_folder, saving, write_history
    from controller.wiring.repos import verify_ssh

    options = context_of(context)
    root = load_root(trust_root)
    with reading(options, trust_root) as repo, contextlib.ExitStack() as stack:
        found = source(repo, run, root=root, at=at)
        tips = None
        if bundle:
            observed = replace(repo.observe(), evidence=found.tip)
            tips = bundle_tips(observed, found.root.refs)
        pack = audit_pack(found, verify_ssh, partial=partial, tips=tips)
        if tips is not None:
            history = stack.enter_context(private_folder()) / "repository.bundle"
            write_history(repo, tips, history)
            pack = replace(pack, bundle=history)
        with saving(out) as file:
            write_pack(pack, file)
        count = sums(pack).count(b"\n") + 1
    with out.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    answer = ExportAnswer(
        run=run,
        file=str(out),
        sha256=f"sha256:{digest}",
        bytes=out.stat().st_size,
        files=count,
        sealed=found.sealed,
        evidence=found.tip,
        bundle=bundle,
    )
    options.answer(answer, lambda: _text(answer, SUMS))


def _text(answer: ExportAnswer, sums: str) -> str:
    mark = "" if answer["sealed"] else ", UNSEALED"
    size = f"{counted(answer['files'], 'file')}, {counted(answer['bytes'], 'byte')}"
    return (
        f"{answer['file']}: {size}{mark}\n{answer['sha256']}\n"
        f"check it: lockgate verify --trust-root F --bundle {answer['file']}, or as its README.md says with {sums}"
    )


# --- verify --bundle -------------------------------------------------------------------------------------


def verify_bundle(options: Context, path: Path, root: TrustRoot, min_checkpoint: Path | None) -> None:
    """Answer `verify --bundle`: an audit pack, or a Git bundle of the project; exit code 1 with a finding."""
    from controller.cli import render
    from controller.wiring.bundles import is_bundle, private_folder

    root = at_least(root, minimum_of(min_checkpoint))
    _read(path, "an audit pack or a Git bundle", 1)
    with private_folder() as folder:
        if is_bundle(path):
            report = _history(path, root, folder)
            value = answer_of(report)
        else:
            value = _pack(path, root, folder, root.checkpoint)
    options.answer(value, lambda: _marked(render.verify_text(value), value))
    if not value["verified"]:
        raise typer.Exit(1)


def minimum_of(path: Path | None) -> RootCheckpoint | None:
    """The checkpoint in a file that `--min-checkpoint` names."""
    if path is None:
        return None
    from controller.uses.exports.bundle import read_minimum

    return read_minimum(_read(path, "a checkpoint of the log"))


def at_least(root: TrustRoot, minimum: RootCheckpoint | None) -> TrustRoot:
    """The root with whichever checkpoint asks for more: its own or `minimum`."""
    own = root.checkpoint
    if minimum is None or (own is not None and own.size >= minimum.size):
        return root
    return root.model_copy(update={"checkpoint": minimum})


def _marked(text: str, value: dict[str, Any]) -> str:
    return text if value.get("sealed", True) else f"UNSEALED: the run was open when this was exported\n{text}"


def _read(path: Path, expected: str, size: int = 1 << 20) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise Invalid(
            "bundle-unreadable",
            "the file cannot be read",
            where=str(path),
            expected=expected,
            got=error.strerror or "an error",
            cure="check the path and its permissions",
        ) from error


def _history(path: Path, root: TrustRoot, folder: Path, content: Pack | None = None) -> VerifyReport:
    """The whole-history verification of a Git bundle; with a pack, its evidence is compared with the bundle's."""
    from dataclasses import replace
    from functools import partial

    from controller.ledger.content import content_at
    from controller.uses.audit.findings import Finding, VerifyReport, rule_of
    from controller.uses.audit.verify import verify
    from controller.uses.exports.bundle import same_as_history
    from controller.wiring.bundles import open_bundle
    from controller.wiring.repos import ask_cel, verify_ssh

    with open_bundle(path, root, folder) as repo:
        try:
            repo.commit(root.genesis)
        except Refused:
            what = "the bundle is of another project: it does not hold the pinned genesis commit"
            found = Finding("genesis-mismatch", root.genesis, "", rule_of("genesis-mismatch"), what)
            return VerifyReport(False, 0, 0, 0, (), (found,))
        report = verify(repo, root, verify_ssh=verify_ssh, ask=ask_cel())
        tip = repo.observe().evidence
        if content is None or tip is None:
            return report
        findings = (*report.findings, *same_as_history(content, partial(content_at, repo, tip)))
    return replace(report, findings=findings, verified=not findings)


def _pack(path: Path, root: TrustRoot, folder: Path, minimum: RootCheckpoint | None) -> dict[str, Any]:
    from dataclasses import replace

    from controller.uses.audit.findings import Finding, VerifyReport, rule_of
    from controller.uses.exports.bundle import verify_pack
    from controller.uses.exports.packfile import read_pack
    from controller.wiring.bundles import read_commit
    from controller.wiring.repos import ask_cel, verify_ssh

    pack = read_pack(path, folder)
    checked = verify_pack(
        pack, root, verify_ssh=verify_ssh, parse_commit=read_commit, minimum=minimum, ask=ask_cel()
    )
    report = VerifyReport(
        checked.verified, checked.commits, checked.entries, 1, (), tuple(dict.fromkeys(checked.findings))
    )
    manifest = checked.manifest
    if manifest is not None and (manifest.tips is not None) != (pack.bundle is not None):
        what = "the pack does not say whether it holds the history"
        found: Finding = Finding("pack-malformed", "", "manifest.json", rule_of("pack-malformed"), what)
        report = replace(report, verified=False, findings=(*report.findings, found))
    elif report.verified and pack.bundle is not None:
        report = _history(pack.bundle, root, folder, pack)
    value = answer_of(report)
    return value | {"run": manifest.run, "sealed": manifest.sealed} if manifest is not None else value


def answer_of(report: VerifyReport) -> dict[str, Any]:
    """A report as `verify` answers it."""
    return {
        "verified": report.verified,
        "commits": report.commits,
        "entries": report.entries,
        "runs": report.runs,
        "refused": len(report.refused),
        "refusedCommits": [
            {"commit": one.commit, "ref": one.ref, "code": one.code, "message": one.message}
            for one in report.refused
        ],
        "findings": [
            {"code": one.code, "commit": one.commit, "path": one.path, "rule": one.rule, "message": one.message}
            for one in report.findings
        ],
        "timeAnchor": report.time_anchor,
    }
