"""A run's story as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Reasons, messages and names are whatever people and agents wrote. Every text goes through `_text`, which leaves no
markup and no character that would turn the reading around; the page forbids itself every resource besides.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from controller.model.entry import (
    Approval,
    Deployed,
    Entry,
    Evaluated,
    Gates,
    Ordered,
    RolledBack,
    Sealed,
    Verified,
    format_time,
)

_GOOD = frozenset(
    {"PASS", "PASSED", "APPROVED", "COMPLETED", "DEPLOYED", "OPENED", "RECORDED", "ORDERED", "ACCEPTED", "MATCH"}
)
_BAD = frozenset(
    {"FAIL", "FAILED", "DENIED", "REJECTED", "ABORTED", "ROLLED_BACK", "ROLLBACK_FAILED", "EXPIRED", "REFUSED"}
)
_SHOWN = 4000
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#d9dfe7;--paper:#fff;--wash:#f5f7fa;
--good:#0b6b3a;--bad:#a4231c;--warn:#8a5a00;--mono:ui-monospace,"SF Mono",Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){:root{--ink:#e4e9f0;--soft:#9aa6b6;--line:#333d4a;--paper:#12171e;
--wash:#1a212b;
--good:#55c58a;--bad:#ff8a80;--warn:#e5b454}}
body{margin:0 auto;max-width:60rem;padding:2.5rem 1.25rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .3rem;overflow-wrap:anywhere}h2{font-size:1.15rem;
margin:2.4rem 0 .8rem}
p{margin:.3rem 0}.lead{color:var(--soft)}.seal{display:inline-block;padding:.15rem .7rem;border-radius:1rem;
font-weight:600;
border:1px solid currentColor}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.open{margin:1.2rem 0;padding:.8rem 1rem;border:2px solid var(--bad);border-radius:.5rem;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1.2rem;margin:1.2rem 0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}ol{list-style:none;margin:0;padding:0 0 0 1.3rem;
border-left:2px solid var(--line)}
li{position:relative;padding:0 0 1.4rem}li::before{content:"";position:absolute;left:-1.72rem;top:.45rem;
width:.75rem;
height:.75rem;border-radius:50%;background:var(--paper);border:2px solid var(--soft)}li.good::before{
border-color:var(--good);background:var(--good)}li.bad::before{border-color:var(--bad);background:var(--bad)}
li.warn::before{border-color:var(--warn)}li>*{color:var(--ink)}li header{display:flex;flex-wrap:wrap;
gap:.2rem .8rem;
align-items:baseline}li header b{overflow-wrap:anywhere}time,.mono,code{font-family:var(--mono);
font-size:.8rem}
time,.mono{color:var(--soft);overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;margin:.6rem 0;
font-size:.9rem}th,td{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;
border-bottom:1px solid var(--line);
overflow-wrap:anywhere}th{color:var(--soft);font-weight:500}footer{margin-top:3rem;padding-top:1rem;
border-top:1px solid var(--line);color:var(--soft);font-size:.9rem}
@media print{body{max-width:none;padding:0}li{break-inside:avoid}}
"""


