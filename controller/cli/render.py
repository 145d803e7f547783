"""Answers as people read them: a table on a terminal, plain columns in a pipe, times in UTC."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

SEALED, PENDING, RUNNING, FAILED = "✓", "○", "▶", "✗"
GOOD = frozenset({"completed", "PASS", "PASSED", "succeeded", "accepted", "ACCEPTED"})
BAD = frozenset(
    {
        "denied",
        "rejected",
        "aborted",
        "rolled_back",
        "rollback_failed",
        "expired",
        "FAIL",
        "FAILED",
        "failed",
        "REFUSED",
    }
)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under headings. With colour on a terminal; otherwise columns of plain text, without trailing blanks."""
    cells = [["-" if value is None or value == "" else str(value) for value in row] for row in rows]
    if not cells:
        return ""
    if sys.stdout.isatty():
        return _rich(headings, cells)
    widths = [max(len(row[i]) for row in [list(headings), *cells]) for i in range(len(headings))]
    lines = (
        "  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in [headings, *cells]
    )
    return "\n".join(lines)


def _rich(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
    for row in cells:
        drawn.add_row(*(Text(value, style=_style(value)) for value in row))
    console = Console()
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()


def _style(value: str) -> str:
    word = value.split(" ")[-1]
    if word in GOOD or value == SEALED:
        return "green"
    return "red" if word in BAD or value == FAILED else ""


def paint(text: str, style: str) -> str:
    """Text in a colour on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        return text
    codes = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
    return f"\x1b[{codes[style]}m{text}\x1b[0m"


def clock(value: str | datetime | None) -> str:
    """A time in UTC to the second."""
    if value is None:
        return "-"
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def short(digest: str | None, length: int = 12) -> str:
    """A digest or commit, short."""
    return digest.removeprefix("sha256:")[:length] if digest else "-"


def status_text(rows: Sequence[Mapping[str, Any]], standing: Sequence[str], health: str | None) -> str:
    """`status`: what stands still first, then the environments, then what each waits for."""
    lines = [paint(f"{FAILED} {text}", "red") for text in standing]
    if health:
        lines.append(paint(f"{FAILED} {health}", "red"))
    if not rows:
        return "\n".join([*lines, "no environments: nothing is described on main yet"])
    drawn = table(
        ["ENVIRONMENT", "RELEASE", "DIGEST", "SINCE", "RUN", "PHASE", "STAGE", "ACTIONS"],
        [
            [
                row["environment"],
                row["release"],
                short(row["manifestDigest"]),
                clock(row["since"]),
                row["run"],
                f"{symbol(row['phase'])} {row['phase']}",
                f"{row['stage']}/{row['stages'] or '?'}" if row["stage"] else None,
                ", ".join(row["actions"]),
            ]
            for row in rows
        ],
    )
    lines.append(drawn)
    for row in rows:
        shown = [text for text in row["waitingFor"] if not any(text.startswith(s) for s in standing)]
        lines += [f"{row['environment']}: {text}" for text in shown]
    return "\n".join(lines)


def symbol(phase: str) -> str:
    """A run's phase as one sign."""
    if phase == "completed":
        return SEALED
    if phase in BAD:
        return FAILED
    return PENDING if phase in ("idle", "scheduled", "superseded", "paused", "awaiting_approval") else RUNNING


def why_text(answer: Mapping[str, Any], running: str | None) -> str:
    """`why`: each blocker with what would unblock it."""
    head = f"{answer['environment']}: {answer['phase']}" + (f", run {answer['run']}" if answer["run"] else "")
    if running:
        head += f"; runs {running}"
    lines = [paint(head, "bold")]
    if not answer["blockedBy"]:
        lines.append(f"{SEALED} nothing holds it up")
    for blocker in answer["blockedBy"]:
        lines.append(f"{FAILED} {blocker['gate']} ({blocker['code']}): {blocker['message']}")
        if blocker["until"]:
            lines.append(f"    until    {clock(blocker['until'])}")
        if blocker["unblock"]:
            lines.append(f"    unblock  {blocker['unblock']}")
    return "\n".join(lines)


def preview_text(answer: Mapping[str, Any]) -> str:
    """`rollback --preview`."""
    before, after = answer["from"], answer["to"]
    lines = [
        f"rollback of {answer['environment']}" + (f" (run {answer['run']})" if answer["run"] else ""),
        f"  from       {before['release'] or '-'} {short(before['manifestDigest'])}",
        f"  to         {after['release'] or '-'} {short(after['manifestDigest'])}",
        f"  reverts    {len(answer['reverts'])}: {', '.join(answer['reverts']) or '-'}",
        f"  unchanged  {len(answer['unchanged'])}: {', '.join(answer['unchanged']) or '-'}",
        "nothing was written; ask for it with --reason",
    ]
    return "\n".join(lines)


def verify_text(answer: Mapping[str, Any]) -> str:
    """`verify`: the verdict, then each finding, then what was refused."""
    head = f"{answer['commits']} commits, {answer['entries']} entries, {answer['runs']} runs"
    verdict = (
        paint(f"{SEALED} verified", "green") if answer["verified"] else paint(f"{FAILED} NOT verified", "red")
    )
    lines = [f"{verdict}: {head}, {answer['refused']} refused without effect"]
    for finding in answer["findings"]:
        place = f" {finding['path']}" if finding["path"] else ""
        commit = short(finding["commit"])
        lines.append(f"  {FAILED} {finding['code']}: {commit}{place}: {finding['message']} ({finding['rule']})")
    for one in answer["refusedCommits"]:
        ref = one["ref"].removeprefix("refs/heads/")
        lines.append(f"  {PENDING} refused on {ref}: {short(one['commit'], 8)} {one['code']}: {one['message']}")
    return "\n".join(lines)


def trust_text(answer: Mapping[str, Any]) -> str:
    """`trust show`."""
    rows = [
        [
            one["name"],
            ", ".join(one["roles"]),
            one["keys"][0][:40] + "…" if one["keys"] else None,
            len(one["keys"]),
        ]
        for one in answer["principals"]
    ]
    head = f"trust version {answer['version']} at {short(answer['commit'])}, {short(answer['sha256'])}"
    return "\n".join([head, table(["PRINCIPAL", "ROLES", "KEY", "KEYS"], rows)])
