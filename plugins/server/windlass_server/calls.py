"""One gRPC call: feeds its handler with what the stream brings, and the stream with what the handler answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from windlass.contracts import rpc
from windlass.contracts.rpc import Method
from windlass.errors import Cancelled, Code, Error, name_of
from windlass.typing import override
from windlass_server import messages
from windlass_server import metadata as wire
from windlass_server.frames import ErrorCode
from windlass_server.headers import Field
from windlass_server.messages import Incoming
from windlass_server.metadata import Malformed, Refused
from windlass_server.streams import Stream

MOST_HELD = 256 << 20
"""Bytes of requests, and of responses, that one connection may have waiting here."""

OVER = "the call is over"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest messages, in bytes."""

    receive: int
    send: int


Find = Callable[[str], Method]
"""Returns the method that a path names. Raises Refused."""


class Call(rpc.Call):
    """A call from its headers to its status; `windlass_server.streams.Receiver` of its stream."""

    __slots__ = (
        "_callbacks",
        "_compresses",
        "_deadline",
        "_incoming",
        "_is_over",
        "_kept",
        "_limits",
        "_loop",
        "_method",
        "_owed",
        "_path",
        "_peer_ended",
        "_started",
        "_task",
        "_timer",
        "_trailing",
        "_unsent_headers",
        "_waiter",
        "running",
        "stream",
    )

    _method: Method
    _incoming: Incoming

    def __init__(self, stream: Stream, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """Begin without knowing what is called."""
        super().__init__()
        self.stream = stream
        self._limits = limits
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[], None]] | None = None
        self._unsent_headers: bytes | None = wire.INITIAL
        self._kept = self._owed = 0
        self._path = "a call"
        self._peer_ended = self._started = self._compresses = False
        self._trailing: rpc.Metadata = ()
        self._is_over = False
        """The status is sent or queued, or there is nobody to send it to."""
        self.running = False
        """The handler has not returned, though the call may be over."""

    # What the stream brings

    def begin(self, fields: list[Field] | None, find: Find) -> None:
        """Find the method, and run its handler as soon as it has what it needs."""
        try:
            if fields is None:
                raise Refused(Code.RESOURCE_EXHAUSTED, "the headers are larger than this server takes", status=431)
            head = wire.parse(fields)
            self.metadata = head.metadata
            self._path = head.path
            self._method = find(head.path)
            self._namespace = self._method.namespace
            self._incoming = Incoming(self._limits.receive, head.encoding)
            # as grpc-go: who sends gzip gets gzip, whatever it says that it accepts
            self._compresses = head.encoding == messages.GZIP
        except Refused as refused:
            self._refuse(refused)
            return
        except Malformed as error:
            logger.debug("%s: %s", self.stream.peer, error)
            self._is_over = True
            self.stream.reset(ErrorCode.PROTOCOL_ERROR)
            return
        if head.timeout is not None:
            self._deadline = self._loop.time() + head.timeout
            self._timer = self._loop.call_at(self._deadline, self._expire)
        if self._method.takes_stream:
            self._run(False, b"")

    def received(self, data: memoryview, ended: bool) -> None:
        """Take a part of the request."""
        self._peer_ended = self._peer_ended or ended
        if self._is_over:
            self.stream.credit(len(data))
            return
        try:
            if self._method.takes_stream:
                self._take_part(data)
            else:
                self._take_only(data)
        except Refused as refused:
            self._refuse(refused)
            self._stop()

    def _take_only(self, data: memoryview) -> None:
        self.stream.credit(len(data))
        if self._task is not None:
            if data:
                raise Refused(Code.INTERNAL, "more than one message in a call that takes one")
            return
        message = self._incoming.whole(data)
        if message is not None:
            self._run(False, message)
            return
        self._hold(data)
        if self._incoming.ready():
            compressed, message = self._incoming.take()
            self._release(len(message) + messages.PREFIX_SIZE)
            if len(self._incoming):
                raise Refused(Code.INTERNAL, "more than one message in a call that takes one")
            self._run(compressed, message)
        elif self._peer_ended:
            raise Refused(Code.INTERNAL, "the request ended before its message")

    def _take_part(self, data: memoryview) -> None:
        self._hold(data)
        self._owed += len(data)
        if self._waiter is not None:
            if self._incoming.ready() or self._peer_ended:
                self._wake()
            else:
                self._credit(self._owed)

    def _hold(self, data: memoryview) -> None:
        self._incoming.append(data)
        self._kept += len(data)
        if self.stream.hold(len(data)) > MOST_HELD:
            raise Refused(Code.RESOURCE_EXHAUSTED, "requests that are not whole yet take too much memory")

    def _release(self, size: int) -> None:
        self._kept -= size
        self.stream.hold(-size)

    def _credit(self, size: int) -> None:
        self._owed -= size
        self.stream.credit(size)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    def gone(self) -> None:
        """Stop: the peer has reset the stream or left."""
        self._end()
        self._stop()

    def refuse(self, message: str) -> None:
        """End as UNAVAILABLE."""
        self.finish(Code.UNAVAILABLE, message)
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
            self.stream.released()

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
            if not self._is_over:
                logger.exception("%s failed", method.path)
            self.finish(Code.UNKNOWN, f"Unexpected {type(error)}: {error}")
        finally:
            self._task = None  # which may keep an error whose traceback leads back here
            self.running = False
            self.stream.released()

    async def _decode(self, compressed: bool, message: bytes) -> object:
        if compressed:
            message = await self._incoming.expand(message)
        try:
            return self._method.decode(message)
        except DecodeError as error:
            raise Refused(Code.INTERNAL, f"grpc: error unmarshalling request: {error}") from None

    async def _stream_out(self, responses: AsyncIterable[object]) -> None:
        try:
            async for response in responses:
                await self.write(response)
        finally:
            if isinstance(responses, AsyncGenerator):
                await responses.aclose()
        self.finish(Code.OK, "")

    async def read(self) -> object:
        """Return the next request. Raises StopAsyncIteration after the last, and the error of one that is not whole."""
        try:
            while not self._incoming.ready():
                await self._more()
            compressed, message = self._incoming.take()
            size = len(message) + messages.PREFIX_SIZE
            self._release(size)
            self._credit(min(size, self._owed))
            return await self._decode(compressed, message)
        except Refused as refused:
            self._refuse(refused)
            raise Cancelled(str(refused)) from None

    async def _more(self) -> None:
        self._credit(self._owed)
        if self._peer_ended and len(self._incoming):
            raise Refused(Code.INTERNAL, "the request ended in the middle of a message")
        if self._peer_ended:
            raise StopAsyncIteration
        if self._is_over:
            raise Cancelled(OVER)
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError("the request is being read already")
        self._waiter = self._loop.create_future()
        await self._waiter

    async def write(self, response: object) -> None:
        """Send a response of a stream, and wait until there is room for another."""
        data = b"" if self._is_over else await self._encode(response)
        if self._is_over:
            raise Cancelled(OVER)
        self.stream.send(self._headers(), data, None)
        await self.stream.drained()

    async def _respond(self, response: object) -> None:
        data = b"" if self._is_over else await self._encode(response)
        if self._is_over:
            return
        headers = self._headers()
        trailers = wire.trailers(Code.OK, "", wire.encode_metadata(self._trailing)) if self._trailing else wire.OK
        self._end()
        self.stream.send(headers, data, trailers)

    def _headers(self) -> bytes | None:
        """Return the headers of an answer that has messages, None when they are sent."""
        headers, self._unsent_headers = self._unsent_headers, None
        return headers + wire.GZIPPED if headers is not None and self._compresses else headers

    async def _encode(self, response: object) -> bytes:
        message = self._method.encode(response)
        if self._compresses:
            data = await messages.gzipped(message, self._limits.send)
        else:
            data = messages.frame(message, self._limits.send)
        if self.stream.backlog + len(data) > MOST_HELD:
            raise Refused(Code.RESOURCE_EXHAUSTED, "responses that the client does not read take too much memory")
        return data

    def _refuse(self, refused: Refused) -> None:
        if self._unsent_headers is not None:
            self._unsent_headers = wire.initial(refused.status) + refused.headers
        self.finish(refused.code, str(refused))

    def finish(self, code: int, message: str) -> None:
        """Send the status, unless the call is over."""
        if self._is_over:
            return
        if code != Code.OK:
            logger.debug("%s failed: %s: %s", self._path, name_of(code), message)
        trailers = wire.trailers(code, message, wire.encode_metadata(self._trailing))
        if self._unsent_headers is not None:
            trailers, self._unsent_headers = self._unsent_headers + trailers, None
        self._end()
        self.stream.send(None, b"", trailers)

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._kept or self._callbacks is not None:
            self._let_go()

    def _let_go(self) -> None:
        self._credit(self._owed)
        self._release(self._kept)
        self._incoming.clear()
        for callback in self._callbacks or ():
            self._loop.call_soon(callback)
        self._callbacks = None

    # What the handler uses

    @property
    @override
    def peer(self) -> str:
        return self.stream.peer

    @property
    @override
    def remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - self._loop.time(), 0.0)

    @property
    @override
    def over(self) -> bool:
        return self._is_over

    @override
    def add_done_callback(self, callback: Callable[[], None]) -> None:
        if self._is_over:
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
        if not self._is_over:
            self.stream.send(headers + encoded, b"", None)

    @override
    def set_trailers(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(metadata)


class _Requests:
    """The requests of a stream, for ``async for``."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> object:
        return await self._call.read()