def page(
    manifest: Mapping[str, Any], entries: Sequence[Entry], events: Sequence[Entry], commits: Mapping[str, str]
) -> str:
    """The page: what ran, how it ended, every entry in order, and the events around it."""
    sealed = bool(manifest["sealed"])
    title = f"{manifest['release']} to {manifest['environment']}"
    steps = "\n".join(_step(entry, commits.get(entry.digest)) for entry in entries)
    around = "\n".join(_step(entry, None) for entry in events)
    warning = (
        ""
        if sealed
        else '<p class="open">UNSEALED: the run was open when this was exported. This is not its whole story.</p>'
    )
    word, tone = (str(manifest["phase"]).replace("_", " "), _tone(str(manifest["phase"]).upper()))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{'' if sealed else 'UNSEALED: '}{_text(manifest['run'])}</title>\n<style>{_STYLE}</style>\n"
        f"</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        f'<p class="lead">Run {_text(manifest["run"])} of project {_text(manifest["project"])}</p>\n'
        f'<p><span class="seal {tone if sealed else "bad"}">{_text(word if sealed else "unsealed")}</span></p>\n'
        f"{warning}\n{_summary(manifest, entries)}\n<h2>What happened</h2>\n<ol>\n{steps}\n</ol>\n"
        + (f"<h2>Around it</h2>\n<ol>\n{around}\n</ol>\n" if events else "")
        + f"<footer>Genesis <code>{_text(manifest['genesis'])}</code>, evidence branch at "
        f"<code>{_text(manifest['evidence'])}</code>. This page is a reading of the signed entries beside it and "
        "proves nothing by itself; README.md says how to check them.</footer>\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    """Text for HTML: escaped, bounded, with control and formatting characters made visible."""
    text = str(value)
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + " …"
    seen = "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else f"[U+{ord(c):04X}]" for c in text)
    return html.escape(seen, quote=True).replace("\n", "<br>")


def _tone(result: str) -> str:
    return "good" if result in _GOOD else "bad" if result in _BAD else "warn"


def _summary(manifest: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    opened, last = entries[0], entries[-1]
    detail = opened.detail
    rows: list[tuple[str, Any]] = [
        ("Release", manifest["release"]),
        ("Environment", manifest["environment"]),
        ("Why", detail.reason),
        ("Ticket", detail.ticket or "none"),
        ("Asked by", detail.requester or "nobody known"),
        ("Opened", format_time(opened.at)),
        ("Ended" if manifest["sealed"] else "Last entry", format_time(last.at)),
        ("Targets", ", ".join(opened.predicate.what.targets) or "none"),
    ]
    if isinstance(last.detail, Sealed):
        rows.append(("In the end", last.detail.reason))
    digests = next((e.predicate.what.digests for e in reversed(entries) if e.predicate.what.digests), {})
    rows += [(name, value) for name, value in sorted(digests.items())]
    return "<dl>" + "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in rows) + "</dl>"


def _step(entry: Entry, commit: str | None) -> str:
    predicate = entry.predicate
    who = ", ".join(actor.principal for actor in predicate.who)
    place = f"commit {commit}" if commit else entry.path
    number = f"{predicate.sequence}. " if predicate.sequence is not None else ""
    return (
        f'<li class="{_tone(predicate.result)}"><header><b>{_text(number + predicate.summary)}</b>'
        f"<span>{_text(predicate.result)}</span></header>"
        f"<p><time>{_text(format_time(entry.at))}</time> by {_text(who or 'nobody')}</p>{_detail(entry)}"
        f'<p class="mono">{_text(entry.digest)}<br>{_text(place)}</p></li>'
    )


def _detail(entry: Entry) -> str:
    detail = entry.detail
    if isinstance(detail, Gates):
        rows = [(v.gate, v.verdict, v.code, v.message) for v in detail.verdicts]
        return _table(("Gate", "Verdict", "Code", "Why"), rows) + _line("Decision", detail.decision)
    if isinstance(detail, Evaluated):
        found = [(c.name, c.state, "unknown" if c.value is None else c.value, c.message) for c in detail.criteria]
        return _table(("Criterion", "State", "Value", "Measured"), found)
    if isinstance(detail, (Deployed, Verified, RolledBack)):
        said = [(r.target, r.result, r.code, r.message) for r in detail.results]
        return _table(("Target", "Result", "Code", "Said"), said)
    if isinstance(detail, Ordered):
        return _line("Targets", ", ".join(line.target for line in detail.orders))
    if isinstance(detail, Approval):
        return _line("Approval", f"{detail.principal}, by {detail.via}: {detail.message}")
    if isinstance(detail, Sealed):
        return _line("Absent", ", ".join(detail.absent)) if detail.absent else ""
    reason = getattr(detail, "reason", None)
    return _line("Reason", reason) if reason else ""


def _line(name: str, value: Any) -> str:
    return f"<p>{_text(name)}: {_text(value)}</p>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
