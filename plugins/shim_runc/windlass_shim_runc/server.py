"""The ttrpc server: connections, calls, and errors as statuses."""

from __future__ import annotations

import os
import struct
import sys
from _socket import SHUT_RDWR, SO_PEERCRED, SOL_SOCKET, socket

from windlass.errors import Code, DeadlineExceeded, Error, Internal, InvalidArgument, Unimplemented, in_words
from windlass_api.ttrpc import framing as ttrpc
from windlass_shim_runc import records
from windlass_shim_runc.loop import Loop
from windlass_shim_runc.messages import Message, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from windlass_shim_runc.keeper import Handover

    Method = tuple[type[Message], str]
    """The request's type, and the name of a method that takes one and returns the answer, None for Empty."""

    Service = tuple[Mapping[str, Method], object]
    """Methods by their names on the wire, and the object that has them."""


CHUNK = 16 << 10
MARGIN = 0.1
LONGEST_MARGIN = 1.0
MAX_UNSENT = 8 << 20
"""A peer that does not read its answers is cut off here."""


class Server:
    """Serves services, by their full names, on a listening socket."""

    def __init__(self, loop: Loop, listener: socket, services: Mapping[str, Service]) -> None:
        self.loop = loop
        self.services = services
        self.connections: set[Connection] = set()
        self._listener = listener
        listener.setblocking(False)

    async def run(self) -> None:
        """Accept connections for ever."""
        while True:
            await self.loop.readable(self._listener.fileno(), rests=True)
            try:
                # The C socket class: its Python subclass turns every constant into an enum, 300 KB of touched memory.
                sock = socket(fileno=accept(self._listener))
            except (BlockingIOError, ConnectionAbortedError):
                continue
            if peer_uid(sock) in (0, os.geteuid()):
                self.loop.spawn(Connection(self, sock).run())
            else:
                sock.close()

    def to_records(self, handover: Handover) -> tuple[records.ConnectionRecord, ...]:
        """Return what `take_over` goes on with, at a moment when all tasks rest."""
        return tuple(connection.to_record(handover) for connection in self.connections)

    def take_over(self, handover: Handover, connections: Sequence[records.ConnectionRecord]) -> None:
        """Go on with the connections of records, and answer their calls."""
        for record in connections:
            connection = Connection(self, socket(fileno=handover.take(record.socket)), record.last_stream)
            self.loop.spawn(connection.run())
            for call in record.calls:
                connection.serve(ttrpc.Frame(call.stream, ttrpc.REQUEST, call.flags, call.data, len(call.data)))


def accept(listener: socket) -> int:
    """Return the descriptor of a connection that waits to be accepted."""
    fd: int = listener._accept()[0]  # type: ignore[attr-defined] # typeshed leaves it out
    return fd


def peer_uid(sock: socket) -> int:
    """Return the user that connected (SO_PEERCRED, unix(7))."""
    credentials = struct.Struct("3i")
    _, uid, _ = credentials.unpack(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, credentials.size))
    return int(uid)


