"""The open streams: who opened which, and until when a lease keeps it (docs/containerd 3.18)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.contracts.metadata import Collectible
from windlass.contracts.streaming import Stream
from windlass.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted

MOST = 1000
"""Open streams of the whole daemon (docs/containerd 7.7)."""
LONGEST_NAME = 256
ROOT = {"containerd.io/gc.root": "open"}


@dataclass(frozen=True)
class _Open:
    stream: Stream
    lease: str


class StreamManager:
    """Implements `windlass.contracts.streaming.Streams`, and lets the streams of a lease that goes be collected."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close collected streams on ``loop``."""
        self._loop = loop
        self._open: dict[tuple[str, str], _Open] = {}

    async def add(self, namespace: str, id: str, stream: Stream, lease: str = "") -> None:
        """Make a stream known."""
        if not id or len(id) > LONGEST_NAME or not id.isprintable():
            raise InvalidArgument(f"stream {id[:LONGEST_NAME]!r} has no usable name: 1 to {LONGEST_NAME} characters")
        if (namespace, id) in self._open:
            raise AlreadyExists(f"stream {id} is open already")
        if len(self._open) >= MOST:
            raise ResourceExhausted(f"stream {id} cannot be opened: {MOST} are open; close some")
        self._open[namespace, id] = _Open(stream, lease)

    async def get(self, namespace: str, id: str) -> Stream:
        """Return an open stream."""
        found = self._open.get((namespace, id))
        if found is None:
            raise NotFound(f"stream {id[:LONGEST_NAME]!r} is not open")
        return found.stream

    async def remove(self, namespace: str, id: str) -> None:
        """Forget a stream."""
        self._open.pop((namespace, id), None)

    # What `windlass.contracts.metadata.Collectibles` asks for; called by the thread that collects.

    def collectibles(self) -> Sequence[Collectible]:
        """Return all open streams; one without a lease is kept as long as it is open."""
        return [
            Collectible(namespace, id, {} if found.lease else ROOT, found.lease)
            for (namespace, id), found in list(self._open.items())
        ]

    def discard(self, namespace: str, id: str) -> None:
        """Close a stream whose lease has gone."""
        found = self._open.pop((namespace, id), None)
        if found is not None:
            asyncio.run_coroutine_threadsafe(found.stream.close(), self._loop)
