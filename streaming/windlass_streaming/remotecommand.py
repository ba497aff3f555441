"""Exec and attach: the streams of a command over SPDY streams or WebSocket channels, and its status at the end."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import TypeVar

from windlass.errors import Error
from windlass_streaming.backend import Attach, Backend, Exec, Size, Wanted
from windlass_streaming.channel import Channel
from windlass_streaming.streams import Stream, Streams
from windlass_streaming.websocket import INTERNAL_ERROR, NORMAL, WebSocket

A = TypeVar("A")
B = TypeVar("B")

CREATION = 30.0
"""Seconds in which a client has to open its streams."""
V5, V4, V3, V2, V1 = (f"{version}channel.k8s.io" for version in ("v5.", "v4.", "v3.", "v2.", ""))
SPDY_PROTOCOLS = (V4, V3, V2, V1)
BASE64_V1, BASE64_V4 = "base64.channel.k8s.io", "v4.base64.channel.k8s.io"
WEBSOCKET_PROTOCOLS = (V5, V4, BASE64_V4, V1, BASE64_V1, "")
STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
MESSAGE_LIMIT = 1 << 20
"""Bytes of a message that has to be had whole: one in base64, or a terminal's size."""
SIZE_LIMIT = 1024


class Ends:
    """What both transports share: input and sizes that have come."""

    def __init__(self) -> None:
        """Have nothing yet."""
        self.stdin = Channel()
        self.resizes = Channel()

    async def read(self) -> bytes:
        """Return what comes for standard input, b"" at the end."""
        return await self.stdin.get()

    async def sizes(self) -> AsyncIterator[Size]:
        """Yield sizes; what is not one is left out, and so is one of nothing."""
        decoder = json.JSONDecoder()
        text = ""
        while data := await self.resizes.get():
            text = (text + data.decode(errors="replace"))[-SIZE_LIMIT:].lstrip()
            while text:
                try:
                    value, end = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    break
                text = text[end:].lstrip()
                if (size := _size(value)) is not None:
                    yield size

    def end(self) -> None:
        """Nothing more comes."""
        self.stdin.end()
        self.resizes.end()


def _size(value: object) -> Size | None:
    if not isinstance(value, dict):
        return None
    width, height = value.get("Width"), value.get("Height")
    if isinstance(width, int) and isinstance(height, int) and 0 < width < 1 << 16 and 0 < height < 1 << 16:
        return Size(width, height)
    return None


class SpdyEnds(Ends):
    """The streams of one command on a SPDY connection."""

    def __init__(self, streams: dict[str, Stream]) -> None:
        """Use streams by their types."""
        super().__init__()
        self._streams = streams
        if "stdin" in streams:
            self.stdin = streams["stdin"].incoming
        else:
            self.stdin.end()
        if "resize" in streams:
            self.resizes = streams["resize"].incoming
        else:
            self.resizes.end()

    async def write(self, data: bytes, *, error: bool = False) -> None:
        """Send to standard output or error."""
        stream = self._streams.get("stderr" if error else "stdout")
        if stream is not None:
            await stream.write(data)


async def serve_spdy(streams: Streams, protocol: str, request: Exec | Attach, backend: Backend) -> None:
    """Serve one command on a SPDY connection, until its end or the client's."""
    reading = asyncio.ensure_future(streams.run())
    try:
        try:
            async with asyncio.timeout(CREATION):
                found = await _collect(streams, expected(request.wanted, protocol))
        except TimeoutError:
            return
        if found is None:
            return
        ends = SpdyEnds(found)
        problem = await run_until_gone(request, ends, backend, reading)
        for name in ("stdout", "stderr"):
            if name in found:
                await found[name].write_end()
        text = status(request, problem) if protocol == V4 else plain_status(request, problem)
        await found["error"].write(text)
        await found["error"].write_end()
    except (ConnectionError, OSError):
        pass  # the client is gone
    finally:
        await streams.close()
        reading.cancel()
        await asyncio.wait({reading})


def expected(wanted: Wanted, protocol: str) -> set[str]:
    """Return the types of streams that a client opens."""
    types = {"error"}
    types |= {"stdin"} if wanted.stdin else set()
    types |= {"stdout"} if wanted.stdout else set()
    types |= {"stderr"} if wanted.stderr and not wanted.tty else set()
    types |= {"resize"} if wanted.tty and protocol in (V4, V3) else set()
    return types


async def _collect(streams: Streams, types: set[str]) -> dict[str, Stream] | None:
    found: dict[str, Stream] = {}
    while types - found.keys():
        stream = await streams.opened()
        if stream is None:
            return None
        kind = stream.headers.get("streamtype", "")
        if kind not in types or kind in found:
            await stream.reset()
        else:
            found[kind] = stream
    return found


async def run_until_gone(
    request: Exec | Attach, ends: SpdyEnds | WebSocketEnds, backend: Backend, reading: asyncio.Future[None]
) -> int | Error:
    """Run the command; one whose client goes away is cancelled. Returns the exit status, or the error.

    Raises ConnectionError when the client has gone.
    """
    work = asyncio.ensure_future(_run(request, ends, backend))
    try:
        await first_of(work, reading)
        if not work.done():
            raise ConnectionResetError("the client has gone")
        return await work
    finally:
        if work.cancel():
            await asyncio.wait({work})


