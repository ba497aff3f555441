"""One Unix socket with ttrpc in both directions: connection 1 for the plugin's service, 2 for the runtime's.

Memory is bounded whatever the peer does: a connection has at most one incomplete message here, the calls
under way hold at most `ends.MOST_HELD` bytes, and a peer that does not read what it asked for is dropped.
Reading never waits for writing, so two peers that both write much cannot wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence

from windlass.errors import Unavailable
from windlass_nri.ends import Client, End, Server, Service
from windlass_nri.frames import Decoder, FrameError, pack

PLUGIN_SERVICE = 1
RUNTIME_SERVICE = 2
MOST_UNREAD = 32 << 20
"""Bytes that may wait for a peer to read them."""

logger = logging.getLogger(__name__)

__all__ = ["PLUGIN_SERVICE", "RUNTIME_SERVICE", "Client", "Mux", "Service", "attach", "connect"]


class Mux(asyncio.Protocol):
    """One peer. Made by `attach` or `connect`; only for use on the loop that it was made on."""

    gone: asyncio.Future[None]
    """Done when the connection has ended, for whatever reason."""
    reason: str
    """Why it ended, such as ``has closed the connection``; empty while it is open."""

    def __init__(self, name: str) -> None:
        """Name the peer in errors by ``name``, which may be changed later."""
        self.name = name
        self.gone = asyncio.get_running_loop().create_future()
        self.reason = ""
        self._decoder = Decoder()
        self._ends: dict[int, End] = {}
        self._transport: asyncio.Transport | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    def client(self, connection: int) -> Client:
        """Return a new caller's end of ``connection``; each connection has one end."""
        client = Client(self, connection)
        self._ends[connection] = client
        return client

    def serve(self, connection: int, services: Sequence[Service]) -> None:
        """Answer calls that arrive on ``connection``; what came before is lost, as in NRI's own multiplexer.

        So serve before the loop runs on after `attach` or `connect`.
        """
        self._ends[connection] = Server(self, connection, services)

    def close(self, reason: str = "was closed") -> None:
        """End the connection at once; calls of both directions end."""
        self.reason = self.reason or reason
        if self._transport is not None:
            self._transport.abort()

    def send(self, connection: int, message: bytes) -> None:
        """Send one ttrpc message; for the ends."""
        if self._transport is None or self.reason:
            return
        self._transport.write(pack(connection, message))
        if self._transport.get_write_buffer_size() > MOST_UNREAD:
            self.close("does not read what it asked for")

    async def drained(self) -> None:
        """Wait while the peer does not read; for the ends."""
        while not self._flowing.is_set():  # of those that waited, the first may have filled the buffer again
            await self._flowing.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        """Let calls wait."""
        self._flowing.clear()

    def resume_writing(self) -> None:
        """Let calls go on."""
        self._flowing.set()

    def data_received(self, data: bytes) -> None:
        """Pass the stream's pieces to their ends; those of connections that nobody opened are dropped."""
        try:
            pieces = self._decoder.feed(data)
        except FrameError as error:
            logger.warning("%s is dropped, it does not speak NRI: %s", self.name, error)
            self.close(f"does not speak NRI: it sent {error}")
            return
        for connection, piece in pieces:
            end = self._ends.get(connection)
            if end is not None and not self.reason:
                end.receive(piece)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        self.reason = self.reason or "has closed the connection" + (f": {exc}" if exc else "")
        self._transport = None
        self._flowing.set()
        for end in self._ends.values():
            end.ended()
        if not self.gone.done():
            self.gone.set_result(None)


async def attach(peer: socket.socket, name: str) -> Mux:
    """Multiplex a connected socket, which is the mux's from here on; ``name`` is for errors.

    When this returns, nothing has been read yet.
    """
    peer.setblocking(False)
    mux = Mux(name)
    # the loop resumes its waiter, which is our caller, before it reads for the first time
    await asyncio.get_running_loop().connect_accepted_socket(lambda: mux, peer)
    return mux


async def connect(path: str) -> Mux:
    """Connect to a runtime's NRI socket. Raises Unavailable when no process listens."""
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
        peer.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(peer, path)
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot connect to the NRI socket {path}: {error}") from error
        mux = await attach(peer, path)
        stack.pop_all()
    return mux
