"""Contract: streams, which a client opens by a name that another of its requests then refers to.

What goes over one is between the client and the plugin that takes it: image archives,
progress, credentials (docs/containerd 3.18).
"""

from __future__ import annotations

from typing import Protocol

from windlass.contracts.values import Payload
from windlass.plugin import PluginType, contract


@contract
class Stream(Protocol):
    """One open stream, as the daemon's side sees it; one task receives and one sends at a time."""

    async def receive(self) -> Payload | None:
        """Return what the client sent next, None when it sends no more. Raises Cancelled when it has gone."""
        ...

    async def send(self, payload: Payload) -> None:
        """Send something to the client. Raises Cancelled when it has gone."""
        ...

    async def close(self) -> None:
        """End the stream; the client's call ends well. Closing twice is fine."""
        ...


@contract
class Streams(Protocol):
    """The open streams of every namespace, by name; a plugin that takes one closes it."""

    async def add(self, namespace: str, id: str, stream: Stream, lease: str = "") -> None:
        """Make a stream known, as long as ``lease`` keeps it; without one until it is closed.

        Raises AlreadyExists (id), InvalidArgument (no id), ResourceExhausted (too many are open).
        """
        ...

    async def get(self, namespace: str, id: str) -> Stream:
        """Return an open stream. Raises NotFound."""
        ...

    async def remove(self, namespace: str, id: str) -> None:
        """Forget a stream; one that is not known is not an error."""
        ...


STREAMS: PluginType[Streams] = PluginType("io.containerd.streaming.v1", Streams)
