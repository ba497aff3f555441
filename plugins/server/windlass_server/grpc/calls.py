"""One gRPC call: feeds its handler with what the stream brings, and the stream with what the handler answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from windlass.contracts import rpc
from windlass.contracts.rpc import Method
from windlass.errors import Cancelled, Code, Error, name_of
from windlass.typing import override
from windlass_server.grpc import messages
from windlass_server.grpc import metadata as wire
from windlass_server.grpc.bodies import MOST_HELD, Body
from windlass_server.grpc.metadata import Refused
from windlass_server.http2.requests import Request
from windlass_server.http2.streams import Stream

if TYPE_CHECKING:
    from windlass_server.grpc.connection import Connection

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest messages, in bytes."""

    receive: int
    send: int


Find = Callable[[str], Method]
"""Returns the method that a path names. Raises Refused."""


class Call(rpc.Call):
    """A call from its headers to its status."""

    __slots__ = (
        "_body",
        "_callbacks",
        "_compresses",
        "_connection",
        "_deadline",
        "_limits",
        "_loop",
        "_method",
        "_path",
        "_started",
        "_task",
        "_timer",
        "_trailing",
        "_unsent_headers",
        "running",
        "stream",
    )

    _method: Method

    def __init__(self, connection: Connection, stream: Stream, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """Begin without knowing what is called."""
        super().__init__()
        self._connection = connection
        self.stream = stream
        self._limits = limits
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._body = Body(connection, stream, limits.receive)
        self._callbacks: list[Callable[[], None]] | None = None
        self._unsent_headers: bytes | None = wire.INITIAL
        self._path = "a call"
        self._started = self._compresses = False
        self._trailing = b""
        self.running = False
        """The handler has not returned, though the call may be over."""

    # What the stream brings

    def begin(self, request: Request | None, find: Find) -> None:
        """Find the method, and run its handler as soon as it has what it needs."""
        try:
            if request is None:
                raise Refused(Code.RESOURCE_EXHAUSTED, "the headers are larger than this server takes", status=431)
            timeout = self._read(wire.parse(request), find)
        except Refused as refused:
            self._refuse(refused)
            return
        if timeout is not None:
            self._deadline = self._loop.time() + timeout
            self._timer = self._loop.call_at(self._deadline, self._expire)
        if self._method.takes_stream:
            self._run(False, b"")

    def _read(self, head: wire.Head, find: Find) -> float | None:
        self.metadata = head.metadata
        self._path = head.path
        self._method = find(head.path)
        self._namespace = self._method.namespace
        self._body.encoded(head.encoding)
        # as grpc-go: who sends gzip gets gzip, whatever it says that it accepts
        self._compresses = head.encoding == messages.GZIP
        return head.timeout

    def received(self, data: memoryview, ended: bool) -> None:
        """Take a part of the request."""
        if self.over:
            self._connection.credit(self.stream, len(data))
            return
        self._body.ended = ended
        try:
            if self._method.takes_stream:
                self._body.part(data)
            else:
                self._take_only(data)
        except Refused as refused:
            self._refuse(refused)
            self._stop()

    def _take_only(self, data: memoryview) -> None:
        self._connection.credit(self.stream, len(data))
        if self._task is None:
            message = self._body.only(data)
            if message is not None:
                self._run(*message)
        elif data:
            raise Refused(Code.INTERNAL, "more than one message in a call that takes one")

    def gone(self) -> None:
        """Stop: the peer has reset the stream or left."""
        self._end()
        self._stop()

    def refuse(self, why: str) -> None:
        """End as UNAVAILABLE."""
        self.finish(Code.UNAVAILABLE, why)
        self._stop()

    def _expire(self) -> None:
        self.finish(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        self._stop()

    def _stop(self) -> None:
        if self._task is None or not self.running:
            return
        self._task.cancel()
        if not self._started:  # a task that is cancelled before its first step never runs a line of its coroutine
            self._task = None
            self.running = False
            self._connection.released(self.stream)

    # The handler

    def _run(self, compressed: bool, message: bytes) -> None:
        if self._deadline is not None and self._deadline <= self._loop.time():
            self._expire()
            return
        self.running = True
        self._task = self._loop.create_task(self._serve(compressed, message))

    async def _serve(self, compressed: bool, message: bytes) -> None:
        self._started = True
        method = self._method
        try:
            request = _Requests(self) if method.takes_stream else await self._decode(compressed, message)
            answer = method.handler(request, self)
            if isinstance(answer, AsyncIterable):
                await self._stream_out(answer)
            else:
                await self._respond(await answer)
        except Refused as refused:
            self._refuse(refused)
        except Error as error:
            self.finish(error.code, str(error))
        except asyncio.CancelledError:
            self.finish(Code.CANCELLED, "the call was cancelled by its handler")
            raise
        except BaseException as error:  # a defect of a handler, which its caller and the log get
            if not self.over:
                logger.exception("%s failed", method.path)
            self.finish(Code.UNKNOWN, f"Unexpected {type(error)}: {error}")
        finally:
            self._task = None  # which may keep an error whose traceback leads back here
            self.running = False
            self._connection.released(self.stream)

    async def _decode(self, compressed: bool, message: bytes) -> object:
        if compressed:
            message = await self._body.expand(message)
        try:
            return self._method.decode(message)
        except DecodeError as error:
            raise Refused(Code.INTERNAL, f"grpc: error unmarshalling request: {error}") from None

    async def read(self) -> object:
        """Return the next request. Raises StopAsyncIteration after the last, and the error of one that is not whole."""
        try:
            return await self._decode(*await self._body.next())
        except Refused as refused:
            self._refuse(refused)
            raise Cancelled(str(refused)) from None

    async def _stream_out(self, responses: AsyncIterable[object]) -> None:
        try:
            async for response in responses:
                await self._write(response)
        finally:
            if isinstance(responses, AsyncGenerator):
                await responses.aclose()
        self.finish(Code.OK, "")

    async def _write(self, response: object) -> None:
        data = b"" if self.over else await self._encode(response)
        if self.over:
            raise Cancelled("the call is over")
        self._connection.send(self.stream, self._headers(), data, None)
        await self._connection.drained(self.stream)

    async def _respond(self, response: object) -> None:
        data = b"" if self.over else await self._encode(response)
        if self.over:
            return
        headers = self._headers()
        trailers = wire.OK + self._trailing
        self._end()
        self._connection.send(self.stream, headers, data, trailers)

    async def _encode(self, response: object) -> bytes:
        message = self._method.encode(response)
        if self._compresses:
            data = await messages.gzipped(message, self._limits.send)
        else:
            data = messages.frame(message, self._limits.send)
        if self._connection.core.backlog + len(data) > MOST_HELD:
            raise Refused(Code.RESOURCE_EXHAUSTED, "responses that the client does not read take too much memory")
        return data

    # The end

    def _headers(self) -> bytes | None:
        """Return the headers of an answer that has messages, None when they are sent."""
        headers, self._unsent_headers = self._unsent_headers, None
        return headers + wire.GZIPPED if headers is not None and self._compresses else headers

    def _refuse(self, refused: Refused) -> None:
        if self._unsent_headers is not None:
            self._unsent_headers = wire.initial(refused.status) + refused.headers
        self.finish(refused.code, str(refused))

    def finish(self, code: int, message: str) -> None:
        """Send the status, unless the call is over."""
        if self.over:
            return
        if code != Code.OK:
            logger.debug("%s failed: %s: %s", self._path, name_of(code), message)
        trailers = wire.trailers(code, message) + self._trailing
        if self._unsent_headers is not None:
            trailers, self._unsent_headers = self._unsent_headers + trailers, None
        self._end()
        self._connection.send(self.stream, None, b"", trailers)

    def _end(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
        self._body.clear()
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            self._loop.call_soon(callback)

    # What the handler uses

    @property
    @override
    def peer(self) -> str:
        return self._connection.peer

    @property
    @override
    def remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - self._loop.time(), 0.0)

    @override
    def add_done_callback(self, callback: Callable[[], None]) -> None:
        if self.over:
            self._loop.call_soon(callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    @override
    def send_headers(self, metadata: Iterable[tuple[str, str | bytes]] = ()) -> None:
        encoded = wire.encode_metadata(metadata)
        headers = self._headers()
        if headers is None:
            raise RuntimeError("the headers of the answer are sent already")
        if not self.over:
            self._connection.send(self.stream, headers + encoded, b"", None)

    @override
    def set_trailers(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailing = wire.encode_metadata(metadata)


class _Requests:
    """The requests of a stream, for ``async for``."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> object:
        return await self._call.read()
