"""The agent's journal: which orders it took, how far each came, and what it answered.

Append-only JSON lines, each fsynced before the step it announces goes on. A repeated order is answered from
here. A line torn by a crash is cut off when the journal is opened; damage anywhere else is an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from controller.agent.files import write_atomic
from controller.errors import Invalid, Unavailable
from controller.ledger.canonical import canonical
from controller.ledger.canonical import digest as envelope_digest

STATES = ("received", "pulled", "unpacked", "switched", "reported", "acknowledged")


@dataclass(slots=True)
class Line:
    """What the journal knows of one order; `envelope` is the order's, `report` the report's, as JSON."""

    order: str
    state: str
    received: str
    deadline: str
    envelope: dict[str, Any] | None
    report: dict[str, Any] | None = None
    ran: set[str] = field(default_factory=set)


class Journal:
    """Open (and repair the tail of) the journal at `path`; raises Invalid("journal-corrupt")."""

    def __init__(self, path: Path, *, forget_before: datetime | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._orders: dict[str, Line] = {}
        self._by_digest: dict[str, str] = {}
        self.reports = 0
        self._load()
        if forget_before is not None:
            self._compact(forget_before)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        os.close(self._fd)

    def line(self, order: str) -> Line | None:
        """What is known of an order; None when it never arrived."""
        return self._orders.get(order)

    def unfinished(self) -> list[Line]:
        """Orders that were taken and not reported yet, oldest first."""
        return [line for line in self._orders.values() if line.report is None]

    def unacknowledged(self) -> list[dict[str, Any]]:
        """Report envelopes that the controller did not acknowledge yet, oldest first."""
        return [line.report for line in self._orders.values() if line.report and line.state == "reported"]

    def receive(self, order: str, envelope: dict[str, Any], deadline: datetime, at: datetime) -> None:
        """Take an order: from here on it is this agent's to finish, whatever happens to the process."""
        self._write(
            {
                "order": order,
                "state": "received",
                "at": at.isoformat(),
                "deadline": deadline.isoformat(),
                "envelope": envelope,
            }
        )

    def refuse(self, order: str, code: str, message: str, at: datetime) -> None:
        """Note why an order was not taken: it is not this agent's to finish, and may come again with more."""
        self._write({"order": order, "refused": code, "message": message, "at": at.isoformat()})

    def advance(self, order: str, state: str, at: datetime) -> None:
        """Note that an order came as far as `state`; going back is ignored (a resumed order repeats steps)."""
        if STATES.index(state) > STATES.index(self._orders[order].state):
            self._write({"order": order, "state": state, "at": at.isoformat()})

    def ran(self, order: str, component: str, at: datetime) -> None:
        """Note that an init or migration component of this order ended with exit status 0."""
        self._write({"order": order, "ran": component, "at": at.isoformat()})

    def report(self, order: str, envelope: dict[str, Any], at: datetime) -> None:
        """Record the answer before it is sent: it never changes afterwards."""
        self._write({"order": order, "state": "reported", "at": at.isoformat(), "report": envelope})

    def acknowledge(self, digest: str, at: datetime) -> None:
        """Note that the controller holds the report whose envelope has this digest; unknown ones are ignored."""
        name = self._by_digest.get(digest)
        if name is not None and self._orders[name].state == "reported":
            self._write({"order": name, "state": "acknowledged", "at": at.isoformat()})

    def _write(self, record: dict[str, Any]) -> None:
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            end = os.fstat(self._fd).st_size
            try:
                if os.write(self._fd, data) != len(data):
                    raise OSError("short write")
                os.fdatasync(self._fd)
            except OSError as error:
                os.ftruncate(self._fd, end)
                raise Unavailable(
                    "journal-full",
                    "the agent's journal could not be written",
                    where=str(self._path),
                    got=str(error),
                    cure="free disk space; the order goes on by itself",
                    retry_after=5,
                ) from error
            self._apply(record)

    def _apply(self, record: dict[str, Any]) -> None:
        name = str(record["order"])
        if "refused" in record:
            return
        if record.get("state") == "received":
            line = Line(name, "received", record["at"], record["deadline"], record.get("envelope"))
            self._orders.setdefault(name, line)
            return
        line = self._orders[name]
        if "ran" in record:
            line.ran.add(str(record["ran"]))
            return
        line.state = str(record["state"])
        if record.get("report"):
            line.report = dict(record["report"])
            line.envelope = None
            self._by_digest[envelope_digest(canonical(line.report))] = name
            self.reports += 1

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        lines = data.split(b"\n")
        good = 0
        for number, raw in enumerate(lines[:-1], start=1):
            try:
                record = json.loads(raw)
                if "compacted" in record:
                    self.reports = int(record["compacted"])
                else:
                    self._apply(record)
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines) - 1 and not lines[-1]:
                    break
                raise Invalid(
                    "journal-corrupt",
                    "the agent's journal is damaged",
                    where=f"{self._path}:{number}",
                    cure="move it away only after checking what runs on this target",
                ) from error
            good += len(raw) + 1
        if good < len(data):
            os.truncate(self._path, good)

    def _compact(self, before: datetime) -> None:
        """Forget acknowledged orders whose deadline passed: a repetition would be refused as expired."""
        gone = {
            name
            for name, line in self._orders.items()
            if line.state == "acknowledged" and datetime.fromisoformat(line.deadline) < before
        }
        if not gone:
            return
        kept = [json.dumps({"compacted": self.reports - self._reported_among_kept(gone)})]
        with contextlib.suppress(FileNotFoundError):
            for raw in self._path.read_text().splitlines():
                record = json.loads(raw)
                old = "refused" in record and datetime.fromisoformat(record["at"]) < before
                if "compacted" not in record and record["order"] not in gone and not old:
                    kept.append(raw)
        write_atomic(self._path, "".join(line + "\n" for line in kept).encode())
        for name in gone:
            del self._orders[name]

    def _reported_among_kept(self, gone: set[str]) -> int:
        return sum(1 for name, line in self._orders.items() if line.report and name not in gone)
