"""The ttrpc listener, to which shims report."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Sequence
from functools import partial

from windlass import tracing
from windlass.contracts.services import TtrpcService
from windlass.errors import Code, Error, as_exception, name_of
from windlass_api.ttrpc import Request, Response
from windlass_api.ttrpc.serving import Called
from windlass_api.ttrpc.serving import Connection as Core
from windlass_server.accepting import Acceptor
from windlass_server.sockets import Place

NAMESPACE = "containerd-namespace-ttrpc"
TRACE = "traceparent"
CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid of SO_PEERCRED; unix(7)."""

logger = logging.getLogger(__name__)


class TtrpcServer:
    """Serves ttrpc services on one unix socket to processes of the daemon's own user."""

    def __init__(self, place: Place, services: Sequence[TtrpcService]) -> None:
        """Take connections from ``place``, which it owns, once started."""
        self._place = place
        self._services = {service.name: service for service in services}
        self._acceptor: Acceptor | None = None
        self._connections: set[Connection] = set()

    async def start(self) -> None:
        """Begin to answer."""
        connections = self._connections
        self._acceptor = Acceptor(
            self._place.socket, lambda: Connection(self._services, connections), lambda: len(connections)
        )

    async def stop(self) -> None:
        """Stop listening and drop connections; shims keep their events and come back."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._place.close()
        for connection in list(self._connections):
            connection.drop()


class Connection(asyncio.Protocol):
    """One peer; its calls run side by side, each answered on its stream."""

    def __init__(self, services: dict[str, TtrpcService], connections: set[Connection]) -> None:
        """Be in ``connections`` from the beginning of the connection to its end."""
        self._services = services
        self._connections = connections
        self._core = Core()
        self._running: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the peer if it is of our own user."""
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("socket")
        _, uid, _ = CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        if uid != os.geteuid():
            logger.warning("refused a ttrpc connection of user %d, only %d may connect", uid, os.geteuid())
            transport.abort()
            return
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        self._transport = None
        self._connections.discard(self)
        for task in self._running:
            task.cancel()

    def pause_writing(self) -> None:
        """Read nothing from a peer that does not read: its questions would pile up as answers."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def drop(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Begin every call that has arrived."""
        for called in self._core.receive(data):
            task = asyncio.ensure_future(self._serve(called))
            self._running.add(task)
            task.add_done_callback(partial(self._ended, called.stream))
        self._flush()

    def _ended(self, stream: int, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled():
            self._answer(stream, Response(Code.CANCELLED, "the call was cancelled by its handler"))
        elif defect := task.exception():
            logger.error("a ttrpc call ended by a defect", exc_info=defect)
            self._answer(stream, Response(Code.UNKNOWN, f"{type(defect).__name__}: {defect}"))

    async def _serve(self, called: Called) -> None:
        request = called.request
        span = _begin_span(request) if tracing.active and TRACE in request.metadata else None
        try:
            response = await self._call(request)
        except Error as error:
            response = Response(error.code, str(error))
        except (SystemExit, KeyboardInterrupt) as error:  # which would leave the loop
            raise as_exception(error, request.method) from error
        except TimeoutError:
            response = Response(Code.DEADLINE_EXCEEDED, f"{request.method} did not end in the time it was given")
        if response.code != Code.OK:
            path = f"/{request.service}/{request.method}"
            logger.debug("%s failed: %s: %s", path, name_of(response.code), response.message)
        if span is not None:
            span.note(**{"rpc.grpc.status_code": response.code})
            span.end(response.message or name_of(response.code) if response.code != Code.OK else "")
        self._answer(called.stream, response)

    async def _call(self, request: Request) -> Response:
        service = self._services.get(request.service)
        if service is None:
            return Response(Code.UNIMPLEMENTED, f"service {request.service}")
        namespace = (request.metadata.get(NAMESPACE) or ("",))[0]
        async with asyncio.timeout(request.timeout_nano / 1e9 or None):
            return Response(payload=await service.call(request.method, namespace, request.payload))

    def _answer(self, stream: int, response: Response) -> None:
        self._core.respond(stream, response)
        self._flush()

    def _flush(self) -> None:
        data = self._core.take()
        if data and self._transport is not None:
            self._transport.write(data)


def _begin_span(request: Request) -> tracing.Span:
    """Begin the span of a call in the trace that the shim names; it is the current one of this task."""
    headers = {name: values[0] for name, values in request.metadata.items() if values}
    facts = {"rpc.system": "ttrpc", "rpc.service": request.service, "rpc.method": request.method}
    span = tracing.begin(f"{request.service}/{request.method}", tracing.SERVER, headers, facts)
    tracing.current.set(span)
    return span
