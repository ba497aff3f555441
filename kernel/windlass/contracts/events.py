"""Contract: the exchange, which brings every event to every subscriber in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from windlass.contracts.values import Payload
from windlass.plugin import PluginType, contract
from windlass.records import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """An event and where it came from; ``timestamp`` is nanoseconds since the epoch, UTC."""

    timestamp: int
    namespace: str
    topic: str
    event: Payload


@contract
class Exchange(Protocol):
    """Delivers events. `publish` and `forward` are synchronous, never block, and may be called from any thread."""

    def publish(self, namespace: str, topic: str, event: Payload) -> None:
        """Stamp and deliver an event of this daemon's. Raises InvalidArgument (topic, namespace)."""
        ...

    def forward(self, envelope: Envelope) -> None:
        """Deliver an event as a shim or a client has stamped it. Raises InvalidArgument (topic, namespace)."""
        ...

    def subscribe(self, filters: Sequence[str] = ()) -> AbstractAsyncContextManager[AsyncIterator[Envelope]]:
        """Open a subscription; everything published after it was entered is delivered, in order.

        Filters read ``namespace``, ``topic`` and ``event.<field>``. Raises InvalidArgument for one that does not
        parse. A subscriber that falls tens of thousands of events behind is ended with
        ResourceExhausted; the daemon does not grow without bound for it.
        """
        ...


EXCHANGE: PluginType[Exchange] = PluginType("io.containerd.event.v1", Exchange)
