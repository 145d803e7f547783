"""A run's entries and the hashes of its files, gathered during the walk: what its seal and links speak of."""

from __future__ import annotations

from controller.errors import LockgateError
from controller.ledger.append import run_entries
from controller.ledger.canonical import digest
from controller.model.entry import Entry, Opened
from controller.ports import Repo
from controller.uses.rules.subject import Subject


class RunFiles:
    """The open runs' entries and the hashes of their files, as far as they were walked."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self._runs: dict[str, tuple[list[Entry], dict[str, str]]] = {}

    def forget(self, run: str) -> None:
        self._runs.pop(run, None)

    def opened(self, run: str) -> Opened | None:
        """What the run's first entry says, where it was walked."""
        entries, _ = self._runs.get(run, ([], {}))
        return entries[0].detail if entries and isinstance(entries[0].detail, Opened) else None

    def add(self, subject: Subject) -> tuple[list[Entry], dict[str, str]]:
        """The run's entries and files (path → hex SHA-256) up to and with this entry, links left out; read from
        the tree where the walk began later."""
        run, folder = subject.entry.predicate.run or "", f"{subject.place.folder}/"
        if run not in self._runs and subject.entry.predicate.sequence != 1:
            self._runs[run] = self._read(subject.commit.id, folder)
            return self._runs[run]
        entries, files = self._runs.setdefault(run, ([], {}))
        entries.append(subject.entry)
        for path in subject.records:
            if path == subject.entry.path:
                files[path] = subject.entry.digest[7:]
            elif path.startswith(folder) and not path.startswith(f"{folder}links/"):
                files[path] = digest(subject.blobs[path])[7:]
        return entries, files

    def _read(self, commit: str, folder: str) -> tuple[list[Entry], dict[str, str]]:
        """What the tree holds of a run; nothing when it cannot be read, which is found where it stands."""
        try:
            hashed = {
                path: digest(self.repo.read(file.blob))[7:]
                for path, file in self.repo.files(commit, folder[:-1])
                if not path.startswith(f"{folder}links/")
            }
            return list(run_entries(self.repo, commit, folder[:-1])), hashed
        except LockgateError:
            return [], {}
