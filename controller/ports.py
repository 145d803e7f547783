"""What the shell needs from the world. Adapters and simulators implement these; only wiring chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from controller.model.history import Change, Commit, NewCommit, Tips, TreeFile
from controller.model.registry import ManifestAnswer

if TYPE_CHECKING:
    # Only whoever speaks with agents needs what is said to them.
    from controller.model.order import (
        AgentKey,
        AgentStatement,
        Cosignature,
        LogProof,
        PreparedOrder,
        SamplingRequest,
    )


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The current time, timezone-aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class Signer(Protocol):
    """A private key that signs bytes."""

    @property
    def public_key(self) -> str:
        """OpenSSH public key without comment: "ssh-ed25519 AAAA…"."""
        ...

    def sign_raw(self, data: bytes) -> bytes:
        """The bare Ed25519 (or ECDSA/RSA) signature over `data`, for DSSE and checkpoints."""
        ...

    def sign_ssh(self, data: bytes, namespace: str) -> str:
        """An armored SSHSIG (PROTOCOL.sshsig) over `data`."""
        ...


@runtime_checkable
class PrehashSigner(Protocol):
    """A Signer that can also sign a message by its hash alone."""

    def sign_prehashed(self, data: bytes) -> bytes:
        """The Ed25519ph signature over `data`, or the bare one of an ECDSA or RSA key."""
        ...


class Replica(Protocol):
    """A commit's tree in memory, changed file by file; nothing is ever written."""

    def apply(self, changes: Mapping[str, bytes | None], added: Mapping[str, str]) -> str | None:
        """Set (bytes) or remove (None) paths, add blobs by id; return the tree's id.

        None when something stood already where a blob is added. Raises Invalid("path-invalid") for a path that
        git could not hold.
        """
        ...

    def holds(self, path: str) -> bool:
        """Whether a file stands at `path`."""
        ...

    def stored(self) -> bool:
        """Whether the repository has every blob and tree that came up in `apply` since the last call."""
        ...


class Repo(Protocol):
    """One observed repository: reading, and appending by compare-and-swap."""

    def observe(self) -> Tips:
        """Fetch if remote and return the tips. Raises Unavailable when the origin does not answer."""
        ...

    def commit(self, oid: str) -> Commit: ...

    def first_parents(self, tip: str, until: str | None) -> list[Commit]:
        """First-parent commits after `until` up to `tip`, oldest first.

        Raises Refused("main-not-first-parent") when `until` is an ancestor off the first-parent chain,
        Refused("main-rewound") when it is no ancestor at all.
        """
        ...

    def chain(self, tip: str) -> list[str]:
        """The ids of the whole first-parent chain up to `tip`, oldest first, signatures not checked.

        Raises Refused("object-corrupt").
        """
        ...

    def chain_after(self, tip: str, until: str) -> list[str] | None:
        """The ids of the first-parent chain after `until` up to `tip`, oldest first, signatures not checked; None
        when the chain does not hold `until`.

        Raises Refused("object-corrupt").
        """
        ...

    def brought(self, first: str, second: str) -> list[Commit]:
        """Commits reachable from `second` and not from `first`, oldest first."""
        ...

    def merge_bases(self, one: str, two: str) -> list[str]: ...

    def is_ancestor(self, old: str, new: str) -> bool: ...

    def changes(self, old: str | None, new: str) -> list[Change]:
        """Paths that differ between two commits' trees (None: the empty tree), sorted by path."""
        ...

    def file(self, commit: str, path: str) -> TreeFile | None: ...

    def files(self, commit: str, prefix: str = "") -> Iterator[tuple[str, TreeFile]]:
        """Every file of a commit's tree below `prefix`, sorted by path."""
        ...

    def read(self, blob: str) -> bytes:
        """A blob's bytes, checked against its id. Raises Refused("object-corrupt")."""
        ...

    def intact(self, since: str = "") -> str | None:
        """Whether the object database is what its own checksums say, so that an object that is there is whole: a
        mark, with which the next look reads only the files that were changed `since`; None when it is not."""
        ...

    def replica(self, commit: str | None) -> Replica:
        """A commit's tree (None: the empty one), to be changed in memory. Raises Refused("object-corrupt")."""
        ...

    def raw(self, oid: str) -> tuple[str, bytes]:
        """An object's kind ("commit", "tree", "blob") and bytes, checked against its id."""
        ...

    def append(
        self,
        ref: str,
        expected: str | None,
        commits: Sequence[NewCommit],
        signer: Signer,
        base: str | None = None,
    ) -> list[str]:
        """Write `commits` in order on top of `expected`, sign each, and swap `ref` once, durably.

        The first one changes the tree of `base`, by default that of `expected`. `expected=None` creates the ref.
        Returns the new commit ids, oldest first. Raises Conflict("ref-moved") when the ref is not at `expected`
        (nothing is rebased), Refused("push-rejected") when the origin's hook says no, Unavailable when the origin
        does not answer.
        """
        ...

    def wait(self, timeout: float) -> bool:
        """Block until the origin's refs may have changed (True) or `timeout` seconds passed (False)."""
        ...

    def wake(self) -> None:
        """End a wait() early from another thread."""
        ...

    def close(self) -> None: ...


