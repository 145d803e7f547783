"""Which keys may give this agent orders: the controller keys at the end of the trust chain from its own root."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from controller.adapters.git.objects import parse_commit
from controller.core.declared import Declared, declared_agents
from controller.core.keys import key_id
from controller.core.trust import CONTROLLER, TrustState
from controller.errors import Refused
from controller.ledger import dsse
from controller.model.order import AgentKey

Walk = Callable[[bytes], Sequence[TrustState]]
"""Every trust version of a chain (JSON), oldest first, each checked from the agent's own root; raises if one does
not hold."""


class Keyring:
    """Controller keys by key id; it only ever moves to newer trust versions. Thread-safe."""

    def __init__(self, walk: Walk, now: Callable[[], datetime]) -> None:
        self._walk = walk
        self._now = now
        self._lock = threading.Lock()
        self._states: Sequence[TrustState] = ()

    @property
    def version(self) -> int:
        """The newest trust version that was walked to; 0 before the first."""
        states = self._states
        return states[-1].version if states else 0

    @property
    def trust(self) -> TrustState:
        """The newest trust that was walked to. Raises Refused("order-untrusted-signer") before the first."""
        states = self._states
        if not states:
            raise untrusted("no trust chain yet")
        return states[-1]

    def extend(self, chain: bytes) -> None:
        """Walk a chain. Raises Refused("trust-rollback") when it ends before what is known already."""
        states = self._walk(chain)
        trust = states[-1]
        with self._lock:
            if trust.version < self.version:
                raise Refused(
                    "trust-rollback",
                    "the controller shows an older trust chain than before",
                    expected=f"version {self.version} or later",
                    got=f"version {trust.version}",
                    cure="find out who answers at the controller's address",
                )
            if trust.version == self.version and trust.sha256 != self.trust.sha256:
                raise Refused(
                    "trust-rollback",
                    f"the controller shows another trust version {trust.version} than before",
                    expected=self.trust.sha256,
                    got=trust.sha256,
                    cure="find out who answers at the controller's address",
                )
            self._states = states

    def trust_at(self, version: int) -> TrustState:
        """A version of the chain that was walked. Raises Refused("order-untrusted-signer") for another one."""
        for state in self._states:
            if state.version == version:
                return state
        raise untrusted(f"no trust version {version} in the chain")

    def keys(self) -> Mapping[str, str]:
        """Key id → OpenSSH key of everyone who may sign as the controller now."""
        return {
            key_id(key): key for state in self._states[-1:] for key in state.keys_of_role(CONTROLLER, self._now())
        }

    def declared(self, data: bytes) -> Mapping[str, AgentKey]:
        """The project's agents, by name, from main's objects. Raises Refused("declared-unproven")."""
        return declared_agents(Declared.loads(data), self.trust, parse_commit)

    def open(self, data: bytes, payload_type: str) -> bytes:
        """The payload of an envelope signed by a controller. Raises Refused("order-untrusted-signer")."""
        try:
            opened = dsse.open_envelope(data, self.keys())
        except Refused as error:
            raise untrusted(str(error)) from error
        if opened.payload_type != payload_type:
            raise untrusted(f"an envelope of type {opened.payload_type}")
        return opened.payload


def untrusted(got: str) -> Refused:
    """The refusal of whatever no trusted controller signed."""
    return Refused(
        "order-untrusted-signer",
        "this is not signed by a controller that the trust root leads to",
        expected="a key of the role controller, by the trust chain from this agent's root",
        got=got,
        cure="check the controller's key against trust/trust.yaml, and this agent's --trust-root",
    )
