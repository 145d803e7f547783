"""The details of events: entries that belong to no run."""

from __future__ import annotations

from collections.abc import Sequence

from controller.model.restart import Restart
from controller.model.wire import (
    Actor,
    GitId,
    Maybe,
    Pin,
    Precondition,
    Sha256,
    Time,
    Wire,
)


class Genesis(Wire):
    """Index 0: names the trust root this branch answers to."""

    project: str
    genesis: GitId
    refs: dict[str, str]
    restart: Sha256 | None = None
    """The owners' restart by which the branch was begun anew, where it is not the first one."""


class SlotChange(Wire):
    """A promotion slot changed on accepted main. It stays pending until an `opened` entry names its commit.

    `approvers` signed the merge that brought it and are in none of `authors`; `seen_lock` is the release's
    lock in that merge's first parent, which is what they could see when they approved.
    """

    environment: str
    commit: GitId
    pin: Pin
    release: str
    reason: str
    ticket: Maybe[str]
    not_before: Maybe[Time]
    expires: Maybe[Time]
    preconditions: tuple[Precondition, ...] = ()
    requester: Maybe[Actor]
    authors: tuple[str, ...]
    approvers: tuple[Actor, ...]
    seen_lock: Maybe[GitId]
    at: Time


class Accepted(Wire):
    """Main moved on, by `commits` first-parent steps that satisfied the path rules. Of those that did not,
    `cured` were taken back, and `acknowledged` are let stand by owners."""

    previous: Maybe[GitId]
    tip: GitId
    commits: int
    cured: tuple[GitId, ...] = ()
    acknowledged: tuple[GitId, ...] = ()
    slots: tuple[SlotChange, ...] = ()


class MainRefused(Wire):
    """A first-parent commit of main that the path rules do not allow; main stands still before it."""

    commit: GitId
    code: str
    message: str
    paths: tuple[str, ...]
    signer: Maybe[str]


class LockMade(Wire):
    """Tags resolved: the lock's bytes are in `content`, and the file on main must equal them."""

    release: str
    path: str
    manifest_digest: Sha256
    release_digest: Sha256
    sha256: Sha256
    components: dict[str, Sha256]
    content: str


class TagMoved(Wire):
    """A tag no longer names the digest that was locked; `found` is absent when the tag is gone."""

    release: str
    component: str
    tag: str
    locked: Sha256
    found: Maybe[Sha256]


class Acknowledgement(Wire):
    """An owner's request to let a refused commit of main stand: `commit`, refused with `code`. `request` is the
    request's commit."""

    commit: GitId
    code: str
    request: GitId
    principal: str
    reason: str
    expires: Time


class MainAcknowledged(Wire):
    """The owners' quorum lets a refused commit of main stand as it is: main goes on over it."""

    commit: GitId
    code: str
    acknowledgements: tuple[Acknowledgement, ...]


class RequestJudged(Wire):
    """A request's one verdict. `acknowledges` goes with an accepted request to let a refused commit stand."""

    commit: GitId
    request: Maybe[str]
    verb: Maybe[str]
    environment: Maybe[str]
    run: Maybe[str]
    accepted: bool
    code: str
    message: str
    reason: Maybe[str]
    acknowledges: Acknowledgement | None = None


class ReplayedDecision(Wire):
    """One decision made again: the digest on record and the one that came out, if one could be made."""

    sequence: int
    kind: str
    recorded: Sha256
    replayed: Maybe[Sha256]
    match: bool
    message: str = ""


class Replayed(Wire):
    """A replay that somebody asked for: every decision of `run` made again from committed inputs.

    `request` is the commit that asked; `code` is "replayed" when every decision could be made again.
    """

    run: str
    request: GitId
    by: str
    reason: str
    code: str
    decisions: tuple[ReplayedDecision, ...]
    total: int
    matching: int
    match: bool


MOST_REMOVED = 256
"""How many removed commits a repair names; parents link the others, which it only counts."""


class EvidenceRepaired(Wire):
    """Foreign commits on this branch; the tree before them, that of `restored`, was put back.

    `removed` are the first ones (at most `MOST_REMOVED`), oldest first; `commits` counts all of them when there
    are more. `reasons` says in words why they are not the controller's, each once.
    """

    removed: tuple[GitId, ...]
    restored: GitId
    commits: int | None = None
    reasons: tuple[str, ...] = ()

    def names(self, foreign: Sequence[str], good: str | None) -> bool:
        """Whether this is the repair of exactly these commits on top of `good`."""
        counted = len(self.removed) if self.commits is None else self.commits
        return (self.removed, counted, self.restored) == (tuple(foreign[:MOST_REMOVED]), len(foreign), good)


class EvidenceRestarted(Wire):
    """Evidence goes on as owners signed: `restart` is their document, `digest` that of its bytes, which stand on
    main, and `signatures` are theirs by name (SSHSIG, armored)."""

    restart: Restart
    digest: Sha256
    signatures: dict[str, str]


class Witness(Wire):
    """An agent that cosigned the log when it had `size` entries, at a time of its own clock. `certificate` is that
    of its key, where an authority certifies its keys: valid then, and when this was recorded."""

    agent: str
    size: int
    at: Time
    certificate: str | None = None


class Witnessed(Wire):
    """Other eyes on the log: checkpoints of `size` entries or more, as signed notes, cosigned by agents."""

    size: int
    checkpoints: tuple[str, ...]
    witnesses: tuple[Witness, ...]


class TimeAnchored(Wire):
    """A time-stamp authority's word that the log's first `size` entries existed at `time`.

    `token` is its RFC 3161 response (DER, base64) over the bytes of `checkpoint`, a signed note; `run` is the
    newest sealed run among the entries.
    """

    run: str
    size: int
    checkpoint: str
    authority: str
    token: str
    time: Time


class Published(Wire):
    """A public log's proof that it holds an entry about the signed note `checkpoint`, of the log's first `size`
    entries; `run` is the newest sealed run among them.

    `log` is the name under which Trust pins it, `index` the entry's place there, `body` the entry (base64),
    `hashes` the way from it (base64, RFC 6962) to the root in `proof`, the public log's own signed note.
    """

    run: str
    size: int
    checkpoint: str
    log: str
    index: int
    body: str
    hashes: tuple[str, ...]
    proof: str
