"""The streaming server: takes a token, upgrades the connection, and hands it to a backend."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Coroutine
from dataclasses import dataclass

import h11

from windlass_streaming import portforward, remotecommand
from windlass_streaming.backend import Attach, Backend, Exec, PortForward, Request
from windlass_streaming.http import Exchange
from windlass_streaming.http import Request as HttpRequest
from windlass_streaming.stopping import Stoppable
from windlass_streaming.streams import Streams
from windlass_streaming.tokens import Tokens
from windlass_streaming.websocket import WebSocket, WebSocketWire, accept_key
from windlass_streaming.wire import SocketWire

logger = logging.getLogger(__name__)

NAMES = {Exec: "exec", Attach: "attach", PortForward: "portforward"}
FAREWELL = 1.0
"""Seconds in which sessions may end by themselves once the server stops."""
VERSION_HEADER = "X-Stream-Protocol-Version"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen; port 0 is any. With ``tls`` by HTTPS."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    idle: float = 4 * 3600.0
    """Seconds after which a connection without traffic is closed."""


class StreamingServer:
    """Serves what `url` has given out."""

    def __init__(self, backend: Backend, listen: Listen) -> None:
        """Listen when `start` is called."""
        self._backend = Stoppable(backend)
        self._listen = listen
        self._tokens: Tokens[Request] = Tokens()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._base = ""

    async def start(self) -> None:
        """Listen. Raises OSError for an address that cannot be had."""
        listen = self._listen
        self._server = await asyncio.start_server(self._connected, listen.host, listen.port, ssl=listen.tls)
        host, port = self._server.sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self._base = f"{'https' if listen.tls else 'http'}://{shown}:{port}"

    async def stop(self) -> None:
        """Listen no more, and end every connection: sessions with an error, if their clients read it in time."""
        if self._server is not None:
            self._server.close()
        self._backend.stop()
        if self._connections:
            await asyncio.wait(self._connections, timeout=FAREWELL)
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    def url(self, request: Request) -> str:
        """Return the URL at which a client gets what was asked for, once and within a minute.

        Raises ResourceExhausted when too many URLs wait for their clients.
        """
        return f"{self._base}/{NAMES[type(request)]}/{self._tokens.add(request)}"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(reader, writer)
        try:
            request = await exchange.request()
            if request is not None:
                await self._route(exchange, request)
        except (ConnectionError, TimeoutError, h11.ProtocolError, OSError) as error:
            logger.debug("streaming client: %s", error)
        finally:
            writer.close()

    async def _route(self, exchange: Exchange, request: HttpRequest) -> None:
        if request.method not in ("GET", "POST"):
            await exchange.answer(405, "Method Not Allowed", "405: Method Not Allowed", [("Allow", "GET, POST")])
            return
        kind, _, token = request.path.strip("/").partition("/")
        wanted = self._tokens.take(token) if kind in NAMES.values() else None
        if wanted is None or NAMES[type(wanted)] != kind:
            await exchange.answer(404, "Not Found", "404: Page Not Found")
            return
        if request.wants("websocket"):
            await self._websocket(exchange, request, wanted)
        else:
            await self._spdy(exchange, request, wanted)

    async def _spdy(self, exchange: Exchange, request: HttpRequest, wanted: Request) -> None:
        forward = isinstance(wanted, PortForward)
        known = (portforward.PROTOCOL,) if forward else remotecommand.SPDY_PROTOCOLS
        asked = request.all(VERSION_HEADER.lower())
        if not asked:
            count = len({name for name, _ in request.headers} - {"host"})
            text = f"unable to upgrade: header {VERSION_HEADER} does not exist in request with {count} headers"
            await exchange.answer(400, "Bad Request", text)
            return
        protocol = next((each for each in asked if each in known), None)
        if protocol is None:
            accepted = [("X-Accepted-Stream-Protocol-Versions", each) for each in known]
            words = f"client supports [{' '.join(asked)}], server accepts [{' '.join(known)}]"
            text = f"unable to upgrade: unable to negotiate protocol: {words}"
            await exchange.answer(403, "Forbidden", text, accepted)
            return
        if not request.wants("spdy/3.1"):
            await exchange.answer(400, "Bad Request", "unable to upgrade: missing upgrade headers in request")
            return
        wire = await exchange.upgrade([("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)])
        streams = Streams(wire)
        if isinstance(wanted, PortForward):
            await self._until_idle(wire, portforward.serve_spdy(streams, wanted, self._backend))
        else:
            await self._until_idle(wire, remotecommand.serve_spdy(streams, protocol, wanted, self._backend))

    async def _websocket(self, exchange: Exchange, request: HttpRequest, wanted: Request) -> None:
        forward = isinstance(wanted, PortForward)
        known = portforward.WEBSOCKET_PROTOCOLS if forward else remotecommand.WEBSOCKET_PROTOCOLS
        asked = request.all("sec-websocket-protocol")
        key = request.all("sec-websocket-key")
        protocol = next((each for each in asked or [""] if each in known), None)
        if not key:
            await exchange.answer(400, "Bad Request", "the request has no header Sec-WebSocket-Key")
            return
        if protocol is None:
            text = f"none of {', '.join(asked)} is served; there are {', '.join(filter(None, known))}"
            await exchange.answer(403, "Forbidden", text)
            return
        headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", accept_key(key[0]))]
        wire = await exchange.upgrade([*headers, ("Sec-WebSocket-Protocol", protocol)])
        websocket = WebSocket(wire)
        if not isinstance(wanted, PortForward):
            serving = remotecommand.serve_websocket(websocket, protocol, wanted, self._backend)
        elif protocol == portforward.TUNNEL:
            serving = portforward.serve_spdy(Streams(WebSocketWire(websocket)), wanted, self._backend)
        else:
            serving = portforward.serve_websocket(websocket, protocol, wanted, self._backend)
        await self._until_idle(wire, serving)

    async def _until_idle(self, wire: SocketWire, serving: Coroutine[object, object, None]) -> None:
        """Serve a connection until it ends, or has had no traffic for too long."""
        task = asyncio.ensure_future(serving)
        try:
            while not task.done() and (left := wire.used + self._listen.idle - time.monotonic()) > 0:
                await asyncio.wait({task}, timeout=left)
        finally:
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()
