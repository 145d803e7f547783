"""Main's documents as of a commit, read one by one as they are asked for: an intent that costs what is used.

What is broken is known of freezes alone, because nothing else that is broken reaches a run that is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.core.parse import Parsed, parse, reads
from controller.core.validate import assemble
from controller.model.entry import Pin
from controller.model.history import TreeFile
from controller.model.intent import Intent, Loaded
from controller.model.places import PROJECT_PATH, TRUST_PATH, folder_of, path_kind, path_name, path_of
from controller.ports import Repo

_KEPT = 4096
_REGULAR = (0o100644, 0o100755)
_Files = tuple[tuple[str, TreeFile], ...]
_Frozen = tuple[Mapping[str, Loaded[Any]], frozenset[str]]


class MainDocuments:
    """Documents by commit of main and by pin; each version of a file is parsed once."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._parsed: dict[tuple[str, TreeFile], Parsed] = {}
        self._frozen: dict[tuple[_Files, _Files], _Frozen] = {}
        self._intent: Intent | None = None

    def document(self, pin: Pin) -> Any:
        """The document of a pinned blob, None when it is none. Raises Refused("object-corrupt")."""
        return self._parse(pin.path, TreeFile(pin.blob, _REGULAR[0])).document

    def intent(self, commit: str) -> Intent:
        """What a commit of main asks for. Raises Refused("object-corrupt"), also later."""
        if self._intent is not None and self._intent.commit == commit:
            return self._intent
        freezes, broken = self._freezes(commit)

        def named(kind: str) -> Mapping[str, Any]:
            return _Named(self, commit, kind)

        self._intent = Intent(
            commit=commit,
            project=self.loaded(commit, PROJECT_PATH),
            trust=None,
            components=named("Component"),
            releases=named("Release"),
            locks=named("ReleaseLock"),
            environments=named("Environment"),
            strategies=named("Strategy"),
            policies=named("Policy"),
            promotions=named("Promotion"),
            agents=named("Agent"),
            freezes=freezes,
            diagnostics=(),
            broken=broken,
        )
        return self._intent

    def loaded(self, commit: str, path: str) -> Loaded[Any] | None:
        """A valid document of a commit, if it has one there."""
        file = self._repo.file(commit, path)
        parsed = self._parse(path, file) if file is not None else None
        if file is None or parsed is None or parsed.document is None:
            return None
        return Loaded(path, file.blob, parsed.sha256, parsed.document)

    def names(self, commit: str, kind: str) -> Iterator[str]:
        """The documents of a kind that a commit holds, by name."""
        for path, file in self._repo.files(commit, folder_of(kind)):
            if path_kind(path) == kind and self._parse(path, file).document is not None:
                yield path_name(path)

    def _freezes(self, commit: str) -> _Frozen:
        """The freezes of a commit, and the paths of those that do not validate: judged with what they name and
        with who may change it."""
        files = self._below(commit, "freezes")
        if not files:
            return {}, frozenset()
        trust = self._repo.file(commit, TRUST_PATH)
        around = (*self._below(commit, "environments"), *(((TRUST_PATH, trust),) if trust is not None else ()))
        key = files, around
        if key not in self._frozen:
            parsed = {path: (file.blob, self._parse(path, file)) for path, file in (*files, *around)}
            made = assemble(commit, parsed)
            broken = frozenset(path for path in made.broken if path.startswith("freezes/"))
            _keep(self._frozen, key, (made.freezes, broken))
        return self._frozen[key]

    def _below(self, commit: str, folder: str) -> _Files:
        return tuple((path, file) for path, file in self._repo.files(commit, folder) if reads(path, file.mode))

    def _parse(self, path: str, file: TreeFile) -> Parsed:
        found = self._parsed.get((path, file))
        if found is None:
            data = self._repo.read(file.blob) if file.mode in _REGULAR else b""
            found = parse(path, data, file.mode)
            _keep(self._parsed, (path, file), found)
        return found


class _Named(Mapping[str, Loaded[Any]]):
    """The documents of one kind by name: looking one up reads one file, going over all reads all."""

    def __init__(self, main: MainDocuments, commit: str, kind: str) -> None:
        self._main, self._commit, self._kind = main, commit, kind
        self._known: dict[str, Loaded[Any] | None] = {}
        self._names: list[str] | None = None

    def __getitem__(self, name: str) -> Loaded[Any]:
        if name not in self._known:
            self._known[name] = self._main.loaded(self._commit, path_of(self._kind, name))
        found = self._known[name]
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> list[str]:
        if self._names is None:
            self._names = list(self._main.names(self._commit, self._kind))
        return self._names


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[key] = value