class Connection:
    """One client."""

    __slots__ = ("_calls", "_decoder", "_flushing", "_last", "_server", "_socket", "_unsent")

    def __init__(self, server: Server, sock: socket, last: int = 0) -> None:
        self._server = server
        self._socket = sock
        self._decoder = ttrpc.FrameDecoder()
        self._calls: dict[int, ttrpc.Frame] = {}
        """Those that have no answer yet, by stream."""
        self._last = last
        self._unsent = bytearray()
        self._flushing = False
        sock.setblocking(False)

    async def run(self) -> None:
        """Read frames until the client goes."""
        self._server.connections.add(self)
        try:
            while True:
                await self._server.loop.readable(self._socket.fileno(), rests=not self._decoder.pending)
                try:
                    data = self._socket.recv(CHUNK)
                except BlockingIOError:
                    continue
                if not data:
                    return
                for frame in self._decoder.feed(data):
                    self._take(frame)
        except OSError:
            return
        finally:
            self._socket.close()
            self._server.connections.discard(self)

    def to_record(self, handover: Handover) -> records.ConnectionRecord:
        """Return what `Server.take_over` makes the same connection of."""
        return records.ConnectionRecord(
            socket=handover.put(self._socket.fileno(), watched=True),
            last_stream=self._last,
            calls=tuple(
                records.CallRecord(stream=frame.stream, flags=frame.flags, data=frame.data)
                for frame in self._calls.values()
            ),
        )

    def _take(self, frame: ttrpc.Frame) -> None:
        if frame.type not in (ttrpc.REQUEST, ttrpc.RESPONSE, ttrpc.DATA):
            return
        refused = ttrpc.refusal(frame, self._last)
        self._last = max(self._last, frame.stream)
        if refused is not None:
            self._reply(frame.stream, refused)
        else:
            self.serve(frame)

    def serve(self, frame: ttrpc.Frame) -> None:
        """Begin a call."""
        self._calls[frame.stream] = frame
        self._server.loop.spawn(self._serve(frame))

    async def _serve(self, frame: ttrpc.Frame) -> None:
        try:
            response = ttrpc.Response(payload=await self._call(frame.data))
        except Error as error:
            response = ttrpc.Response(error.code, str(error))
        except OSError as error:
            response = ttrpc.Response(Code.UNKNOWN, in_words(error))
        except Exception as error:  # noqa: BLE001 -- a defect goes to the log, and to the caller, who would wait for ever
            sys.excepthook(*sys.exc_info())
            response = ttrpc.Response(Code.UNKNOWN, f"unexpected {type(error).__name__}: {error}")
        del self._calls[frame.stream]
        self._reply(frame.stream, response)

    async def _call(self, data: bytes) -> bytes:
        try:
            request = ttrpc.decode_request(data)
        except ttrpc.Malformed as error:
            raise InvalidArgument(f"request cannot be parsed: {error}") from error
        if request.service not in self._server.services:
            raise Unimplemented(f"service {request.service[:100]}")
        methods, service = self._server.services[request.service]
        if request.method not in methods:
            raise Unimplemented(f"method {request.method[:100]}")
        kind, name = methods[request.method]
        try:
            message = decode(kind, request.payload)
        except ttrpc.Malformed as error:
            raise Internal(f"payload of {request.method} cannot be parsed: {error}") from error
        seconds = request.timeout_nano / 1e9
        if seconds:
            # The answer that names the step that took too long should arrive while the client still waits.
            self._server.loop.limit(seconds - min(seconds * MARGIN, LONGEST_MARGIN))
        try:
            answer = await getattr(service, name)(message)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{request.method} was not done in {seconds:g} s") from error
        return b"" if answer is None else answer.encode()

    def _reply(self, stream: int, response: ttrpc.Response) -> None:
        if self._socket.fileno() < 0:
            return
        body = ttrpc.encode_response(response)
        if len(body) > ttrpc.MAX_DATA:
            body = ttrpc.encode_response(ttrpc.Response(Code.RESOURCE_EXHAUSTED, "the answer exceeds 4 MiB"))
        self._unsent += ttrpc.pack_frame(stream, ttrpc.RESPONSE, 0, body)
        self._send()
        if len(self._unsent) > MAX_UNSENT:
            self._close()
        elif self._unsent and not self._flushing:
            self._flushing = True
            self._server.loop.spawn(self._flush())

    def _send(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()

    async def _flush(self) -> None:
        # Waiting on a duplicate: `run` waits on the socket itself.
        waiting = os.dup(self._socket.fileno())
        try:
            while self._unsent and self._socket.fileno() >= 0:
                await self._server.loop.writable(waiting)
                self._send()
        finally:
            os.close(waiting)
            self._flushing = False

    def _close(self) -> None:
        # `run` is parked on the descriptor: it sees the shutdown and closes it itself.
        try:
            self._socket.shutdown(SHUT_RDWR)
        except OSError:
            pass
