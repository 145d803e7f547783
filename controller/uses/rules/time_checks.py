"""Trust rule 15 over single entries: agents' statements bear times that fit the entry that records them."""

from __future__ import annotations

from collections.abc import Iterator

from controller.core.clocks import out_of_time
from controller.errors import LockgateError
from controller.uses.rules.said import said
from controller.uses.rules.seen import Seen
from controller.uses.rules.subject import Problem, Subject


def times_agree(seen: Seen, subject: Subject) -> Iterator[Problem]:
    """No statement is later than its entry, and no order was begun before it was given."""
    for path, data in subject.beside("reports"):
        for line in data.split(b"\n"):
            if not line:
                continue
            try:
                body = said(line).statement.body
            except (LockgateError, ValueError):
                continue  # said by the check of the statements themselves
            why = out_of_time(body, subject.entry.at, subject.run)
            if why is not None:
                yield "clock-skew", path, f"a statement was {why}"
                return
