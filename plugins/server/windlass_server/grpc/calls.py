"""One gRPC call: feeds its handler with what the stream brings, and the stream with what the handler answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping

from google.protobuf.message import DecodeError

from windlass import tracing
from windlass.contracts.metrics import Counter
from windlass.contracts.rpc import NAMESPACE, Method
from windlass.errors import Cancelled, Code, Error
from windlass.typing import override
from windlass_server.grpc import messages
from windlass_server.grpc import metadata as wire
from windlass_server.grpc.answers import Answering, Limits
from windlass_server.grpc.begun import begun
from windlass_server.grpc.bodies import Body
from windlass_server.grpc.links import Link
from windlass_server.grpc.metadata import Refused
from windlass_server.http2.requests import Request
from windlass_server.http2.streams import Stream
from windlass_server.subjects import subject

logger = logging.getLogger(__name__)


Find = Callable[[str], Method]
"""Returns the method that a path names. Raises Refused."""


class Call(Answering):
    """A call from its headers to its status."""

    __slots__ = ("_body", "_deadline", "_started", "_task", "_timer", "running")

    def __init__(self, link: Link, stream: Stream, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        """Begin without knowing what is called."""
        super().__init__(link, stream, limits, loop)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._body = Body(link, stream, limits.receive)
        self._started = False
        self.running = False
        """The handler has not returned, though the call may be over."""

    # What the stream brings

    def begin(self, request: Request | None, find: Find, counters: Mapping[str, Counter]) -> None:
        """Find the method, and run its handler as soon as it has what it needs; ``counters`` are by path."""
        try:
            if request is None:
                raise Refused(Code.RESOURCE_EXHAUSTED, "the headers are larger than this server takes", status=431)
            timeout = self._read(wire.parse(request), find)
            if (counter := counters.get(self._path)) is not None:
                self._counter, self._begun = counter, counter.begin()
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
        if tracing.active:
            self._span = begin_span(head)
        self._method = find(head.path)
        self._namespace = self._method.namespace
        self._body.encoded(head.encoding)
        # as grpc-go: who sends gzip gets gzip, whatever it says that it accepts
        self._compresses = head.encoding == messages.GZIP
        return head.timeout

    def received(self, data: memoryview, ended: bool) -> None:
        """Take a part of the request."""
        if self.over:
            self._link.credit(self.stream, len(data))
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
        self._link.credit(self.stream, len(data))
        if self._task is None:
            message = self._body.only(data)
            if message is not None:
                self._run(*message)
        elif data:
            raise Refused(Code.INTERNAL, "more than one message in a call that takes one")

    def gone(self) -> None:
        """Stop: the peer has reset the stream or left."""
        if not self.over:
            self._note_end(Code.CANCELLED, "the client has left")
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
            self._link.released(self.stream)

    # The handler

    def _run(self, compressed: bool, message: bytes) -> None:
        if self._deadline is not None and self._deadline <= self._loop.time():
            self._expire()
            return
        self.running = True
        serving = self._serve(compressed, message)
        if not (self._method.quick and self._link.prompt):
            self._task = self._loop.create_task(serving)
        elif (rest := begun(serving)) is not None:
            self._task = self._loop.create_task(rest, context=rest.context)

    async def _serve(self, compressed: bool, message: bytes) -> None:
        self._started = True
        method = self._method
        try:
            request = _Requests(self) if method.takes_stream else await self._decode(compressed, message)
            if self._span is not None:
                tracing.current.set(self._span)
                self._subject = subject(method.path, request)
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
            self._link.released(self.stream)

    async def _decode(self, compressed: bool, message: bytes) -> object:
        if compressed:
            message = await self._body.expand(message)
        if self._counter is not None:
            self._counter.received += 1
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

    # The end

    @override
    def _end(self) -> None:
        super()._end()
        if self._timer is not None:
            self._timer.cancel()
        self._body.clear()

    @property
    @override
    def remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - self._loop.time(), 0.0)


class _Requests:
    """The requests of a stream, for ``async for``."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> object:
        return await self._call.read()


def begin_span(head: wire.Head) -> tracing.Span:
    """Begin the span of a call, in the client's trace if it names one."""
    texts = {name: value for name, value in head.metadata if isinstance(value, str)}
    service, _, method = head.path[1:].rpartition("/")
    facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    if namespace := texts.get(NAMESPACE):
        facts["containerd.namespace"] = namespace
    return tracing.begin(head.path[1:], tracing.SERVER, texts, facts)
