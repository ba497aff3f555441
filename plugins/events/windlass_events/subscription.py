"""One subscriber's queue, from the threads that publish to the event loop that reads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType

from windlass.contracts.events import Envelope
from windlass.errors import ResourceExhausted
from windlass.filters.expressions import Filter
from windlass_events.fields import ReadableEvent

MAX_EVENTS = 50_000
MAX_BYTES = 64 << 20
"""Of payloads, that a subscriber may be behind."""
BATCH = 500
"""Events that are filtered before other callbacks of the loop have their turn."""


class Subscription:
    """An open subscription; an asynchronous context manager and the iterator that it gives.

    Events arrive in ``_incoming`` from any thread. A callback on the loop moves those that the filter accepts to
    ``_ready``, whether or not the subscriber is reading, so that only what it wants counts against its limit.
    """

    def __init__(
        self, accepts: Filter, enter: Callable[[Subscription], None], leave: Callable[[Subscription], None]
    ) -> None:
        self._accepts = accepts
        self._enter = enter
        self._leave = leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._incoming: deque[ReadableEvent] = deque()
        self._ready: deque[Envelope] = deque()
        self._bytes = 0
        self._waking = False
        self._ended = False
        self._behind = False
        self._changed = asyncio.Event()

    async def __aenter__(self) -> AsyncIterator[Envelope]:
        self._loop = asyncio.get_running_loop()
        self._enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self)
        self._stop()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Envelope:
        """Return the next event; raises ResourceExhausted when the subscriber has fallen too far behind."""
        while not self._ready:
            if self._behind:
                raise ResourceExhausted(
                    f"subscriber was more than {MAX_EVENTS} events or {MAX_BYTES >> 20} MiB behind; subscribe again"
                )
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        envelope = self._ready.popleft()
        self._bytes -= len(envelope.event.value)
        return envelope

    def offer(self, event: ReadableEvent) -> None:
        """Append an event, from any thread; the publisher's lock is held, so this only hands over."""
        assert self._loop is not None
        if len(self._incoming) >= MAX_EVENTS:
            # The loop has not come to its callbacks for long; it will find the mark when it does.
            self._behind = True
            return
        self._incoming.append(event)
        if not self._waking:
            self._waking = True
            self._call_soon(self._take_in)

    def end(self) -> None:
        """Let the subscriber read what it has, and then stop; from any thread."""
        self._call_soon(self._stop)

    def _call_soon(self, callback: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            # The subscriber's loop is closed: it will not read any more.
            self._leave(self)

    def _take_in(self) -> None:
        # First, so that an event appended from now on wakes the loop again.
        self._waking = False
        for _ in range(BATCH):
            if not self._incoming or self._behind:
                break
            event = self._incoming.popleft()
            if self._accepts(event.field):
                self._ready.append(event.envelope)
                self._bytes += len(event.envelope.event.value)
                self._behind = len(self._ready) > MAX_EVENTS or self._bytes > MAX_BYTES
        if self._behind:
            self._leave(self)
            self._incoming.clear()
            self._ready.clear()
        elif self._incoming and not self._waking:
            self._waking = True
            self._call_soon(self._take_in)
        self._changed.set()

    def _stop(self) -> None:
        self._ended = True
        self._changed.set()
