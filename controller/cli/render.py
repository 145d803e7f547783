"""Answers as people read them: a table on a terminal, plain columns in a pipe, times in UTC."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from controller.errors import printable
from controller.model.words import counted

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


def line(text: object) -> str:
    """Words of other people as part of one line: what would break it or steer a terminal is shown, not done."""
    return printable(" ".join(str(text).split()))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under headings. With colour on a terminal; otherwise columns of plain text, without trailing blanks."""
    cells = [["-" if value is None or value == "" else line(value) for value in row] for row in rows]
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


def status_text(
    rows: Sequence[Mapping[str, Any]], standing: Sequence[str], health: str | None, remarks: Sequence[str] = ()
) -> str:
    """`status`: what stands still first, then the environments, what they wait for (once, for all that wait for
    the same), and remarks."""
    lines = [paint(f"{FAILED} {line(text)}", "red") for text in standing]
    if health:
        lines.append(paint(f"{FAILED} {line(health)}", "red"))
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
    told = [*standing, health] if health else standing
    waiting: dict[str, list[str]] = {}
    for row in rows:
        for text in row["waitingFor"]:
            if not any(text.startswith(one) for one in told):
                waiting.setdefault(text, []).append(row["environment"])
    lines += [f"{', '.join(names)}: {line(text)}" for text, names in waiting.items()]
    return "\n".join([*lines, *(line(text) for text in remarks)])


def symbol(phase: str) -> str:
    """A run's phase as one sign."""
    if phase == "completed":
        return SEALED
    if phase in BAD:
        return FAILED
    return PENDING if phase in ("idle", "scheduled", "superseded", "paused", "awaiting_approval") else RUNNING


def why_text(answer: Mapping[str, Any], running: str | None) -> str:
    """`why`: each blocker with what would unblock it, and what is still to come."""
    head = f"{answer['environment']}: {answer['phase']}" + (f", run {answer['run']}" if answer["run"] else "")
    if running:
        head += f"; runs {running}"
    lines = [paint(head, "bold")]
    if not answer["blockedBy"]:
        lines.append(f"{SEALED} nothing holds it up")
    for blocker in answer["blockedBy"]:
        lines.append(f"{FAILED} {blocker['gate']} ({blocker['code']}): {line(blocker['message'])}")
        if blocker["until"]:
            lines.append(f"    until    {clock(blocker['until'])}")
        if blocker["unblock"]:
            lines.append(f"    unblock  {line(blocker['unblock'])}")
    lines += [f"{PENDING} {line(note)}" for note in answer["notes"]]
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
    nouns = {"commits": "commit", "entries": "entry", "runs": "run"}
    head = ", ".join(counted(answer[name], noun) for name, noun in nouns.items())
    verdict = (
        paint(f"{SEALED} verified", "green") if answer["verified"] else paint(f"{FAILED} NOT verified", "red")
    )
    lines = [f"{verdict}: {head}, {answer['refused']} refused without effect, {answer['timeAnchor']}"]
    for finding in answer["findings"]:
        place = f" {line(finding['path'])}" if finding["path"] else ""
        found = f"{short(finding['commit'])}{place}: {line(finding['message'])}"
        lines.append(f"  {FAILED} {finding['code']}: {found} ({finding['rule']})")
    for one in answer["refusedCommits"]:
        ref = one["ref"].removeprefix("refs/heads/")
        what = f"{one['code']}: {line(one['message'])}"
        lines.append(f"  {PENDING} refused on {ref}: {short(one['commit'], 8)} {what}")
    return "\n".join(lines)


def trust_text(answer: Mapping[str, Any]) -> str:
    """`trust show`."""
    rows = [
        [one["name"], ", ".join(one["roles"]), key["fingerprint"], key["validAfter"], key["validBefore"]]
        for one in answer["principals"]
        for key in one["keys"]
    ]
    state = "in force" if answer["version"] == answer["inForce"] else f"version {answer['inForce']} is in force"
    head = f"trust version {answer['version']} ({state}) at {short(answer['commit'])}, {short(answer['sha256'])}"
    roles = [[name, answer["thresholds"][name], ", ".join(who)] for name, who in answer["roles"].items()]
    paths = [
        [rule["match"], ", ".join(rule["write"]), ", ".join(f"{n} of {r}" for r, n in rule["approvals"].items())]
        for rule in answer["paths"]
    ]
    parts = [
        head,
        table(["PRINCIPAL", "ROLES", "KEY", "FROM", "UNTIL"], rows),
        table(["ROLE", "THRESHOLD", "MEMBERS"], roles),
        table(["PATHS", "WRITTEN BY", "APPROVED BY"], paths),
    ]
    pending = answer["pending"]
    if pending is not None:
        signed = "; ".join(
            f"owners of version {one['version']}: {len(one['signed'])} of {one['needed']} signed"
            for one in pending["quorums"]
        )
        parts.append(f"pending: version {pending['version']} on {pending['branch']}; {pending['error'] or signed}")
    return "\n\n".join(parts)