class Registry(Protocol):
    """Read access to one OCI repository's tags and manifests."""

    def tags(self, repository: str) -> list[str]: ...

    def manifest(self, repository: str, reference: str) -> ManifestAnswer:
        """The manifest or index at a tag or digest; the digest is recomputed from the bytes."""
        ...

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The blob's bytes in chunks; the caller hashes them."""
        ...


class LogView(Protocol):
    """The transparency log as agents are shown it. Thread-safe; every call may read the repository."""

    def proof(self, start: int) -> LogProof | None:
        """The newest checkpoint, and that it extends the first `start` entries as far as it can be shown; None
        before there is a log."""
        ...

    def consistency(self, start: int, size: int) -> list[str]:
        """The base64 hashes that lead from one size to another. Raises Refused("log-range")."""
        ...

    def cosigned(self, agent: str, key: AgentKey, cosignature: Cosignature, now: datetime) -> bool:
        """Keep a witness's signature; False when it does not hold or says nothing new."""
        ...

    def witnessed(self, agent: str, size: int) -> list[str]:
        """Checkpoints of at least `size` entries with the newest cosignature of each agent but this one."""
        ...

    def certificates(self) -> dict[str, str]:
        """The certificates of the keys of those cosignatures, by agent, where an authority certifies them."""
        ...


class AgentHub(Protocol):
    """Where agents meet the controller. Takes a `wake` at construction, called when something arrives.

    Thread-safe. Nothing in it is durable: after a restart the reconciler declares agents and delivers open
    orders again, and agents resend what was not acknowledged.
    """

    def declare(self, agents: Mapping[str, AgentKey]) -> None:
        """Replace the set of agents that may poll; an agent left out is refused from now on.

        One whose key or environment changed starts anew: its open orders must be delivered again.
        """
        ...

    def deliver(self, orders: Sequence[PreparedOrder]) -> None:
        """Offer orders to their agents until they report or are cancelled; idempotent by order id.

        Raises Refused("agent-unknown"), with none of them offered, when an agent is not declared.
        """
        ...

    def cancel(self, order_ids: Sequence[str]) -> None:
        """Stop offering these orders; one that an agent already took is not undone."""
        ...

    def show(self, size: int) -> None:
        """Have every agent shown, and asked to cosign, a log of at least `size` entries soon."""
        ...

    def sample(self, requests: Mapping[str, SamplingRequest | None]) -> None:
        """Set what each named agent samples (None: nothing); agents not named keep what they have."""
        ...

    def acknowledge(self, digests: Sequence[str]) -> None:
        """These statements are durable in evidence: agents may forget them, the inbox does."""
        ...

    def inbox(self) -> tuple[AgentStatement, ...]:
        """Every verified statement that was not acknowledged yet, in order of arrival, each once."""
        ...

    def seen(self) -> Mapping[str, datetime]:
        """When each agent's last accepted poll arrived."""
        ...

    def skewed(self) -> Mapping[str, float]:
        """Seconds by which clocks of agents are ahead of the controller's, of those refused for that; by name."""
        ...

    def delivered(self) -> Mapping[str, datetime]:
        """When each order was first handed to its agent, by order id."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


Wake = Callable[[], None]
