"""Errors, typed by what happens next.

Every message answers what, where, expected, got and what to do, under a stable code
that the error reference lists.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Text that somebody else wrote, as part of one line: what would break the line or steer a terminal (control
    and formatting characters, bytes that are no text) is written as an escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class LockgateError(Exception):
    """Base of every error a person can see; `code` is stable, the wording is not. Names and values from outside
    may stand in it as they are: it holds their printable form."""

    exit_code = 2

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        cure: str = "",
    ) -> None:
        self.code = code
        self.what = printable(what)
        self.where = printable(where)
        self.expected = printable(expected)
        self.got = printable(got)
        self.cure = printable(cure)
        super().__init__(self.what)

    @property
    def said(self) -> str:
        """The message without its code and cure, for those that show these beside it."""
        text = self.what
        if self.where:
            text += f", {self.where}"
        sides = [f"expected {self.expected}"] if self.expected else []
        sides += [f"got {self.got}"] if self.got else []
        return f"{text}; {', '.join(sides)}" if sides else text

    def __str__(self) -> str:
        text = f"{self.code}: {self.said}"
        return f"{text}; {self.cure}" if self.cure else text


class Invalid(LockgateError):
    """A file or value is wrong: fix it."""

    exit_code = 1


class Refused(LockgateError):
    """Policy or trust said no: the answer stands until intent, approval or trust changes."""

    exit_code = 1


class Stalled(LockgateError):
    """A person must act before anything goes on."""


class Conflict(LockgateError):
    """Somebody else was first: throw the pass away, observe again."""


class Unavailable(LockgateError):
    """Something outside did not answer: try again after `retry_after` seconds."""

    def __init__(
        self,
        code: str,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        cure: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, what, where=where, expected=expected, got=got, cure=cure)
        self.retry_after = retry_after


class UsageError(LockgateError):
    """The command was called in a way it does not understand."""
