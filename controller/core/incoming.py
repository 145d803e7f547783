"""What a push may do to refs, before anything of its content is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from controller.errors import Refused, UsageError
from controller.model.trustroot import RootRefs

_OID = re.compile(r"[0-9a-f]{40}")
_NONE = "0" * 40
_BRANCHES = "refs/heads/"


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One ref that a push moves, from `old` (None: the ref is new) to `new` (None: the ref is deleted)."""

    ref: str
    old: str | None
    new: str | None


def read_updates(lines: Iterable[str]) -> tuple[RefUpdate, ...]:
    """Updates from what git gives a pre-receive hook: `old new ref` lines (githooks(5)).

    Raises UsageError("guard-input").
    """
    return tuple(read_update(*_three(line)) for line in lines if line.strip())


def read_update(old: str, new: str, ref: str) -> RefUpdate:
    """One update from its three words. Raises UsageError("guard-input")."""
    if not (_OID.fullmatch(old) and _OID.fullmatch(new) and ref.startswith("refs/")):
        raise _unreadable(f"{old} {new} {ref}")
    return RefUpdate(ref, old if old != _NONE else None, new if new != _NONE else None)


def _three(line: str) -> tuple[str, str, str]:
    words = line.rstrip("\n").split(" ", 2)
    if len(words) != 3:
        raise _unreadable(line)
    return words[0], words[1], words[2]


def _unreadable(got: str) -> UsageError:
    return UsageError(
        "guard-input",
        "this is not what git tells a hook",
        where="standard input",
        expected="lines of an old id, a new id and a full ref name",
        got=repr(got[:120]),
        cure="let git call it: lockgate guard --install ORIGIN --trust-root FILE",
    )


def check_names(updates: Iterable[RefUpdate], refs: RootRefs) -> tuple[tuple[Refused, ...], tuple[RefUpdate, ...]]:
    """Why some of the refs may not move like that, and the updates whose content must be judged."""
    refused: list[Refused] = []
    rest: list[RefUpdate] = []
    for update in updates:
        try:
            if check_ref(update, refs):
                rest.append(update)
        except Refused as error:
            refused.append(error)
    return tuple(refused), tuple(rest)


def check_ref(update: RefUpdate, refs: RootRefs) -> bool:
    """Whether the content must be judged too: the ref is one of the three that the trust root names.

    Raises Refused: "history-incomplete" for refs that replace history, "ref-shadows" for a name that can be
    taken for one of the three or stands in its way, and "main-rewound", "requests-rewound" or
    "evidence-rewound" for deleting one.
    """
    three = {refs.main: "main", refs.requests: "requests", refs.evidence: "evidence"}
    if update.ref in three:
        if update.new is None:
            raise _refuse(f"{three[update.ref]}-rewound", "the branch is never deleted", update, "a later commit")
        return True
    if update.new is None:
        return False  # whatever shadows may go
    if update.ref.startswith("refs/replace/"):
        what = "a replacement would change what history says"
        raise _refuse("history-incomplete", what, update, "no refs/replace/")
    shadowed = next((ref for ref in three if _shadows(update.ref, ref)), None)
    if shadowed is not None:
        what = f"the name could be taken for {shadowed}, or stands in its way"
        raise _refuse("ref-shadows", what, update, "another name")
    return False


def _shadows(name: str, ref: str) -> bool:
    """Whether git finds `name` where somebody asks for `ref` by its short name (gitrevisions(7)), where letters'
    case does not count, or as a folder of the other."""
    short = ref.removeprefix(_BRANCHES)
    taken = {f"refs/{short}", f"refs/tags/{short}"} if short != ref else set()
    taken |= {f"refs/tags/{ref}", f"refs/heads/{ref}", f"refs/{ref}"}
    folded, protected = name.casefold(), ref.casefold()
    return (
        name in taken
        or folded == protected
        or protected.startswith(folded + "/")
        or folded.startswith(protected + "/")
    )


def _refuse(code: str, what: str, update: RefUpdate, expected: str) -> Refused:
    got = "its deletion" if update.new is None else update.new[:12]
    cure = "leave the branch as it is" if update.new is None else "push under another name"
    return Refused(code, what, where=update.ref, expected=expected, got=got, cure=cure)
