"""How far the log is sealed, witnessed, time-stamped and published: marks in the cursors, folded from entries."""

from __future__ import annotations

from controller.model.entry import Entry, Published, Sealed, TimeAnchored, Wire, Witnessed


class SealMark(Wire):
    """The newest sealed run and the index of its seal."""

    run: str
    index: int


class LogMark(Wire):
    """The newest event of a kind about the log: how many entries it covers, and its path."""

    size: int
    event: str


class LogMarks(Wire):
    """Where the log stands with others."""

    sealed: SealMark | None = None
    witnessed: LogMark | None = None
    anchored: LogMark | None = None
    published: LogMark | None = None


def marked(marks: LogMarks, entry: Entry) -> LogMarks:
    """The marks after one more entry; the same object when it says nothing of the log."""
    detail = entry.detail
    if isinstance(detail, Sealed) and entry.run is not None:
        return marks.model_copy(update={"sealed": SealMark(run=entry.run, index=entry.predicate.index)})
    if isinstance(detail, Witnessed):
        return marks.model_copy(update={"witnessed": LogMark(size=detail.size, event=entry.path)})
    if isinstance(detail, TimeAnchored):
        return marks.model_copy(update={"anchored": LogMark(size=detail.size, event=entry.path)})
    if isinstance(detail, Published):
        return marks.model_copy(update={"published": LogMark(size=detail.size, event=entry.path)})
    return marks