def runs_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`runs`."""
    if not rows:
        return "no runs yet"
    return table(
        ["RUN", "RELEASE", "PHASE", "OPENED", "CLOSED", "SEALED"],
        [
            [
                row["run"],
                row["release"],
                f"{symbol(row['phase'])} {row['phase']}",
                clock(row["opened"]),
                clock(row["closed"]),
                SEALED if row["sealed"] else PENDING,
            ]
            for row in rows
        ],
    )


def timeline_head(run: str) -> str:
    """The first line of a timeline."""
    return paint(f"run {run}", "bold")


def step_line(row: Mapping[str, Any]) -> str:
    """One step of a timeline: ✓ recorded and good, ○ recorded and waiting, ✗ recorded and bad."""
    sign, style = SEALED, "green"
    if row["result"] in BAD or row["result"].lower() in BAD:
        sign, style = FAILED, "red"
    elif row["result"] == "WAIT":
        sign, style = PENDING, "yellow"
    left = f"{row['sequence']:>3}  {clock(row['at'])}  {row['kind']:<12}"
    return f"{paint(sign, style)} {left}  {line(row['summary'])}  [{short(row['commit'], 8)}]"


def timeline_text(answer: Mapping[str, Any]) -> str:
    """`timeline`: a line an entry, and the phase as it stands."""
    lines = [timeline_head(answer["run"]), *(step_line(row) for row in answer["steps"])]
    if answer["steps"][-1]["kind"] != "sealed":
        lines.append(f"{RUNNING} {answer['phase']}; {PENDING} not sealed yet")
    return "\n".join(lines)


def step_text(answer: Mapping[str, Any]) -> str:
    """`step`: who, what, why, how and when, as YAML, after where it stands."""
    import yaml

    predicate = answer["predicate"]
    head = [
        f"{answer['run']} step {predicate['sequence']}: {predicate['kind']} {predicate['result']}",
        f"  {line(predicate['summary'])}",
        f"  envelope  {answer['envelope']}",
        f"  commit    {answer['commit'] or '-'}",
        f"  path      {answer['path']}",
    ]
    parts = {name: predicate[name] for name in ("who", "what", "why", "how", "when", "observed", "detail")}
    return "\n".join(head) + "\n" + yaml.safe_dump(parts, sort_keys=False, allow_unicode=True, width=110)


def targets_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`targets`."""
    if not rows:
        return "no targets yet: the run has not gathered its inputs"
    return table(
        ["TARGET", "STAGE", "ACTION", "RESULT", "HEALTHY", "DIGEST", "MESSAGE"],
        [
            [
                row["target"],
                row["stage"],
                row["action"],
                row["result"],
                {True: SEALED, False: FAILED, None: None}[row["healthy"]],
                short(row["manifestDigest"]),
                ": ".join(part for part in (row["code"], row["message"]) if part),
            ]
            for row in rows
        ],
    )


def evidence_text(run: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """`evidence`: per checkpoint its state, digest and path."""
    signs = {"sealed": SEALED, "pending": PENDING, "absent": FAILED}
    drawn = table(
        ["", "CHECKPOINT", "STEP", "ENVELOPE", "PATH"],
        [
            [signs[row["state"]], row["checkpoint"], row["sequence"], short(row["envelope"], 16), row["path"]]
            for row in rows
        ],
    )
    anchored = any((row["checkpoint"], row["state"]) == ("time-anchored", "sealed") for row in rows)
    submitted = not any((row["checkpoint"], row["state"]) == ("published", "pending") for row in rows)
    notes = ("" if anchored else "\nnot time-anchored") + (
        "" if submitted else "\nnot submitted to the public log"
    )
    return f"{timeline_head(run)}\n{drawn}{notes}"


def diagnostics_text(rows: Sequence[Mapping[str, Any]], where: str) -> str:
    """`validate`: a line a diagnostic, as compilers write them, and the count."""
    lines = []
    for row in rows:
        style = "red" if row["severity"] == "error" else "yellow"
        place = f"{line(row['path'])}:{row['line']}"
        said = line(f"{row['code']}: {row['message']}; {row['cure']}")
        lines.append(f"{place}: {paint(row['severity'], style)}: {said}")
    errors = sum(row["severity"] == "error" for row in rows)
    verdict = f"{FAILED} {counted(errors, 'error')}" if errors else f"{SEALED} no errors"
    rest = f", {counted(len(rows) - errors, 'warning')}" if len(rows) > errors else ""
    return "\n".join([*lines, f"{verdict}{rest} in {where}"])


def resolve_text(answers: Sequence[Mapping[str, Any]], checked: bool) -> str:
    """`resolve`: each release's digests, and what moved."""
    parts = []
    for one in answers:
        rows = [
            [name, part["tag"], part["digest"], part["semver"], part["channel"]]
            for name, part in one["components"].items()
        ]
        parts.append(f"{one['release']} {one['manifestDigest']}")
        parts.append(table(["COMPONENT", "TAG", "DIGEST", "SEMVER", "CHANNEL"], rows))
        for moved in one["moved"]:
            now = short(moved["now"]) if moved["now"] else "gone"
            parts.append(
                f"{FAILED} tag {moved['tag']} of {moved['component']} moved: {short(moved['locked'])} → {now}"
            )
        if one["changed"]:
            parts.append(f"{FAILED} releases/{one['release']}.yaml changed after it was locked")
        if checked and not one["moved"] and not one["changed"]:
            parts.append(f"{SEALED} the lock still says what the registry says")
    return "\n".join(parts) if parts else "nothing to resolve"
