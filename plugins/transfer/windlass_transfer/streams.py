"""The open streams: who opened which, and until when a lease keeps it (docs/containerd 3.18)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from windlass.contracts.metadata import Collectible, Collectibles
from windlass.contracts.streaming import Stream, Streams
from windlass.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from windlass.records import dataclass
from windlass.typing import override

MOST = 1000
"""Open streams of the whole daemon (docs/containerd 7.7)."""
LONGEST_NAME = 256
ROOT = {"containerd.io/gc.root": "open"}


@dataclass(frozen=True)
class _Open:
    stream: Stream
    lease: str


class StreamManager(Streams, Collectibles):
    """The open streams of all namespaces; garbage collection closes those whose lease has gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close collected streams on ``loop``."""
        self._loop = loop
        self._open: dict[tuple[str, str], _Open] = {}

    @override
    async def add(self, namespace: str, id: str, stream: Stream, lease: str = "") -> None:
        if not id or len(id) > LONGEST_NAME or not id.isprintable():
            raise InvalidArgument(f"stream {id[:LONGEST_NAME]!r} has no usable name: 1 to {LONGEST_NAME} characters")
        if (namespace, id) in self._open:
            raise AlreadyExists(f"stream {id} is open already")
        if len(self._open) >= MOST:
            raise ResourceExhausted(f"stream {id} cannot be opened: {MOST} are open; close some")
        self._open[namespace, id] = _Open(stream, lease)

    @override
    async def get(self, namespace: str, id: str) -> Stream:
        found = self._open.get((namespace, id))
        if found is None:
            raise NotFound(f"stream {id[:LONGEST_NAME]!r} is not open")
        return found.stream

    @override
    async def remove(self, namespace: str, id: str) -> None:
        self._open.pop((namespace, id), None)

    # The thread that collects garbage calls these.

    @override
    def collectibles(self) -> Sequence[Collectible]:
        # One without a lease is kept as long as it is open.
        return [
            Collectible(namespace, id, {} if found.lease else ROOT, found.lease)
            for (namespace, id), found in list(self._open.items())
        ]

    @override
    def discard(self, namespace: str, id: str) -> None:
        found = self._open.pop((namespace, id), None)
        if found is not None:
            asyncio.run_coroutine_threadsafe(found.stream.close(), self._loop)
