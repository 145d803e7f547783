"""Which orders an agent takes: one function a rule, each from the agent's own root, each refusing by a code.

The order's signature, agent and id were checked when it was opened. A further rule is one more method that
`admit` calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from controller.agent.approved import Approved
from controller.agent.logbook import Logbook
from controller.errors import Refused
from controller.model.order import AgentKey, Delivery, Order


class Source(Protocol):
    """Where further proof is asked for; nothing of it is believed, everything is checked."""

    def consistency(self, start: int, size: int) -> Sequence[str]:
        """Hashes that lead from one size of the log to another; raises Refused when there are none."""
        ...

    def declared(self) -> bytes:
        """Main's objects that declare the project's agents."""
        ...


class Admission:
    """The rules an order must hold. `witnesses` is this agent's own least number of them; `prove` turns main's
    objects into the agents' keys, or raises Refused; `approved` is what it knows of approvals."""

    def __init__(
        self,
        logbook: Logbook,
        witnesses: int,
        prove: Callable[[bytes], Mapping[str, AgentKey]],
        approved: Approved,
    ) -> None:
        self._logbook = logbook
        self._approved = approved
        self._witnesses = witnesses
        self._prove = prove

    def admit(self, order: Order, delivery: Delivery, source: Source) -> None:
        """Raises Refused with the code of the first rule that does not hold, Unavailable when proof is out of
        reach: then the order is offered again."""
        self._in_the_log(order, delivery, source)
        self._witnessed(order, delivery, source)
        self._approved.check(order, delivery.approving.get(order.id))

    @property
    def complaint(self) -> str | None:
        """The code for which this controller, or its last order, is refused."""
        return self._logbook.complaint or self._approved.complaint

    def idle(self) -> None:
        """No order is offered: what was refused was taken back."""
        self._approved.complaint = None

    def _in_the_log(self, order: Order, delivery: Delivery, source: Source) -> None:
        """The order was recorded in the log that this agent has been following (trust rule 16)."""
        if delivery.log is None:
            raise Refused(
                "log-inconsistent",
                "the order comes without the log's checkpoint",
                where=f"order {order.id}",
                expected="a checkpoint and the proof that it continues the one before",
                got="none",
                cure="update the controller",
            )
        if order.entry_index >= order.log.size:
            raise Refused(
                "log-inconsistent",
                "the order is not recorded in the log that it names",
                where=f"order {order.id}",
                expected=f"more than {order.entry_index} entries",
                got=f"{order.log.size}",
            )
        self._logbook.holds(order.log, source.consistency)

    def _witnessed(self, order: Order, delivery: Delivery, source: Source) -> None:
        """As many other agents as are asked for were shown the same log (trust rule 16)."""
        wanted = max(self._witnesses, order.witnesses)
        if not wanted:
            return
        agents = self._prove(source.declared())
        found = self._logbook.witnessed(delivery, order.log.size, agents, source.consistency)
        if len(found) < wanted:
            raise Refused(
                "split-view",
                "too few other agents bear witness to the log that holds this order",
                where=f"order {order.id}",
                expected=f"cosignatures of {wanted} agents that main declares",
                got=", ".join(sorted(found)) or "none",
                cure="look at the other agents, and whether environments/*.yaml asks for as many witnesses",
            )