async def first_of(one: asyncio.Future[A], other: asyncio.Future[B]) -> None:
    """Wait until one of two is done."""
    futures: list[asyncio.Future[A] | asyncio.Future[B]] = [one, other]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _run(request: Exec | Attach, ends: SpdyEnds | WebSocketEnds, backend: Backend) -> int | Error:
    try:
        if isinstance(request, Exec):
            return await backend.exec(request, ends)
        await backend.attach(request, ends)
        return 0
    except Error as error:
        return error


def status(request: Exec | Attach, outcome: int | Error) -> bytes:
    """Return the document by which v4 and v5 say how it ended (a Status of Kubernetes)."""
    if outcome == 0:
        return b'{"status":"Success"}'
    document: dict[str, object] = {"status": "Failure", "message": _message(request, outcome)}
    if isinstance(outcome, Error):
        document |= {"reason": "InternalError", "code": 500}
    else:
        causes = [{"reason": "ExitCode", "message": str(outcome)}]
        document |= {"reason": "NonZeroExitCode", "details": {"causes": causes}}
    return json.dumps(document).encode()


def plain_status(request: Exec | Attach, outcome: int | Error) -> bytes:
    """Return how older protocols say it: nothing, or a text."""
    return b"" if outcome == 0 else _message(request, outcome).encode()


def _message(request: Exec | Attach, outcome: int | Error) -> str:
    """Return the text that containerd has for it."""
    if isinstance(outcome, Error):
        what = "executing command in container" if isinstance(request, Exec) else "attaching to container"
        return f"Internal error occurred: error {what}: {outcome}"
    command = " ".join(request.command) if isinstance(request, Exec) else ""
    reason = f"error executing command [{command}], exit code {outcome}"
    return f"command terminated with non-zero exit code: {reason}"


class WebSocketEnds(Ends):
    """The channels of one command in a WebSocket: the first byte of each message is the channel's number."""

    def __init__(self, websocket: WebSocket, protocol: str, wanted: Wanted) -> None:
        """Serve a subprotocol of `WEBSOCKET_PROTOCOLS`."""
        super().__init__()
        self._websocket = websocket
        self._wanted = wanted
        self._base64 = protocol in (BASE64_V1, BASE64_V4)
        self._closes = protocol == V5
        if not wanted.stdin:
            self.stdin.end()

    async def run(self) -> None:
        """Read until the client closes. Raises nothing but cancellation."""
        try:
            await (self._read_whole() if self._base64 else self._read_parts())
        except (ConnectionError, OSError):
            pass  # as if it had closed
        finally:
            self.end()

    async def _read_parts(self) -> None:
        channel = -1
        async for part in self._websocket.parts():
            data = part.data
            if part.first:
                channel = -1
            if channel < 0 and data:
                channel, data = data[0], data[1:]
            await self._put(channel, data)

    async def _read_whole(self) -> None:
        message = b""
        async for part in self._websocket.parts():
            message = part.data if part.first else message + part.data
            if len(message) > MESSAGE_LIMIT:
                raise ConnectionError(f"a message is larger than {MESSAGE_LIMIT} bytes")
            if part.last and message:
                try:
                    await self._put(message[0] - ord("0"), base64.b64decode(message[1:], validate=True))
                except binascii.Error:
                    raise ConnectionError("a message is not base64") from None

    async def _put(self, channel: int, data: bytes) -> None:
        if channel == STDIN:
            await self.stdin.put(data)
        elif channel == RESIZE:
            await self.resizes.put(data)
        elif channel == CLOSE and self._closes and data[:1] == bytes([STDIN]):
            self.stdin.end()

    async def write(self, data: bytes, *, error: bool = False) -> None:
        """Send to standard output or error."""
        if self._wanted.stderr and not self._wanted.tty if error else self._wanted.stdout:
            await self.send(STDERR if error else STDOUT, data)

    async def send(self, channel: int, data: bytes) -> None:
        """Send one message on a channel."""
        if self._base64:
            await self._websocket.send(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._websocket.send(bytes([channel]) + data)


async def serve_websocket(websocket: WebSocket, protocol: str, request: Exec | Attach, backend: Backend) -> None:
    """Serve one command in a WebSocket, until its end or the client's."""
    ends = WebSocketEnds(websocket, protocol, request.wanted)
    reading = asyncio.ensure_future(ends.run())
    write_status = status if protocol in (V5, V4, BASE64_V4) else plain_status
    try:
        await ends.send(STDOUT, b"")
        outcome = await run_until_gone(request, ends, backend, reading)
        if text := write_status(request, outcome):
            await ends.send(STATUS, text)
        await websocket.close(INTERNAL_ERROR if isinstance(outcome, Error) and protocol == "" else NORMAL)
    except (ConnectionError, OSError):
        pass  # the client is gone
    finally:
        reading.cancel()
        await asyncio.wait({reading})
