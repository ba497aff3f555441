"""The two ends of a ttrpc connection inside a `Mux`: `Client` calls, `Server` answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from windlass.errors import (
    Code,
    DeadlineExceeded,
    Error,
    Internal,
    ResourceExhausted,
    Unavailable,
    as_exception,
    from_code,
)
from windlass_api.ttrpc.framing import (
    MAX_DATA,
    REQUEST,
    RESPONSE,
    Frame,
    FrameDecoder,
    Malformed,
    Request,
    Response,
    decode_response,
    encode_request,
    encode_response,
    pack_frame,
)
from windlass_api.ttrpc.serving import Called, Connection

MAX_STREAM = 0xFFFFFFFF
MOST_HELD = 16 << 20
"""Bytes of requests that one peer may have under way."""

logger = logging.getLogger(__name__)


class Service(Protocol):
    """What a `Server` calls; the same as `windlass.contracts.services.TtrpcService`."""

    @property
    def name(self) -> str:
        """Return the full name, such as ``nri.pkg.api.v1alpha1.Runtime``."""
        ...

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer one call; a `windlass.errors.Error` travels to the caller. NRI has no namespaces."""
        ...


class Trunk(Protocol):
    """What carries the connections."""

    name: str
    reason: str

    def send(self, connection: int, message: bytes) -> None:
        """Send one ttrpc message."""
        ...

    async def drained(self) -> None:
        """Wait while the peer does not read."""
        ...


class End(Protocol):
    """What receives one connection's stream."""

    def receive(self, data: bytes) -> None:
        """Take a piece of the stream."""
        ...

    def ended(self) -> None:
        """End all that is under way; the trunk's ``reason`` says why."""
        ...


class Client:
    """The caller's end of one connection."""

    def __init__(self, trunk: Trunk, connection: int) -> None:
        """Call through ``trunk``."""
        self._loop = asyncio.get_running_loop()
        self._trunk = trunk
        self._connection = connection
        self._decoder = FrameDecoder()
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._next = 1

    async def call(self, service: str, method: str, payload: bytes, timeout: float | None) -> bytes:
        """Make a call and return the answer's payload.

        Raises the error that the peer answered with, DeadlineExceeded after ``timeout`` seconds,
        Unavailable when the connection has ended or ends, ResourceExhausted for a message over 4 MiB.
        A call that is cancelled is dropped: its answer, if any, is ignored.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._call(service, method, payload, timeout)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer of {self._trunk.name} to {method} within {timeout or 0:g} s") from error

    async def _call(self, service: str, method: str, payload: bytes, timeout: float | None) -> bytes:
        nanoseconds = 0 if timeout is None else max(1, int(timeout * 1e9))
        body = encode_request(Request(service, method, payload, nanoseconds))
        if len(body) > MAX_DATA:
            raise ResourceExhausted(f"{method} request of {len(body)} bytes exceeds the limit of {MAX_DATA}")
        await self._trunk.drained()
        if self._trunk.reason:
            raise Unavailable(f"{self._trunk.name} {self._trunk.reason}")
        stream = self._next
        if stream > MAX_STREAM:
            raise ResourceExhausted(f"connection to {self._trunk.name} has no stream left")
        self._next += 2
        answer = self._pending[stream] = self._loop.create_future()
        try:
            self._trunk.send(self._connection, pack_frame(stream, REQUEST, 0, body))
            result: bytes = await answer
            return result
        finally:
            self._pending.pop(stream, None)
            del answer  # an error's traceback has this frame, and the future has the error

    def receive(self, data: bytes) -> None:
        """Settle the calls that ``data`` answers; late answers to calls that were given up are ignored."""
        for frame in self._decoder.feed(data):
            answer = self._pending.get(frame.stream)
            if answer is not None and not answer.done():
                _settle(answer, frame)

    def ended(self) -> None:
        """Fail all calls."""
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"{self._trunk.name} {self._trunk.reason}"))
        self._pending.clear()


def _settle(answer: asyncio.Future[bytes], frame: Frame) -> None:
    if frame.oversized:
        answer.set_exception(ResourceExhausted(f"answer of {frame.length} bytes exceeds the limit of {MAX_DATA}"))
        return
    if frame.type != RESPONSE:
        return
    try:
        response = decode_response(frame.data)
    except Malformed as error:
        answer.set_exception(Internal(f"answer cannot be read: {error}"))
        return
    if response.code:
        answer.set_exception(from_code(response.code, response.message))
    else:
        answer.set_result(response.payload)


class Server:
    """The answering end of one connection; calls run side by side, each answered on its stream."""

    def __init__(self, trunk: Trunk, connection: int, services: Sequence[Service]) -> None:
        """Answer through ``trunk`` by ``services``."""
        self._trunk = trunk
        self._connection = connection
        self._services = {service.name: service for service in services}
        self._core = Connection()
        self._running: set[asyncio.Task[Response]] = set()
        self._held = 0

    def receive(self, data: bytes) -> None:
        """Begin every call that has arrived, or refuse it when those under way hold too much."""
        for called in self._core.receive(data):
            size = len(called.request.payload)
            if self._held + size > MOST_HELD:
                text = f"calls under way hold {self._held} bytes, and {called.request.method} has {size} more"
                self._core.respond(called.stream, Response(Code.RESOURCE_EXHAUSTED, text))
                continue
            self._held += size
            task = asyncio.ensure_future(self._serve(called))
            self._running.add(task)
            task.add_done_callback(partial(self._done, called.stream, size))
        self._flush()

    def ended(self) -> None:
        """Cancel all calls."""
        for task in self._running:
            task.cancel()

    def _done(self, stream: int, size: int, task: asyncio.Task[Response]) -> None:
        self._running.discard(task)
        self._held -= size
        if task.cancelled():
            response = Response(Code.CANCELLED, "the call was cancelled by its handler")
        elif defect := task.exception():
            logger.error("a call of %s ended by a defect", self._trunk.name, exc_info=defect)
            response = Response(Code.UNKNOWN, f"{type(defect).__name__}: {defect}")
        else:
            response = task.result()
        self._core.respond(stream, _fitting(response))
        self._flush()

    async def _serve(self, called: Called) -> Response:
        request = called.request
        service = self._services.get(request.service)
        if service is None:
            return Response(Code.UNIMPLEMENTED, f"service {request.service}")
        try:
            async with asyncio.timeout(request.timeout_nano / 1e9 or None):
                return Response(payload=await service.call(request.method, "", request.payload))
        except Error as error:
            return Response(error.code, str(error))
        except TimeoutError:
            return Response(Code.DEADLINE_EXCEEDED, f"{request.method} did not end in the time it was given")
        except (SystemExit, KeyboardInterrupt) as error:  # which would leave the loop
            raise as_exception(error, request.method) from error

    def _flush(self) -> None:
        for message in self._core.take_each():
            self._trunk.send(self._connection, message)


def _fitting(response: Response) -> Response:
    size = len(encode_response(response))
    if size <= MAX_DATA:
        return response
    return Response(Code.RESOURCE_EXHAUSTED, f"answer of {size} bytes exceeds the limit of {MAX_DATA}")
