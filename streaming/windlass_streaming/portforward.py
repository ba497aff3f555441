"""Port-forward: connections to ports of a pod, each a pair of streams for its bytes and for what went wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping

from windlass.errors import Error, InvalidArgument
from windlass_streaming.backend import Backend, PortForward, Wanted
from windlass_streaming.channel import Channel
from windlass_streaming.remotecommand import BASE64_V4, V4, WebSocketEnds, first_of
from windlass_streaming.streams import Stream, Streams
from windlass_streaming.websocket import WebSocket

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
WEBSOCKET_PROTOCOLS = (TUNNEL, V4, BASE64_V4, "")
PAIRING = 30.0
"""Seconds within which the second stream of a pair has to come."""


async def serve_spdy(streams: Streams, request: PortForward, backend: Backend) -> None:
    """Serve connections until the client ends."""
    reading = asyncio.ensure_future(streams.run())
    waiting: dict[str, dict[str, Stream]] = {}
    tasks: set[asyncio.Task[None]] = set()
    try:
        while (stream := await streams.opened()) is not None:
            pair = waiting.setdefault(request_id(stream), {})
            kind = stream.headers.get("streamtype", "")
            if kind not in ("data", "error") or kind in pair:
                await stream.reset()
                continue
            pair[kind] = stream
            if len(pair) == 2:
                del waiting[request_id(stream)]
                task = asyncio.create_task(_forward(streams, request.sandbox, pair["data"], pair["error"], backend))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            elif len(pair) == 1:
                asyncio.get_running_loop().call_later(PAIRING, _give_up, waiting, request_id(stream), pair)
    except (ConnectionError, OSError):
        pass  # the client is gone
    finally:
        for task in tasks:
            task.cancel()
        reading.cancel()
        await asyncio.wait({reading, *tasks})
        await streams.close()


def request_id(stream: Stream) -> str:
    """Return what a pair has in common; without the header the error stream comes two before its data."""
    given = stream.headers.get("requestid")
    if given is not None:
        return given
    return f"#{stream.number + 2 if stream.headers.get('streamtype') == 'error' else stream.number}"


def _give_up(waiting: dict[str, dict[str, Stream]], key: str, pair: Mapping[str, Stream]) -> None:
    if waiting.get(key) is pair:
        del waiting[key]
        for stream in pair.values():
            stream.incoming.drop()


async def _forward(streams: Streams, sandbox: str, data: Stream, error: Stream, backend: Backend) -> None:
    try:
        try:
            await backend.forward(sandbox, port_of(data.headers.get("port", "")), data)
        except Error as problem:
            await error.write(str(problem).encode())
        await error.write_end()
        await data.write_end()
    except (ConnectionError, OSError):
        pass  # the client is gone, which the reader sees
    finally:
        streams.forget(data)
        streams.forget(error)


def port_of(text: str) -> int:
    """Return a port. Raises InvalidArgument for what is not one."""
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:6]) < 1 << 16:
        raise InvalidArgument(f'"{text[:20]}" is not a port')
    return int(text)


class ChannelPipe:
    """The bytes of one port in a WebSocket: its channel, and the next one for errors."""

    def __init__(self, ends: PortChannels, number: int) -> None:
        """Be the pipe of the request's port ``number``, from 0."""
        self._ends = ends
        self._channel = 2 * number
        self.incoming = Channel()

    async def read(self) -> bytes:
        """Return what comes."""
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        await self._ends.send(self._channel, data)

    async def write_end(self) -> None:
        """Do nothing: a channel has no end of its own."""


class PortChannels(WebSocketEnds):
    """The channels of all ports in a WebSocket."""

    pipes: tuple[ChannelPipe, ...] = ()

    async def _put(self, channel: int, data: bytes) -> None:
        if channel % 2 == 0 and 0 <= channel < 2 * len(self.pipes):
            await self.pipes[channel // 2].incoming.put(data)

    def end(self) -> None:
        """Nothing more comes."""
        super().end()
        for pipe in self.pipes:
            pipe.incoming.end()


async def serve_websocket(websocket: WebSocket, protocol: str, request: PortForward, backend: Backend) -> None:
    """Serve one connection to each port that was asked for."""
    ends = PortChannels(websocket, protocol, Wanted(stdin=False, stdout=True, stderr=False, tty=False))
    ends.pipes = tuple(ChannelPipe(ends, number) for number in range(len(request.ports)))
    reading = asyncio.ensure_future(ends.run())

    async def forward(number: int, port: int) -> None:
        for channel in (2 * number, 2 * number + 1):
            await ends.send(channel, struct.pack("<H", port))
        try:
            await backend.forward(request.sandbox, port, ends.pipes[number])
        except Error as problem:
            await ends.send(2 * number + 1, str(problem).encode())

    work = asyncio.gather(*(forward(number, port) for number, port in enumerate(request.ports)))
    try:
        await first_of(work, reading)
        if work.done():
            await work
            await websocket.close()
    except (ConnectionError, OSError):
        pass  # the client is gone
    finally:
        work.cancel()
        reading.cancel()
        await asyncio.gather(work, reading, return_exceptions=True)
