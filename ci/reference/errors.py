"""docs/reference/errors.md: every stable code, from the sources."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from ci.reference.codes import ERRORS, Use, uses
from ci.reference.markdown import cell, code, table
from ci.reference.markdown import page as whole
from controller import errors
from controller.uses.audit.findings import RULES

INTRO = """Codes are stable; the wording is not. `<name>` in a message stands for a value. An error
on the command line is written to standard error as `lockgate: CODE: what, where; expected …, got …; do …`."""

OTHERS = {
    "Diagnostics": (
        "What `lockgate validate` says of a file, and why a document is not used; exit code 1.",
        ("Diagnostic", "Finding", "Problem"),
    ),
    "Answers of gates": ("What a gate's verdict gives as its reason.", ("Answer",)),
    "What blocks": ("What `lockgate why` and `lockgate status` name.", ("Blocker", "Health")),
    "Findings": (
        "What `lockgate verify` reports, each with commit, path and rule; exit code 1.",
        ("uses.Finding",),
    ),
    "Recorded reasons": (
        "Reasons of records and of refused requests and approvals.",
        ("pair", "Sealed", "Control", "TargetResult", "RequestVerdict", "Approval", "RefusedCommit"),
    ),
}
BESIDES = (
    Use("usage", "UsageError", "controller.cli.app", "the command line cannot be read", "see --help"),
    Use(
        "internal-error",
        "LockgateError",
        "controller.cli.app",
        "a defect",
        "report it with what LOCKGATE_DEBUG=1 shows",
    ),
)


def page() -> str:
    """The page."""
    found = [*uses(), *BESIDES]
    rest = {use.via for use in found} - {*ERRORS, "LockgateError"}
    sections = []
    for name in (*ERRORS, "LockgateError"):
        kind = getattr(errors, name)
        about = inspect.cleandoc(kind.__doc__ or "") if name != "LockgateError" else "A defect of Lockgate itself."
        rows = _rows(found, (name,))
        title = name if name != "LockgateError" else "Defects"
        sections.append(f"## {title}\n\n{about} Exit code {kind.exit_code}.\n\n{rows}" if rows else "")
    for title, (about, kinds) in OTHERS.items():
        vias = sorted(via for via in rest if via in kinds or _short(via, kinds))
        rest -= set(vias)
        rows = _rows(found, vias)
        sections.append(f"## {title}\n\n{about}\n\n{rows}" if rows else "")
    known = {use.code for use in found if use.via not in rest}
    rows = _rows([use for use in found if use.code not in known], sorted(rest))
    sections.append(f"## Events of logs\n\n{rows}" if rows else "")
    sections.append(_rules())
    return whole("Errors and other codes", INTRO, *sections)


def _rules() -> str:
    """Every code that findings bear, with the rule of trust or the invariant that it enforces."""
    rows = [(code(name), RULES[name]) for name in sorted(RULES)]
    about = "Which rule a finding of `lockgate verify` enforces; other codes of judging main fall under `main 7`."
    return f"## Findings and their rules\n\n{about}\n\n{table(('code', 'rule'), rows)}"


def _short(via: str, kinds: Sequence[str]) -> bool:
    # `uses.Finding` is a finding of verify, every other Finding a diagnostic.
    return via != "uses.Finding" and via.rpartition(".")[2] in kinds


def _rows(found: Sequence[Use], vias: Sequence[str]) -> str:
    merged: dict[str, list[Use]] = {}
    for use in found:
        if use.via in vias:
            merged.setdefault(use.code, []).append(use)
    if not merged:
        return ""
    return table(
        ("code", "what", "what to do", "from"),
        (
            (
                code(name),
                _some([use.what for use in places]),
                _some([use.cure for use in places]),
                _some([code(use.module.removeprefix("controller.")) for use in places]),
            )
            for name, places in sorted(merged.items())
        ),
    )


def _some(texts: Sequence[str]) -> str:
    return "<br>".join(dict.fromkeys(cell(text) for text in texts if text))
