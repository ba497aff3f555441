"""The streams of one SPDY connection, on an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from windlass_streaming import spdy
from windlass_streaming.channel import Channel
from windlass_streaming.wire import Wire

logger = logging.getLogger(__name__)


class Stream:
    """One stream: what comes is in its channel, what goes is written."""

    def __init__(self, number: int, headers: Mapping[str, str], streams: Streams) -> None:
        """Belong to a connection."""
        self.number = number
        self.headers = headers
        self.incoming = Channel()
        self._streams = streams

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        """Send bytes; dropped when the client has given the stream up. Raises ConnectionError."""
        await self._streams.send(self._streams.core.data(self.number, data))

    async def write_end(self) -> None:
        """Say that no more comes."""
        await self._streams.send(self._streams.core.data(self.number, b"", fin=True))

    async def reset(self) -> None:
        """Give the stream up."""
        self.incoming.drop()
        await self._streams.send(self._streams.core.reset(self.number))


class Streams:
    """All streams of a connection. `run` reads; streams that the client opens come out of `opened`."""

    def __init__(self, wire: Wire) -> None:
        """Go on with a connection after the upgrade."""
        self.core = spdy.Connection()
        self._wire = wire
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue()

    async def run(self) -> None:
        """Read until the connection ends; then every stream has ended, too. Raises nothing but cancellation."""
        try:
            while data := await self._wire.read():
                events = self.core.receive(data)
                await self.send(self.core.to_send())
                for event in events:
                    await self._handle(event)
        except (ConnectionError, OSError, spdy.ProtocolError) as error:
            logger.debug("streaming connection: %s", error)
        finally:
            for stream in self._streams.values():
                stream.incoming.end()
            self._opened.put_nowait(None)

    async def _handle(self, event: spdy.Event) -> None:
        if isinstance(event, spdy.StreamOpened):
            stream = Stream(event.stream, event.headers, self)
            self._streams[event.stream] = stream
            if event.fin:
                stream.incoming.end()
            await self.send(self.core.accept(event.stream))
            self._opened.put_nowait(stream)
        elif isinstance(event, spdy.Data):
            stream = self._streams[event.stream]
            await stream.incoming.put(event.data)
            if event.fin:
                stream.incoming.end()
        elif isinstance(event, spdy.Reset):
            self._streams[event.stream].incoming.drop()

    async def opened(self) -> Stream | None:
        """Return the next stream that the client has opened, None when there will be no more."""
        return await self._opened.get()

    def forget(self, stream: Stream) -> None:
        """Keep a stream that has ended no longer."""
        stream.incoming.drop()
        self._streams.pop(stream.number, None)

    async def send(self, data: bytes) -> None:
        """Send frames."""
        await self._wire.write(data)

    async def close(self) -> None:
        """Say goodbye and close the connection."""
        try:
            await self.send(self.core.go_away())
        except (ConnectionError, OSError):
            pass  # the client was faster
        await self._wire.close()
