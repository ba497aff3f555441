"""A ttrpc client on the event loop: many calls on one connection, each with its own deadline.

Framing and envelopes are `windlass_api.ttrpc.framing`; this is the part that waits.
Every pending call ends when the connection does, so that no caller waits for a
peer that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from windlass import tracing
from windlass.errors import DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unavailable, from_code
from windlass.typing import override
from windlass_api.ttrpc.framing import (
    MAX_DATA,
    REQUEST,
    RESPONSE,
    Frame,
    FrameDecoder,
    Malformed,
    Request,
    decode_response,
    encode_request,
    pack_frame,
)
from windlass_runtime_v2.peer import Peer
from windlass_runtime_v2.sockets import connect_unix

NAMESPACE_KEY = "containerd-namespace-ttrpc"
MAX_STREAM = 0xFFFFFFFF


class Client(Peer, asyncio.Protocol):
    """One connection; made by `connect`. Only for use on the loop that it was made on."""

    def __init__(self, address: str) -> None:
        """Name the peer in errors by ``address``."""
        self._loop = asyncio.get_running_loop()
        self.address = address
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, asyncio.Future[bytes]] = {}
        self._next = 1

    @override
    async def call(self, service: str, method: str, payload: bytes, namespace: str, timeout: float | None) -> bytes:
        if timeout is None:  # it lasts as long as a process does, and its span would
            return await self._call(service, method, payload, namespace, None)
        facts = {"rpc.system": "ttrpc", "rpc.service": service, "rpc.method": method}
        with tracing.span(f"{service}/{method}", tracing.CLIENT, **facts):
            return await self._call(service, method, payload, namespace, timeout)

    async def _call(self, service: str, method: str, payload: bytes, namespace: str, timeout: float | None) -> bytes:
        # A call that is cancelled is dropped: its answer, if any, is ignored.
        if self.gone.done() or self._transport is None:
            raise Unavailable(f"connection to {self.address} is closed")
        stream = self._next
        if stream > MAX_STREAM:
            raise ResourceExhausted(f"connection to {self.address} has no stream left")
        nanoseconds = 0 if timeout is None else max(1, int(timeout * 1e9))
        metadata = {NAMESPACE_KEY: (namespace,), **_trace()}
        body = encode_request(Request(service, method, payload, nanoseconds, metadata))
        if len(body) > MAX_DATA:
            raise ResourceExhausted(f"{method} request of {len(body)} bytes exceeds the limit of {MAX_DATA}")
        self._next += 2
        answer = self._pending[stream] = self._loop.create_future()
        timer = None if timeout is None else self._loop.call_later(timeout, _expire, answer, method, timeout)
        try:
            self._transport.write(pack_frame(stream, REQUEST, 0, body))
            result: bytes = await answer
            return result
        finally:
            if timer is not None:
                timer.cancel()
            self._pending.pop(stream, None)
            del answer  # an error's traceback has this frame, and the future has the error

    @override
    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            answer = self._pending.get(frame.stream)
            # Late answers to calls that were given up, and frames of types to come, are ignored (wire/README.md).
            if answer is not None and not answer.done():
                _settle(answer, frame)

    @override
    def connection_lost(self, error: Exception | None) -> None:
        reason = f"connection to {self.address} ended" + (f": {error}" if error else "")
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(Unavailable(reason))
        self._pending.clear()
        if not self.gone.done():
            self.gone.set_result(None)


def _trace() -> dict[str, tuple[str, ...]]:
    """Return what tells the shim of the trace that it works for."""
    span = tracing.current.get() if tracing.active else None
    return {} if span is None else {name: (value,) for name, value in span.headers().items()}


def _expire(answer: asyncio.Future[bytes], method: str, timeout: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded(f"no answer to {method} within {timeout:g} s"))


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


async def connect(address: str) -> Client:
    """Connect to ``unix://<path>``, a plain path, or an abstract name, as old shims print it.

    Raises Unavailable when no process listens, InvalidArgument for an address of another kind.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme != "unix":
        raise InvalidArgument(f"shim address {address!r} is not a unix socket")
    path = rest if separator else address
    with contextlib.ExitStack() as stack:
        try:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            connect_unix(peer, path if path.startswith("/") else "\0" + path)
            _, client = await asyncio.get_running_loop().create_unix_connection(lambda: Client(address), sock=peer)
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot connect to {address}: {error}") from error
        stack.pop_all()
    return client
